"""``bench execute``: from samples to tables, only when allowed, and on from where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from calling import Ran, done, refused, twinprobe

from analyses.benchmarks.code_generation.pass_at_k import pass_at_k
from analyses.benchmarks.code_generation.sandbox import isolation

RIGHT = {"1": 3, "2": 1, "3": 0}
"""Right samples of four, for each problem."""


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Samples whose outcome is known, and their problems."""
    problems, samples = [], []
    for name, right in RIGHT.items():
        problems.append(
            {"task_id": f"HumanEval/{name}", "prompt": "def f(x):\n", "entry_point": "f", "canonical_solution": "",
             "test": f"def check(candidate):\n    assert candidate(1) == {name}\n"}
        )  # fmt: skip
        bodies = [f"    return {name if number < right else 99}\n" for number in range(4)]
        samples += [{"task_id": f"HumanEval/{name}", "completion": body} for body in bodies]
    for path, rows in ((tmp_path / "data.jsonl", problems), (tmp_path / "wrote.jsonl", samples)):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "wrote.jsonl", tmp_path / "data.jsonl"


def execute(files: tuple[Path, Path], out: Path, *options: object) -> Ran:
    return twinprobe(
        "bench", "execute", files[0], "--task", "humaneval", "--data", files[1], "--out", out, "--workers", 2, *options
    )


def test_nothing_is_run_without_the_flag(files: tuple[Path, Path], tmp_path: Path) -> None:
    refused(execute(files, tmp_path / "out"), "nothing was run", "--allow-code-execution")
    assert not (tmp_path / "out").exists()


def test_tables_hold_the_known_outcomes_and_what_is_done_is_not_done_again(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    if isolation().missing:
        pytest.skip(f"no namespaces here: {isolation().reason}")
    out = tmp_path / "out"
    options = ("--allow-code-execution", "--k", 1, "--k", 2, "--k", 9)
    shown = json.loads(done(execute(files, out, *options, "--json")))
    assert shown["samples"] == {"failed": 8, "passed": 4} and shown["isolation"]["network"]
    expected = {k: sum(pass_at_k(4, right, k) for right in RIGHT.values()) / 3 for k in (1, 2)}
    assert {row["k"]: row["estimate"] for row in shown["pass_at_k"]} == pytest.approx(expected)
    items = pd.read_csv(out / "items.csv")
    assert [*items.columns[:7]] == ["model", "task", "subject", "item", "score", "chance", "group"]
    assert items.groupby("item").score.sum().to_dict() == {f"HumanEval/{name}": right for name, right in RIGHT.items()}
    assert set(items.model) == {"wrote"} and set(items.task) == {"humaneval"}

    before = {path.name: path.stat().st_mtime_ns for path in (out / "problems").iterdir()}
    (out / "problems" / "2.json").write_text("torn")
    files[0].write_text(files[0].read_text().replace("return 3", "return 3 ").replace("return 99", "return 98", 1))
    assert "pass@k on humaneval" in done(execute(files, out, *options))
    after = {path.name: path.stat().st_mtime_ns for path in (out / "problems").iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"1.json", "2.json"}
    again = pd.read_csv(out / "items.csv")
    assert again.drop(columns="seconds").equals(items.drop(columns="seconds"))


def test_samples_that_do_not_cover_the_task_are_refused_before_any_is_run(
    files: tuple[Path, Path], tmp_path: Path
) -> None:
    lines = files[0].read_text().splitlines(keepends=True)
    files[0].write_text("".join(lines[:8]))
    refused(execute(files, tmp_path / "out", "--allow-code-execution"), "samples of 2 problems of 3")
    files[0].write_text("".join(lines).replace("HumanEval/3", "HumanEval/9"))
    refused(execute(files, tmp_path / "out", "--allow-code-execution"), "1 problems that humaneval has not", "'9'")
    assert not (tmp_path / "out").exists()


def test_problems_in_another_language_are_run_and_missing_ones_named(tmp_path: Path) -> None:
    if isolation().missing:
        pytest.skip(f"no namespaces here: {isolation().reason}")
    data, samples, out = tmp_path / "humaneval-sh.jsonl", tmp_path / "shell.jsonl", tmp_path / "out"
    tests = '}\n\nset -e\nrun_test() {\n    [[ $(f "2") = "4" ]]\n}\n\nrun_test'
    row = {"name": "HumanEval_7_f_2", "language": "sh", "prompt": "f() {\n", "tests": tests, "stop_tokens": ["\n}"]}
    data.write_text(json.dumps(row))
    bodies = ('    echo "$((2 * $1))"\n}\necho more', "    echo 3", "    exit 0")
    samples.write_text("".join(json.dumps({"task_id": row["name"], "completion": body}) + "\n" for body in bodies))
    command = ("bench", "execute", samples, "--task", "multipl-e", "--allow-code-execution", "--k", 1)
    shown = json.loads(done(twinprobe(*command, "--data", data, "--out", out, "--json")))
    assert shown["samples"] == {"failed": 2, "passed": 1}
    assert pd.read_csv(out / "items.csv").task.tolist() == ["multipl-e-sh"] * 3
    data.write_text(json.dumps({**row, "language": "rkt"}))
    refused(twinprobe(*command, "--data", data, "--out", tmp_path / "other"), "no commands to run 'rkt' programs")
    samples.write_text(json.dumps({"task_id": row["name"], "solution": "f() { echo 4; }"}))
    refused(twinprobe(*command, "--data", data, "--out", tmp_path / "other"), "have 'solution'; expected 'completion'")
    assert not (tmp_path / "other").exists()
