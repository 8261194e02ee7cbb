"""Pack a store: one HDF5 file that holds all of it, to archive or to hand on, as it is or compressed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from activations.errors import TwinprobeError, did_you_mean
from activations.hdf5 import file_type, undated, whole_file
from activations.layout import INPUT_COLUMNS, RECORD, ROW_COLUMNS, TEXTS
from activations.reading import BLOCK_BYTES
from activations.records import kept_file
from activations.sites import parse_site
from activations.store import ActivationStore
from activations.tables import columns

COMPRESSIONS = ("zstd",)
CHUNK_BYTES = 2**17
"""Of compressed data: reading one row costs a whole chunk, and larger ones hardly take less room."""

COLUMN_STEP = 2**18
"""Rows whose columns are copied at a time."""

Filter = tuple[int, tuple[int, ...]]


def pack(
    store: ActivationStore | str | Path,
    out: str | Path,
    compress: str | None = None,
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> ActivationStore:
    """Write all of a store into the file ``out``, which :class:`ActivationStore` opens as it does a folder.

    The file has the datasets of the store's index; the rows and tokens of each shard under ``shards``; and the bytes of
    ``store.json`` and ``texts.jsonl``, as datasets of these names. Values are kept bit for bit. The store is verified
    first; a few megabytes of its activations are in memory at a time.

    Args:
        store: what to pack.
        out: a file that does not exist.
        compress: ``zstd`` (after bitshuffle, by hdf5plugin), or ``None``.
        progress: called with what is being done, steps done and steps in all.

    Raises:
        TwinprobeError: ``out`` exists, the store is not sound, hdf5plugin is not installed, or the disk is full.
    """
    store = store if isinstance(store, ActivationStore) else ActivationStore(store)
    out = Path(out)
    if out.exists():
        raise TwinprobeError(f"{out} is there already; choose another file or remove it")
    if not out.parent.is_dir():
        raise TwinprobeError(f"there is no folder {out.parent}; create it or choose another place for {out.name}")
    pipeline = _pipeline(compress)
    require_sound(store, partial(progress, "verifying"))
    with whole_file(out) as file:
        for name in (RECORD, TEXTS):
            _put(file, name, np.frombuffer(kept_file(store.path, name), np.uint8), None)
        for name, bounds in (("rows", store.layout.rows), ("tokens", store.layout.tokens)):
            _put(file, f"shards/{name}", np.diff(bounds), pipeline)
        for kind in ("rows", "inputs"):
            _copy_columns(store, file, kind, pipeline)
        for number, site in enumerate(store.sites):
            progress("sites", number, len(store.sites))
            _copy_site(store, file, site, pipeline)
        progress("sites", len(store.sites), len(store.sites))
    return ActivationStore(out)


def require_sound(store: ActivationStore, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
    """Refuse a damaged store: a copy would carry the damage on, under checksums of its own.

    Raises:
        TwinprobeError: it is damaged.
    """
    if problems := store.verify(progress):
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise TwinprobeError(
            f"{store.path} is not sound: {problems[0]}{more}; twinprobe store verify {store.path} says how to mend it"
        )


def _copy_columns(store: ActivationStore, file: h5py.File, kind: str, pipeline: Filter | None) -> None:
    total = store.n_rows if kind == "rows" else store.n_tokens
    integer = h5py.h5t.NATIVE_INT64
    made = {
        name: _create(file, f"{kind}/{name}", (total,), integer, pipeline)
        for name in (ROW_COLUMNS if kind == "rows" else INPUT_COLUMNS)
    }
    for start in range(0, total, COLUMN_STEP):
        for name, column in columns(store.layout, kind, start, min(start + COLUMN_STEP, total)).items():
            _write(made[name][0], start, column, integer)


def _copy_site(store: ActivationStore, file: h5py.File, site: str, pipeline: Filter | None) -> None:
    kind, shape = file_type(store.dtype), (store.n_rows, store.width(site))
    dataset, chunk = _create(file, parse_site(site).dataset, shape, kind, pipeline)
    step = chunk * max(1, BLOCK_BYTES // (chunk * shape[1] * kind.get_size()))
    for start in range(0, shape[0], step):
        _write(dataset, start, store.raw(site, np.arange(start, min(start + step, shape[0]))), kind)


def _pipeline(compress: str | None) -> Filter | None:
    if compress is None:
        return None
    if compress not in COMPRESSIONS:
        raise TwinprobeError(
            f"compression {compress!r} is not known{did_you_mean(compress, COMPRESSIONS)}; there is {COMPRESSIONS[0]}"
        )
    try:
        from hdf5plugin import Bitshuffle
    except ImportError:
        raise TwinprobeError("compression needs hdf5plugin; pip install hdf5plugin (or twinprobe[compress])") from None
    made = Bitshuffle(cname="zstd")
    return made.filter_id, made.filter_options


def _put(file: h5py.File, name: str, values: npt.NDArray[Any], pipeline: Filter | None) -> None:
    """A whole dataset of whole numbers."""
    kind = h5py.h5t.py_create(values.dtype, logical=True)
    dataset, _ = _create(file, name, values.shape, kind, pipeline)
    _write(dataset, 0, values, kind)


def _create(
    file: h5py.File, name: str, shape: tuple[int, ...], kind: h5py.h5t.TypeID, pipeline: Filter | None
) -> tuple[h5py.h5d.DatasetID, int]:
    """An empty dataset, in one piece or, compressed, in chunks; and the rows to write at a time or a multiple of."""
    properties = undated()
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    chunk = 1
    if pipeline is not None and shape[0]:
        chunk = min(shape[0], max(1, CHUNK_BYTES // (prod(shape[1:]) * kind.get_size())))
        properties.set_chunk((chunk, *shape[1:]))
        properties.set_filter(pipeline[0], h5py.h5z.FLAG_MANDATORY, pipeline[1])
        # A checksum for every chunk: bitshuffle crashes the interpreter over some that are damaged.
        properties.set_fletcher32()
    links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    space = h5py.h5s.create_simple(shape)
    return h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=properties, lcpl=links), chunk


def _write(dataset: h5py.h5d.DatasetID, start: int, values: npt.NDArray[Any], kind: h5py.h5t.TypeID) -> None:
    if values.size:
        space = dataset.get_space()
        space.select_hyperslab((start, *[0] * (values.ndim - 1)), values.shape)
        # Memory type equal to file type: the bytes go as they are.
        dataset.write(h5py.h5s.create_simple(values.shape), space, np.ascontiguousarray(values), mtype=kind)
