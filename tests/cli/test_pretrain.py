"""``pretrain``: a toy design through the command, cut off, taken up again, and asked for wrongly."""

from __future__ import annotations

import _thread
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from calling import PYTHON, contents, done, refused, twinprobe

from activations.models import load_model

DESIGN = """\
name = "toy"
[architecture]
hidden_size = 16
intermediate_size = 24
layers = 1
heads = 2
context = 16
[tokenizer]
vocabulary = 300
bytes_per_kind = 4000
[training]
tokens = 19200
batch = 4
precision = "float32"
checkpoint_every = 20
[[data]]
kind = "prose"
path = "prose"
licence = "CC0"
held_out = ["last.txt"]
[[data]]
kind = "code"
path = "code.jsonl"
licence = "CC0"
held_out = ["code.jsonl/last.py"]
[[run]]
name = "text"
code_share = 0.0
seed = 0
[[run]]
name = "code"
code_share = 0.5
seed = 0
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of prose and a file of code."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "prose").mkdir()
    for name in ("first", "second", "last"):
        (folder / "prose" / f"{name}.txt").write_text(f"The {name} captain put the coin into the red box. " * 30)
    rows = [{"path": f"{name}.py", "text": f"{name} = {name} + 1\nprint({name})\n" * 30} for name in ("a", "b", "last")]
    (folder / "code.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "design.toml").write_text(DESIGN)
    return folder


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of the design, trained without interruption."""
    out = tmp_path_factory.mktemp("runs") / "toy"
    shown = json.loads(done(twinprobe("pretrain", data / "design.toml", "--data-dir", data, "--out", out, "--json")))
    assert shown == {name: str(out / name / "model") for name in ("text", "code")}
    return out


def test_the_runs_are_models_of_one_shape_and_one_start(trained: Path) -> None:
    text, code = (load_model(str(trained / name / "model")) for name in ("text", "code"))
    assert text.fingerprint != code.fingerprint
    assert text.tokenizer.get_vocab() == code.tokenizer.get_vocab()
    assert (text.n_layers, text.d_model) == (code.n_layers, code.d_model) == (1, 16)
    for name in ("text", "code"):
        facts = json.loads((trained / name / "model" / "training.json").read_text())
        assert facts["steps"] == 300
        assert facts["run"]["name"] == name
        assert (trained / name / "model" / "README.md").read_text()


def test_a_finished_design_is_not_trained_again(trained: Path, data: Path) -> None:
    before = contents(trained)
    shown = done(twinprobe("pretrain", data / "design.toml", "--data-dir", data, "--out", trained))
    assert f"text: {trained / 'text' / 'model'}" in shown
    assert contents(trained) == before


def test_an_interrupted_training_goes_on_to_the_same_weights(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("pretrain", data / "design.toml", "--data-dir", data, "--out", tmp_path / "toy", "--only", "code")
    original = Path.replace

    def pressed_after_a_checkpoint(self: Path, target: Path) -> Path:
        """Press Ctrl-C, so to speak, as soon as the first checkpoint is there."""
        placed = original(self, target)
        if Path(target).name == "checkpoint.pt":
            monkeypatch.undo()
            _thread.interrupt_main()
        return placed

    monkeypatch.setattr(Path, "replace", pressed_after_a_checkpoint)
    cut = twinprobe(*words)
    assert cut.code == 130
    assert cut.err.splitlines()[-1] == "Interrupted; run the same command again to go on."
    assert "Traceback" not in cut.err
    assert not (tmp_path / "toy" / "code" / "model").exists()
    assert f"code: {tmp_path / 'toy' / 'code' / 'model'}" in done(twinprobe(*words))
    assert not (tmp_path / "toy" / "text").exists()
    for name in ("model.safetensors", "loss.csv"):
        assert (tmp_path / "toy" / "code" / "model" / name).read_bytes() == (
            trained / "code" / "model" / name
        ).read_bytes()


def test_killed_in_the_middle_the_same_command_goes_on_to_the_same_weights(
    trained: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``kill -9`` as soon as a checkpoint of the second run is there."""
    words = ("pretrain", data / "design.toml", "--data-dir", data, "--out", tmp_path / "toy")
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", *map(str, words)], env=PYTHON, stderr=subprocess.PIPE, text=True
    )
    checkpoint = tmp_path / "toy" / "code" / "checkpoint.pt"
    end = time.monotonic() + 150
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.002)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    assert not (tmp_path / "toy" / "code" / "model").exists()
    assert (tmp_path / "toy" / "text" / "model").exists()
    reached = torch.load(checkpoint, weights_only=True)["step"]
    assert 0 < reached < 300
    monkeypatch.setattr(sys.modules["cli.output"], "LINE_EVERY", 0.0)
    again = twinprobe(*words)
    assert f"code: {tmp_path / 'toy' / 'code' / 'model'}" in done(again)
    assert "toy: 1 run to train, 19,200 tokens in all" in again.err
    lines = re.findall(r"^  code (\d+) of 300 loss \d\.\d{3}, \d\.\d min left$", again.err, re.MULTILINE)
    assert [int(line) for line in lines] == list(range(reached + 1, 301)), "loss and time left, without a terminal too"
    for run in ("text", "code"):
        for name in ("model.safetensors", "loss.csv"):
            ours, theirs = (folder / run / "model" / name for folder in (tmp_path / "toy", trained))
            assert ours.read_bytes() == theirs.read_bytes()


def test_the_card_has_the_command(trained: Path, data: Path) -> None:
    command = json.loads((trained / "code" / "model" / "training.json").read_text())["command"]
    assert command == f"twinprobe pretrain {data / 'design.toml'} --data-dir {data} --out {trained} --json"
    assert command in (trained / "code" / "model" / "README.md").read_text()


FAMILY = """\
[family]
shares = [0.0, 0.5]
seeds = [0, 4]
competitive_tokens = 64_000
additive_prose_tokens = 32_000
"""


@pytest.fixture
def family(tmp_path: Path) -> Path:
    """A design with a family in place of runs."""
    (tmp_path / "family.toml").write_text(DESIGN[: DESIGN.index("[[run]]")] + FAMILY)
    return tmp_path / "family.toml"


def test_a_dry_run_shows_the_runs_and_what_they_take(family: Path, data: Path) -> None:
    before = contents(family.parent)
    shown = done(twinprobe("pretrain", family, "--dry-run"))
    assert "toy: 6 runs, 320,000 tokens in all" in shown
    for line in (
        r"code0-64k-seed0 +0 +64,000 +0 +1,000 +0 +competitive 0, volume 0\.5",
        r"code50-64k-seed4 +0\.5 +32,000 +32,000 +1,000 +4 +competitive 0\.5, additive 0\.5",
        r"code0-32k-seed4 +0 +32,000 +0 +500 +4 +additive 0, volume 0",
    ):
        assert re.search(line, shown), line
    assert re.search(r"about .+ of training on cpu \(.+ s a step, measured without torch\.compile\)", shown)
    assert "the size of the data is not known before it is read" in shown
    assert "for the data" in done(twinprobe("pretrain", family, "--dry-run", "--data-dir", data))
    assert contents(family.parent) == before


def test_a_dry_run_says_the_same_in_json(family: Path, data: Path) -> None:
    ran = twinprobe("pretrain", family, "--dry-run", "--json", "--data-dir", data, "--only", "code50-64k-seed4")
    shown = json.loads(done(ran))
    assert (shown["design"], shown["tokens"]) == ("toy", 64_000)
    assert shown["runs"] == [
        {
            "name": "code50-64k-seed4", "code_share": 0.5, "prose_tokens": 32_000, "code_tokens": 32_000, "steps": 1000,
            "seed": 4,
            "serves": [{"setting": "competitive", "share": 0.5}, {"setting": "additive", "share": 0.5}],
        }
    ]  # fmt: skip
    taken = shown["estimate"]
    assert taken["seconds"] == pytest.approx(1000 * taken["seconds_per_step"])
    assert taken["data_bytes"] > 5000
    assert taken["device"] == "cpu"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("tokens = 19200", "tokens = many", ["design.toml: not valid TOML"]),
        ("tokens = 19200", 'tokens = "many"', ["design.toml: field 'training.tokens'", "'many'"]),
        ("batch = 4", "bach = 4", ["design.toml: unknown field 'training.bach'", "did you mean 'batch'"]),
        ("code_share = 0.5", "code_share = 1.5", ["field 'run.1.code_share'", "less than or equal to 1"]),
        ("heads = 2", "heads = 3", ["hidden_size 16", "3 heads"]),
        ('name = "code"', 'name = "text"', ["two runs are called 'text'"]),
        ('path = "prose"', 'path = "prose"\ndataset = "org/name"', ["names both path and dataset"]),
        ("tokens = 19200", "", ["run 'text' has no tokens", "[training]"]),
        (DESIGN[DESIGN.index("[[run]]") :], "", ["no [family] and no [[run]] table"]),
    ],
    ids=["toml", "type", "unknown field", "range", "heads", "names", "dataset", "tokens", "no run"],
)
def test_a_bad_design_is_one_line(data: Path, tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in DESIGN
    (tmp_path / "design.toml").write_text(DESIGN.replace(old, new))
    refused(twinprobe("pretrain", tmp_path / "design.toml", "--data-dir", data, "--out", tmp_path / "out"), *expected)
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_one_line(data: Path, trained: Path, tmp_path: Path) -> None:
    design, out = data / "design.toml", ("--out", tmp_path / "out")
    refused(twinprobe("pretrain", tmp_path / "absent.toml", *out), "absent.toml: no such file")
    refused(twinprobe("pretrain", design, *out, "--only", "cod"), "'cod'", "did you mean 'code'", "text, code")
    refused(twinprobe("pretrain", design), "--out", "--dry-run")
    refused(twinprobe("pretrain", design, "--data-dir", tmp_path, *out), "--data-dir", after_progress=True)


def test_another_designs_folder_is_refused_and_left_alone(data: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "design.toml").write_text(DESIGN.replace("seed = 0", "seed = 1"))
    before = contents(trained)
    ran = twinprobe("pretrain", tmp_path / "design.toml", "--data-dir", data, "--out", trained)
    refused(ran, "holds runs of another design", "choose another --out", after_progress=True)
    assert contents(trained) == before
