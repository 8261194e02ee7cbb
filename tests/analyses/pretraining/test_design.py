"""Designs: what a file may say, and one line for what it may not."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest

from activations.errors import TwinprobeError
from analyses.pretraining.design import read_design

GOOD = """
name = "toy"
[architecture]
hidden_size = 16
heads = 2
context = 32
[tokenizer]
vocabulary = 300
[training]
tokens = 1000
batch = 4
[[data]]
kind = "prose"
path = "prose.txt"
licence = "CC0"
held_out_tail = { "*" = 0.1 }
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


def test_a_design_is_read_with_defaults(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text(GOOD)
    design = read_design(path)
    assert [run.name for run in design.run] == ["text", "code"]
    assert (design.architecture.layers, design.training.learning_rate) == (6, 3e-3)
    assert design.steps == 1000 // (4 * 32)


def test_a_design_has_at_least_one_step(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text(GOOD.replace("tokens = 1000", "tokens = 5"))
    assert read_design(path).steps == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("hidden_size = 16", "hidden_size = 18", "hidden_size 18 is not a multiple of twice the 2 heads"),
        (
            "hidden_size = 16",
            "hidden_sise = 16",
            "unknown field 'architecture.hidden_sise' (did you mean 'hidden_size'?)",
        ),
        ("heads = 2", "heads = 0", "field 'architecture.heads': Input should be greater than 0, got 0"),
        ("heads = 2", "layers = 0", "field 'architecture.layers': Input should be greater than 0, got 0"),
        ("context = 32", "context = 1", "field 'architecture.context': Input should be greater than 1, got 1"),
        ("vocabulary = 300", "vocabulary = 200", "field 'tokenizer.vocabulary': Input should be greater than or equal"),
        (
            "vocabulary = 300",
            "vocabulary = 70000",
            "field 'tokenizer.vocabulary': Input should be less than or equal to",
        ),
        ("tokens = 1000", "", "field 'training.tokens' is required"),
        ("tokens = 1000", "tokens = 0", "field 'training.tokens': Input should be greater than 0, got 0"),
        ("batch = 4", "batch = 0", "field 'training.batch': Input should be greater than 0, got 0"),
        ("batch = 4", "checkpoint_every = 0", "field 'training.checkpoint_every': Input should be greater than 0, got"),
        ("batch = 4", "learning_rate = -1", "field 'training.learning_rate': Input should be greater than 0, got -1"),
        ("batch = 4", "warmup = 2", "field 'training.warmup': Input should be less than or equal to 1, got 2"),
        (
            "batch = 4",
            'precision = "float8"',
            "field 'training.precision': Input should be 'float32' or 'bfloat16', got",
        ),
        ('kind = "prose"', 'kind = "poetry"', "field 'data.0.kind': Input should be 'prose' or 'code', got 'poetry'"),
        ('"*" = 0.1', '"*" = 1.5', "field 'data.0.held_out_tail.*': Input should be less than 1, got 1.5"),
        ("code_share = 0.5", "code_share = 1.5", "field 'run.1.code_share': Input should be less than or equal to 1"),
        ('name = "code"', 'name = "text"', "two runs share a name (text, text); run names must be unique"),
        ('name = "code"', 'name = "../x"', "field 'run.1.name': String should match pattern"),
        ('name = "code"', 'name = "tokenizer"', "a run can not be called 'tokenizer': that folder holds the tokenizer"),
        ('kind = "code"', 'kind = "prose"', "run 'code' needs code data, but no [[data]] table has it"),
        ('kind = "prose"', 'kind = "code"', "run 'text' needs prose data, but no [[data]] table has it"),
    ],
)
def test_a_bad_design_gets_one_line(tmp_path: Path, old: str, new: str, expected: str) -> None:
    assert GOOD.count(old) == 1
    path = tmp_path / "d.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(TwinprobeError) as caught:
        read_design(path)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: {expected}")


def test_a_design_needs_a_run(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    head = GOOD[: GOOD.index("[[run]]")].strip()
    path.write_text(f"run = []\n{head}")
    with pytest.raises(TwinprobeError, match=r"no \[\[run\]\] table; a design needs at least one run"):
        read_design(path)


def test_the_twins_differ_in_mixture_and_seed_alone() -> None:
    twins = read_design(str(files("analyses.pretraining") / "twins.toml"))
    assert {run.name: (run.code_share, run.seed) for run in twins.run} == {
        "text": (0.0, 0), "code": (0.5, 0), "text-seed2": (0.0, 1),
    }  # fmt: skip
    assert all(data.licence for data in twins.data)
