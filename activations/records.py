"""The provenance of a store: read it, and say how two differ."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from activations.hdf5 import STORED_BYTES
from activations.layout import RECORD, opened

SCHEMA = 2


def read_record(path: Path) -> dict[str, Any]:
    """The provenance of the store at ``path``, a folder or a packed file.

    Raises:
        TwinprobeError: it is damaged, or of another schema.
    """
    problem: object = None
    try:
        record = json.loads(kept_file(path, RECORD))
    except ValueError as error:
        problem = error
    else:
        if not isinstance(record, dict) or record.get("schema") != SCHEMA:
            found = record.get("schema") if isinstance(record, dict) else None
            raise TwinprobeError(f"{path} has schema {found}, this version reads {SCHEMA}; capture it again")
        sites, kind = record.get("sites"), record.get("storage_dtype")
        if not isinstance(sites, list) or not all(isinstance(site, str) for site in sites):
            problem = "sites are not a list of names"
        elif type(record.get("shards")) is not int:
            problem = "shards are not a number"
        elif kind not in list(STORED_BYTES):
            problem = f"storage_dtype is {kind!r}"
    if problem is not None:
        where = path if path.is_file() else path / RECORD
        raise TwinprobeError(f"{where} is damaged ({problem}); remove {path} and capture it again")
    return record


def kept_file(path: Path, name: str) -> bytes:
    """``store.json`` or ``texts.jsonl`` of the store at ``path``, a folder or a packed file.

    Raises:
        TwinprobeError: the file is damaged, or no packed store.
    """
    if not path.is_file():
        return (path / name).read_bytes()
    with opened(path) as handle:
        if name not in handle:
            raise TwinprobeError(f"{path} is no packed store (it holds no {name}); twinprobe store pack writes one")
        return bytes(handle[name][:])


def first_difference(
    there: dict[str, Any], here: dict[str, Any], ignore: Collection[str] = ()
) -> tuple[str, str, str] | None:
    """The first key in which two provenances differ, with both values in short; ``None`` where they do not."""
    for key in sorted((there.keys() | here.keys()) - set(ignore)):
        one, other = there.get(key), here.get(key)
        if one != other:
            if isinstance(one, dict) and isinstance(other, dict):
                inner = min(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))
                one, other = {inner: one.get(inner)}, {inner: other.get(inner)}
            return key, _short(one), _short(other)
    return None


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
