"""The store: what was written is read, by any HDF5 tool too; what is not a finished store of this job is refused."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from activations.errors import TwinprobeError
from activations.sites import Site
from activations.store import INPUT_COLUMNS, ROW_COLUMNS, ActivationStore, Shard, StoreWriter
from activations.texts import Span, Text

SITES = (Site("resid_post", 0), Site("z", 1), Site("z", 1, 2), Site("ln_final"))
TEXTS = [
    Text("a", "x = 1", (Span("name", 0, 1, "def", "key"), Span("value", 4, 5)), "file"),
    Text("b", "nothing"),
    Text("c", "y = x", (Span("name", 4, 5, "use"),)),
]
JOB: dict[str, Any] = {
    "model": {"name": "tiny", "fingerprint": "full:0"},
    "sites": [str(site) for site in SITES],
    "rows": "spans",
    "storage_dtype": "float32",
}


def shard(texts: list[tuple[int, int]], seed: int, dtype: str = "float32") -> Shard:
    """Random rows for (text, span) pairs; the model read two tokens of each text."""
    rng = np.random.default_rng(seed)
    n = len(texts)
    columns = {name: rng.integers(0, 99, n) for name in ROW_COLUMNS}
    columns["text"] = np.array([text for text, _ in texts], dtype=np.int64)
    columns["span"] = np.array([span for _, span in texts], dtype=np.int64)
    values: dict[Site, Any] = {site: rng.standard_normal((n, 4 + 2 * i)) for i, site in enumerate(SITES)}
    kind = {"float32": np.float32, "float16": np.float16}.get(dtype)
    if kind is None:
        values = {site: rng.integers(0, 2**16, value.shape, dtype=np.uint16) for site, value in values.items()}
    inputs = {name: rng.integers(0, 3, 2 * n) for name in INPUT_COLUMNS}
    return Shard(columns, {site: value.astype(kind or np.uint16) for site, value in values.items()}, inputs)


def write(path: Path, dtype: str = "float32") -> list[Shard]:
    """A store of three shards, the middle one without rows."""
    writer = StoreWriter(path, {**JOB, "storage_dtype": dtype}, TEXTS, 3)
    shards = [shard([(0, 0), (0, 1)], 1, dtype), shard([], 2, dtype), shard([(2, 0)], 3, dtype)]
    for number, part in enumerate(shards):
        assert not writer.has(number)
        writer.write(number, part)
        assert writer.has(number)
    writer.finish()
    return shards


def refusal(path: Path, job: dict[str, Any] = JOB, n_shards: int = 3) -> str:
    with pytest.raises(TwinprobeError) as caught:
        StoreWriter(path, job, TEXTS, n_shards)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_rows_come_back_across_shards(tmp_path: Path, dtype: str) -> None:
    shards = write(tmp_path / "s", dtype)
    store = ActivationStore(tmp_path / "s")
    assert store.dtype == dtype
    assert store.sites == ["resid_post.0", "z.1", "z.1.2", "ln_final"]
    for site in SITES:
        raw = np.concatenate([part.values[site] for part in shards])
        expected = (raw.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else raw.astype(np.float32)
        for found in (store.read(site), store.read(str(site))):
            assert found.dtype == np.float32
            assert found.tobytes() == expected.tobytes()
        assert store.read(site, [2, 0]).tobytes() == expected[[2, 0]].tobytes()
        assert store.read(site, []).shape == (0, expected.shape[1])


def test_any_hdf5_reader_sees_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the index alone, from any working directory, also after the store has moved."""
    write(tmp_path / "s", "bfloat16")
    expected = ActivationStore(tmp_path / "s").read("z.1.2")
    (tmp_path / "s").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    with h5py.File(tmp_path / "moved" / "index.h5") as index:
        assert set(index) == {"rows", "inputs", "resid_post", "z", "ln_final"}
        assert index["z/1.2"].dtype == np.float32
        np.testing.assert_array_equal(index["z/1.2"][:], expected)
        np.testing.assert_array_equal(index["z"]["1.2"][1:, 3], expected[1:, 3])
        assert index["rows/text"][:].tolist() == [0, 0, 2]


def test_rows_say_what_they_are(tmp_path: Path) -> None:
    shards = write(tmp_path / "s")
    store = ActivationStore(tmp_path / "s")
    assert store.texts == TEXTS
    rows = store.rows
    assert rows.text.tolist() == ["a", "a", "c"]
    assert rows.group.tolist() == ["file", "file", "c"]
    assert rows.span.tolist() == ["name", "value", "name"]
    assert rows.label.tolist() == ["def", None, "use"]
    assert rows.control.tolist() == ["key", "1", "x"], "the span's own text where it has no key"
    for name in ("position", "token", "start", "end"):
        assert rows[name].tolist() == [*shards[0].columns[name], *shards[2].columns[name]]
    picked = store.read("ln_final", rows[rows.span == "name"].index)
    assert picked.tobytes() == store.read("ln_final")[[0, 2]].tobytes()
    assert len(store.inputs) == 6
    assert set(store.inputs.columns) == {"text", "token", "start", "end"}


def test_an_unknown_site_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "s")
    with pytest.raises(TwinprobeError, match=r"has no site 'resid_post\.1' \(did you mean 'resid_post\.0'") as caught:
        ActivationStore(tmp_path / "s").read("resid_post.1")
    assert "it has resid_post.0, z.1, z.1.2, ln_final" in str(caught.value)


def test_what_is_not_a_finished_store_does_not_open(tmp_path: Path) -> None:
    def message() -> str:
        with pytest.raises(TwinprobeError) as caught:
            ActivationStore(tmp_path / "s")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "holds no store (no store.json)" in message()
    writer = StoreWriter(tmp_path / "s", JOB, TEXTS, 3)
    assert "is not finished (0 of 3 shards); run the same twinprobe cache command again" in message()
    writer.write(0, shard([(0, 0)], 1))
    assert "(1 of 3 shards)" in message()
    shutil.rmtree(tmp_path / "s")
    write(tmp_path / "s")
    (tmp_path / "s" / "shards" / "00001.h5").unlink()
    assert "(2 of 3 shards)" in message(), "the index would read zeros"
    record = tmp_path / "s" / "store.json"
    kept = record.read_text()
    record.write_text(kept[:30])
    assert f"{record} is damaged" in message()
    record.write_text(json.dumps({**json.loads(kept), "schema": 99}))
    assert "has schema 99, this version reads 1; capture it again" in message()
    record.write_text("[]")
    assert "has schema None" in message()


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rows": "tokens"}, 'its rows is "spans", this job\'s is "tokens"'),
        ({"sites": ["embed"]}, 'its sites is ["resid_post.0", "z.1", "z.1.2", "ln_final"], this job\'s is ["embed"]'),
        ({"texts": "00"}, 'its texts is null, this job\'s is "00"'),
        (
            {"model": {"name": "tiny", "fingerprint": "full:1"}},
            'its model is {"fingerprint": "full:0"}, this job\'s is {"fingerprint": "full:1"}',
        ),
    ],
)
def test_the_store_of_another_job_is_refused_with_the_difference(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    write(tmp_path / "s")
    before = {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()}
    said = refusal(tmp_path / "s", {**JOB, **change})
    assert said.startswith(f"{tmp_path / 's'} holds a store of another job: {expected}; choose another output folder")
    assert "its shards is 3, this job's is 4" in refusal(tmp_path / "s", n_shards=4)
    assert {path: path.read_bytes() for path in (tmp_path / "s").rglob("*") if path.is_file()} == before


def test_a_folder_that_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "texts.jsonl").write_text("mine")
    assert "is not empty and holds no store; choose another output folder" in refusal(tmp_path)
    assert (tmp_path / "texts.jsonl").read_text() == "mine"
    assert "is not empty" in refusal(tmp_path / "texts.jsonl")
    assert "cannot be written (Not a directory)" in refusal(tmp_path / "texts.jsonl" / "deeper")
    assert list(tmp_path.iterdir()) == [tmp_path / "texts.jsonl"]
    (tmp_path / "empty").mkdir()
    StoreWriter(tmp_path / "empty", JOB, TEXTS, 1)


@pytest.mark.parametrize("left", [["store.json.tmp"], ["store.json"], ["store.json", "shards", "texts.jsonl.tmp"]])
def test_a_run_killed_as_it_began_can_be_taken_up(tmp_path: Path, left: list[str]) -> None:
    """Each stage at which the first files of a store can have been cut off."""
    StoreWriter(tmp_path / "whole", JOB, TEXTS, 3)
    (tmp_path / "s").mkdir()
    for name in left:
        if name == "shards":
            (tmp_path / "s" / name).mkdir()
        elif name == "store.json":
            shutil.copy(tmp_path / "whole" / name, tmp_path / "s" / name)
        else:
            (tmp_path / "s" / name).write_text("{")
    shards = write(tmp_path / "s")
    store = ActivationStore(tmp_path / "s")
    assert store.texts == TEXTS
    assert len(store.rows) == sum(len(part.columns["text"]) for part in shards)


def test_writing_the_same_twice_gives_the_same_files(tmp_path: Path) -> None:
    write(tmp_path / "a", "bfloat16")
    time.sleep(1.1)  # HDF5 would stamp datasets with the second they were made in
    write(tmp_path / "b", "bfloat16")
    names = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(names) == 6
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
