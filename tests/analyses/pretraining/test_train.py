"""Training: seeded, learning, and after a kill resumed to the very same weights and losses."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import CORPUS

import analyses
from activations.errors import TwinprobeError
from activations.models import load_model
from activations.texts import Text
from analyses.benchmarks.bits_per_byte import score
from analyses.pretraining.corpora import read_corpora
from analyses.pretraining.design import Design, read_design
from analyses.pretraining.train import learning_rate, new_model, prepare, train_design

DESIGN = """
name = "toy"
[architecture]
hidden_size = 16
intermediate_size = 24
layers = 2
heads = 2
context = 32
[tokenizer]
vocabulary = 300
bytes_per_kind = 2000
[training]
tokens = 2560
batch = 2
learning_rate = 2e-2
precision = "PRECISION"
checkpoint_every = 8
[[data]]
kind = "prose"
path = "prose.txt"
licence = "CC0"
held_out_tail = { "*" = 0.25 }
[[data]]
kind = "code"
path = "code.jsonl"
licence = "MIT"
held_out = ["*/held.py"]
[[run]]
name = "text"
code_share = 0.0
seed = 0
[[run]]
name = "code"
code_share = 0.5
seed = 0
"""
STEPS, KILLED_AT, CHECKPOINT = 40, 19, 16
Steps = list[tuple[str, int]]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums are added up in another order with another number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some kilobytes of prose and code, and the design of two runs on them."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "prose.txt").write_text("".join(f"{i}. {CORPUS[2]} {CORPUS[4]}\n" for i in range(60)))
    rows = [{"path": f"{i}.py", "text": f"# {i}\n{CORPUS[0]}{CORPUS[1]}"} for i in range(60)]
    rows.append({"path": "held.py", "text": (CORPUS[3] + CORPUS[0]) * 8})
    (folder / "code.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "toy.toml").write_text(DESIGN.replace("PRECISION", "float32"))
    return folder


@pytest.fixture(scope="module")
def design(data: Path) -> Design:
    return read_design(data / "toy.toml")


def keep_checkpoints(out: Path, steps: Steps) -> Callable[[str, int, int, str], None]:
    """Note every step, and copy the checkpoint of the last one, which is removed when a run is finished."""

    def report(name: str, done: int, _total: int, _note: str) -> None:
        steps.append((name, done))
        if name in ("text", "code") and done == STEPS:
            shutil.copy(out / name / "checkpoint.pt", out / f"{name}.last.pt")

    return report


def trained_steps(steps: Steps, run: str) -> list[int]:
    return [step for name, step in steps if name == run]


@pytest.fixture(scope="module")
def whole(design: Design, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both runs, trained without interruption."""
    out = tmp_path_factory.mktemp("whole")
    steps: Steps = []
    folders = train_design(design, data, out, keep_checkpoints(out, steps))
    assert folders == {name: out / name / "model" for name in ("text", "code")}
    assert all(trained_steps(steps, name) == list(range(1, STEPS + 1)) for name in folders)
    return out


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from analyses.pretraining import train
from analyses.pretraining.design import read_design

def die(*_args):
    os.kill(os.getpid(), signal.SIGKILL)

def report(name, done, total, note):
    if name == "code" and done == int(sys.argv[4]):
        die() if sys.argv[5] == "running" else setattr(train.os, "fsync", die)

torch.set_num_threads(1)
data = Path(sys.argv[2])
train.train_design(read_design(data / "toy.toml"), data, Path(sys.argv[3]), report)
"""


@pytest.fixture(scope="module")
def killed(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What two killed processes leave: one died in the second run, one as it wrote that run's second checkpoint."""
    outs = {when: tmp_path_factory.mktemp(when) for when in ("running", "writing")}
    package = Path(analyses.__file__).parents[1]
    processes = {
        when: subprocess.Popen(
            [sys.executable, "-c", KILLED, str(package), str(data), str(out), str(KILLED_AT), when],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stderr=subprocess.PIPE,
        )
        for when, out in outs.items()
    }
    for process in processes.values():
        _, errors = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, errors.decode()
    return outs


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("when", ["running", "writing"])
def test_a_killed_training_ends_in_the_same_weights_and_losses(
    killed: dict[str, Path], whole: Path, design: Design, data: Path, when: str
) -> None:
    out = killed[when]
    assert (out / "code" / "checkpoint.tmp").exists() == (when == "writing")
    before = (out / "text" / "model" / "model.safetensors").stat().st_mtime_ns
    assert not (out / "code" / "model").exists()
    assert torch.load(out / "code" / "checkpoint.pt", weights_only=True)["step"] == CHECKPOINT
    steps: Steps = []
    train_design(design, data, out, keep_checkpoints(out, steps))
    assert trained_steps(steps, "code") == list(range(CHECKPOINT + 1, STEPS + 1))
    assert trained_steps(steps, "text") == []
    assert (out / "text" / "model" / "model.safetensors").stat().st_mtime_ns == before
    for name in ("text", "code", "tokenizer"):
        assert contents(out / name) == contents(whole / name)
    last, expected = (torch.load(folder / "code.last.pt", weights_only=True) for folder in (out, whole))
    assert last["losses"] == expected["losses"]
    assert len(last["losses"]) == STEPS
    assert all(torch.equal(last["model"][name], weight) for name, weight in expected["model"].items())


def test_training_learns_and_says_what_it_did(whole: Path, design: Design) -> None:
    for run in design.run:
        folder = whole / run.name / "model"
        losses = torch.load(whole / f"{run.name}.last.pt", weights_only=True)["losses"]
        assert losses[0] == pytest.approx(math.log(300), abs=0.5)
        assert np.mean(losses[-5:]) < losses[0] - 1
        curve = pd.read_csv(folder / "loss.csv")
        assert curve.step.tolist() == [10, 20, 30, 40]
        assert curve.loss.tolist() == [round(losses[step - 1], 4) for step in curve.step]
        facts = json.loads((folder / "training.json").read_text())
        assert facts["run"] == run.model_dump()
        assert (facts["steps"], facts["tokens"]) == (STEPS, STEPS * 2 * 32)
        assert facts["final_loss"] == pytest.approx(np.mean(losses), abs=1e-4)
        card = (folder / "README.md").read_text()
        for said in (f"`{run.name}`", f"| share of code | {run.code_share:.0%} |", "CC0", "| 40 | ", "2,560"):
            assert said in card
        assert ("MIT)" in card) == (run.code_share > 0), "only data that was used is named"
        assert not (whole / run.name / "checkpoint.pt").exists()
        assert {path.name for path in (whole / run.name).iterdir()} == {"model"}


def test_the_finished_model_loads_and_scores_as_its_card_says(whole: Path, design: Design, data: Path) -> None:
    """Held-out bits per byte of the training report, against the benchmark's own on the same documents."""
    _, held_out = read_corpora(design.data, data)
    for run in design.run:
        folder = whole / run.name / "model"
        loaded = load_model(str(folder))
        assert loaded.model.config.tie_word_embeddings
        assert loaded.context == 32
        facts = json.loads((folder / "training.json").read_text())
        assert loaded.model.num_parameters() == facts["parameters"]
        texts = [Text(document.kind, document.text) for document in held_out]
        table = score(loaded, texts, bos=False).set_index("text")
        assert set(table.index) == set(facts["held_out_bits_per_byte"]) == {"prose", "code"}
        for kind, value in facts["held_out_bits_per_byte"].items():
            assert value == pytest.approx(table.bits_per_byte[kind], rel=0.05)
    text, code = (json.loads((whole / run / "model" / "training.json").read_text()) for run in ("text", "code"))
    assert code["held_out_bits_per_byte"]["code"] < text["held_out_bits_per_byte"]["code"]


def test_stored_weights_are_bfloat16(whole: Path) -> None:
    from safetensors import safe_open

    with safe_open(whole / "code" / "model" / "model.safetensors", "pt") as weights:
        assert {weights.get_tensor(name).dtype for name in weights.keys()} == {torch.bfloat16}  # noqa: SIM118


def test_equal_seeds_start_from_equal_weights(design: Design, data: Path, tmp_path: Path) -> None:
    prepared = prepare(design, data, tmp_path, 0, lambda *_: None)
    torch.manual_seed(99)
    first = new_model(design, prepared.tokenizer, seed=0).state_dict()
    torch.rand(7)
    again = new_model(design, prepared.tokenizer, seed=0).state_dict()
    other = new_model(design, prepared.tokenizer, seed=1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_runs_that_have_read_the_same_are_the_same(design: Design, data: Path, tmp_path: Path) -> None:
    """Equal initial weights and one prose block each; the second block of the code run is code."""
    for steps, equal in ((1, True), (2, False)):
        training = design.training.model_copy(update={"tokens": steps * 32, "batch": 1})
        short = design.model_copy(update={"training": training})
        folders = train_design(short, data, tmp_path / str(steps), lambda *_: None)
        text, code = (contents(folder)["model.safetensors"] for folder in folders.values())
        assert (text == code) == equal


def test_only_named_runs_are_trained(design: Design, data: Path, whole: Path, tmp_path: Path) -> None:
    steps: Steps = []
    folders = train_design(design, data, tmp_path, keep_checkpoints(tmp_path, steps), only=["code"])
    assert list(folders) == ["code"]
    assert trained_steps(steps, "text") == []
    assert not (tmp_path / "text").exists()
    assert contents(tmp_path / "code") == contents(whole / "code"), "a run does not depend on those before it"


def test_bfloat16_training_learns_too(data: Path, tmp_path: Path) -> None:
    (tmp_path / "half.toml").write_text(DESIGN.replace("PRECISION", "bfloat16"))
    steps: Steps = []
    out = tmp_path / "out"
    train_design(read_design(tmp_path / "half.toml"), data, out, keep_checkpoints(out, steps), only=["code"])
    losses = torch.load(out / "code.last.pt", weights_only=True)["losses"]
    assert np.mean(losses[-5:]) < losses[0] - 1


def test_the_rate_warms_up_and_decays_to_a_tenth() -> None:
    rates = [learning_rate(step, 200, 0.5, 0.1) for step in range(200)]
    assert rates[0] == pytest.approx(0.5 / 20)
    assert rates[19] == max(rates) == pytest.approx(0.5)
    assert rates[:20] == sorted(rates[:20])
    assert rates[19:] == sorted(rates[19:], reverse=True)
    assert rates[-1] == pytest.approx(0.05, rel=0.01)
    assert learning_rate(0, 1, 0.5, 0.1) == 0.5


def test_the_rate_is_the_one_the_optimiser_uses(whole: Path, design: Design) -> None:
    (group,) = torch.load(whole / "code.last.pt", weights_only=True)["optimiser"]["param_groups"]
    assert group["lr"] == learning_rate(STEPS - 1, STEPS, design.training.learning_rate, design.training.warmup)
    assert group["lr"] < 0.2 * design.training.learning_rate


def test_refusals_are_one_line(design: Design, data: Path, whole: Path, tmp_path: Path) -> None:
    def message(given: Design, folder: Path, out: Path, only: tuple[str, ...] = ()) -> str:
        with pytest.raises(TwinprobeError) as caught:
            train_design(given, folder, out, lambda *_: None, only)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert message(design, data, tmp_path, ("prose",)) == (
        "run 'prose' is not in the design 'toy'; its runs are text, code"
    )
    other = design.model_copy(update={"name": "other"})
    before = contents(whole)
    assert message(other, data, whole).startswith(f"{whole} holds runs of another design; choose another --out")
    assert contents(whole) == before
    assert "no such data" in message(design, tmp_path / "absent", tmp_path / "a")


@pytest.mark.parametrize("kind", ["prose", "code"])
def test_too_little_data_is_refused_in_one_line(design: Design, tmp_path: Path, kind: str) -> None:
    texts = {"prose": CORPUS[2] * 20, "code": CORPUS[0] * 20}
    texts[kind] = "x"
    (tmp_path / "prose.txt").write_text(texts["prose"])
    (tmp_path / "code.jsonl").write_text(json.dumps({"path": "a.py", "text": texts["code"]}))
    with pytest.raises(TwinprobeError) as caught:
        train_design(design, tmp_path, tmp_path / "out", lambda *_: None)
    assert str(caught.value).startswith(f"{tmp_path}: the {kind} to train on does not fill one block of 32 tokens")
    assert "\n" not in str(caught.value)


def test_data_that_is_all_held_out_is_refused(design: Design, tmp_path: Path) -> None:
    (tmp_path / "prose.txt").write_text(CORPUS[2] * 20)
    (tmp_path / "code.jsonl").write_text(json.dumps({"path": "held.py", "text": CORPUS[0] * 20}))
    with pytest.raises(TwinprobeError, match="the code to train on does not fill one block of 32 tokens"):
        train_design(design, tmp_path, tmp_path / "out", lambda *_: None)


def test_little_held_out_text_is_not_scored(design: Design, data: Path, tmp_path: Path) -> None:
    for name in ("prose.txt", "code.jsonl"):
        shutil.copy(data / name, tmp_path / name)
    rows = (tmp_path / "code.jsonl").read_text().splitlines()[:-1]
    (tmp_path / "code.jsonl").write_text("\n".join([*rows, json.dumps({"path": "held.py", "text": "x"})]))
    folders = train_design(design, tmp_path, tmp_path / "out", lambda *_: None, only=["text"])
    facts = json.loads((folders["text"] / "training.json").read_text())
    assert set(facts["held_out_bits_per_byte"]) == {"prose"}


def test_a_tokenizer_cut_off_by_a_kill_is_trained_again(design: Design, data: Path, tmp_path: Path) -> None:
    """The folder appears under its name only when all its files are there."""
    expected = contents_of_tokenizer(design, data, tmp_path / "whole")
    torn = tmp_path / "torn" / "tokenizer.tmp"
    torn.mkdir(parents=True)
    (torn / "tokenizer.json").write_text("{")
    assert contents_of_tokenizer(design, data, tmp_path / "torn") == expected
    assert not torn.exists()


def contents_of_tokenizer(design: Design, data: Path, out: Path) -> dict[str, bytes]:
    prepare(design, data, out, 0, lambda *_: None)
    return contents(out / "tokenizer")
