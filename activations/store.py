"""The store: the captured rows of one model over one set of texts, as HDF5 shards under one index.

Layout of a store folder (schema 1)::

    store.json         provenance: model, text set, sites, rows, BOS, types; tells whether a resume is the same job
    texts.jsonl        the texts with their spans, in the input format
    shards/00000.h5    rows/{text,position,token,start,end,span}; one dataset [rows, width] per site, e.g. resid_post/3;
                       inputs/{text,token,start,end}: every token the model read, BOS included
    index.h5           virtual datasets over all shards, same names; written last, so its presence means "complete"

``text`` counts lines of ``texts.jsonl``, ``rows/span`` the spans of that text (-1 where the row is not a span),
``start`` and ``end`` are character offsets.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pandas as pd

from activations.errors import TwinprobeError, did_you_mean
from activations.files import write_whole
from activations.hdf5 import read_activations, to_float32, undated, whole_file, write_activations
from activations.sites import Site, parse_site
from activations.texts import Text, read_texts, write_texts

SCHEMA = 1
ROW_COLUMNS = ("text", "position", "token", "start", "end", "span")
INPUT_COLUMNS = ("text", "token", "start", "end")


@dataclass(frozen=True)
class Shard:
    """Consecutive texts: integer columns ``[rows]``, activations ``[rows, width]`` per site, columns ``[tokens]``."""

    columns: dict[str, npt.NDArray[np.int64]]
    values: dict[Site, npt.NDArray[Any]]
    inputs: dict[str, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class _Part:
    """One shard's share of a virtual dataset."""

    file: str
    shape: tuple[int, ...]
    type: h5py.h5t.TypeID


class StoreWriter:
    """Create a store or resume one; every shard is written whole or not at all."""

    def __init__(self, path: str | Path, provenance: dict[str, Any], texts: Sequence[Text], n_shards: int) -> None:
        """Open ``path`` for this job.

        Raises:
            TwinprobeError: ``path`` holds something else, or a store of another job; the first difference is shown.
        """
        self.path = Path(path)
        self.dtype: str = provenance["storage_dtype"]
        self.n_shards = n_shards
        record = self.path / "store.json"
        wanted = {"schema": SCHEMA, "shards": n_shards, **provenance}
        if record.exists():
            _refuse_other_job(self.path, _record(self.path), wanted)
        elif self.path.exists() and not _unused(self.path):
            raise TwinprobeError(f"{self.path} is not empty and holds no store; choose another output folder")
        # The record comes first: whatever a killed run leaves after it belongs to the same job.
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if not record.exists():
                write_whole(record, (json.dumps(wanted, indent=2) + "\n").encode())
            (self.path / "shards").mkdir(exist_ok=True)
        except OSError as error:
            raise TwinprobeError(f"{self.path} cannot be written ({error.strerror}); choose another folder") from None
        if not (self.path / "texts.jsonl").exists():
            write_texts(self.path / "texts.jsonl", texts)

    def shard_path(self, index: int) -> Path:
        """Where shard ``index`` lies or will lie."""
        return self.path / "shards" / f"{index:05d}.h5"

    def has(self, index: int) -> bool:
        """Whether shard ``index`` is finished."""
        return self.shard_path(index).exists()

    def write(self, index: int, shard: Shard) -> None:
        """Write one shard."""
        with whole_file(self.shard_path(index)) as file:
            for name in ROW_COLUMNS:
                file.create_dataset(f"rows/{name}", data=shard.columns[name])
            for name in INPUT_COLUMNS:
                file.create_dataset(f"inputs/{name}", data=shard.inputs[name])
            for site, values in shard.values.items():
                write_activations(file, site.dataset, values, self.dtype)

    def finish(self) -> ActivationStore:
        """Write the index over all shards."""
        with whole_file(self.path / "index.h5") as index:
            for name, parts in self._layout().items():
                _virtual(index, name, parts)
        return ActivationStore(self.path)

    def _layout(self) -> dict[str, list[_Part]]:
        layout: dict[str, list[_Part]] = {}
        for number in range(self.n_shards):
            path = self.shard_path(number)

            def note(name: str, item: h5py.Group | h5py.Dataset, file: str = path.name) -> None:
                if isinstance(item, h5py.Dataset):
                    layout.setdefault(name, []).append(_Part(file, item.shape, item.id.get_type().copy()))

            with h5py.File(path) as shard:
                shard.visititems(note)
        return layout


def _virtual(index: h5py.File, name: str, parts: list[_Part]) -> None:
    """One virtual dataset made of the same dataset in every shard, with the shards' own (custom) type."""
    shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
    properties = undated()
    start = 0
    for part in parts:
        if part.shape[0]:
            target = h5py.h5s.create_simple(shape)
            target.select_hyperslab((start, *[0] * (len(shape) - 1)), part.shape)
            source = h5py.h5s.create_simple(part.shape)
            properties.set_virtual(target, f"shards/{part.file}".encode(), f"/{name}".encode(), source)
        start += part.shape[0]
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    h5py.h5d.create(index.id, name.encode(), parts[0].type, h5py.h5s.create_simple(shape), dcpl=properties, lcpl=links)


def _unused(path: Path) -> bool:
    """Whether ``path`` is a folder that holds nothing, or a run was killed in as it wrote its record."""
    return path.is_dir() and all(entry.name == "store.json.tmp" for entry in path.iterdir())


def _record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads((path / "store.json").read_text())
    except ValueError as error:
        raise TwinprobeError(
            f"{path / 'store.json'} is damaged ({error}); remove {path} and capture it again"
        ) from None
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else None
        raise TwinprobeError(f"{path} has schema {found}, this version reads {SCHEMA}; capture it again")
    return record


def _refuse_other_job(path: Path, held: dict[str, Any], wanted: dict[str, Any]) -> None:
    for key in sorted(held.keys() | wanted.keys()):
        if held.get(key) != wanted.get(key):
            there, here = (_short(value) for value in _first_difference(held.get(key), wanted.get(key)))
            raise TwinprobeError(
                f"{path} holds a store of another job: its {key} is {there}, this job's is {here}; "
                "choose another output folder or remove that one"
            )


def _first_difference(there: Any, here: Any) -> tuple[Any, Any]:
    """Of two tables, only the entry that differs."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            if there.get(key) != here.get(key):
                return {key: there.get(key)}, {key: here.get(key)}
    return there, here


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


@contextmanager
def _index(path: Path) -> Iterator[h5py.File]:
    """The index of the store at ``path``, to read from; HDF5's own words about a damaged file name none."""
    try:
        with h5py.File(path / "index.h5") as index:
            yield index
    except OSError as error:
        raise TwinprobeError(
            f"{path} is damaged: index.h5 or a shard can not be read ({error}); remove the damaged file and run the same "
            "twinprobe cache command again"
        ) from None


class ActivationStore:
    """Read access to a finished store.

    Example::

        store = ActivationStore("runs/acts")
        rows = store.rows[store.rows.span == "role"]
        features = store.read("resid_post.3", rows.index)      # float32 [rows, width]
    """

    def __init__(self, path: str | Path) -> None:
        """Open the store at ``path``.

        Raises:
            TwinprobeError: there is no store, or one that is not finished.
        """
        self.path = Path(path)
        if not (self.path / "store.json").exists():
            raise TwinprobeError(f"{self.path} holds no store (no store.json); twinprobe cache writes one")
        self.provenance = _record(self.path)
        done = len(list((self.path / "shards").glob("*.h5")))
        # HDF5 reads zeros where a shard of an index is missing.
        if done < self.provenance["shards"] or not (self.path / "index.h5").exists():
            raise TwinprobeError(
                f"{self.path} is not finished ({done} of {self.provenance['shards']} shards); "
                "run the same twinprobe cache command again to resume"
            )

    @property
    def sites(self) -> list[str]:
        """The sites that were captured, as written (``resid_post.3``)."""
        return list(self.provenance["sites"])

    @property
    def dtype(self) -> str:
        """The storage type: float32, float16 or bfloat16."""
        return str(self.provenance["storage_dtype"])

    @cached_property
    def texts(self) -> list[Text]:
        """The captured texts."""
        return read_texts(self.path / "texts.jsonl")

    @cached_property
    def rows(self) -> pd.DataFrame:
        """One line per row: text, group, position, token, start, end, span, label, control (None where absent)."""
        with _index(self.path) as index:
            raw = {name: index[f"rows/{name}"][:] for name in ROW_COLUMNS}
        texts = [self.texts[i] for i in raw["text"]]
        spans = [text.spans[i] if i >= 0 else None for text, i in zip(texts, raw["span"], strict=True)]
        words = {
            "span": [span.name if span else None for span in spans],
            "label": [span.label if span else None for span in spans],
            "control": [
                (span.control or text.text[span.start : span.end]) if span else None
                for text, span in zip(texts, spans, strict=True)
            ],
        }
        return pd.DataFrame(
            {
                "text": [text.id for text in texts],
                "group": [text.group for text in texts],
                **{name: raw[name] for name in ("position", "token", "start", "end")},
                **{name: pd.Series(values, dtype=object) for name, values in words.items()},
            }
        )

    @cached_property
    def inputs(self) -> pd.DataFrame:
        """One line per token the model read, BOS included: text (id), token, start, end."""
        with _index(self.path) as index:
            raw = {name: index[f"inputs/{name}"][:] for name in INPUT_COLUMNS}
        return pd.DataFrame({**raw, "text": np.array([text.id for text in self.texts], dtype=object)[raw["text"]]})

    def read(
        self, site: str | Site, rows: Sequence[int] | npt.NDArray[np.int64] | None = None
    ) -> npt.NDArray[np.float32]:
        """Activations at ``site`` as float32 ``[rows, width]``, all rows or those given by number.

        Raises:
            TwinprobeError: the site was not captured.
        """
        site = parse_site(site) if isinstance(site, str) else site
        if str(site) not in self.sites:
            raise TwinprobeError(
                f"{self.path} has no site {str(site)!r}{did_you_mean(str(site), self.sites)}; "
                f"it has {', '.join(self.sites)}"
            )
        with _index(self.path) as index:
            raw = read_activations(index[site.dataset], self.dtype)
        return to_float32(
            raw if rows is None else raw[np.asarray(rows, dtype=None if len(rows) else np.int64)], self.dtype
        )
