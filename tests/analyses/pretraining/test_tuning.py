"""The second stage: the 2 x 2 of pretraining and tuning with and without code, and its resume after a kill."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import CORPUS, files

import analyses
from activations.errors import TwinprobeError
from activations.models import load_model
from analyses.pretraining.design import Design, read_design
from analyses.pretraining.instructions import PROMPT, read_instructions
from analyses.pretraining.loop import learning_rate
from analyses.pretraining.mixing_schedules import kinds
from analyses.pretraining.train import train_design
from analyses.pretraining.tuning import example_order

FIRST = """
name = "toy"
[architecture]
hidden_size = 16
intermediate_size = 24
layers = 2
heads = 2
context = 64
[tokenizer]
vocabulary = 300
bytes_per_kind = 2000
[training]
tokens = 1024
batch = 2
learning_rate = 2e-2
precision = "float32"
[[data]]
kind = "prose"
path = "prose.txt"
licence = "CC0"
[[data]]
kind = "code"
path = "code.jsonl"
licence = "MIT"
[[run]]
name = "text"
code_share = 0.0
seed = 0
[[run]]
name = "code"
code_share = 0.5
seed = 0
"""
SECOND = """
[tuning]
examples = 46
batch = 4
learning_rate = 2e-2
precision = "float32"
checkpoint_every = 5
[[tuning.data]]
kind = "prose"
path = "asked.jsonl"
licence = "CC BY 4.0"
held_out = 0.25
[[tuning.data]]
kind = "code"
path = "coded.jsonl"
licence = "Apache-2.0"
held_out = 0.25
[[tuning.mix]]
name = "text"
schedule = "uniform"
ratios = ["1:0"]
[[tuning.mix]]
name = "code-up"
schedule = "increase"
ratios = ["3:1", "1:3"]
"""
pytestmark = pytest.mark.usefixtures("one_thread")
STEPS, KILLED_AT, CHECKPOINT = 12, 8, 5
CELLS = ["text+text", "text+code-up", "code+text", "code+code-up"]
Steps = list[tuple[str, int]]


def quiet(*_told: object) -> None:
    """No progress."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some kilobytes of prose and code, sixty instructions of each kind, and designs with and without them."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "prose.txt").write_text("".join(f"{i}. {CORPUS[2]} {CORPUS[4]}\n" for i in range(20)))
    rows = [{"path": f"{i}.py", "text": f"# {i}\n{CORPUS[0]}{CORPUS[1]}"} for i in range(20)]
    (folder / "code.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = [{"prompt": f"say {i}", "response": f"it is {i}"} for i in range(60)]
    asked.append({"prompt": "tell me all", "response": CORPUS[4]})
    (folder / "asked.jsonl").write_text("\n".join(map(json.dumps, asked)))
    coded = [{"instruction": "set", "input": str(i), "output": f"x = {i}"} for i in range(60)]
    (folder / "coded.jsonl").write_text("\n".join(map(json.dumps, coded)))
    (folder / "first.toml").write_text(FIRST)
    (folder / "both.toml").write_text(FIRST + SECOND)
    return folder


@pytest.fixture(scope="module")
def design(data: Path) -> Design:
    return read_design(data / "both.toml")


@pytest.fixture(scope="module")
def pretrained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first stage alone."""
    out = tmp_path_factory.mktemp("pretrained")
    assert list(train_design(read_design(data / "first.toml"), data, out, quiet)) == ["text", "code"]
    return out


@pytest.fixture(scope="module")
def tuned(design: Design, data: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All four cells, begun in a folder where the design had no second stage yet."""
    out = tmp_path_factory.mktemp("tuned") / "out"
    shutil.copytree(pretrained, out)
    steps: Steps = []
    folders = train_design(design, data, out, lambda name, done, *_: steps.append((name, done)))
    assert folders == {name: out / name / "model" for name in ["text", "code", *CELLS]}
    assert [told for told in steps if told[0] in folders] == [(name, 1 + i) for name in CELLS for i in range(STEPS)]
    return out


def facts_of(out: Path, name: str) -> dict[str, object]:
    facts: dict[str, object] = json.loads((out / name / "model" / "training.json").read_text())
    return facts


def test_the_four_cells_are_four_models(tuned: Path, pretrained: Path) -> None:
    weights = {name: (tuned / name / "model" / "model.safetensors").read_bytes() for name in ["text", "code", *CELLS]}
    assert len(set(weights.values())) == 6
    for name in ("text", "code"):
        assert files(tuned / name) == files(pretrained / name), "the first stage stays as it was"
    assert {path.name for path in tuned.iterdir()} == {"design.json", "data", "tuning.json", "text", "code", *CELLS}
    assert all({path.name for path in (tuned / name).iterdir()} == {"model"} for name in CELLS)


def test_every_cell_says_what_it_saw(tuned: Path) -> None:
    """46 examples: 23 at a quarter of code and 23 at three quarters, counted by hand."""
    for name in CELLS:
        run, mix = name.split("+")
        facts = facts_of(tuned, name)
        assert facts["run"] == facts_of(tuned, run)["run"] | {"tuning": mix}
        assert facts["first_stage"] == facts_of(tuned, run)
        assert facts["template"] == "### Instruction\n{prompt}\n### Response\n{response}"
        assert facts["steps"] == STEPS
        expected = {"text": [46, 0], "code-up": [23, 23]}[mix]
        assert facts["examples"] == dict(zip(("prose", "code"), expected, strict=True))
        scored = facts["scored_tokens"]
        assert (scored["prose"] > 0, scored["code"] > 0) == (True, mix == "code-up")  # type: ignore[index]
        assert facts["left_out"] == {"too_long": {"prose": 1}}
        assert pd.read_csv(tuned / name / "model" / "loss.csv").step.tolist() == [10, 12]
    assert facts_of(tuned, "code+code-up")["phases"] == [
        {"ratio": "3:1", "prose": 18, "code": 5},
        {"ratio": "1:3", "prose": 5, "code": 18},
    ]
    assert facts_of(tuned, "text+text")["phases"] == [{"ratio": "1:0", "prose": 46, "code": 0}]
    assert facts_of(tuned, "text+text")["first_stage"]["run"]["code_share"] == 0  # type: ignore[index]


def test_the_code_free_cell_depends_on_no_code(
    design: Design, data: Path, pretrained: Path, tuned: Path, tmp_path: Path
) -> None:
    """With other code instructions its weights are the same; those of a mix with code are not."""
    other, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(data, other)
    shutil.copytree(pretrained, out)
    lines = (data / "coded.jsonl").read_text().splitlines()
    (other / "coded.jsonl").write_text("\n".join(line.replace("x =", "y =") for line in lines))
    train_design(design, other, out, quiet, only=["text"])
    assert not (out / "code+text").exists()
    for name, same in (("text+text", True), ("text+code-up", False)):
        path = Path(name, "model", "model.safetensors")
        assert ((out / path).read_bytes() == (tuned / path).read_bytes()) == same


def test_tuning_learns_what_the_mix_holds(tuned: Path) -> None:
    """Held-out responses get likelier; responses in code more so where code was in the mix."""
    losses = {name: facts_of(tuned, name)["held_out_loss"] for name in CELLS}
    for run in ("text", "code"):
        text, both = losses[f"{run}+text"], losses[f"{run}+code-up"]
        assert text["prose"]["after"] < text["prose"]["before"] - 0.5  # type: ignore[index]
        assert both["code"]["after"] < both["code"]["before"] - 0.5  # type: ignore[index]
        assert both["code"]["after"] < text["code"]["after"] - 0.2  # type: ignore[index]
        assert both["code"]["before"] == text["code"]["before"]  # type: ignore[index]


def test_the_held_out_loss_is_that_of_the_saved_model(tuned: Path, design: Design, data: Path) -> None:
    """Token by token over the held-out responses, from the files alone."""
    loaded = load_model(str(tuned / "code+code-up" / "model"))
    facts = facts_of(tuned, "code+code-up")
    held_out = [one for one in read_instructions(design.tuning.data, data) if one.held_out and one.kind == "code"]  # type: ignore[union-attr]
    assert len(held_out) > 5
    nats, count = 0.0, 0
    for one in held_out:
        asked = loaded.tokenizer("<|endoftext|>" + PROMPT.format(prompt=one.prompt))["input_ids"]
        ids = asked + loaded.tokenizer(one.response + "<|endoftext|>")["input_ids"]
        with torch.inference_mode():
            scores = loaded.model.float()(torch.tensor([ids])).logits[0].log_softmax(-1)
        nats -= sum(scores[place - 1, ids[place]].item() for place in range(len(asked), len(ids)))
        count += len(ids) - len(asked)
    assert facts["held_out_loss"]["code"]["after"] == pytest.approx(nats / count, abs=6e-5)  # type: ignore[index]


def test_training_is_a_plain_loop_over_the_examples_in_order(tuned: Path, design: Design, data: Path) -> None:
    """The losses again, from a loop that takes one example at a time, unpadded."""
    assert design.tuning is not None
    loaded = load_model(str(tuned / "text" / "model"))
    loaded.model.float().train().requires_grad_(True)
    given = {"prose": [], "code": []}  # type: dict[str, list[tuple[list[int], int]]]
    for one in read_instructions(design.tuning.data, data):
        asked = loaded.tokenizer("<|endoftext|>" + PROMPT.format(prompt=one.prompt))["input_ids"]
        ids = asked + loaded.tokenizer(one.response + "<|endoftext|>")["input_ids"]
        if not one.held_out and len(ids) <= 64:
            given[one.kind].append((ids, len(asked)))
    order = example_order(
        kinds("increase", ["3:1", "1:3"], 46), {"prose": len(given["prose"]), "code": len(given["code"])}, seed=0
    )
    optimiser = torch.optim.AdamW(loaded.model.parameters(), betas=(0.9, 0.95), weight_decay=0.1)
    losses = []
    for step in range(STEPS):
        nats, count = torch.zeros(()), 0
        for kind, row in order[4 * step : 4 * step + 4]:
            ids, start = given[kind][row]
            scores = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
            nats = nats - sum(scores[place - 1, ids[place]] for place in range(start, len(ids)))
            count += len(ids) - start
        optimiser.param_groups[0]["lr"] = learning_rate(step, STEPS, 2e-2, 0.03)
        (nats / count).backward()
        torch.nn.utils.clip_grad_norm_(loaded.model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(nats.item() / count)
    curve = pd.read_csv(tuned / "text+code-up" / "model" / "loss.csv")
    assert curve.loss.tolist() == pytest.approx([losses[9], losses[11]], abs=1e-3)
    assert facts_of(tuned, "text+code-up")["final_loss"] == pytest.approx(sum(losses) / STEPS, abs=5e-4)


def test_the_card_tells_both_stages(tuned: Path) -> None:
    card = (tuned / "code+code-up" / "model" / "README.md").read_text()
    for said in (
        "# toy: `code` tuned with mix `code-up`",
        "| schedule | increase, prose to code 3:1, 1:3 |",
        "| examples | prose 23, code 23 |",
        "| 1:3 | 5 | 18 |",
        "| instructions left out | too long: prose 1 |",
        "- code: `coded.jsonl` (Apache-2.0); 25% held out",
        "## First stage",
        "| share of code | 0.5 |",
        "- code: `code.jsonl` (MIT)",
    ):
        assert said in card
    assert "Apache-2.0" not in (tuned / "text+text" / "model" / "README.md").read_text(), "only data that was used"
    assert sum(line.startswith("# ") for line in card.splitlines()) == 1


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from analyses.pretraining.design import read_design
from analyses.pretraining.train import train_design

def report(name, done, total, note):
    if name == "text+code-up" and done == int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)

torch.set_num_threads(1)
data = Path(sys.argv[2])
train_design(read_design(data / "both.toml"), data, Path(sys.argv[3]), report)
"""


def test_a_killed_tuning_ends_in_the_same_models(
    design: Design, data: Path, pretrained: Path, tuned: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(pretrained, out)
    package = Path(analyses.__file__).parents[1]
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(package), str(data), str(out), str(KILLED_AT)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    assert torch.load(out / "text+code-up" / "checkpoint.pt", weights_only=True)["step"] == CHECKPOINT
    assert (out / "text+text" / "model").exists()
    assert not (out / "text+code-up" / "model").exists()
    steps: Steps = []
    train_design(design, data, out, lambda name, done, *_: steps.append((name, done)))
    assert [done for name, done in steps if name == "text+code-up"] == list(range(CHECKPOINT + 1, STEPS + 1))
    assert "text+text" not in {name for name, _ in steps}
    assert files(out) == files(tuned)


def test_finished_models_need_no_data(design: Design, tuned: Path, tmp_path: Path) -> None:
    before = files(tuned)
    steps: Steps = []
    folders = train_design(design, tmp_path, tuned, lambda name, done, *_: steps.append((name, done)))
    assert list(folders) == ["text", "code", *CELLS]
    assert steps == []
    assert files(tuned) == before


def test_each_kind_is_read_in_one_order_whatever_the_mix() -> None:
    rows = {"prose": 7, "code": 5}
    orders = [
        example_order(kinds(schedule, ratios, 40), rows, seed=3)
        for schedule, ratios in (("increase", ["3:1", "1:3"]), ("uniform", ["1:3"]), ("cosine", ["1:0", "1:1"]))
    ]
    assert [sum(kind == "code" for kind, _ in order) for order in orders] == [20, 30, 10]
    for kind, count in rows.items():
        read = [[row for one, row in order if one == kind] for order in orders]
        length = min(map(len, read))
        assert length > count
        assert read[0][:length] == read[1][:length] == read[2][:length]
        assert sorted(read[0][:count]) == list(range(count)), "all before any comes again"
    assert orders[0] == example_order([kind for kind, _ in orders[0]], rows, seed=3)
    assert orders[0] != example_order([kind for kind, _ in orders[0]], rows, seed=4)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('ratios = ["3:1", "1:3"]', 'ratios = ["3:1", "one to three"]', "mix 'code-up': ratio 'one to three' is not"),
        ('schedule = "increase"', 'schedule = "decrease"', "mix 'code-up': the share of code rises somewhere in 3:1"),
        ('schedule = "increase"', 'schedule = "linear"', "field 'tuning.mix.1.schedule': Input should be 'uniform', "),
        ('name = "code-up"', 'name = "text"', "two mixes are called 'text'; give each a name of its own"),
        ('name = "code-up"', 'name = "a+b"', "field 'tuning.mix.1.name': String should match pattern"),
        (
            'kind = "code"\npath = "coded.jsonl"',
            'kind = "prose"\npath = "coded.jsonl"',
            "mix 'code-up' needs code instructions, but no [[tuning.data]] table has them",
        ),
        (
            'kind = "prose"\npath = "asked.jsonl"',
            'kind = "code"\npath = "asked.jsonl"',
            "mix 'text' needs prose instructions, but no [[tuning.data]] table has them",
        ),
        ("examples = 46", "examples = 0", "field 'tuning.examples': Input should be greater than 0, got 0"),
        ("batch = 4\n", "bach = 4\n", "unknown field 'tuning.bach' (did you mean 'batch'?)"),
        ('ratios = ["1:0"]', "ratios = []", "mix 'text': a uniform schedule has exactly one ratio; got none"),
        (SECOND[SECOND.index("[[tuning.mix]]") :], "", "field 'tuning.mix' is required"),
        ("[tuning]\n", "[tuning]\nmix = []\n", "no [[tuning.mix]] table; tuning needs at least one mix"),
    ],
)
def test_a_bad_second_stage_gets_one_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    second = SECOND[: SECOND.index("[[tuning.mix]]")] if "mix = []" in new else SECOND
    assert second.count(old) == 1
    path = tmp_path / "d.toml"
    path.write_text(FIRST + second.replace(old, new))
    with pytest.raises(TwinprobeError) as caught:
        read_design(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_a_mistake_in_the_instructions_shows_before_pretraining(design: Design, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    (folder / "asked.jsonl").write_text("{}")
    with pytest.raises(TwinprobeError, match=r"asked\.jsonl:1: expected a JSON object with non-empty strings"):
        train_design(design, folder, tmp_path / "out", quiet)
    assert not (tmp_path / "out" / "text").exists()


def test_other_instructions_in_the_same_folder_are_refused(
    design: Design, data: Path, tuned: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(data, folder)
    shutil.copytree(tuned, out)
    shutil.rmtree(out / "code+text")
    before = files(out)
    (folder / "asked.jsonl").write_text((data / "asked.jsonl").read_text().replace("it is", "it was"))
    with pytest.raises(TwinprobeError, match="holds models tuned with other settings or instructions") as caught:
        train_design(design, folder, out, quiet)
    assert "\n" not in str(caught.value)
    assert files(out) == before


def test_instructions_that_are_all_too_long_are_refused(
    design: Design, data: Path, pretrained: Path, tmp_path: Path
) -> None:
    folder, out = tmp_path / "data", tmp_path / "out"
    shutil.copytree(data, folder)
    shutil.copytree(pretrained, out)
    (folder / "coded.jsonl").write_text(json.dumps({"prompt": "a", "response": "x = 1\n" * 50}))
    with pytest.raises(TwinprobeError) as caught:
        train_design(design, folder, out, quiet)
    assert str(caught.value) == (
        f"{folder}: no code instruction is left to tune on, but mix 'code-up' needs some "
        "(1 do not fit the context of 64 tokens); give more, or shorter ones"
    )
    assert not (out / "tuning.json").exists()
