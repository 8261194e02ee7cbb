"""``bench explain``: from references and explanations, or two models, to tables and JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from calling import contents, done, refused, twinprobe

from analyses.benchmarks.explanation.scores import METRICS as KNOWN
from cli.bench_explain import METRICS

QUICK = ("--metric", "meteor", "--resamples", 200)


@pytest.fixture
def said(tmp_path: Path) -> tuple[object, ...]:
    """References, a system that is right on every other item, and one that always is."""
    right = [f"sort list number {n} in place" for n in range(30)]
    rows = [
        {"intent": f"How to sort list {n}?", "rewritten_intent": text, "snippet": f"l{n}.sort()", "question_id": n}
        for n, text in enumerate(right)
    ]
    (tmp_path / "conala.json").write_text(json.dumps(rows))
    for name, texts in (("half", [text if n % 2 else "no idea" for n, text in enumerate(right)]), ("all", right)):
        lines = [json.dumps({"id": f"{n}-0", "text": text}) for n, text in enumerate(texts)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    systems = ("--hypotheses", tmp_path / "half.jsonl", "--hypotheses", tmp_path / "all.jsonl")
    return ("bench", "explain", "--references", tmp_path / "conala.json", *systems, "--out", tmp_path / "out", *QUICK)


def test_metrics_are_the_ones_there_are() -> None:
    assert METRICS == KNOWN


def test_tables_and_json_hold_the_scores_and_the_test(
    said: tuple[object, ...], tmp_path: Path, model_folder: Path
) -> None:
    shown = done(twinprobe(*said))
    assert sorted(contents(tmp_path / "out")) == ["comparison.csv", "items.csv", "scores.csv"]
    assert "Against half" in shown and " * " in shown
    items = pd.read_csv(tmp_path / "out" / "items.csv")
    assert len(items) == 60 and set(items.task) == {"conala"} and set(items.model) == {"half", "all"}
    assert "chance" in items and items.chance.isna().all()
    more = done(twinprobe(*said, "--similarity", model_folder, "--idf", "--json"))
    given = json.loads(more, parse_constant=pytest.fail)
    scores = {(line["model"], line["metric"]): line["score"] for line in given["scores"]}
    assert scores["all", "similarity_f1"] == pytest.approx(1, abs=1e-6) and scores["half", "similarity_f3"] < 0.99
    assert scores["all", "meteor"] == pytest.approx(items[items.model == "all"].score.mean())
    [meteor, *similar] = given["comparison"]
    assert meteor["significant"] and meteor["difference"] == pytest.approx(
        scores["all", "meteor"] - scores["half", "meteor"]
    )
    assert [line["metric"] for line in similar] == ["similarity_f1", "similarity_f3"] and given["items"] == 30


def test_models_explain_for_themselves_once(
    said: tuple[object, ...], tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other"
    shutil.copytree(model_folder, other)
    out = tmp_path / "own"
    command = [*said[:4], "--model", model_folder, "--model", other, "--out", out, *QUICK, "--new-tokens", 6, "--json"]
    first = json.loads(done(twinprobe(*command)))
    assert len(list(out.glob("explained-*.jsonl"))) == 2
    assert [line["difference"] for line in first["comparison"]] == [0.0], "the models are equal"
    monkeypatch.setattr("analyses.benchmarks.explanation.writing.explain", pytest.fail)
    assert json.loads(done(twinprobe(*command))) == first


def test_mistakes_are_one_line(said: tuple[object, ...], tmp_path: Path) -> None:
    half, out = tmp_path / "half.jsonl", ("--out", tmp_path / "out", *QUICK)
    refused(twinprobe(*said[:4], *out), "either --hypotheses FILE or --model MODEL")
    refused(twinprobe(*said, "--hypotheses", half), "two have the same name")
    refused(twinprobe(*said, "--idf"), "--similarity")
    refused(twinprobe(*said[:3], tmp_path / "absent.json", *said[4:]), "absent.json", "no such file")
    half.write_text('{"id": "0-0", "text": "x"}')
    refused(twinprobe(*said), "half.jsonl lacks 29 of 30 items")
    assert not (tmp_path / "out").exists()
    refused(twinprobe(*said[:-4], "--metric", "bleus"), "bleus")


def test_a_package_that_is_not_there_is_named(said: tuple[object, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "sacrebleu.metrics", None)
    refused(twinprobe(*said, "--metric", "bleu"), "metric bleu needs sacrebleu", 'pip install "twinprobe[bench]"')
