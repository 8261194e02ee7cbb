"""Verification: every file that is not as it was written, or does not fit the others, is named, and a sound store passes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_stores import write_store

from activations.errors import TwinprobeError
from activations.hdf5 import whole_file
from activations.store import ActivationStore
from activations.verifying import verify


@pytest.fixture
def store(tmp_path: Path) -> Path:
    write_store(tmp_path / "s", rows="spans", dtype="float16")
    return tmp_path / "s"


@pytest.mark.parametrize("rows", ["tokens", "spans"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sound_store_has_no_problems(tmp_path: Path, rows: str, dtype: str) -> None:
    write_store(tmp_path / "s", rows=rows, dtype=dtype)
    seen: list[tuple[int, int]] = []
    assert verify(tmp_path / "s", lambda done, total: seen.append((done, total))) == []
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    for compress in (None, "zstd"):
        packed = ActivationStore(tmp_path / "s").pack(tmp_path / f"{compress}.h5", compress)
        assert packed.verify() == []


@pytest.mark.parametrize("compress", [None, "zstd"])
def test_every_damaged_byte_of_every_file_is_found(tmp_path: Path, store: Path, compress: str | None) -> None:
    """But in the provenance, which nothing is known to be held against."""
    ActivationStore(store).pack(tmp_path / "p.h5", compress)
    files = [store / "index.h5", store / "texts.jsonl", *(store / "shards").iterdir(), tmp_path / "p.h5"]
    contents = {file: file.read_bytes() for file in files}

    @given(st.sampled_from(files), st.floats(0, 1, exclude_max=True), st.integers(0, 7), st.booleans())
    @settings(max_examples=150)
    def check(file: Path, place: float, bit: int, cut: bool) -> None:
        content = bytearray(contents[file])
        at = int(place * len(content))
        if cut:
            del content[at:]
        else:
            content[at] ^= 1 << bit
        file.write_bytes(content)
        try:
            problems = verify(tmp_path / "p.h5" if file.name == "p.h5" else store)
            assert problems and all("\n" not in problem for problem in problems)
            assert any(str(file) in problem for problem in problems)
        finally:
            file.write_bytes(contents[file])

    check()


def test_missing_files_are_named(store: Path) -> None:
    (store / "shards" / "00001.h5").unlink()
    (store / "index.h5").unlink()
    assert verify(store) == [f"{store / 'shards' / '00001.h5'}: it is missing", f"{store / 'index.h5'}: it is missing"]
    (store / "texts.jsonl").unlink()
    assert f"{store / 'texts.jsonl'}: no such file" in verify(store)[0]
    assert len(verify(store)) == 3
    (store / "store.json").write_text("{")
    assert [problem.split(" (")[0] for problem in verify(store)] == [f"{store / 'store.json'} is damaged"]
    (store / "store.json").unlink()
    with pytest.raises(TwinprobeError, match="holds no store"):
        verify(store)


def test_a_shard_too_many_is_named(store: Path) -> None:
    shutil.copy(store / "shards" / "00002.h5", store / "shards" / "00003.h5")
    assert verify(store) == [f"{store / 'shards' / '00003.h5'}: the store has 3 shards, this is none of them"]


def test_shards_in_each_others_place_are_found(store: Path) -> None:
    """Each is whole by itself."""
    first, third = store / "shards" / "00000.h5", store / "shards" / "00002.h5"
    content = first.read_bytes()
    first.write_bytes(third.read_bytes())
    third.write_bytes(content)
    assert f"{third}: rows/text is not in the order of the texts" in verify(store)


def test_other_texts_are_found(store: Path) -> None:
    texts = store / "texts.jsonl"
    texts.write_text(texts.read_text().replace('"def"', '"use"'))
    [problem] = verify(store)
    assert problem.startswith(f"{texts}: its texts have the hash ")
    texts.write_text(texts.read_text().splitlines()[0] + "\n")
    assert any("text counts to " in problem and "there are 1 texts" in problem for problem in verify(store))


def rewrite(file: Path, change: Callable[[dict[str, np.ndarray]], Any]) -> None:
    """The same file with other contents, whole and with a checksum that fits."""
    held: dict[str, np.ndarray] = {}
    with h5py.File(file) as handle:
        handle.visititems(lambda name, item: held.update({name: item[:]}) if isinstance(item, h5py.Dataset) else None)
    change(held)
    with whole_file(file) as made:
        for name, values in held.items():
            made[name] = values


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("rows/text", 99, "rows/text counts to 99, there are 7 texts"),
        ("rows/text", 0, "rows/text is not in the order of the texts"),
        ("inputs/text", 99, "inputs/text counts to 99"),
        ("rows/position", 4, "rows/position is out of range at"),
        ("rows/position", -1, "rows/position is out of range at"),
        ("rows/span", 2, "rows/span is out of range at"),
        ("rows/span", -2, "rows/span is out of range at"),
        ("rows/start", -1, "rows/start is out of range at"),
        ("rows/end", 4, "rows/end is out of range at"),
        ("rows/end", 0, "rows/start is out of range at"),
        ("inputs/end", 4, "inputs/end is out of range at"),
    ],
)
def test_numbers_that_can_not_be_are_found(store: Path, name: str, value: int, expected: str) -> None:
    file = store / "shards" / "00002.h5"
    rewrite(file, lambda held: held[name].__setitem__(-1, value))
    assert [problem for problem in verify(store) if problem.startswith(f"{file}: {expected}")]


def test_rows_too_few_other_widths_and_other_types_are_found(store: Path) -> None:
    file = store / "shards" / "00002.h5"
    rewrite(file, lambda held: held.update({"z/1.2": held["z/1.2"][:-1], "ln_final": held["ln_final"][:, 1:]}))
    found = " ".join(verify(store))
    assert "z.1.2 has shape" in found
    assert "ln_final has shape" in found
    rewrite(file, lambda held: held.update({"z/1.2": held["z/1.2"].astype(np.float64)}))
    assert "z.1.2 is not stored as float16" in " ".join(verify(store))
    rewrite(file, lambda held: held.pop("z/1.2"))
    assert verify(store) == [f"{file}: it has no z/1.2"]
    rewrite(file, lambda held: held.update({"rows/end": held["rows/end"][1:]}))
    assert verify(store) == [f"{file}: it has no z/1.2"]
    write_store(store.parent / "t")
    file = store.parent / "t" / "shards" / "00000.h5"
    rewrite(file, lambda held: held.update({"rows/end": held["rows/end"][1:]}))
    assert verify(store.parent / "t") == [f"{file}: its columns of rows differ in length"]


def test_the_index_of_other_shards_is_found(tmp_path: Path, store: Path) -> None:
    write_store(tmp_path / "other", rows="spans", dtype="float16", cuts=(1, 3))
    shutil.copy(tmp_path / "other" / "index.h5", store / "index.h5")
    assert verify(store) == [f"{store / 'index.h5'}: it does not fit the rows and tokens of the shards"]
    write_store(tmp_path / "wide", rows="spans", dtype="float16", sites={"resid_post.0": 4, "z.1.2": 9})
    shutil.copy(tmp_path / "wide" / "index.h5", store / "index.h5")
    assert len(verify(store)) == 3, "two sites are missing, one is wider"


def test_a_packed_store_of_other_texts_or_shards_is_found(tmp_path: Path, store: Path) -> None:
    ActivationStore(store).pack(tmp_path / "p.h5")
    content = (tmp_path / "p.h5").read_bytes()
    rewrite(tmp_path / "p.h5", lambda held: held.update({"shards/rows": held["shards/rows"][:-1]}))
    assert "its list of shards does not fit" in " ".join(verify(tmp_path / "p.h5"))
    (tmp_path / "p.h5").write_bytes(content)
    record = json.loads((store / "store.json").read_text())
    changed = np.frombuffer(json.dumps({**record, "texts": "0" * 32}).encode(), np.uint8)
    rewrite(tmp_path / "p.h5", lambda held: held.update({"store.json": changed}))
    assert "texts.jsonl: its texts have the hash" in " ".join(verify(tmp_path / "p.h5"))
