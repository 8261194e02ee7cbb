"""HDF5 pieces the store is made of: a bfloat16 type, exact writes and reads, files that appear whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from activations.files import write_whole

STORED_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
BLOCK_BYTES = 2**20
"""By how much a file in memory grows at a time."""


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
    dataset = h5py.h5d.create(group.id, name.encode(), file_type(dtype), space, dcpl=undated(), lcpl=properties)
    if values.size:
        # Memory type equal to file type: HDF5 copies the bytes as they are.
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.ascontiguousarray(values), mtype=file_type(dtype))


def undated() -> h5py.h5p.PropDCID:
    """Creation properties of a dataset without time stamps, so that equal rows make equal files."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_obj_track_times(False)
    return properties


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
    """An HDF5 file to fill; it is on disk under ``path`` only when all went well.

    It is built in memory: HDF5 2.0 crashes the interpreter when the disk is full as it closes a file of its own.

    Raises:
        TwinprobeError: the disk is full; what other files hold stays.
    """
    with h5py.File(path.name, "w", driver="core", backing_store=False, block_size=BLOCK_BYTES, libver="latest") as file:
        yield file
        file.flush()
        image = file.id.get_file_image()
    write_whole(path, image)
