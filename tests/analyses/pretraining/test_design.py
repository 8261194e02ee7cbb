"""Designs: what a file may say, and one line for what it may not."""

from __future__ import annotations

from collections import Counter
from importlib.resources import files
from pathlib import Path

import pytest

from activations.errors import TwinprobeError
from analyses.pretraining.design import read_design
from analyses.pretraining.packing import mixture

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
    assert [design.steps(run) for run in design.run] == [1000 // (4 * 32)] * 2
    assert design.run[0].serves == ()


def test_a_design_has_at_least_one_step(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    path.write_text(GOOD.replace("tokens = 1000", "tokens = 5"))
    design = read_design(path)
    assert design.steps(design.run[0]) == 1


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("hidden_size = 16", "hidden_size = 18", "hidden_size 18 is not a multiple of 2 × 2 heads"),
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
        ("tokens = 1000", "", "run 'text' has no tokens and neither has [training]; give either"),
        ("heads = 2", 'heads = 4\nkind = "gpt_neox"', "hidden_size 16 is not a multiple of 8 × 4 heads (rotary"),
        ("heads = 2", 'heads = 2\nkind = "mamba"', "a mamba has no 'heads'; leave it out of [architecture]"),
        ("heads = 2", 'intermediate_size = 9\nkind = "mamba"', "a mamba has no 'intermediate_size'; leave it out of"),
        ("heads = 2", 'kind = "rnn"', "field 'architecture.kind': Input should be 'llama', 'gpt_neox' or 'mamba', got"),
        ('path = "code.jsonl"', "", "a [[data]] table of code names neither path nor dataset; expected path (files)"),
        ('path = "code.jsonl"', 'path = "c"\ndataset = "d"', "a [[data]] table of code names both path and dataset;"),
        ('path = "code.jsonl"', 'path = "c"\nsplit = "dev"', "'split' says nothing of the files in 'c'; leave it out"),
        ('licence = "MIT"', "", "field 'data.1.licence' is required"),
        ('licence = "MIT"', 'licence = "MIT"\ncharacters = 0', "field 'data.1.characters': Input should be greater"),
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
        ('name = "code"', 'name = "text"', "two runs are called 'text'; run names must be unique"),
        ('name = "code"', 'name = "../x"', "field 'run.1.name': String should match pattern"),
        (
            'name = "code"',
            'name = "data"',
            "a run can not be called 'data': that folder holds tokenizer and packed tok",
        ),
        ("code_share = 0.5", "code_share = 0.5\ntokens = 0", "field 'run.1.tokens': Input should be greater than 0"),
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


def test_tokens_seen_are_those_of_the_order_of_blocks(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    for share in (0.0, 0.1, 1 / 3, 0.5, 0.7, 1.0):
        for tokens in (5, 1000, 12_345):
            path.write_text(GOOD.replace("code_share = 0.5", f"code_share = {share}\ntokens = {tokens}"))
            design = read_design(path)
            run = design.run[1]
            order = mixture({"prose": 5, "code": 3}, share, design.steps(run) * design.training.batch, seed=0)
            counted = Counter(kind for kind, _ in order)
            assert design.tokens_seen(run) == {kind: 32 * counted[kind] for kind in ("prose", "code")}


def test_a_design_needs_a_run(tmp_path: Path) -> None:
    path = tmp_path / "d.toml"
    head = GOOD[: GOOD.index("[[run]]")].strip()
    path.write_text(f"run = []\n{head}")
    with pytest.raises(
        TwinprobeError, match=r"no \[family\] and no \[\[run\]\] table; a design needs at least one run"
    ):
        read_design(path)


def test_the_twins_differ_in_mixture_and_seed_alone() -> None:
    twins = read_design(str(files("analyses.pretraining") / "twins.toml"))
    assert {run.name: (run.code_share, run.seed) for run in twins.run} == {
        "text": (0.0, 0), "code": (0.5, 0), "text-seed2": (0.0, 1), "code-added": (1 / 3, 0),
    }  # fmt: skip
    seen = {run.name: twins.tokens_seen(run) for run in twins.run}
    assert seen["text"]["prose"] == seen["text-seed2"]["prose"] == sum(seen["code"].values())
    assert seen["code-added"]["prose"] == pytest.approx(seen["text"]["prose"], rel=1e-3), (
        "code comes on top of the prose"
    )
    assert all(data.licence for data in twins.data)
