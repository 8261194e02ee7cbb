"""``twinprobe bench run`` on a tiny model and a few questions of our own."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from calling import contents, done, refused, twinprobe

QUESTIONS = [
    {"query": f"Question: What is {n} and {n}?", "choices": ["the box", "the old man", "rain"], "gold": n % 3}
    for n in range(6)
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "arc").mkdir(parents=True)
    (folder / "gsm8k").mkdir()
    for name in ("arc_easy", "arc_challenge"):
        (folder / "arc" / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in QUESTIONS))
    sums = "".join(f"{json.dumps({'question': f'{n}?', 'answer': f'#### {n}'})}\n" for n in range(3))
    for name in ("test", "train"):
        (folder / "gsm8k" / f"{name}.jsonl").write_text(sums)
    return folder


def test_it_scores_and_goes_on_where_it_was(model_folder: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def run(*options: object) -> str:
        tasks = ("--tasks", "arc_easy,gsm8k,arc_challenge", "--shots", 1, "--limit", 4)
        return done(twinprobe("bench", "run", model_folder, "--data-dir", data, *tasks, "--out", out, *options))

    shown = run()
    assert "acc_norm" in shown
    assert "strict" in shown
    table = pd.read_csv(out / "arc_easy.csv")
    assert len(table) == 4
    assert table.score.tolist() == table.acc_norm.tolist()
    before = contents(out)
    assert set(before) == {
        "summary.csv",
        *(f"{name}.{end}" for name in ("arc_easy", "arc_challenge", "gsm8k") for end in ("csv", "json")),
    }
    # As after a run that was killed in the last task: the others are not asked again, and all is as it was.
    (out / "arc_challenge.json").unlink()
    (out / "arc_challenge.csv").unlink()
    told = json.loads(run("--json"))
    again = contents(out)
    assert {name for name in before if before[name] != again[name]} <= {"arc_challenge.json"}  # the seconds it took
    assert [line["task"] for line in told["tasks"]] == ["arc_easy", "gsm8k", "arc_challenge"]
    line = told["tasks"][0]
    assert (line["items"], line["shots"], line["bos"], line["chat_template"]) == (4, 1, True, "not applied")
    assert line["score"] == pytest.approx(table.score.mean())
    assert line["low"] <= line["score"] <= line["high"]


def test_generated_tasks_need_no_folder(model_folder: Path, tmp_path: Path) -> None:
    shown = done(
        twinprobe("bench", "run", model_folder, "--tasks", "generated_navigate,generated_arithmetic", "--preset", "generated",
                  "--limit", 4, "--out", tmp_path / "out")
    )  # fmt: skip
    assert "generated_navigate" in shown and "generated_arithmetic" in shown
    assert pd.read_csv(tmp_path / "out" / "summary.csv").chance.tolist() == [0.5, 0.25]
    refused(
        twinprobe("bench", "run", model_folder, "--preset", "offline-small", "--out", tmp_path / "none"),
        "which arc_easy, arc_challenge, winogrande, mmlu need; give one with --data-dir",
    )
    assert not (tmp_path / "none").exists()


def test_mistakes_are_one_line(model_folder: Path, data: Path, tmp_path: Path) -> None:
    common = ("bench", "run", model_folder, "--data-dir", data, "--out", tmp_path / "out")
    refused(twinprobe(*common), "no tasks given", "open-llm-leaderboard")
    refused(twinprobe(*common, "--tasks", "arc_esy"), "did you mean 'arc_easy'")
    refused(twinprobe(*common, "--preset", "offline-small"), "winogrande", "give the folder that holds")
    refused(twinprobe(*common, "--tasks", "arc_easy", "--shots", 9), "5 few-shot examples, 9 are asked for")
    done(twinprobe(*common, "--tasks", "arc_easy"))
    refused(twinprobe(*common, "--tasks", "arc_easy", "--bos", "never"), "is of bos True, not False")
    assert not list(tmp_path.glob("**/*.tmp"))
