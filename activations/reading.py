"""Rows read from the file that holds them: from their very bytes, or chunk by chunk where they are compressed."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from activations.errors import TwinprobeError
from activations.hdf5 import file_type, to_float32
from activations.layout import Place, damaged, get_dataset, opened

RAW = {"float32": "<f4", "float16": "<f2", "bfloat16": "<u2"}
"""NumPy types of what is stored; bfloat16 as its bits."""
BLOCK_BYTES = 2**20
"""How much is read at a time where values are converted on the way."""
FAR_APART = 2**16
"""Bytes between rows from which on reading ahead of them would read too much."""

Rows = Sequence[int] | npt.NDArray[Any]
"""Row numbers in any order, or one truth value per row."""


def row_numbers(rows: Any, count: int, what: str) -> npt.NDArray[np.int64]:
    """The numbers meant by ``rows``, of ``count`` there are: all (``None``), those given, or those where a mask is true.

    Order and repetitions are kept, as in NumPy; negative numbers are refused. ``what`` opens the error message.

    Raises:
        TwinprobeError: a number out of range, a mask of another length, or something else than numbers.
    """
    if rows is None:
        return np.arange(count)
    given = np.asarray(rows)
    if given.ndim != 1:
        raise TwinprobeError(f"{what}: rows must be a list of numbers or a mask, got {given.ndim} dimensions")
    if given.dtype == np.bool_:
        if len(given) != count:
            raise TwinprobeError(f"{what}: a mask of {len(given)} truth values does not fit its {count} rows")
        return np.flatnonzero(given)
    if len(given) and given.dtype.kind not in "iu":
        raise TwinprobeError(f"{what}: rows must be whole numbers or truth values, got {given.dtype}")
    wrong = given[(given < 0) | (given >= count)] if len(given) else given
    if len(wrong):
        raise TwinprobeError(f"{what} has no row {wrong[0]}; its {count} rows are numbered from 0")
    return given.astype(np.int64)


def gather(
    place: Callable[[int], Place],
    first: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    dtype: str,
    kind: np.dtype[Any],
) -> npt.NDArray[Any]:
    """Rows of a site ``[rows, width]`` from all files of a store.

    Args:
        place: where the site lies in a file, by the file's number.
        first: rows before each file ``[files + 1]``.
        rows: at least one row number, ascending, none twice.
        dtype: the storage type.
        kind: the type wanted: that of :data:`RAW`, or float32.

    Raises:
        TwinprobeError: a file is damaged.
    """
    bounds = np.searchsorted(rows, first)
    touched = np.flatnonzero(np.diff(bounds)).tolist()
    places = [place(file) for file in touched]
    width = places[0].width
    out = np.empty((len(rows), width), kind)
    for file, where in zip(touched, places, strict=True):
        if where.width != width:
            raise damaged(where.file, f"{where.dataset} has {where.width} numbers per row, others have {width}")
        part = slice(bounds[file], bounds[file + 1])
        fill(where, rows[part] - first[file], dtype, out[part])
    return out


def fill(place: Place, rows: npt.NDArray[np.int64], dtype: str, out: npt.NDArray[Any]) -> None:
    """Read ``rows`` of a place, ascending and each once, into ``out`` ``[rows, width]``: as stored, or as float32.

    Raises:
        TwinprobeError: the file is damaged.
    """
    if not out.size:
        return
    if place.offset is None:
        _chunks(place, rows, dtype, out)
        return
    raw = np.dtype(RAW[dtype])
    if out.dtype == raw:
        _bytes(place, rows, place.offset, out)
        return
    step = max(1, BLOCK_BYTES // (place.width * raw.itemsize))
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        block = np.empty((len(part), place.width), raw)
        _bytes(place, part, place.offset, block)
        out[start : start + step] = to_float32(block, dtype)


def _bytes(place: Place, rows: npt.NDArray[np.int64], offset: int, out: npt.NDArray[Any]) -> None:
    """Rows from a file whose ``offset`` is the first row's first byte."""
    size = place.width * out.itemsize
    end = offset + place.rows * size
    try:
        handle = os.open(place.file, os.O_RDONLY)
    except OSError as error:
        raise damaged(place.file, error.strerror) from None
    try:
        if os.fstat(handle).st_size < end:
            raise damaged(place.file, "it is cut off")
        if rows[-1] - rows[0] == len(rows) - 1:
            _straight(handle, place, offset + int(rows[0]) * size, out)
        else:
            _scattered(handle, offset + rows * size, end, out)
    finally:
        os.close(handle)


def _straight(handle: int, place: Place, start: int, out: npt.NDArray[Any]) -> None:
    """Consecutive rows."""
    left = out.data.cast("B")
    while len(left):
        count = os.preadv(handle, [left], start)
        if not count:
            raise damaged(place.file, "it is cut off")
        left, start = left[count:], start + count


def _scattered(handle: int, starts: npt.NDArray[np.int64], end: int, out: npt.NDArray[Any]) -> None:
    """Rows with others between them: where each starts, and where the last of all ends."""
    size = out.shape[1] * out.itemsize
    content = mmap.mmap(handle, end, prot=mmap.PROT_READ)
    if starts[-1] - starts[0] > FAR_APART * len(starts) and hasattr(os, "posix_fadvise"):
        # Ask for all of them at once and for nothing between: a disk serves many requests at a time.
        content.madvise(mmap.MADV_RANDOM)
        for start in starts.tolist():
            os.posix_fadvise(handle, start, size, os.POSIX_FADV_WILLNEED)
    # As bytes: a dataset may begin anywhere, and NumPy copies all of an array whose numbers are not aligned.
    first = int(starts[0])
    count = (end - first) // size
    values = np.frombuffer(content, np.uint8, count * size, first).reshape(count, size)
    np.take(values, (starts - first) // size, axis=0, out=out.view(np.uint8), mode="clip")


def _chunks(place: Place, rows: npt.NDArray[np.int64], dtype: str, out: npt.NDArray[Any]) -> None:
    """Rows from the chunks that hold them, as stored or as float32."""
    raw = np.dtype(RAW[dtype])
    at_once = max(1, BLOCK_BYTES // (place.chunk * place.width * raw.itemsize))
    with opened(place.file) as handle:
        dataset = get_dataset(handle, place.dataset)
        for first, last in _runs(np.unique(rows // place.chunk), at_once):
            start, end = first * place.chunk, min((last + 1) * place.chunk, place.rows)
            block = np.empty((end - start, place.width), raw)
            space = h5py.h5s.create_simple((place.rows, place.width))
            space.select_hyperslab((start, 0), block.shape)
            # Memory type equal to file type: no conversion.
            dataset.id.read(h5py.h5s.create_simple(block.shape), space, block, mtype=file_type(dtype))
            low, high = np.searchsorted(rows, (start, end))
            chosen = block[rows[low:high] - start]
            out[low:high] = chosen if out.dtype == raw else to_float32(chosen, dtype)


def _runs(numbers: npt.NDArray[np.int64], longest: int) -> Iterator[tuple[int, int]]:
    """First and last of the runs of consecutive ``numbers``, none longer than ``longest``."""
    for run in np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1):
        for start in range(0, len(run), longest):
            part = run[start : start + longest]
            yield int(part[0]), int(part[-1])
