"""Crash safety: killed at any call, torn or with a flipped bit, the same command again gives the very same store."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from conftest import files

import activations
from activations import capturing
from activations.capturing import capture
from activations.errors import TwinprobeError
from activations.hdf5 import damage
from activations.models import load_model
from activations.sites import parse_sites
from activations.store import ActivationStore
from activations.texts import Span, Text

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from activations.models import LoadedModel

KILLS = 40
InChild = Callable[..., int]
CODE = str(Path(activations.__file__).parent)
TEXTS = [Text(f"t{i}", "def area(width):\n    return width\n"[: 3 + i], (Span("s", 0, 2),)) for i in range(30)]
SITES = parse_sites("resid_post.*,z.1.2", 3, 4)


SMALL = 6_000
"""Bytes of a shard, so that a capture of a few texts writes many."""


@pytest.fixture
def small_shards() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(capturing, "SHARD_BYTES", SMALL)
        yield


def count_calls(reached: Callable[[int], None]) -> None:
    """Have ``reached`` called with the number of each call that our own code makes from now on, in any thread."""
    count = 0

    def profile(frame: Any, event: str, _argument: Any) -> None:
        nonlocal count
        if event in ("call", "c_call") and frame.f_code.co_filename.startswith(CODE):
            count += 1
            reached(count)

    threading.setprofile(profile)
    sys.setprofile(profile)


def captured(loaded: LoadedModel, out: Path, die_at: int, note: Path | None) -> None:
    """Capture; kill this process, as by kill -9, at the call ``die_at``, or note how many calls there were."""
    last = 0

    def reached(count: int) -> None:
        nonlocal last
        last = count
        if count == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    count_calls(reached)
    capture(loaded, TEXTS, SITES, out, bos=True)
    sys.setprofile(None)
    if note:
        note.write_text(str(last))


def nursery(model: Path, line: Connection) -> None:
    """Run :func:`captured` in forks of this process, with what comes along ``line``, and send back their exit codes."""
    torch.set_num_threads(1)
    capturing.SHARD_BYTES = SMALL
    loaded = load_model(str(model))
    loaded.fingerprint  # noqa: B018 (computed once, before the forks)
    while job := line.recv():
        child = multiprocessing.get_context("fork").Process(target=captured, args=(loaded, *job))
        child.start()
        child.join(120)
        line.send(child.exitcode)


@pytest.fixture
def in_child(model_folder: Path) -> Iterator[InChild]:
    """:func:`captured` in a process of its own; its exit code.

    Forks are cheap, but not of the tests' own process: a thread of it may hold a lock that the fork then waits for.
    """
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=nursery, args=(model_folder, theirs))
    process.start()

    def run(out: Path, die_at: int = 0, note: Path | None = None) -> int:
        ours.send((out, die_at, note))
        assert ours.poll(150), "the child answers"
        code = ours.recv()
        assert code is not None, "the child ends"
        return int(code)

    yield run
    ours.send(None)
    process.join(30)


def test_killed_at_random_moments_and_resumed_the_store_is_the_same(
    model_folder: Path, tmp_path: Path, small_shards: None, in_child: InChild
) -> None:
    """Each run is killed at a call of its own, in whichever thread that is, its resume often too."""
    loaded = load_model(str(model_folder))
    capture(loaded, TEXTS, SITES, tmp_path / "whole", bos=True)
    whole = files(tmp_path / "whole")
    assert in_child(tmp_path / "counted", note=tmp_path / "calls") == 0
    total = int((tmp_path / "calls").read_text())
    assert files(tmp_path / "counted") == whole
    rng = np.random.default_rng(20261121)
    states = set()
    for number, call in enumerate(rng.choice(total - 50, KILLS, replace=False).tolist()):
        out = tmp_path / "killed"
        assert in_child(out, call + 1) == -signal.SIGKILL
        left = files(out) if out.exists() else {}
        states.add((sum(name.endswith(".h5") for name in left), any(name.endswith(".tmp") for name in left)))
        kept = {name: content for name, content in left.items() if name.endswith(".h5")}
        assert all(damage(out / name) is None for name in kept), "what has its own name is whole"
        if "index.h5" not in kept:
            with pytest.raises(TwinprobeError, match="is not finished|holds no store"):
                ActivationStore(out)
        if number % 3 == 0:
            in_child(out, int(rng.integers(1, total)))
        said: list[str] = []
        capture(loaded, TEXTS, SITES, out, bos=True, notice=said.append)
        assert said == []
        found = files(out)
        assert {name for name in found if name.endswith(".tmp")} == set()
        assert found == whole, f"killed at call {call + 1} of {total}"
        assert all(found[name] == content for name, content in kept.items())
        shutil.rmtree(out)
    assert len(states) > 8, "the kills hit many different stages"


@pytest.mark.parametrize("seed", range(10))
def test_damaged_shards_are_named_and_captured_again(
    tiny: Callable[[str], LoadedModel], tmp_path: Path, small_shards: None, seed: int
) -> None:
    loaded = tiny("gpt2")
    capture(loaded, TEXTS, SITES, tmp_path / "s", bos=True)
    whole = files(tmp_path / "s")
    shards = sorted(name for name in whole if name.startswith("shards/"))
    rng = np.random.default_rng(seed)
    hurt = sorted(rng.choice(shards, size=3, replace=False).tolist())
    for kind, name in zip(("flipped", "torn", "emptied"), hurt, strict=True):
        content = bytearray(whole[name])
        if kind == "flipped":
            content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        (tmp_path / "s" / name).write_bytes(
            content[: {"flipped": len(content), "torn": int(rng.integers(1, len(content))), "emptied": 0}[kind]]
        )
    assert len(ActivationStore(tmp_path / "s").verify()) >= 3
    said: list[str] = []
    capture(loaded, TEXTS, SITES, tmp_path / "s", bos=True, notice=said.append)
    assert [line.split(" is damaged (")[0] for line in said] == [str(tmp_path / "s" / name) for name in hurt]
    assert all(line.endswith("and is captured again") for line in said)
    assert files(tmp_path / "s") == whole
    assert ActivationStore(tmp_path / "s").verify() == []


def test_what_is_mended_is_a_warning_where_nobody_listens(
    tiny: Callable[[str], LoadedModel], tmp_path: Path, small_shards: None
) -> None:
    loaded = tiny("gpt2")
    capture(loaded, TEXTS, SITES, tmp_path / "s", bos=True)
    (tmp_path / "s" / "shards" / "00001.h5").write_bytes(b"")
    with pytest.warns(UserWarning, match=r"00001\.h5 is damaged \(it is cut off or has no checksum\)"):
        capture(loaded, TEXTS, SITES, tmp_path / "s", bos=True)
