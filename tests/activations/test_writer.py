"""Writing a store: shards appear whole, a resume is refused or exact, damage is found, one process writes at a time."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import files

import activations
from activations.errors import TwinprobeError
from activations.hdf5 import damage
from activations.sites import Site
from activations.store import INPUT_COLUMNS, ROW_COLUMNS, ActivationStore
from activations.texts import Span, Text, text_set_hash
from activations.writer import BackgroundWriter, Shard, StoreWriter

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
    shards = [shard([(0, 0), (0, 1)], 1, dtype), shard([], 2, dtype), shard([(2, 0)], 3, dtype)]
    with StoreWriter(path, {**JOB, "storage_dtype": dtype}, TEXTS, 3) as writer:
        left = writer.missing(pytest.fail)
        for number, part in enumerate(shards):
            if number in left:
                writer.write(number, part)
        assert writer.missing(pytest.fail) == []
        writer.finish(changed=bool(left))
    return shards


def refusal(path: Path, job: dict[str, Any] = JOB, n_shards: int = 3) -> str:
    with pytest.raises(TwinprobeError) as caught:
        StoreWriter(path, job, TEXTS, n_shards)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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
    with StoreWriter(tmp_path / "empty", JOB, TEXTS, 1) as writer:
        assert writer.missing(pytest.fail) == [0]


@pytest.mark.parametrize(
    "left", [["store.json.tmp", ".lock"], ["store.json"], ["store.json", "shards", "texts.jsonl.tmp"]]
)
def test_a_run_killed_as_it_began_can_be_taken_up(tmp_path: Path, left: list[str]) -> None:
    """Each stage at which the first files of a store can have been cut off."""
    with StoreWriter(tmp_path / "whole", JOB, TEXTS, 3):
        pass
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
    assert {"store.json", "texts.jsonl", "index.h5", "shards/00002.h5"} < set(files(tmp_path / "a"))
    assert files(tmp_path / "a") == files(tmp_path / "b")


def flip(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_every_flipped_bit_and_every_cut_is_found(tmp_path: Path) -> None:
    """Anywhere in the file: user block, HDF5's own structure, rows. A gap in the user block's padding counts too."""
    write(tmp_path / "s")
    path = tmp_path / "s" / "shards" / "00000.h5"
    sound = path.read_bytes()
    assert damage(path) is None
    rng = np.random.default_rng(0)
    places = [0, 20, 27, 28, 511, 512, 520, len(sound) - 1, *rng.integers(0, len(sound), 200).tolist()]
    for place in places:
        flip(path, place, int(rng.integers(8)))
        assert damage(path) is not None, place
        path.write_bytes(sound)
    for length in (0, 1, 511, 512, 513, len(sound) // 2, len(sound) - 1):
        path.write_bytes(sound[:length])
        assert damage(path) == "it is cut off or has no checksum" or "its checksum is" in str(damage(path)), length
    path.unlink()
    assert damage(path) == "No such file or directory"


def test_a_damaged_shard_is_named_and_written_again_and_nothing_else(tmp_path: Path) -> None:
    shards = write(tmp_path / "s")
    before = files(tmp_path / "s")
    path = tmp_path / "s" / "shards" / "00002.h5"
    flip(path, len(before["shards/00002.h5"]) - 9, 3)
    said: list[str] = []
    checked: list[tuple[int, int]] = []
    with StoreWriter(tmp_path / "s", JOB, TEXTS, 3) as writer:
        assert writer.missing(said.append, lambda *done: checked.append(done)) == [2]
        assert len(said) == 1
        assert said[0].startswith(f"{path} is damaged (its checksum is ")
        assert said[0].endswith(") and is captured again")
        assert checked == [(1, 3), (2, 3), (3, 3)]
        writer.write(2, shards[2])
        writer.finish()
    assert files(tmp_path / "s") == before


@pytest.mark.parametrize("name", ["index.h5", "texts.jsonl"])
def test_other_damaged_files_are_made_again(tmp_path: Path, name: str) -> None:
    job = {**JOB, "texts": text_set_hash(TEXTS)}
    for damaged in (False, True):
        with StoreWriter(tmp_path / "s", job, TEXTS, 1) as writer:
            for number in writer.missing(pytest.fail):
                writer.write(number, shard([(0, 0)], 1))
            writer.finish(changed=not damaged)
        if not damaged:
            before = files(tmp_path / "s")
            flip(tmp_path / "s" / name, len(before[name]) // 2, 1)
            assert files(tmp_path / "s") != before
    assert files(tmp_path / "s") == before


HOLD = """
import sys, time
sys.path.insert(0, sys.argv[1])
from activations.writer import StoreWriter
with StoreWriter(sys.argv[2], {"storage_dtype": "float32", "sites": []}, [], 1):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_until_the_first_is_gone_however_it_went(tmp_path: Path) -> None:
    root = str(Path(activations.__file__).parents[1])
    with subprocess.Popen([sys.executable, "-c", HOLD, root, str(tmp_path / "s")], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        said = refusal(tmp_path / "s", {"storage_dtype": "float32", "sites": []}, 1)
        assert said == f"another process is writing {tmp_path / 's'}; wait for it, or choose another output folder"
        other.kill()
    with StoreWriter(tmp_path / "s", {"storage_dtype": "float32", "sites": []}, [], 1):
        assert "another process is writing" in refusal(tmp_path / "s", {"storage_dtype": "float32", "sites": []}, 1)
    with pytest.raises(ArithmeticError), StoreWriter(tmp_path / "s", {"storage_dtype": "float32", "sites": []}, [], 1):
        raise ArithmeticError
    with StoreWriter(tmp_path / "s", {"storage_dtype": "float32", "sites": []}, [], 1) as writer:
        assert writer.missing(pytest.fail) == [0]


def test_the_background_keeps_order_and_loses_nothing() -> None:
    """Shards are written while the next comes; an error comes out at a later one or at the end, never unseen."""
    written: list[int] = []
    part = shard([(0, 0)], 1)
    go = threading.Event()

    def write_one(number: int, given: Shard) -> None:
        assert given is part
        assert go.wait(60)
        if number == 7:
            raise TwinprobeError("seven")
        written.append(number)

    with BackgroundWriter(write_one) as background:
        background.put(0, part)
        background.put(1, part)
        assert written == [], "it does not wait for its own shards"
        go.set()
        background.put(2, part)
        assert 0 in written, "it waits for the first"
    assert sorted(written) == [0, 1, 2]
    written.clear()
    with pytest.raises(TwinprobeError, match="seven"), BackgroundWriter(write_one) as background:
        for number in (7, 8, 9):
            background.put(number, part)
    assert written == [8], "what was under way is finished, nothing more begun"
    written.clear()
    with pytest.raises(TwinprobeError, match="seven"), BackgroundWriter(write_one) as background:
        background.put(7, part)
    with pytest.raises(ArithmeticError), BackgroundWriter(write_one) as background:
        background.put(2, part)
        raise ArithmeticError
    assert written == [2], "what was computed is written though another error came"
