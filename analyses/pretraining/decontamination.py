"""Keep evaluation sets out of the training text: passages that share a run of words with one are cut out.

After Brown et al. 2020 ("Language Models are Few-Shot Learners", arXiv 2005.14165, appendix C): a 13-gram of words found in an
evaluation set is removed from the training document with 200 characters on either side, the document is split there, and
pieces shorter than 200 characters are dropped. Words are compared without case and punctuation.
"""

from __future__ import annotations

import gzip
import hashlib
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from activations.texts import parse_json
from analyses.pretraining.corpora import Document

Hashes = NDArray[np.uint64]

WORD = re.compile(r"[^\W_]+")
SHORTEST = 200
"""Characters of the shortest piece kept of a document that was cut."""
_BASE = 0x9E3779B97F4A7C15  # odd, so that no word's place in a run is lost modulo 2**64
_KNOWN_WORDS = 1_000_000


class _WordHashes(dict[str, int]):
    """The hash of a word without its case, computed once; the same on every machine."""

    def __missing__(self, word: str) -> int:
        if len(self) >= _KNOWN_WORDS:
            self.clear()
        digest = hashlib.blake2b(word.lower().encode(), digest_size=8).digest()
        self[word] = found = int.from_bytes(digest, "little")
        return found


class EvaluationSets:
    """The runs of ``words`` words of the files below each path.

    A path is a file or a folder, of which every file in UTF-8 is read, ``.gz`` too; of JSON only the strings count.

    Raises:
        TwinprobeError: a path does not exist, is damaged, or holds no text with ``words`` words in a row.
    """

    def __init__(self, paths: Sequence[str], root: Path, words: int) -> None:
        self.paths = tuple(paths)
        self.words = words
        self._word_hashes = _WordHashes()
        found = [self._read(root / path) for path in paths]
        owners = np.repeat(np.arange(len(found)), [len(hashes) for hashes in found])
        # The first of equal hashes is taken, so that a run of several sets belongs to the first of them.
        self._hashes, first = np.unique(np.concatenate([np.empty(0, np.uint64), *found]), return_index=True)
        self._owners = owners[first]
        # Most runs of a text are in no set; their first bits tell, without a search.
        bits = max(10, (8 * len(self._hashes)).bit_length())
        self._shift = np.uint64(64 - bits)
        self._beginnings = np.zeros(2**bits, dtype=bool)
        self._beginnings[self._hashes >> self._shift] = True

    def _read(self, path: Path) -> Hashes:
        if not path.exists():
            raise TwinprobeError(f"{path}: no such evaluation set; give the folder that holds it with --data-dir")
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        found = [self._runs_of(_texts(*_unpacked(file))) for file in files]
        hashes = np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)
        if not len(hashes):
            raise TwinprobeError(
                f"{path}: no text with {self.words} words in a row, so nothing to keep out of training"
            )
        return hashes

    def _runs_of(self, texts: Iterator[str]) -> Hashes:
        """The hashes of the runs of all texts; runs do not cross from one text to the next."""
        words: list[str] = []
        counts: list[int] = []
        for text in texts:
            in_text = WORD.findall(text)
            if len(in_text) >= self.words:
                words += in_text
                counts.append(len(in_text))
        text_of = np.repeat(np.arange(len(counts)), counts)
        return self.runs(words)[text_of[: len(words) - self.words + 1] == text_of[self.words - 1 :]]

    def runs(self, words: Sequence[str]) -> Hashes:
        """A hash for each run of words, ``[len(words) - self.words + 1]``; the same on every machine."""
        ids = np.fromiter(map(self._word_hashes.__getitem__, words), np.uint64, len(words))
        count = max(0, len(ids) - self.words + 1)
        total, factor = np.zeros(count, np.uint64), 1
        for place in range(self.words if count else 0):
            total += ids[place : place + count] * np.uint64(factor)
            factor = factor * _BASE % 2**64
        return total

    def shared(self, words: Sequence[str]) -> list[tuple[int, str]]:
        """``(index of the first word, path of the first set that has it)`` of each run that a set has too."""
        hashes = self.runs(words)
        maybe = np.flatnonzero(self._beginnings[hashes >> self._shift])
        places = np.searchsorted(self._hashes, hashes[maybe])
        places = np.minimum(places, max(0, len(self._hashes) - 1))
        sure = self._hashes[places] == hashes[maybe]
        return [
            (int(index), self.paths[owner])
            for index, owner in zip(maybe[sure], self._owners[places[sure]], strict=True)
        ]


def _unpacked(file: Path) -> tuple[str, bytes]:
    """Name and content of an evaluation file, or of what a ``.gz`` holds."""
    if file.suffix != ".gz":
        return str(file), file.read_bytes()
    try:
        return str(file.with_suffix("")), gzip.decompress(file.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise TwinprobeError(f"{file}: not a whole .gz file ({error})") from None


def _texts(name: str, content: bytes) -> Iterator[str]:
    """The texts of an evaluation file, none where it is not text."""
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        return
    if name.endswith(".json"):
        yield from _strings(parse_json(text, name))
    elif name.endswith(".jsonl"):
        for number, line in enumerate(text.split("\n"), start=1):
            if line.strip():
                yield from _strings(parse_json(line, f"{name}:{number}"))
    else:
        yield from text.split("\n")


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)


def decontaminate(
    document: Document, sets: EvaluationSets, margin: int, removed: dict[str, int] | None = None
) -> list[Document]:
    """The document itself, or what is left of it: every passage that shares a run of words with a set is cut out.

    Args:
        margin: characters cut out on either side of a shared run.
        removed: the characters cut out are added here under the path of the evaluation set; a passage shared with several
            counts for the first.
    """
    cuts = _cuts(document.text, sets, margin)
    if removed is not None:
        for start, end, name in cuts:
            removed[name] = removed.get(name, 0) + end - start
    return _without(document, [(start, end) for start, end, _ in cuts]) if cuts else [document]


def _cuts(text: str, sets: EvaluationSets, margin: int) -> list[tuple[int, int, str]]:
    """``(start, end, evaluation set)`` of the passages to cut, in order and apart from each other."""
    hits = sets.shared(WORD.findall(text))
    found = list(WORD.finditer(text)) if hits else []
    cuts: list[tuple[int, int, str]] = []
    for index, name in hits:
        start = max(0, found[index].start() - margin)
        end = min(len(text), found[index + sets.words - 1].end() + margin)
        if cuts and start <= cuts[-1][1]:
            cuts[-1] = (cuts[-1][0], end, cuts[-1][2])
        else:
            cuts.append((start, end, name))
    return cuts


def _without(document: Document, cuts: Sequence[tuple[int, int]]) -> list[Document]:
    edges = [0, *(edge for cut in cuts for edge in cut), len(document.text)]
    pieces = [document.text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return [
        replace(document, name=f"{document.name}#{number}", text=piece)
        for number, piece in enumerate(pieces)
        if len(piece) >= SHORTEST
    ]
