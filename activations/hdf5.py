"""HDF5 pieces the store is made of: a bfloat16 type, exact writes and reads, whole and checked files.

Every file begins with a user block of 512 bytes, which HDF5 leaves alone. Its first line is a checksum of all that
follows: ``twinprobe crc32 0a1b2c3d``.
"""

from __future__ import annotations

import mmap
import os
import re
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from activations.files import FULL, disk_full

STORED_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
USER_BLOCK = 512
_CHECKSUM = re.compile(rb"twinprobe crc32 ([0-9a-f]{8})\n\0*")
_CHUNK = 2**24


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


def to_float32(raw: npt.NDArray[Any], dtype: str) -> npt.NDArray[np.float32]:
    """Exact float32 values of float32, float16, or the bits of bfloat16 as uint16."""
    if dtype == "bfloat16":
        return (raw.astype(np.uint32) << 16).view(np.float32)
    return raw.astype(np.float32, copy=False)


@contextmanager
def whole_file(path: Path) -> Iterator[h5py.File]:
    """An HDF5 file to fill; it is on disk under ``path``, with its checksum, only when all went well.

    Raises:
        TwinprobeError: the disk is full; what other files hold stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666)
        try:
            sink = _Sink(handle)
            with h5py.File(sink, "w", libver="latest", userblock_size=USER_BLOCK) as file:
                yield file
            if sink.error is not None:
                raise sink.error
            with ThreadPoolExecutor(1) as pool:  # most of the time goes into syncing, the checksum is free beside it
                synced = pool.submit(os.fsync, handle)
                checksum = _checksum(handle)
                synced.result()
            os.pwrite(handle, b"twinprobe crc32 %08x\n" % checksum, 0)
            os.fsync(handle)
        finally:
            os.close(handle)
        temporary.replace(path)
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(path, "what was finished is kept") from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def damage(path: Path) -> str | None:
    """What is wrong with a file of :func:`whole_file`: ``None`` when every byte is as it was written."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError as error:
        return str(error.strerror)
    try:
        size = os.fstat(handle).st_size
        held = _CHECKSUM.fullmatch(os.pread(handle, USER_BLOCK, 0))
        if size <= USER_BLOCK or held is None:
            return "it is cut off or has no checksum"
        found = b"%08x" % _checksum(handle)
        return None if found == held[1] else f"its checksum is {found.decode()}, not {held[1].decode()}"
    except OSError as error:
        return str(error.strerror)
    finally:
        os.close(handle)


def _checksum(handle: int) -> int:
    """CRC-32 of all after the user block."""
    value = 0
    with mmap.mmap(handle, 0, prot=mmap.PROT_READ) as content, memoryview(content) as view:
        for start in range(USER_BLOCK, len(view), _CHUNK):
            with view[start : start + _CHUNK] as part:
                value = zlib.crc32(part, value)
    return value


class _Sink:
    """A file for h5py to write into that never fails: HDF5 2.0 crashes the interpreter when a disk is full at closing.

    The first error is kept in ``error`` for whoever closes the file.
    """

    def __init__(self, handle: int) -> None:
        self.handle, self.position = handle, 0
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self.position, os.SEEK_END: os.fstat(self.handle).st_size}[whence]
        self.position = start + offset
        return self.position

    def tell(self) -> int:
        return self.position

    def readinto(self, buffer: memoryview) -> int:
        content = os.pread(self.handle, len(buffer), self.position)
        buffer[: len(content)] = content
        self.position += len(content)
        return len(content)

    def read(self, size: int) -> bytes:
        content = os.pread(self.handle, size, self.position)
        self.position += len(content)
        return content

    def write(self, content: memoryview) -> int:
        left, start = memoryview(content), self.position
        self.position += len(left)
        try:
            while self.error is None and len(left):
                written = os.pwrite(self.handle, left, start)
                left, start = left[written:], start + written
        except OSError as error:
            self.error = error
        return len(content)

    def truncate(self, size: int) -> int:
        try:
            os.ftruncate(self.handle, size)
        except OSError as error:
            self.error = self.error or error
        return size

    def flush(self) -> None:
        """Everything was handed to the operating system as it came."""
