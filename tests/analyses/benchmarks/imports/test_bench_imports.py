"""Logs in every format, written as their documentation says, against what they were written from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pandas as pd
import pytest
from log_files import (
    DATE,
    bigcode_logs,
    choice_line,
    evalplus_log,
    generated_line,
    inspect_log,
    lm_eval_log,
    zstandard_archive,
)

from activations.errors import TwinprobeError
from analyses.benchmarks.imports import Wanted, import_logs
from analyses.benchmarks.per_item import COLUMNS, read_items, write_items

ACC, NORM = [1.0, 0.0, 0.0, 1.0], [1.0, 1.0, 0.0, 1.0]


@pytest.fixture
def arc(tmp_path: Path) -> Path:
    lines = [choice_line(i, *both) for i, both in enumerate(zip(ACC, NORM, strict=True))]
    return lm_eval_log(tmp_path, "arc_easy", lines, acc__none=0.5, acc_norm__none=0.75)


def _refused(expected: str, *paths: Path, model: str | None = None, **options: object) -> None:
    with pytest.raises(TwinprobeError) as raised:
        import_logs(paths, model, **options)  # type: ignore[arg-type]
    assert expected in str(raised.value) and "\n" not in str(raised.value)


def test_a_multiple_choice_log_of_lm_eval(arc: Path, tmp_path: Path) -> None:
    found = import_logs([arc])
    assert (found.model, found.log_model, found.unscored) == ("org/base", "org/base", 0)
    table = found.table
    assert list(table.columns[:7]) == list(COLUMNS)
    assert table.score.tolist() == ACC and table.acc_norm.tolist() == NORM
    assert set(table.task) == set(table.subject) == {"arc_easy"} and set(table.chance) == {0.25}
    assert table["item"].tolist() == table.group.tolist() == ["0", "1", "2", "3"]
    assert table.doc_hash.tolist() == [f"hash{i}" for i in range(4)] and set(table.log_model) == {"org/base"}
    assert import_logs([arc], wanted=Wanted(("f1", "acc_norm"))).table.score.tolist() == NORM
    write_items(table, tmp_path / "t.csv")
    assert read_items(tmp_path / "t.csv").score.tolist() == ACC


def test_filters_of_lm_eval_are_told_apart(tmp_path: Path) -> None:
    strict, flexible = [1.0, 0.0, 0.0], [1.0, 1.0, 0.0]
    lines = [generated_line(i, "strict-match", one) for i, one in enumerate(strict)]
    lines += [generated_line(i, "flexible-extract", one) for i, one in enumerate(flexible)]
    means = {"exact_match__strict-match": 1 / 3, "exact_match__flexible-extract": 2 / 3}
    path = lm_eval_log(tmp_path, "gsm8k", lines, **means)
    _refused("task 'gsm8k' has the filters strict-match, flexible-extract; choose one with --filter", path)
    for name, scores in (("strict-match", strict), ("flexible-extract", flexible)):
        table = import_logs([path], wanted=Wanted(filter=name)).table
        assert table.score.tolist() == scores and set(table["filter"]) == {name} and table.chance.isna().all()


def test_a_folder_of_lm_eval_is_read_whole(arc: Path, tmp_path: Path) -> None:
    lm_eval_log(tmp_path, "mmlu_x", [choice_line(0, 1.0, 1.0)], acc__none=1.0)
    lm_eval_log(tmp_path, "mmlu_y", [choice_line(0, 0.0, 1.0)], acc__none=0.0)
    table = import_logs([tmp_path], gathered=["mmlu"]).table
    assert table.task.tolist() == ["arc_easy"] * 4 + ["mmlu"] * 2
    assert table.subject.tolist()[4:] == ["mmlu_x", "mmlu_y"] == table.group.tolist()[4:]


def test_a_cut_lm_eval_log_is_refused(arc: Path) -> None:
    arc.write_text("".join(line + "\n" for line in arc.read_text().splitlines()[:3]))
    _refused("acc of its 3 items is 0.333333 on average, the results file says 0.500000", arc)
    arc.write_text(arc.read_text()[:-20])
    _refused("line 3: no JSON", arc)


def test_old_lm_eval_results_name_the_model_in_its_arguments(arc: Path) -> None:
    results = arc.with_name(f"results_{DATE}.json")
    told = json.loads(results.read_text())
    del told["model_name"]
    for arguments in ("dtype=auto,pretrained=org/old,trust=1", {"dtype": "auto", "pretrained": "org/old"}):
        results.write_text(json.dumps({**told, "config": {"model": "hf", "model_args": arguments}}))
        assert import_logs([arc]).model == "org/old"
    results.unlink()
    _refused("this lm-eval log names no model; give --model NAME", arc)
    named = import_logs([arc], "mine")
    assert (named.model, named.log_model) == ("mine", None)


def test_the_name_given_must_be_the_one_in_the_log(arc: Path) -> None:
    assert import_logs([arc], "org/base").model == "org/base"
    _refused("is a log of 'org/base', not of 'org/code'", arc, model="org/code")
    renamed = import_logs([arc], "org/code", rename=True)
    assert (renamed.model, renamed.log_model) == ("org/code", "org/base")
    assert set(renamed.table.model) == {"org/code"} and set(renamed.table.log_model) == {"org/base"}
    other = lm_eval_log(arc.parent / "other", "boolq", [choice_line(0, 1.0, 1.0, 2)], model="org/other", acc__none=1.0)
    _refused("the logs are of 2 models: org/base", arc, other)
    again = lm_eval_log(arc.parent / "again", "arc_easy", [choice_line(0, 1.0, 1.0)], acc__none=1.0)
    _refused("item '0' of task 'arc_easy' is in", arc, again)


@pytest.mark.parametrize("name", ["log.json", "log.eval"])
def test_inspect_logs(tmp_path: Path, name: str) -> None:
    letters = {"a": "C", "b": "I", "c": "P", "d": "N", "e": 0.25, "f": True}
    path = inspect_log(tmp_path / name, [(item, 1, {"choice": value}) for item, value in letters.items()])
    found = import_logs([path], "org/base")
    assert dict(zip(found.table["item"], found.table.score, strict=True)) == {
        "a": 1.0, "b": 0.0, "c": 0.5, "d": 0.0, "e": 0.25, "f": 1.0
    }  # fmt: skip
    assert set(found.table.task) == {"arc"} and found.model == "org/base"


def test_newer_inspect_archives_are_compressed_by_zstandard(tmp_path: Path) -> None:
    old = inspect_log(tmp_path / "old.eval", [(i, 1, {"choice": "CI"[i % 2]}) for i in range(5)])
    new = zstandard_archive(old, tmp_path / "new.eval")
    tables = [import_logs([path]).table[list(COLUMNS)] for path in (old, new)]
    pd.testing.assert_frame_equal(*tables)
    damaged = bytearray(new.read_bytes())
    damaged[damaged.index(b"header.json") + 30] ^= 255
    new.write_bytes(damaged)
    _refused("no archive that can be read here", new)


def test_epochs_of_inspect_are_averaged_and_scorers_chosen(tmp_path: Path) -> None:
    samples = [
        (1, 1, {"match": "C", "grade": {"style": 0.5}}),
        (1, 2, {"match": "I", "grade": {"style": 1.0}}),
        (2, 1, {"match": math.nan, "grade": {"style": 0.0}}),
        (2, 2, {}),
    ]
    path = inspect_log(tmp_path / "log.json", samples)
    _refused("has the scores match, grade.style; choose one with --metric", path)
    found = import_logs([path], wanted=Wanted(("match",)))
    assert found.table[["item", "score", "epochs"]].to_numpy().tolist() == [["1", 0.5, 2]] and found.unscored == 1
    assert import_logs([path], wanted=Wanted(("grade.style",))).table.score.tolist() == [0.75, 0.0]


def test_unfinished_and_odd_inspect_logs_are_refused(tmp_path: Path) -> None:
    samples = [(1, 1, {"match": "C"})]
    _refused("status is 'error'", inspect_log(tmp_path / "a.json", samples, status="error"))
    _refused("has no samples", inspect_log(tmp_path / "b.json", []))
    _refused("score 'fine'; expected C, I, P, N", inspect_log(tmp_path / "c.json", [(1, 1, {"match": "fine"})]))
    (tmp_path / "d.eval").write_bytes(b"no archive")
    _refused("no archive", tmp_path / "d.eval")
    _refused("is not from 0 to 1", inspect_log(tmp_path / "e.json", [(1, 1, {"match": 7})]))


def test_evalplus_new_and_old(tmp_path: Path) -> None:
    statuses = {
        "HumanEval/0": [("pass", "pass"), ("pass", "fail"), ("fail", "pass"), ("timeout", "timeout")],
        "HumanEval/1": [("pass", "pass")],
    }
    path = evalplus_log(tmp_path / "m_eval_results.json", statuses)  # type: ignore[arg-type]
    _refused("this evalplus log names no model", path)
    table = import_logs([path], "org/base").table
    scores = table.set_index(["task", "item"]).score
    assert scores.to_dict() == {
        ("humaneval", "HumanEval/0"): 0.5, ("humaneval_plus", "HumanEval/0"): 0.25,
        ("humaneval", "HumanEval/1"): 1.0, ("humaneval_plus", "HumanEval/1"): 1.0,
    }  # fmt: skip
    assert table.samples.tolist() == [4, 4, 1, 1]
    old = {"HumanEval/0": {"nfiles": 2, "base": [["success", []], ["failed", []]], "plus": []}}
    path.write_text(json.dumps({"date": "", "hash": "", "eval": old}))
    table = import_logs([path], "org/base").table
    assert table[["task", "score"]].to_numpy().tolist() == [["humaneval", 0.5]]


def test_human_eval_results(tmp_path: Path) -> None:
    path = tmp_path / "samples.jsonl_results.jsonl"
    lines = [("HumanEval/0", True), ("HumanEval/1", False), ("HumanEval/0", False)]
    written = [{"task_id": name, "completion": "", "result": "", "passed": one} for name, one in lines]
    path.write_text("".join(json.dumps(line) + "\n" for line in written))
    table = import_logs([path], "org/base").table
    assert table[["task", "item", "score"]].to_numpy().tolist() == [
        ["humaneval", "HumanEval/0", 0.5], ["humaneval", "HumanEval/1", 0.0]
    ]  # fmt: skip


def test_bigcode_log_with_its_metrics(tmp_path: Path) -> None:
    log, metrics = bigcode_logs(tmp_path, [[True, False], [True, True], [False, False]], 0.5)
    found = import_logs([log, metrics])
    assert found.model == "org/base" and found.table.score.tolist() == [0.5, 1.0, 0.0]
    assert set(found.table.task) == {"humanevalsynthesize-python"} and set(found.table.format) == {"bigcode"}
    _refused("names neither task nor model", log)
    _refused("has means alone", metrics)
    bigcode_logs(tmp_path, [[True, False], [True, True], [False, False]], 0.6)
    _refused("its pass@1 is 0.500000", log, metrics)


def test_published_scores_as_csv(tmp_path: Path) -> None:
    path = tmp_path / "p.csv"
    path.write_text("model,task,subject,score,count\nm,t,1,0.5,20\nm,t,2,0.25,30\nn,t,1,0.75,20\n")
    _refused("has 2 models (m, n); choose one of them with --model", path)
    table = import_logs([path], "m").table
    assert (
        table.score.tolist() == [0.5, 0.25]
        and table["count"].tolist() == ["20", "30"]
        and set(table["item"]) == {"all"}
    )
    first = import_logs([path], "n").table
    write_items(first, tmp_path / "again.csv")
    pd.testing.assert_frame_equal(import_logs([tmp_path / "again.csv"]).table[list(COLUMNS)], first[list(COLUMNS)])


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"x": 1}')
    (tmp_path / "b.jsonl").write_text('{"x": 1}\n')
    (tmp_path / "c.json").write_text('{"results": {}, "configs": {}}')
    _refused("is of no known format; expected lm-eval", tmp_path / "a.json")
    _refused("its first line has x", tmp_path / "b.jsonl")
    _refused("give the samples_*.jsonl of the run", tmp_path / "c.json")
    _refused("no such file", tmp_path / "absent.jsonl")
    (tmp_path / "empty").mkdir()
    _refused("has no samples_*.jsonl and no .eval", tmp_path / "empty")
