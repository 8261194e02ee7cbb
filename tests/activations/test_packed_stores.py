"""Packing: one file holds all of a store, bit for bit, and any HDF5 tool reads it."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pytest
from conftest import file_size_limit
from random_stores import SITES, write_store

import activations
from activations.errors import TwinprobeError
from activations.hdf5 import STORED_BYTES, damage, file_type
from activations.packing import pack
from activations.store import ActivationStore

ROOT = Path(str(activations.__file__)).parents[1]


@pytest.mark.parametrize("compress", [None, "zstd"])
@pytest.mark.parametrize("rows", ["tokens", "spans"])
@pytest.mark.parametrize("dtype", list(STORED_BYTES))
def test_a_packed_store_is_the_store(tmp_path: Path, dtype: str, rows: str, compress: str | None) -> None:
    expected = write_store(tmp_path / "s", range(3, 12), (1, 2, 7), dtype=dtype, rows=rows)
    folder = ActivationStore(tmp_path / "s")
    seen: list[tuple[str, int, int]] = []
    store = pack(tmp_path / "s", tmp_path / "p.h5", compress, lambda *report: seen.append(report))
    assert seen[-1] == ("sites", len(SITES), len(SITES))
    assert ("verifying", 5, 5) in seen
    assert store.packed and not folder.packed
    assert store.provenance == folder.provenance
    assert store.texts == expected.texts
    assert store.rows.equals(folder.rows)
    assert store.inputs.equals(folder.inputs)
    for site in SITES:
        assert store.width(site) == SITES[site]
        assert store.raw(site).tobytes() == expected.raw[site].tobytes()
        assert store.raw(site, [3, 1]).tobytes() == expected.raw[site][[3, 1]].tobytes()
    assert store.layout.rows.tolist() == folder.layout.rows.tolist()
    assert store.layout.tokens.tolist() == folder.layout.tokens.tolist()
    assert store.size == (tmp_path / "p.h5").stat().st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.h5", "s"]


@pytest.mark.parametrize("dtype", list(STORED_BYTES))
def test_every_bit_pattern_survives_compression_in_many_chunks(tmp_path: Path, dtype: str) -> None:
    expected = write_store(tmp_path / "s", range(150), (70,), dtype=dtype, sites={"embed": 2048})
    if dtype != "float32":
        assert len(np.unique(expected.raw["embed"].view(np.uint16))) == 2**16
    store = pack(tmp_path / "s", tmp_path / "p.h5", "zstd")
    with h5py.File(tmp_path / "p.h5") as file:
        assert 3 < len(expected.raw["embed"]) / file["embed"].chunks[0] < 30
        assert file["embed"].id.get_type() == file_type(dtype)
    assert store.raw("embed").tobytes() == expected.raw["embed"].tobytes()
    for rows in ([0, 449], [63, 64, 65, 200], np.arange(0, 450, 3), np.arange(60, 300)):
        assert store.read("embed", rows).tobytes() == expected.read("embed")[rows].tobytes()


def test_any_hdf5_reader_sees_the_rows(tmp_path: Path) -> None:
    expected = write_store(tmp_path / "s", dtype="bfloat16")
    for compress in (None, "zstd"):
        pack(tmp_path / "s", tmp_path / f"{compress}.h5", compress)
        assert damage(tmp_path / f"{compress}.h5") is None
        with h5py.File(tmp_path / f"{compress}.h5") as file:
            np.testing.assert_array_equal(file["z/1.2"][:], expected.read("z.1.2"))
            assert file["rows/token"][:].tolist() == expected.rows["token"].tolist()
            assert bytes(file["texts.jsonl"][:]) == (tmp_path / "s" / "texts.jsonl").read_bytes()
            assert bytes(file["store.json"][:]) == (tmp_path / "s" / "store.json").read_bytes()


def test_what_repeats_takes_less_room_compressed(tmp_path: Path) -> None:
    write_store(tmp_path / "s", range(1, 60), sites={"embed": 512})
    pack(tmp_path / "s", tmp_path / "plain.h5")
    with h5py.File(tmp_path / "plain.h5") as file:
        assert file["embed"].chunks is None
        assert file["embed"].id.get_storage_size() == 59 * 3 * 512 * 4
    pack(tmp_path / "s", tmp_path / "small.h5", "zstd")
    with h5py.File(tmp_path / "small.h5") as file:
        assert file["rows/token"].id.get_storage_size() < 59 * 3 * 8 / 2
        assert file["embed"].id.get_storage_size() < 59 * 3 * 512 * 4


def test_the_same_store_gives_the_same_file_and_a_packed_one_can_be_packed_again(tmp_path: Path) -> None:
    write_store(tmp_path / "s", rows="spans")
    for name, source, compress in (("a", "s", None), ("b", "s", None), ("c", "s", "zstd"), ("d", "c", None)):
        pack(tmp_path / source, tmp_path / name, compress)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "d").read_bytes()


def test_packing_needs_little_memory(tmp_path: Path) -> None:
    write_store(tmp_path / "s", range(700), range(100, 700, 100), sites={"embed": 4096})
    for compress in (None, "zstd"):
        tracemalloc.start()
        pack(tmp_path / "s", tmp_path / f"{compress}.h5", compress)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2100 * 4096 * 4 / 5


def test_what_can_not_be_packed_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    write_store(tmp_path / "s")

    def message(out: Path, compress: str | None = None) -> str:
        with pytest.raises(TwinprobeError) as caught:
            pack(tmp_path / "s", out, compress)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    (tmp_path / "there").write_text("mine")
    assert f"{tmp_path / 'there'} is there already" in message(tmp_path / "there")
    assert (tmp_path / "there").read_text() == "mine"
    assert f"there is no folder {tmp_path / 'absent'}" in message(tmp_path / "absent" / "p.h5")
    assert "compression 'zstb' is not known (did you mean 'zstd'?)" in message(tmp_path / "p.h5", "zstb")
    with file_size_limit(2000):
        assert "no space left on the disk" in message(tmp_path / "p.h5")
    shard = tmp_path / "s" / "shards" / "00001.h5"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert f"{tmp_path / 's'} is not sound: {shard}: its checksum is" in message(tmp_path / "p.h5")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s", "there"]


def test_without_hdf5plugin_one_line_says_what_is_missing(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    pack(tmp_path / "s", tmp_path / "p.h5", "zstd")
    script = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
sys.modules["hdf5plugin"] = None
from pathlib import Path
from activations.errors import TwinprobeError
from activations.packing import pack
from activations.store import ActivationStore
folder = Path({str(tmp_path)!r})
store = ActivationStore(folder / "p.h5")
assert store.texts and store.sites
for call in (lambda: store.rows, lambda: store.read("ln_final"), lambda: pack(folder / "s", folder / "q.h5", "zstd")):
    try:
        call()
    except TwinprobeError as error:
        print(error)
assert pack(folder / "s", folder / "q.h5").read("ln_final").shape == (21, 5)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert len(lines) == 3
    assert all("pip install hdf5plugin (or twinprobe[compress])" in line for line in lines)
    assert lines[0].startswith(f"{tmp_path / 'p.h5'} is compressed")
    assert hdf5plugin.get_filters("bshuf")


@pytest.mark.parametrize("name", ["absent.h5", "texts.jsonl"])
def test_a_file_that_is_no_packed_store_is_refused(tmp_path: Path, name: str) -> None:
    write_store(tmp_path / "s")
    with pytest.raises(TwinprobeError, match=r"holds no store|texts\.jsonl is damaged"):
        ActivationStore(tmp_path / "s" / name)
    with pytest.raises(TwinprobeError, match=r"is no packed store \(it holds no store\.json\); twinprobe store pack"):
        ActivationStore(tmp_path / "s" / "index.h5")
