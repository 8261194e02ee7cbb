"""``evaluate``: a family scored through the command, taken up again, and asked for wrongly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from calling import Ran, contents, done, refused, twinprobe

if TYPE_CHECKING:
    from conftest import MakeModel

EVALUATION = """
[[finetune]]
name = "swap"
train = "examples.tsv"
test = "examples.tsv"
gen = "examples.tsv"
category_from = "nothing"
epochs = 4
batch = 4
precision = "float32"
"""


@pytest.fixture(scope="module")
def place(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of two shares of code, examples, an evaluation file, and the scores."""
    folder = tmp_path_factory.mktemp("family")
    for seed, share in enumerate((0.0, 0.5)):
        model = folder / "runs" / f"code{share}" / "model"
        loaded = make_model("llama", seed=seed)
        loaded.model.save_pretrained(model)
        loaded.tokenizer.save_pretrained(model)
        run = {"code_share": share, "seed": 0, "serves": [{"setting": "competitive", "share": share}]}
        (model / "training.json").write_text(json.dumps({"run": run}))
    (folder / "examples.tsv").write_text("".join(f"{word} box\tbox {word}\n" for word in ("the", "red", "sea", "coin")))
    (folder / "e.toml").write_text(EVALUATION)
    return folder


def evaluate(place: Path, *options: object, file: str = "e.toml") -> Ran:
    out = place / "scores"
    return twinprobe("evaluate", place / file, "--models", place / "runs", "--data-dir", place, "--out", out, *options)


def test_scores_are_written_and_then_kept(place: Path) -> None:
    first = evaluate(place, "--only", "code0.0")
    assert "swap in distribution" in done(first) and "1 evaluations of 1 models to do, about" in first.err
    assert set(pd.read_csv(place / "scores" / "scores.csv").model) == {"code0.0"}
    second = evaluate(place)
    assert "1 evaluations of 1 models to do" in second.err and "code0.5, swap" in second.err
    assert "code0.0" not in second.err
    before = contents(place / "scores")
    third = evaluate(place, "--json")
    assert third.err == "" and contents(place / "scores") == before
    shown = json.loads(done(third))
    assert shown["out"] == str(place / "scores" / "scores.csv")
    scores = pd.read_csv(place / "scores" / "scores.csv")
    assert [line["score"] for line in shown["scores"]] == scores.score.tolist()
    assert set(scores.task) == {"swap in distribution", "swap generalisation"}
    assert "swap generalisation" in done(twinprobe("slopes", place / "scores" / "scores.csv", "--trials", 100))


def test_mistakes_are_refused_in_one_line(place: Path) -> None:
    refused(evaluate(place, "--only", "code0.6"), "no finished model 'code0.6'", "did you mean")
    refused(evaluate(place, file="absent.toml"), "absent.toml: no such file")
    (place / "bad.toml").write_text(EVALUATION.replace("examples.tsv", "absent.tsv").replace("swap", "other"))
    refused(
        evaluate(place, file="bad.toml"),
        "absent.tsv: no such file; give the folder that holds the data with --data-dir",
    )
    refused(
        twinprobe("evaluate", place / "e.toml", "--models", place / "none", "--out", place / "x"), "no finished model"
    )
