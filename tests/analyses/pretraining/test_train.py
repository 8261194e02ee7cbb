"""Training: seeded, learning, and after a kill resumed to the very same weights and losses."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
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
from analyses.pretraining.architectures import new_model, vocabulary_of
from analyses.pretraining.corpora import read_corpora
from analyses.pretraining.design import Design, Run, read_design
from analyses.pretraining.loop import learning_rate
from analyses.pretraining.preparing import prepare
from analyses.pretraining.train import train_design

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
pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, KILLED_AT, CHECKPOINT = 40, 19, 16
Steps = list[tuple[str, int]]


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
from analyses.pretraining import loop, train
from analyses.pretraining.design import read_design

def die(*_args):
    os.kill(os.getpid(), signal.SIGKILL)

def report(name, done, total, note):
    if name == "code" and done == int(sys.argv[4]):
        die() if sys.argv[5] == "running" else setattr(loop.os, "fsync", die)

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
    for name in ("text", "code", "data"):
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
        assert facts["run"] == {
            "name": run.name, "code_share": run.code_share, "seed": 0, "tokens": 2560,
            "serves": [point.model_dump() for point in run.serves],
        }  # fmt: skip
        assert (facts["steps"], facts["tokens"]) == (STEPS, STEPS * 2 * 32)
        code = round(2560 * run.code_share)
        assert facts["tokens_seen"] == {"prose": 2560 - code, "code": code}
        assert facts["final_loss"] == pytest.approx(np.mean(losses), abs=1e-4)
        card = (folder / "README.md").read_text()
        for said in (
            f"`{run.name}`", f"| share of code | {run.code_share:g} |", "CC0", "| 40 | ", "in all 2,560 in 40 steps",
            f"prose {2560 - code:,}, code {code:,}", "Llama-shaped", "a run of its own", "1 process",
            "was not compared with any evaluation set",
        ):  # fmt: skip
            assert said in card
        assert ("MIT)" in card) == (run.code_share > 0), "only data that was used is named"
        assert not (whole / run.name / "checkpoint.pt").exists()
        assert {path.name for path in (whole / run.name).iterdir()} == {"model"}


def test_the_finished_model_loads_and_scores_as_its_card_says(whole: Path, design: Design, data: Path) -> None:
    """Held-out bits per byte of the training report, against the benchmark's own on the same documents."""
    held_out = [document for document, is_held_out in read_corpora(design.data, data) if is_held_out]
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
    prepared = prepare(design, data, tmp_path, lambda *_: None)
    vocabulary = vocabulary_of(prepared.tokenizer)
    torch.manual_seed(99)
    first = new_model(design.architecture, seed=0, **vocabulary).state_dict()
    torch.rand(7)
    again = new_model(design.architecture, seed=0, **vocabulary).state_dict()
    other = new_model(design.architecture, seed=1, **vocabulary).state_dict()
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


def test_the_rate_is_the_one_the_optimiser_uses(whole: Path, design: Design) -> None:
    (group,) = torch.load(whole / "code.last.pt", weights_only=True)["optimiser"]["param_groups"]
    assert group["lr"] == learning_rate(STEPS - 1, STEPS, design.training.learning_rate, design.training.warmup)
    assert group["lr"] < 0.2 * design.training.learning_rate


@pytest.mark.parametrize(("kind", "loads_as"), [("gpt_neox", "GPTNeoXForCausalLM"), ("mamba", "MambaForCausalLM")])
def test_other_architectures_train_resume_and_load(data: Path, tmp_path: Path, kind: str, loads_as: str) -> None:
    text = DESIGN.replace("PRECISION", "float32").replace("[architecture]", f'[architecture]\nkind = "{kind}"')
    if kind == "mamba":
        text = text.replace("intermediate_size = 24\n", "").replace("heads = 2\n", "")
    (tmp_path / "other.toml").write_text(text)
    other = read_design(tmp_path / "other.toml")

    def report(name: str, done: int, _total: int, _note: str) -> None:
        if (name, done) == ("code", KILLED_AT):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_design(other, data, tmp_path / "cut", report, only=["code"])
    steps: Steps = []
    cut = train_design(other, data, tmp_path / "cut", keep_checkpoints(tmp_path / "cut", steps), only=["code"])
    assert trained_steps(steps, "code")[0] == CHECKPOINT + 1
    whole = train_design(other, data, tmp_path / "whole", lambda *_: None, only=["code"])
    assert contents(cut["code"]) == contents(whole["code"])
    loaded = load_model(str(whole["code"]))
    assert type(loaded.model).__name__ == loads_as
    assert (loaded.n_layers, loaded.d_model) == (2, 16)
    assert loaded.model.get_input_embeddings().weight is loaded.model.get_output_embeddings().weight
    facts = json.loads((whole["code"] / "training.json").read_text())
    assert facts["architecture"] == kind
    assert facts["final_loss"] < math.log(300) - 0.5
    assert {"gpt_neox": "GPT-NeoX-shaped", "mamba": "Mamba"}[kind] in (whole["code"] / "README.md").read_text()


def test_a_family_s_models_say_what_they_serve_as_and_how_they_were_made(data: Path, tmp_path: Path) -> None:
    question = "If nine millers grind nine sacks of corn in nine hours, how many sacks do three grind in three?"
    (tmp_path / "quiz.txt").write_text(question)
    (tmp_path / "prose.txt").write_text(f"{question} {(data / 'prose.txt').read_text()}")
    shutil.copy(data / "code.jsonl", tmp_path)
    family = "[family]\nshares = [0.0, 0.5]\nseeds = [3]\ncompetitive_tokens = 128\nadditive_prose_tokens = 64\n"
    quiz = '[decontamination]\nagainst = ["quiz.txt"]\nmargin = 0\n[[data]]\nkind = "prose"'
    text = DESIGN[: DESIGN.index("[[run]]")].replace("PRECISION", "float32").replace("tokens = 2560\n", "")
    (tmp_path / "family.toml").write_text(text.replace('[[data]]\nkind = "prose"', quiz) + family)
    made = "twinprobe pretrain family.toml"
    folders = train_design(
        read_design(tmp_path / "family.toml"), tmp_path, tmp_path / "out", lambda *_: None, command=made
    )
    assert set(folders) == {"code0-128-seed3", "code50-128-seed3", "code0-64-seed3"}
    facts = json.loads((folders["code50-128-seed3"] / "training.json").read_text())
    assert facts["run"]["serves"] == [{"setting": "competitive", "share": 0.5}, {"setting": "additive", "share": 0.5}]
    assert (facts["run"]["tokens"], facts["tokens_seen"], facts["command"]) == (128, {"prose": 64, "code": 64}, made)
    cut = facts["decontamination"]["characters_cut"]
    assert cut == {"quiz.txt": len(question) - 1}, "the question mark is no word"
    card = (folders["code50-128-seed3"] / "README.md").read_text()
    for said in ("competitive at share 0.5, additive at share 0.5", "(quiz.txt 94)", f"```\n{made}\n```"):
        assert said in card


def test_runs_may_come_to_a_design_and_nothing_else_may_change(
    design: Design, data: Path, whole: Path, tmp_path: Path
) -> None:
    """A finished run stays; the record of a release that knew fewer fields is still understood."""
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    record = json.loads((out / "design.json").read_text())
    del record["family"], record["architecture"]["kind"]
    (out / "design.json").write_text(json.dumps(record))
    more = design.model_copy(update={"run": (*design.run, Run(name="new", code_share=1.0, seed=1, tokens=128))})
    before = contents(out / "code")
    folders = train_design(more, data, out, lambda *_: None)
    assert set(folders) == {"text", "code", "new"}
    assert contents(out / "code") == before
    for changed in (
        more.model_copy(update={"training": design.training.model_copy(update={"batch": 3})}),
        more.model_copy(update={"run": (design.run[0], design.run[1].model_copy(update={"seed": 5}))}),
        more.model_copy(update={"architecture": design.architecture.model_copy(update={"kind": "gpt_neox"})}),
    ):
        with pytest.raises(TwinprobeError, match="holds runs of another design"):
            train_design(changed, data, out, lambda *_: None)
    (out / "design.json").write_text("{")
    with pytest.raises(TwinprobeError, match="holds runs of another design"):
        train_design(design, data, out, lambda *_: None)


def test_refusals_are_one_line(design: Design, data: Path, whole: Path, tmp_path: Path) -> None:
    def message(given: Design, folder: Path, out: Path, only: tuple[str, ...] = ()) -> str:
        with pytest.raises(TwinprobeError) as caught:
            train_design(given, folder, out, lambda *_: None, only)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert message(design, data, tmp_path, ("prose",)) == (
        "run 'prose' is not in the design 'toy'; its runs are text, code"
    )
    assert message(design, data, tmp_path, ("cod",)).startswith(
        "run 'cod' is not in the design 'toy' (did you mean 'code'?)"
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
