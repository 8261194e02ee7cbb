"""Read training documents from text files, JSONL files, folders, tar archives and the ``datasets`` library."""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
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
    if data.path is None:
        return _rows_of_data_set(data, root)
    return _documents_in_files(data.kind, root / data.path, data.path)


def _documents_in_files(kind: Kind, path: Path, named: str) -> Iterator[Document]:
    if not path.exists():
        raise TwinprobeError(f"{path}: no such data; give the folder that holds {named!r} with --data-dir")
    for name, content in _files(path):
        where = path if name == path.name else path / name
        if name.endswith(".txt"):
            yield Document(kind, name, _decode(content, where))
        elif name.endswith(".jsonl"):
            for inner, text in _rows(_decode(content, where), where):
                yield Document(kind, f"{name}/{inner}", strip_licence_header(text))


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


def _rows_of_data_set(data: Data, root: Path) -> Iterator[Document]:
    """Every row, streamed: none is kept, and nothing is written but what the library itself keeps."""
    try:
        from datasets import load_dataset
    except ImportError:
        raise TwinprobeError(
            f"the data set {data.dataset!r} needs the datasets library; pip install 'twinprobe[pretrain]'"
        ) from None
    assert data.dataset is not None
    folder = root / data.dataset
    where = f"data set {data.source!r}"
    try:
        rows = load_dataset(
            str(folder) if folder.is_dir() else data.dataset,
            data.config,
            split=data.split,
            revision=data.revision,
            streaming=True,
        )
        for number, row in enumerate(rows):
            text = row.get(data.column)
            if not isinstance(text, str):
                known = f"its columns are {', '.join(row)}" if data.column not in row else f"got {text!r:.80}"
                raise TwinprobeError(f"{where}: row {number} has no text in column {data.column!r}; {known}")
            yield Document(
                data.kind, f"{data.dataset}/{number}", strip_licence_header(text) if data.kind == "code" else text
            )
    except TwinprobeError:
        raise
    except Exception as error:  # the library, its builders and the network raise errors that have no class in common
        reason = " ".join(str(error).split())[:300]
        raise TwinprobeError(
            f"{where} can not be read: {reason}; check its name, config and split, and whether the hub can be reached"
        ) from None


def read_corpora(sources: tuple[Data, ...], root: Path) -> Iterator[tuple[Document, bool]]:
    """Every document of every source with whether it is held out, one at a time; a document may come in both parts.

    Raises:
        TwinprobeError: a source is missing, has no documents or a bad line, or needs a library that is not installed.
    """
    for data in sources:
        count = characters = 0
        for document in _documents(data, root):
            if any(fnmatch(document.name, rule) for rule in data.left_out):
                continue
            count += 1
            for part, held_out in _parts(document, data):
                characters += 0 if held_out else len(part.text)
                yield part, held_out
            if data.characters is not None and characters >= data.characters:
                break
        if not count:
            expected = f"{root / data.path}: no .txt or .jsonl" if data.path else f"data set {data.source!r}: no"
            raise TwinprobeError(f"{expected} documents found")


def _parts(document: Document, data: Data) -> Iterator[tuple[Document, bool]]:
    tail = max((share for rule, share in data.held_out_tail.items() if fnmatch(document.name, rule)), default=0.0)
    if any(fnmatch(document.name, rule) for rule in data.held_out):
        yield document, True
    elif tail:
        cut = int(len(document.text) * (1 - tail))
        yield replace(document, text=document.text[:cut]), False
        yield replace(document, text=document.text[cut:]), True
    else:
        yield document, False
