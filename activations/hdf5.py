"""HDF5 pieces the store is made of: a bfloat16 type, exact writes and reads, files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from activations.errors import TwinprobeError

STORED_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


def file_type(dtype: str) -> h5py.h5t.TypeID:
    """The on-disk type: IEEE for float32 and float16; for bfloat16 a custom float that any HDF5 tool can read."""
    if dtype == "float32":
        return h5py.h5t.IEEE_F32LE.copy()
    if dtype == "float16":
        return h5py.h5t.IEEE_F16LE.copy()
    custom = h5py.h5t.IEEE_F32LE.copy()
    # sign bit 15, exponent bits 7-14, mantissa bits 0-6; set before the size shrinks, or the fields would not fit
    custom.set_fields(15, 7, 8, 0, 7)
    custom.set_size(2)
    custom.set_ebias(127)
    return custom


def write_activations(group: h5py.Group, name: str, values: npt.NDArray[Any], dtype: str) -> None:
    """Write ``values`` (float32 or float16; for bfloat16 its bits as uint16) bit for bit, without a conversion."""
    space = h5py.h5s.create_simple(values.shape)
    properties = h5py.h5p.create(h5py.h5p.LINK_CREATE)
    properties.set_create_intermediate_group(True)
    dataset = h5py.h5d.create(group.id, name.encode(), file_type(dtype), space, lcpl=properties)
    if values.size:
        # Memory type equal to file type: HDF5 copies the bytes as they are.
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values), mtype=file_type(dtype))


def read_activations(dataset: h5py.Dataset, dtype: str) -> npt.NDArray[Any]:
    """Read a whole dataset as stored: float32, float16, or the bits of bfloat16 as uint16."""
    raw = np.empty(dataset.shape, dtype="<u2" if dtype == "bfloat16" else dtype)
    if raw.size:
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, mtype=file_type(dtype))
    return raw


def to_float32(raw: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    """Exact float32 values of what :func:`read_activations` returns."""
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32, copy=False)


@contextmanager
def whole_file(path: Path) -> Iterator[h5py.File]:
    """Write an HDF5 file under a temporary name; it gets its own name, synced to disk, only when all went well.

    Raises:
        TwinprobeError: the disk is full; what other files hold stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with h5py.File(temporary, "w", libver="latest") as file:
            yield file
        descriptor = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        temporary.replace(path)
    except OSError as error:
        if error.errno == errno.ENOSPC or "No space left" in str(error):
            raise disk_full(path, "what was finished is kept") from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def disk_full(path: Path, kept: str) -> TwinprobeError:
    """The error for a full disk."""
    return TwinprobeError(
        f"no space left on the disk of {path}; {kept}; free some space and run the same command again"
    )
