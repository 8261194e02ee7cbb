"""The HDF5 pieces: every bit pattern survives, any HDF5 reader sees numbers, files appear whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from conftest import file_size_limit
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from activations.errors import TwinprobeError
from activations.hdf5 import STORED_BYTES, file_type, to_float32, whole_file, write_activations

PATTERNS = np.arange(2**16, dtype=np.uint16)
"""All of them: zeros, subnormals, infinities and every NaN."""
FLOAT32 = np.concatenate([PATTERNS.astype(np.uint32) << 16, np.arange(2**16, dtype=np.uint32) * 65537]).view(np.float32)
STORED = {"bfloat16": PATTERNS, "float16": PATTERNS.view(np.float16), "float32": FLOAT32}


def stored(dataset: h5py.Dataset, dtype: str) -> npt.NDArray[Any]:
    """All of a dataset as it is stored, through HDF5 itself."""
    raw = np.empty(dataset.shape, dtype="<u2" if dtype == "bfloat16" else dtype)
    if raw.size:
        dataset.id.read(h5py.h5s.ALL, h5py.h5s.ALL, raw, mtype=file_type(dtype))
    return raw


@pytest.mark.parametrize("dtype", STORED)
def test_every_bit_pattern_survives(tmp_path: Path, dtype: str) -> None:
    values = STORED[dtype].reshape(-1, 256)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write_activations(file, "deep/er/3", values, dtype)
        write_activations(file, "strided", values[:, ::2], dtype)
        write_activations(file, "empty", values[:0], dtype)
    with h5py.File(tmp_path / "a.h5") as file:
        found = stored(file["deep/er/3"], dtype)
        assert found.dtype == values.dtype
        assert found.tobytes() == values.tobytes()
        assert stored(file["strided"], dtype).tobytes() == values[:, ::2].tobytes()
        assert stored(file["empty"], dtype).shape == (0, 256)
        assert file["deep/er/3"].id.get_storage_size() == values.size * STORED_BYTES[dtype]


@pytest.mark.parametrize("dtype", STORED)
def test_a_plain_reader_sees_the_numbers(tmp_path: Path, dtype: str) -> None:
    values = STORED[dtype]
    with h5py.File(tmp_path / "a.h5", "w") as file:
        write_activations(file, "x", values, dtype)
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["x"].dtype == (np.float16 if dtype == "float16" else np.float32)
        plain = file["x"][:].astype(np.float32)
        ours = to_float32(stored(file["x"], dtype), dtype)
    if dtype == "bfloat16":
        torch_s = torch.from_numpy(values.view(np.int16)).view(torch.bfloat16).float().numpy()
        assert torch_s.tobytes() == ours.tobytes()
    assert ours.dtype == np.float32
    np.testing.assert_array_equal(plain, ours)  # NaN where NaN; payloads may differ in a converting reader
    number = ~np.isnan(ours)
    assert plain[number].tobytes() == ours[number].tobytes()  # also the sign of zero


@given(arrays(np.float32, st.integers(1, 30), elements=st.floats(width=32)))
def test_what_torch_rounds_to_bfloat16_comes_back_as_it_is(values: np.ndarray) -> None:
    rounded = torch.from_numpy(values).to(torch.bfloat16)
    bits = rounded.view(torch.uint16).numpy()
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        write_activations(file, "x", bits, "bfloat16")
        np.testing.assert_array_equal(to_float32(stored(file["x"], "bfloat16"), "bfloat16"), rounded.float())


def test_bfloat16_is_described_in_the_file_itself() -> None:
    kind = file_type("bfloat16")
    assert (kind.get_size(), kind.get_fields(), kind.get_ebias()) == (2, (15, 7, 8, 0, 7), 127)
    assert kind.get_order() == h5py.h5t.ORDER_LE


def test_a_file_appears_only_when_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(KeyError), whole_file(path) as file:
        file["x"] = 1
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with whole_file(path) as file:
        file["x"] = 1
        assert not path.exists()
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(KeyError), whole_file(path) as file:
        file["x"] = 2
        raise KeyError
    with h5py.File(path) as file:
        assert file["x"][()] == 1, "what was there before stays"


@pytest.mark.parametrize("rows", [100, 10_000])
def test_a_write_that_the_system_refuses_is_one_line(tmp_path: Path, rows: int) -> None:
    """HDF5 itself would crash the interpreter here, for a file small enough to be buffered until it is closed."""
    path = tmp_path / "a.h5"
    with pytest.raises(TwinprobeError) as caught, file_size_limit(16_384), whole_file(path) as file:
        write_activations(file, "x", np.ones((rows, 64), np.float32), "float32")
        write_activations(file, "y", np.ones((rows, 64), np.float32), "float32")
    assert str(caught.value).startswith(f"no space left on the disk of {path}; what was finished is kept; ")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_another_system_error_is_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), whole_file(tmp_path / "absent" / "a.h5"):
        pass
