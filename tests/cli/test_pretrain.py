"""``pretrain``: a toy design through the command, cut off, taken up again, and asked for wrongly."""

from __future__ import annotations

import _thread
import json
from pathlib import Path

import pytest
from calling import contents, done, refused, twinprobe

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


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("tokens = 19200", "tokens = many", ["design.toml: not valid TOML"]),
        ("tokens = 19200", 'tokens = "many"', ["design.toml: field 'training.tokens'", "'many'"]),
        ("batch = 4", "bach = 4", ["design.toml: unknown field 'training.bach'", "did you mean 'batch'"]),
        ("code_share = 0.5", "code_share = 1.5", ["field 'run.1.code_share'", "less than or equal to 1"]),
        ("heads = 2", "heads = 3", ["hidden_size 16", "3 heads"]),
        ('name = "code"', 'name = "text"', ["two runs share a name"]),
    ],
    ids=["toml", "type", "unknown field", "range", "heads", "names"],
)
def test_a_bad_design_is_one_line(data: Path, tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    assert old in DESIGN
    (tmp_path / "design.toml").write_text(DESIGN.replace(old, new))
    refused(twinprobe("pretrain", tmp_path / "design.toml", "--data-dir", data, "--out", tmp_path / "out"), *expected)
    assert not (tmp_path / "out").exists()


def test_what_is_not_there_is_one_line(data: Path, trained: Path, tmp_path: Path) -> None:
    design, out = data / "design.toml", ("--out", tmp_path / "out")
    refused(twinprobe("pretrain", tmp_path / "absent.toml", *out), "absent.toml: no such file")
    refused(twinprobe("pretrain", design, *out, "--only", "cod"), "'cod'", "text, code", after_progress=True)
    refused(twinprobe("pretrain", design, "--data-dir", tmp_path, *out), "--data-dir", after_progress=True)


def test_another_designs_folder_is_refused_and_left_alone(data: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "design.toml").write_text(DESIGN.replace("seed = 0", "seed = 1"))
    before = contents(trained)
    ran = twinprobe("pretrain", tmp_path / "design.toml", "--data-dir", data, "--out", trained)
    refused(ran, "holds runs of another design", "choose another --out", after_progress=True)
    assert contents(trained) == before
