"""Capture on Ray: two workers give the store that one process gives, also when a worker is killed on the way."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from conftest import files

from activations import capturing
from activations.capturing import capture
from activations.errors import TwinprobeError
from activations.models import load_model
from activations.sites import parse_sites
from activations.texts import Text

TEXTS = [Text(f"t{i}", "def area(width, height):\n    return width * height\n"[: 5 + i]) for i in range(40)]
SITES = parse_sites("resid_post.*,z.1.2", 3, 4)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One local Ray for all tests of this file, whose workers are processes of this machine."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.fixture
def job(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr(capturing, "SHARD_BYTES", 6_000)
    return {"loaded": load_model(str(model_folder)), "texts": TEXTS, "sites": SITES, "bos": True}


@pytest.fixture
def whole(job: dict[str, Any], tmp_path: Path) -> dict[str, bytes]:
    """The files that one process leaves."""
    capture(**job, out=tmp_path / "whole")
    found = files(tmp_path / "whole")
    assert sum(name.startswith("shards/") for name in found) > 8
    return found


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1", "Ray at 127.0.0.1:1 can not be used: "),
        ("ray://127.0.0.1:1", "Ray at ray://127.0.0.1:1 can not be used: "),
        ("head-node", "Ray address 'head-node' is not one; expected auto, HOST:PORT or ray://HOST:PORT"),
        ("auto", "Ray at auto can not be used: "),
    ],
)
def test_a_cluster_that_is_not_there_is_one_line(
    job: dict[str, Any], tmp_path: Path, address: str, expected: str
) -> None:
    assert not ray.is_initialized()
    with pytest.raises(TwinprobeError) as caught:
        capture(**job, out=tmp_path / "s", workers=2, ray_address=address)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_a_local_cluster_is_started_and_stopped_again(
    job: dict[str, Any], whole: dict[str, bytes], tmp_path: Path
) -> None:
    assert not ray.is_initialized()
    capture(**job, out=tmp_path / "s", workers=1)
    assert not ray.is_initialized()
    assert files(tmp_path / "s") == whole


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # gone or a zombie by now
            if "ray::Worker" in " ".join(child.cmdline()):
                found.append(child)
    return found


def test_two_workers_give_what_one_process_gives(
    cluster: None, job: dict[str, Any], whole: dict[str, bytes], tmp_path: Path
) -> None:
    seen: list[int] = []
    reported: list[int] = []

    def progress(done: int, total: int) -> None:
        assert total == len(TEXTS)
        reported.append(done)
        seen.extend(worker.pid for worker in workers())

    capture(**job, out=tmp_path / "s", workers=2, progress=progress, notice=pytest.fail)
    assert files(tmp_path / "s") == whole
    assert len(set(seen)) == 2
    assert reported == sorted(reported) and reported[0] == 0 and reported[-1] == len(TEXTS)
    for name in ("shards/00003.h5", "shards/00000.h5", "index.h5"):
        (tmp_path / "s" / name).unlink()
    capture(**job, out=tmp_path / "s", workers=2, notice=pytest.fail)
    assert files(tmp_path / "s") == whole, "and a resume on the cluster too"


def test_a_killed_worker_is_replaced_and_the_store_is_the_same(
    cluster: None, job: dict[str, Any], whole: dict[str, bytes], tmp_path: Path
) -> None:
    killed: list[int] = []
    said: list[str] = []

    def progress(done: int, _total: int) -> None:
        if done and len(killed) < 2:
            os.kill(workers()[0].pid, signal.SIGKILL)
            killed.append(done)

    capture(**job, out=tmp_path / "s", workers=2, progress=progress, notice=said.append)
    assert len(killed) == 2
    assert said and all("a worker died over shard" in line and "is replaced" in line for line in said)
    assert files(tmp_path / "s") == whole


@pytest.mark.slow
def test_a_shard_that_kills_every_worker_ends_the_run(
    cluster: None, job: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import activations.cluster as module

    class Doomed(module.Worker):
        def shard(self, *_arguments: Any) -> str:
            os.kill(os.getpid(), signal.SIGKILL)
            return ""

    monkeypatch.setattr(module, "Worker", Doomed)
    said: list[str] = []
    with pytest.raises(
        TwinprobeError, match=r"3 workers died over shard \d+ \(out of memory\?\); finished shards are kept"
    ):
        capture(**job, out=tmp_path / "s", workers=2, notice=said.append)
    assert len(said) >= 2


Change = Callable[[dict[str, Any], Path], dict[str, Any]]


def other_weights(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the name stands for has changed since the model was loaded."""
    import shutil

    moved = shutil.copytree(Path(job["loaded"].spec.name), folder / "model")
    loaded = load_model(str(moved))
    changed = load_model(str(moved))
    changed.model.get_input_embeddings().weight.data += 1
    changed.model.save_pretrained(moved)
    return {**job, "loaded": loaded}


def no_model(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    import shutil

    moved = shutil.copytree(Path(job["loaded"].spec.name), folder / "model")
    loaded = load_model(str(moved))
    shutil.rmtree(moved)
    return {**job, "loaded": loaded}


@pytest.mark.parametrize(
    ("change", "expected"),
    [(other_weights, "every node must find the same weights under that name"), (no_model, "is not a folder")],
)
def test_what_a_worker_meets_is_said_in_one_line(
    cluster: None, job: dict[str, Any], tmp_path: Path, change: Change, expected: str
) -> None:
    with pytest.raises(TwinprobeError) as caught:
        capture(**change(job, tmp_path), out=tmp_path / "s", workers=1)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_more_workers_than_the_cluster_has_room_for_are_refused(
    cluster: None, job: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(TwinprobeError, match="5 workers need a CPU each, but the cluster has 2; lower --workers"):
        capture(**job, out=tmp_path / "s", workers=5)
