"""Penn Treebank brackets: sentences with their constituents, ``(S (NP (DT the) (NN cat)) (VP (VBZ sleeps)))``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from activations.errors import TwinprobeError
from activations.texts import numbered_lines
from probes.treebanks import Sentence

ESCAPES = {"-LRB-": "(", "-RRB-": ")", "-LSB-": "[", "-RSB-": "]", "-LCB-": "{", "-RCB-": "}", "``": '"', "''": '"'}
CLOSING = re.compile(r"[.,:;?!%]|''|-R[RSC]B-|n't|'\w*")
"""Words that stand close to the word before."""
OPENING = ("``", "-LRB-", "-LSB-", "-LCB-", "$", "#")
"""Words that the next word stands close to."""


class Word(NamedTuple):
    """A word with its part of speech."""

    tag: str
    form: str


class Phrase(NamedTuple):
    """A bracket with what is in it; one that is still being read may hold a bare form. ``line`` is where it began."""

    line: int
    label: str
    children: list[Phrase | Word | str]


def read_brackets(path: Path) -> list[Sentence]:
    """Read Penn bracketed trees; nodes are phrases and words, and a word's part of speech is its label.

    Traces (``-NONE-``) and phrases of nothing else are left out, and so are the function tags of labels (``NP-SBJ``).

    Raises:
        TwinprobeError: a bracket is not closed or opened, or a word has no tag; the message names file and line.
    """
    return [_sentence(tree) for tree in _trees(path) if tree.children]


def _trees(path: Path) -> Iterator[Phrase]:
    stack: list[Phrase] = []
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        for bracket, label, other in re.findall(r"(\()\s*([^\s()]*)|([^\s()]+|\))", line):
            if bracket:
                stack.append(Phrase(number, label, []))
            elif not stack:
                raise TwinprobeError(f"{where}: {other!r} stands outside of any tree; expected an opening bracket")
            elif other != ")":
                stack[-1].children.append(other)
            else:
                done = _closed(stack.pop(), where)
                if stack and (isinstance(done, Word) or done.children):
                    stack[-1].children.append(done)
                elif isinstance(done, Word):
                    raise TwinprobeError(f"{where}: the word {done.form!r} is in no phrase; expected a tree around it")
                elif not stack:
                    yield done
    if stack:
        raise TwinprobeError(f"{path}:{stack[0].line}: this tree is not closed; expected as many ')' as '('")


def _closed(phrase: Phrase, where: str) -> Phrase | Word:
    """A bracket that was read to its end: a word with its tag, or a phrase, without what is not there to be seen."""
    forms = [child for child in phrase.children if isinstance(child, str)]
    if forms and (len(phrase.children) > 1 or not phrase.label):
        raise TwinprobeError(f"{where}: the word {forms[0]!r} has no tag of its own; expected (TAG word)")
    if forms and phrase.label != "-NONE-":
        return Word(phrase.label, forms[0])
    if forms:
        return phrase._replace(children=[])
    only = phrase.children[0] if len(phrase.children) == 1 else None
    if not phrase.label and isinstance(only, Phrase):  # the extra bracket around each tree of the Penn Treebank
        return only
    return phrase._replace(label=re.split("[-=|]", phrase.label)[0])


def _sentence(tree: Phrase) -> Sentence:
    text, spans, tags, words, labels, parents = "", [], [], list[int](), list[str](), list[int]()
    close = True
    pending: list[tuple[Phrase | Word | str, int]] = [(tree, -1)]
    while pending:
        node, parent = pending.pop()
        place = len(labels)
        parents.append(parent)
        if isinstance(node, Phrase):
            labels.append(node.label)
            pending.extend((child, place) for child in reversed(node.children))
        elif isinstance(node, Word):
            labels.append(node.tag)
            form = ESCAPES.get(node.form, node.form)
            text += "" if close or CLOSING.fullmatch(node.form) else " "
            spans.append((len(text), len(text) + len(form)))
            tags.append(node.tag)
            words.append(place)
            text += form
            close = node.form in OPENING
    return Sentence(
        text, f"line {tree.line}", tuple(spans), tuple(tags), np.array(words, dtype=np.int64), tuple(labels),
        np.array(parents, dtype=np.int64),
    )  # fmt: skip
