"""Read training documents from text files, JSONL files, folders and tar archives."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from activations.errors import TwinprobeError
from activations.texts import parse_json
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
    """Yield ``(name, content)`` of every file under ``path``, in name order."""
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                yield file.relative_to(path).as_posix(), file.read_bytes()
    elif path.name.endswith((".tar.gz", ".tgz")):
        try:
            with tarfile.open(path, "r:gz") as archive:
                for member in sorted((m for m in archive.getmembers() if m.isfile()), key=lambda m: m.name):
                    handle = archive.extractfile(member)
                    assert handle is not None  # only regular files were kept
                    yield member.name, handle.read()
        except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
            raise TwinprobeError(f"{path}: not a tar archive ({error}); expected .tar.gz") from None
    else:
        yield path.name, path.read_bytes()


def _documents(data: Data, root: Path) -> Iterator[Document]:
    path = root / data.path
    if not path.exists():
        raise TwinprobeError(f"{path}: no such data; give the folder that holds {data.path!r} with --data-dir")
    for name, content in _files(path):
        where = path if name == path.name else path / name
        if name.endswith(".txt"):
            yield Document(data.kind, name, _decode(content, where))
        elif name.endswith(".jsonl"):
            for inner, text in _rows(_decode(content, where), where):
                yield Document(data.kind, f"{name}/{inner}", strip_licence_header(text))


def _decode(content: bytes, where: Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise TwinprobeError(f"{where}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None


def _rows(content: str, where: Path) -> Iterator[tuple[str, str]]:
    """``(path, text)`` of every line; ``str.splitlines`` would also cut at characters that a JSON string may hold."""
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            row = parse_json(line, f"{where}:{number}")
            if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("path", "text")):
                raise TwinprobeError(f"{where}:{number}: expected a JSON object with strings 'path' and 'text'")
            yield row["path"], row["text"]


def read_corpora(sources: tuple[Data, ...], root: Path) -> tuple[list[Document], list[Document]]:
    """Read every source; return ``(training documents, held-out documents)``.

    Raises:
        TwinprobeError: a source is missing, holds no ``.txt`` or ``.jsonl`` documents, or has a bad line.
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
