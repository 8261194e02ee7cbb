"""CoNLL-U: sentences with their dependencies (universaldependencies.org/format.html)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from activations.errors import TwinprobeError
from activations.texts import numbered_lines
from probes.treebanks import Sentence
from probes.trees import ancestry

COLUMNS = 10


def read_conllu(path: Path) -> list[Sentence]:
    """Read a CoNLL-U file; every node is a word.

    The parts of a multiword token (``du`` is ``de`` and ``le``) have no characters of their own: they are nodes, but
    not among ``words``. Empty nodes are left out.

    Raises:
        TwinprobeError: a line is not as described; the message names file and line.
    """
    sentences: list[Sentence] = []
    document = ""
    block: list[tuple[int, str]] = []
    for number, line in [*numbered_lines(path), (-1, "")]:
        if block and number != block[-1][0] + 1:  # blank lines, which end a sentence, are passed over
            for _, comment in block:
                if re.match(r"#\s*newdoc\b", comment):
                    document = f"document {len(sentences) + 1}"
            rows = [(at, text.rstrip("\r\n")) for at, text in block if not text.startswith("#")]
            if rows:
                sentences.append(_dependencies(rows, document or f"line {rows[0][0]}", path))
            block = []
        block.append((number, line))
    return sentences


def _dependencies(rows: Sequence[tuple[int, str]], group: str, path: Path) -> Sentence:
    text, spans, tags, words, labels, parents = "", [], [], list[int](), list[str](), list[int]()
    together = 0  # the last word of the multiword token that the text has already
    gap = ""
    for number, row in rows:
        where, fields = f"{path}:{number}", row.split("\t")
        if len(fields) != COLUMNS:
            raise TwinprobeError(f"{where}: {len(fields)} columns; expected {COLUMNS}, separated by tabs (CoNLL-U)")
        name, form, _, tag, _, _, head, relation, _, misc = fields
        if re.fullmatch(r"\d+\.\d+", name):
            continue
        several = re.fullmatch(r"(\d+)-(\d+)", name)
        if name != str(len(labels) + 1) and not (several and int(several[1]) == len(labels) + 1 <= int(several[2])):
            raise TwinprobeError(f"{where}: id {name!r}; expected {len(labels) + 1}, as ids count the words from 1")
        if several or len(labels) >= together:
            start = len(text) + len(gap)
            text += gap + form
            gap = "" if "SpaceAfter=No" in misc.split("|") else " "
        if several:
            together = int(several[2])
            continue
        if not re.fullmatch(r"\d+", head):
            raise TwinprobeError(f"{where}: head is {head!r}; expected the id of a word, or 0 for the root")
        if len(labels) >= together:
            words.append(len(labels))
            spans.append((start, len(text)))
            tags.append(tag)
        labels.append(relation)
        parents.append(int(head) - 1)
    tree = np.array(parents, dtype=np.int64)
    try:
        ancestry(tree)
    except TwinprobeError as error:
        raise TwinprobeError(
            f"{path}:{rows[0][0]}: the heads of this sentence are not those of a tree: {error}"
        ) from None
    return Sentence(text, group, tuple(spans), tuple(tags), np.array(words, dtype=np.int64), tuple(labels), tree)
