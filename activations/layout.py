"""Where the rows of a store lie: which of its HDF5 files holds which, and from which byte on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt

from activations.errors import TwinprobeError
from activations.hdf5 import damage

RECORD = "store.json"
TEXTS = "texts.jsonl"
"""Files of a store folder, and datasets of bytes in a packed store."""
ROW_COLUMNS = ("text", "position", "token", "start", "end", "span")
INPUT_COLUMNS = ("text", "token", "start", "end")


@dataclass(frozen=True, eq=False)
class Layout:
    """The shards of a store and the files they lie in: each in its own, or all in one packed file.

    ``rows`` and ``tokens`` ``[shards + 1]`` count those before each shard.
    """

    files: tuple[Path, ...]
    rows: npt.NDArray[np.int64]
    tokens: npt.NDArray[np.int64]

    def first(self, kind: str) -> npt.NDArray[np.int64]:
        """How many ``rows`` or ``inputs`` come before each file ``[files + 1]``."""
        bounds = self.rows if kind == "rows" else self.tokens
        return bounds if len(bounds) == len(self.files) + 1 else bounds[[0, -1]]


@dataclass(frozen=True)
class Place:
    """One site's rows in one file: ``rows`` of ``width`` numbers, from the byte ``offset`` on.

    Where they are chunked, ``offset`` is ``None`` and ``chunk`` the rows of a chunk.
    """

    file: Path
    dataset: str
    rows: int
    width: int
    offset: int | None
    chunk: int


def shard_path(store: Path, number: int) -> Path:
    """Where a shard of a store folder lies or will lie."""
    return store / "shards" / f"{number:05d}.h5"


def damaged(file: Path, problem: object) -> TwinprobeError:
    """The error for a file of a store that can not be read; HDF5's own words name no file."""
    folder = file.parent.parent if file.parent.name == "shards" else file.parent
    store = folder if (folder / RECORD).exists() else file
    return TwinprobeError(
        f"{file} is damaged ({' '.join(str(problem).split())}); twinprobe store verify {store} says how to mend it"
    )


@contextmanager
def opened(file: Path) -> Iterator[h5py.File]:
    """One file of a store, to read from.

    Raises:
        TwinprobeError: it is damaged, or compressed by a filter that is not installed.
    """
    try:
        with h5py.File(file) as handle:
            yield handle
    except (OSError, KeyError, RuntimeError) as error:
        raise damaged(file, error) from None


def get_dataset(handle: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of an open file, with the filters it was compressed by at hand.

    Raises:
        TwinprobeError: a filter is not installed.
    """
    dataset = handle[name]
    if dataset.chunks is not None:
        properties = dataset.id.get_create_plist()
        for number in range(properties.get_nfilters()):
            if not _available(properties.get_filter(number)[0]):
                raise TwinprobeError(
                    f"{handle.filename} is compressed, and the filter to read it is not installed; "
                    "pip install hdf5plugin (or twinprobe[compress])"
                )
    return dataset


def _available(code: int) -> bool:
    if not h5py.h5z.filter_avail(code):
        try:
            import hdf5plugin  # noqa: F401  # brings its filters along
        except ImportError:
            return False
    return bool(h5py.h5z.filter_avail(code))


def folder_layout(store: Path, shards: int) -> Layout:
    """The layout of a store folder, read from its index alone.

    Raises:
        TwinprobeError: the index is damaged.
    """
    index = store / "index.h5"
    # First of all: a damaged list of virtual datasets can keep HDF5 busy for ever.
    if (problem := damage(index)) is not None:
        raise damaged(index, problem)
    with opened(index) as handle:
        rows, tokens = (_mapped(handle[name], shards) for name in ("rows/text", "inputs/text"))
    return Layout(tuple(shard_path(store, number) for number in range(shards)), rows, tokens)


def _mapped(dataset: h5py.Dataset, shards: int) -> npt.NDArray[np.int64]:
    """How many entries of a virtual dataset come before each shard; empty shards are not in its mapping."""
    counts = np.zeros(shards, dtype=np.int64)
    for source in dataset.virtual_sources() if dataset.is_virtual else ():
        number = int(os.path.basename(source.file_name).removesuffix(".h5"))
        if number >= shards:
            raise KeyError(f"it refers to shard {number} of {shards}")
        counts[number] = source.vspace.get_select_npoints()
    return np.concatenate([[0], counts.cumsum()])


def packed_layout(file: Path) -> Layout:
    """The layout of a packed store."""
    with opened(file) as handle:
        rows, tokens = (
            np.concatenate([[0], get_dataset(handle, f"shards/{name}")[:].cumsum()]) for name in ("rows", "tokens")
        )
    return Layout((file,), rows, tokens)


def locate(file: Path, dataset: str, rows: int) -> Place:
    """Where ``dataset`` lies in ``file``, which should have ``rows`` of it.

    Raises:
        TwinprobeError: the file is damaged.
    """
    with opened(file) as handle:
        found = get_dataset(handle, dataset)
        if found.ndim != 2 or len(found) != rows:
            raise damaged(file, f"{dataset} has shape {list(found.shape)}, the index says {rows} rows")
        return Place(file, dataset, rows, found.shape[1], found.id.get_offset(), found.chunks[0] if found.chunks else 0)
