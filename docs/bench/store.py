"""The store beside bare HDF5: seconds to write and to read 512 MB of one site, median of five rounds in one run.

Written are eight shards as a capture writes them (checksum, own name when whole), and one dataset by ``h5py`` alone; both
from memory, synced to disk or not. Read are 1% of the rows, drawn at random, and all rows; with the files in the page
cache ("warm") or dropped from it ("cold").

    python docs/bench/store.py [FOLDER]
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from unittest.mock import patch

import h5py
import numpy as np

from activations.hdf5 import STORED_BYTES
from activations.sites import Site
from activations.store import INPUT_COLUMNS, ROW_COLUMNS, ActivationStore
from activations.texts import Text, text_set_hash
from activations.writer import BackgroundWriter, Shard, StoreWriter

WIDTH, SHARDS, ROUNDS = 768, 8, 5
SITE = Site("resid_post", 3)
TOTAL = 512 * 2**20


def write_store(folder: Path, values: np.ndarray, dtype: str) -> None:
    """A store of eight texts with equally many rows, one per shard."""
    texts = [Text(str(number), "x") for number in range(SHARDS)]
    record = {"texts": text_set_hash(texts), "sites": [str(SITE)], "storage_dtype": dtype}
    zeros = np.zeros(len(values) // SHARDS, dtype=np.int64)
    with StoreWriter(folder, record, texts, SHARDS) as writer:
        with BackgroundWriter(writer.write) as background:
            for number, part in enumerate(np.split(values, SHARDS)):
                known = {"text": zeros + number}
                columns, inputs = (
                    {**dict.fromkeys(ROW_COLUMNS, zeros), **known},
                    {**dict.fromkeys(INPUT_COLUMNS, zeros), **known},
                )
                background.put(number, Shard(columns, {SITE: part}, inputs))
        writer.finish()


def write_bare(folder: Path, values: np.ndarray) -> None:
    """The same numbers by ``h5py`` alone, synced."""
    with h5py.File(folder / "bare.h5", "w") as file:
        file.create_dataset("resid_post/3", data=values)
    handle = os.open(folder / "bare.h5", os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def drop(folder: Path) -> None:
    """Ask the system to forget the files of a store."""
    for path in folder.rglob("*.h5"):
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def seconds(call: Callable[[], object]) -> float:
    """How long one call takes."""
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def line(name: str, ours: list[float], other: list[float]) -> None:
    """One line of the table; the ratio is of the medians, other by ours."""
    print(f"| {name} | {median(ours):.3f} s | {median(other):.3f} s | {median(other) / median(ours):.2f} |", flush=True)


def write_times(folder: Path, values: np.ndarray) -> tuple[list[float], list[float]]:
    """Alternating, each into files of its own that are removed again."""
    ours, bare = [], []
    for _ in range(ROUNDS):
        for times, write in (
            (ours, lambda to: write_store(to, values, "float32")),
            (bare, lambda to: write_bare(to, values)),
        ):
            with tempfile.TemporaryDirectory(dir=folder) as target:
                os.sync()
                times.append(seconds(lambda write=write, target=target: write(Path(target))))
    return ours, bare


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as name:
        folder, rng = Path(name), np.random.default_rng(0)
        print("| write 512 MB, float32 | store | bare h5py | ratio |\n|---|---|---|---|")
        rows = TOTAL // (WIDTH * 4) // SHARDS * SHARDS
        values = rng.standard_normal((rows, WIDTH), dtype=np.float32)
        line("synced to disk", *write_times(folder, values))
        with patch("os.fsync"):
            line("not synced", *write_times(folder, values))
        print("\n| read one site of 512 MB | 1% of the rows | all rows | ratio |\n|---|---|---|---|")
        for dtype in ("float32", "bfloat16"):
            rows = TOTAL // (WIDTH * STORED_BYTES[dtype]) // SHARDS * SHARDS
            if dtype == "bfloat16":
                values = rng.integers(0, 2**16, (rows, WIDTH), dtype=np.uint16)
            write_store(folder / dtype, values, dtype)
            store = ActivationStore(folder / dtype)
            for state in ("cold", "warm"):
                some, every = [], []
                for _ in range(ROUNDS):
                    chosen = np.sort(rng.choice(rows, rows // 100, replace=False))
                    for times, asked in ((some, chosen), (every, None)):
                        if state == "cold":
                            drop(folder / dtype)
                        else:
                            store.read(SITE, asked)
                        times.append(seconds(partial(store.read, SITE, asked)))
                line(f"{dtype}, {state}", some, every)


if __name__ == "__main__":
    main()
