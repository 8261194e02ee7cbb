"""Check a store: are all its files there, as they were written, and do they fit together?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from activations.errors import TwinprobeError
from activations.hdf5 import damage, file_type
from activations.layout import (
    INPUT_COLUMNS,
    RECORD,
    ROW_COLUMNS,
    TEXTS,
    folder_layout,
    get_dataset,
    opened,
    packed_layout,
    shard_path,
)
from activations.sites import parse_site
from activations.store import ActivationStore, read_record
from activations.tables import Columns
from activations.texts import Text, read_texts, text_set_hash


@dataclass
class _Held:
    """What the shards before this one hold."""

    rows: list[int] = field(default_factory=lambda: [0])
    tokens: list[int] = field(default_factory=lambda: [0])
    widths: dict[str, int] = field(default_factory=dict)
    last_text: int = 0


def verify(path: str | Path, progress: Callable[[int, int], None] = lambda done, total: None) -> list[str]:
    """Every problem of the store at ``path``, each in a line that names the file; none where the store is sound.

    All bytes of all HDF5 files are read and held against the file's checksum, the texts against their hash in the
    provenance, the columns of rows and inputs against the texts, and the index against the shards. ``store.json`` is
    only read: nothing is known to hold it against.

    Args:
        path: a store folder, finished or not, or a packed file.
        progress: called with HDF5 files checked and files in all.

    Raises:
        TwinprobeError: there is no store.
    """
    path = Path(path)
    if not path.is_file() and not (path / RECORD).exists():
        raise TwinprobeError(f"{path} holds no store (no {RECORD}); twinprobe cache writes one")
    try:
        return list(_packed(path, progress) if path.is_file() else _folder(path, progress))
    except TwinprobeError as error:  # so damaged that nothing more can be said
        return [str(error)]


def _packed(path: Path, progress: Callable[[int, int], None]) -> Iterator[str]:
    if (problem := damage(path)) is not None:
        yield f"{path}: {problem}"
        return
    store, held = ActivationStore(path), _Held()
    yield from _texts(store.texts, store.provenance, f"{path}, {TEXTS}")
    for problem in _contents(path, store.provenance, store.texts, held):
        yield f"{path}: {problem}"
    layout = packed_layout(path)
    if [layout.rows[-1], layout.tokens[-1]] != [held.rows[-1], held.tokens[-1]] or len(layout.rows) - 1 != (
        store.provenance["shards"]
    ):
        yield f"{path}: its list of shards does not fit its rows and tokens"
    progress(1, 1)


def _folder(path: Path, progress: Callable[[int, int], None]) -> Iterator[str]:
    record = read_record(path)
    count, held, sound = record["shards"], _Held(), True
    try:
        texts = read_texts(path / TEXTS)
        yield from _texts(texts, record, str(path / TEXTS))
    except TwinprobeError as error:
        yield str(error)
        texts = []
    files = [shard_path(path, number) for number in range(count)]
    for stranger in sorted(set((path / "shards").glob("*.h5")) - set(files)):
        yield f"{stranger}: the store has {count} shards, this is none of them"
    for number, file in enumerate(files):
        problem = damage(file) if file.exists() else "it is missing"
        problems = [problem] if problem else list(_contents(file, record, texts, held)) if texts else []
        sound = sound and bool(texts) and not problems
        yield from (f"{file}: {problem}" for problem in problems)
        progress(number + 1, count + 1)
    index = path / "index.h5"
    if (problem := damage(index) if index.exists() else "it is missing") is not None:
        yield f"{index}: {problem}"
    elif sound:
        yield from (f"{index}: {problem}" for problem in _index(path, count, held))
    progress(count + 1, count + 1)


def _texts(texts: Sequence[Text], record: dict[str, Any], where: str) -> Iterator[str]:
    if (found := text_set_hash(texts)) != record["texts"]:
        yield f"{where}: its texts have the hash {found}, those captured {record['texts']}"


def _contents(file: Path, record: dict[str, Any], texts: Sequence[Text], held: _Held) -> Iterator[str]:
    """What does not fit in one file of shards; ``held`` is added to."""
    with opened(file) as handle:
        places = {site: parse_site(site).dataset for site in record["sites"]}
        names = [f"rows/{name}" for name in ROW_COLUMNS] + [f"inputs/{name}" for name in INPUT_COLUMNS]
        if missing := [name for name in (*names, *places.values()) if name not in handle]:
            yield f"it has no {missing[0]}"
            return
        rows = {name: get_dataset(handle, f"rows/{name}")[:] for name in ROW_COLUMNS}
        inputs = {name: get_dataset(handle, f"inputs/{name}")[:] for name in INPUT_COLUMNS}
        for kind, columns in (("rows", rows), ("inputs", inputs)):
            if len({column.shape for column in columns.values()}) > 1:
                yield f"its columns of {kind} differ in length"
                return
        n_rows = len(rows["text"])
        for site, place in places.items():
            dataset = get_dataset(handle, place)
            if dataset.ndim != 2 or dataset.shape != (n_rows, held.widths.setdefault(site, dataset.shape[-1])):
                yield f"{site} has shape {list(dataset.shape)}, expected {[n_rows, held.widths[site]]}"
            if dataset.id.get_type() != file_type(record["storage_dtype"]):
                yield f"{site} is not stored as {record['storage_dtype']}"
    held.rows.append(held.rows[-1] + n_rows)
    held.tokens.append(held.tokens[-1] + len(inputs["text"]))
    yield from _ranges(rows, inputs, texts, held)


def _ranges(rows: Columns, inputs: Columns, texts: Sequence[Text], held: _Held) -> Iterator[str]:
    """Numbers in the columns that can not be."""
    for kind, numbers in (("rows", rows["text"]), ("inputs", inputs["text"])):
        if len(numbers) and not (held.last_text <= numbers[0] and (np.diff(numbers) >= 0).all()):
            yield f"{kind}/text is not in the order of the texts"
            return
        if len(numbers) and numbers[-1] >= len(texts):
            yield f"{kind}/text counts to {numbers[-1]}, there are {len(texts)} texts"
            return
    tokens = np.bincount(inputs["text"], minlength=len(texts))
    spans = np.array([len(text.spans) for text in texts])
    characters = np.array([len(text.text) for text in texts])
    wrong = {
        "rows/position": (rows["position"] < 0) | (rows["position"] >= tokens[rows["text"]]),
        "rows/span": (rows["span"] < -1) | (rows["span"] >= spans[rows["text"]]),
        "rows/start": (rows["start"] < 0) | (rows["start"] > rows["end"]),
        "rows/end": rows["end"] > characters[rows["text"]],
        "inputs/start": (inputs["start"] < 0) | (inputs["start"] > inputs["end"]),
        "inputs/end": inputs["end"] > characters[inputs["text"]],
    }
    yield from (f"{name} is out of range at {int(np.argmax(bad))}" for name, bad in wrong.items() if bad.any())
    if len(inputs["text"]):
        held.last_text = int(inputs["text"][-1]) + 1


def _index(path: Path, count: int, held: _Held) -> Iterator[str]:
    """What of the index does not fit the shards."""
    layout = folder_layout(path, count)
    if layout.rows.tolist() != held.rows or layout.tokens.tolist() != held.tokens:
        yield "it does not fit the rows and tokens of the shards"
    expected = {
        **{f"rows/{name}": (held.rows[-1],) for name in ROW_COLUMNS},
        **{f"inputs/{name}": (held.tokens[-1],) for name in INPUT_COLUMNS},
        **{parse_site(site).dataset: (held.rows[-1], width) for site, width in held.widths.items()},
    }
    with opened(path / "index.h5") as handle:
        for name, shape in expected.items():
            if not isinstance(found := handle.get(name), h5py.Dataset) or found.shape != shape:
                yield f"{name} is not there or has another shape than {list(shape)}"
