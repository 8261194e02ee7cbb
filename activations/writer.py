"""Write a store: create one or resume one, shard by shard, each whole and checked or not at all, one process at a time."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from activations.errors import TwinprobeError
from activations.files import write_whole
from activations.hdf5 import damage, undated, whole_file, write_activations
from activations.layout import INPUT_COLUMNS, ROW_COLUMNS, shard_path
from activations.records import SCHEMA, first_difference, read_record
from activations.sites import Site
from activations.store import ActivationStore
from activations.texts import Text, read_texts, text_set_hash, write_texts

LOCK = ".lock"
IN_FLIGHT = 2
"""Shards written at a time: while one is synced to disk, the next is handed to the operating system."""


@dataclass(frozen=True)
class Shard:
    """Consecutive texts: integer columns ``[rows]``, activations ``[rows, width]`` per site, columns ``[tokens]``."""

    columns: dict[str, npt.NDArray[np.int64]]
    values: dict[Site, npt.NDArray[Any]]
    inputs: dict[str, npt.NDArray[np.int64]]


class StoreWriter:
    """The store at ``path`` while it is written; a context manager that holds the store's lock.

    The lock is the operating system's and goes with the process, however that ends.
    """

    def __init__(self, path: str | Path, provenance: dict[str, Any], texts: Sequence[Text], n_shards: int) -> None:
        """Open ``path`` for this job.

        Raises:
            TwinprobeError: ``path`` holds something else, a store of another job (the first difference is shown), or
                one that another process is writing.
        """
        self.path = Path(path)
        self.dtype: str = provenance["storage_dtype"]
        self.n_shards = n_shards
        record = self.path / "store.json"
        if not record.exists() and self.path.exists() and not _unused(self.path):
            raise TwinprobeError(f"{self.path} is not empty and holds no store; choose another output folder")
        wanted = json.loads(json.dumps({"schema": SCHEMA, "shards": n_shards, **provenance}))
        if record.exists():
            _refuse_other_job(self.path, read_record(self.path), wanted)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path / LOCK)
            self._lock.acquire(blocking=False)
        except Timeout:
            raise TwinprobeError(
                f"another process is writing {self.path}; wait for it, or choose another output folder"
            ) from None
        except OSError as error:
            raise TwinprobeError(f"{self.path} cannot be written ({error.strerror}); choose another folder") from None
        try:
            if record.exists():  # another process may have written it since
                _refuse_other_job(self.path, read_record(self.path), wanted)
            else:
                # The record comes first: whatever a killed run leaves after it belongs to the same job.
                write_whole(record, (json.dumps(wanted, indent=2) + "\n").encode())
            (self.path / "shards").mkdir(exist_ok=True)
            if not _holds(self.path / "texts.jsonl", provenance.get("texts")):
                write_texts(self.path / "texts.jsonl", texts)
        except BaseException:
            self._lock.release()
            raise

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def missing(
        self, notice: Callable[[str], None], progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[int]:
        """The shards still to be written; every one that is there is read and checked, a damaged one is removed.

        Args:
            notice: called with a sentence for each damaged shard.
            progress: called with shards checked and shards in all.
        """
        left = []
        for number in range(self.n_shards):
            path = shard_path(self.path, number)
            problem = damage(path) if path.exists() else None
            if problem is not None:
                notice(f"{path} is damaged ({problem}) and is captured again")
                path.unlink()
            if not path.exists():
                left.append(number)
            progress(number + 1, self.n_shards)
        return left

    def write(self, number: int, shard: Shard) -> None:
        """Write one shard."""
        write_shard(self.path, number, shard, self.dtype)

    def finish(self, changed: bool = True) -> ActivationStore:
        """Write the index over all shards, unless nothing ``changed`` and the one that is there is sound."""
        index = self.path / "index.h5"
        if changed or damage(index) is not None:
            write_index(self.path, self.n_shards)
        return ActivationStore(self.path)


def write_shard(store: Path, number: int, shard: Shard, dtype: str) -> None:
    """Write one shard of a store, whole and with its checksum."""
    with whole_file(shard_path(store, number)) as file:
        for name in ROW_COLUMNS:
            file.create_dataset(f"rows/{name}", data=shard.columns[name])
        for name in INPUT_COLUMNS:
            file.create_dataset(f"inputs/{name}", data=shard.inputs[name])
        for site, values in shard.values.items():
            write_activations(file, site.dataset, values, dtype)


class BackgroundWriter:
    """Writes shards in threads while the next is computed; at most ``IN_FLIGHT`` are on their way.

    A context manager: leaving it waits for those, so that nothing computed is lost, and raises what went wrong with the
    first of them unless another error is under way.
    """

    def __init__(self, write: Callable[[int, Shard], None]) -> None:
        self._write = write
        self._pool = ThreadPoolExecutor(IN_FLIGHT, thread_name_prefix="shards")
        self._under_way: deque[Future[None]] = deque()

    def put(self, number: int, shard: Shard) -> None:
        """Hand a shard over; waits where too many are on their way, and raises what went wrong with an earlier one."""
        while len(self._under_way) >= IN_FLIGHT:
            self._under_way.popleft().result()
        self._under_way.append(self._pool.submit(self._write, number, shard))

    def __enter__(self) -> BackgroundWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=True)
        if error is None:
            for written in self._under_way:
                written.result()


@dataclass(frozen=True)
class _Part:
    """One shard's share of a virtual dataset."""

    file: str
    shape: tuple[int, ...]
    type: h5py.h5t.TypeID


def write_index(store: Path, n_shards: int) -> None:
    """Write ``index.h5``: virtual datasets over all shards of a store."""
    layout: dict[str, list[_Part]] = {}
    for number in range(n_shards):
        path = shard_path(store, number)

        def note(name: str, item: h5py.Group | h5py.Dataset, file: str = path.name) -> None:
            if isinstance(item, h5py.Dataset):
                layout.setdefault(name, []).append(_Part(file, item.shape, item.id.get_type().copy()))

        with h5py.File(path) as shard:
            shard.visititems(note)
    with whole_file(store / "index.h5") as index:
        for name, parts in layout.items():
            _virtual(index, name, parts)


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
    return path.is_dir() and all(entry.name in ("store.json.tmp", LOCK) for entry in path.iterdir())


def _holds(path: Path, texts: str | None) -> bool:
    """Whether the file at ``path`` holds the text set with that hash."""
    try:
        return path.exists() and text_set_hash(read_texts(path)) == texts
    except TwinprobeError:
        return False


def _refuse_other_job(path: Path, held: dict[str, Any], wanted: dict[str, Any]) -> None:
    if found := first_difference(held, wanted):
        key, there, here = found
        raise TwinprobeError(
            f"{path} holds a store of another job: its {key} is {there}, this job's is {here}; "
            "choose another output folder or remove that one"
        )
