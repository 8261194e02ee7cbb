"""Read training documents from text files, JSONL files, folders and tar archives."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from activations.errors import TwinprobeError
from analyses.pretraining.design import Data, Kind

_COMMENT_BLOCK = re.compile(r"\A\s*(/\*.*?\*/|(?:(?://|#)[^\n]*\n)+)", re.DOTALL)
_LICENCE_WORDS = re.compile(r"licen[cs]e|copyright|spdx", re.IGNORECASE)


@dataclass(frozen=True)
class Document:
    """One training document."""

    kind: Kind
    name: str
    text: str


def strip_licence_header(text: str) -> str:
    """Drop a leading comment block that states a licence: repeated headers would dominate a small corpus."""
    match = _COMMENT_BLOCK.match(text)
    return text[match.end() :].lstrip("\n") if match and _LICENCE_WORDS.search(match.group()) else text


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield ``(name, content)`` of every ``.txt`` and ``.jsonl`` under ``path``, in name order."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes()
    elif path.name.endswith((".tar.gz", ".tgz")):
        with tarfile.open(path) as archive:
            for member in sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name):
                handle = archive.extractfile(member)
                assert handle is not None  # only regular files were kept
                yield member.name, handle.read()
    else:
        yield path.name, path.read_bytes()


def _documents(data: Data, root: Path) -> Iterator[Document]:
    path = root / data.path
    if not path.exists():
        raise TwinprobeError(f"{path}: no such data; give the folder that holds {data.path!r} with --data-dir")
    for name, content in _files(path):
        if name.endswith(".txt"):
            yield Document(data.kind, name, content.decode("utf-8"))
        elif name.endswith(".jsonl"):
            for line in content.decode("utf-8").splitlines():
                row = json.loads(line)
                yield Document(data.kind, f"{name}/{row['path']}", strip_licence_header(row["text"]))


def read_corpora(sources: tuple[Data, ...], root: Path) -> tuple[list[Document], list[Document]]:
    """Read every source; return ``(training documents, held-out documents)``.

    Raises:
        TwinprobeError: a source is missing or holds no ``.txt`` or ``.jsonl`` documents.
    """
    training: list[Document] = []
    held_out: list[Document] = []
    for data in sources:
        count = 0
        for document in _documents(data, root):
            count += 1
            tail = max(
                (share for rule, share in data.held_out_tail.items() if fnmatch(document.name, rule)), default=0.0
            )
            if any(fnmatch(document.name, rule) for rule in data.held_out):
                held_out.append(document)
            elif tail:
                cut = int(len(document.text) * (1 - tail))
                training.append(Document(document.kind, document.name, document.text[:cut]))
                held_out.append(Document(document.kind, document.name, document.text[cut:]))
            else:
                training.append(document)
        if not count:
            raise TwinprobeError(f"{root / data.path}: no .txt or .jsonl documents found")
    return training, held_out
