"""``twinprobe bench harness`` on a tiny model and a few questions of our own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pandas as pd
import pytest
from calling import Ran, contents, done, refused, twinprobe

THINGS = ["the box", "the old man", "rain", "a total"]
OWN = """\
task: own_sums
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
  cache_dir: {cache}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: gold
doc_to_choice: [the box, rain]
metric_list: [{{metric: acc}}]
metadata: {{version: 1}}
"""
FROM_HUB = """\
task: from_a_hub
dataset_path: nobody/nothing-of-that-name
output_type: multiple_choice
test_split: test
doc_to_text: question
doc_to_target: gold
doc_to_choice: [a, b]
metric_list: [{metric: acc}]
"""


@pytest.fixture
def harness() -> None:
    pytest.importorskip("lm_eval", reason="lm-evaluation-harness is not installed: it is not run")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    for name in ("arc", "mmlu/test", "mmlu/dev"):
        (folder / name).mkdir(parents=True)
    rows = [{"query": f"Question: What is {n}?", "choices": THINGS, "gold": n % 3} for n in range(5)]
    (folder / "arc" / "arc_easy.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    for subject in ("anatomy", "virology"):
        for split in ("test", "dev"):
            lines = "".join(f"{split} {n}?,{','.join(THINGS)},{'ABCD'[n % 4]}\n" for n in range(4))
            (folder / "mmlu" / split / f"{subject}_{split}.csv").write_text(lines)
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    folder.mkdir()
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps({'question': f'{n}?', 'gold': n % 2})}\n" for n in range(3)))
    (folder / "own.yaml").write_text(OWN.format(file=rows, cache=tmp_path / "cache"))
    (folder / "hub.yaml").write_text(FROM_HUB)
    return folder


@pytest.mark.usefixtures("harness")
def test_it_scores_and_goes_on_where_it_was(model_folder: Path, data: Path, own: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def call(*options: object) -> Ran:
        tasks = ("--tasks", "arc_easy,mmlu,own_sums", "--data-dir", data, "--include-path", own)
        return twinprobe("bench", "harness", model_folder, *tasks, "--shots", 1, "--limit", 3, "--out", out, *options)

    ran = call()
    assert "acc" in done(ran)
    assert "4 tasks with 12 items to do" in ran.err
    table = pd.read_csv(out / "mmlu.csv")
    assert set(table.task) == {"mmlu"}
    assert list(table.subject.unique()) == ["mmlu_anatomy", "mmlu_virology"]
    assert len(pd.read_csv(out / "own_sums.csv")) == len(pd.read_csv(out / "arc_easy.csv")) == 3
    assert {*table.model} == {str(model_folder)}
    about = json.loads((out / "logs" / "mmlu" / "about.json").read_text())
    assert (about["about"]["bos"], about["about"]["chat_template"], about["about"]["shots"]) == (True, "not applied", 1)
    assert about["shots"] == {"mmlu_anatomy": 1, "mmlu_virology": 1}

    # What is there is not asked again; a score of another name is taken from the log that is there.
    logs = contents(out / "logs")
    told = json.loads(done(call("--json", "--metric", "acc_norm")))["tasks"]
    assert contents(out / "logs") == logs
    assert [(line["task"], line["metric"], line["items"], line["shots"]) for line in told] == [
        ("arc_easy", "acc_norm", 3, 1), ("mmlu", "acc", 6, 1), ("own_sums", "acc", 3, 1)
    ]  # fmt: skip
    own_scores = pd.read_csv(out / "arc_easy.csv")
    assert own_scores.metric.unique().tolist() == ["acc_norm"]
    assert told[0]["score"] == pytest.approx(own_scores.score.mean())
    refused(call("--bos", "never"), "arc_easy/about.json is of bos True, not False")
    assert contents(out / "logs") == logs


@pytest.mark.usefixtures("harness")
def test_mistakes_are_one_line(model_folder: Path, data: Path, own: Path, tmp_path: Path) -> None:
    def call(tasks: str, *options: object) -> Ran:
        return twinprobe("bench", "harness", model_folder, "--out", tmp_path / "out", "--tasks", tasks, *options)

    refused(call(" , "), "no tasks given")
    refused(call("arc_esy", "--data-dir", data), "no task 'arc_esy' (did you mean 'arc_easy'", "mmlu[_PART]")
    refused(call("mmlu_phrenology", "--data-dir", data), "no task 'mmlu_phrenology'")
    refused(call("winogrande", "--data-dir", data), "winogrande.jsonl: no such file", "give the folder that holds")
    refused(call("x", "--include-path", tmp_path / "absent"), "is no folder")
    refused(call("from_a_hub", "--include-path", own), "from_a_hub: its data could not be loaded", "--data-dir")
    refused(call("arc_easy", "--data-dir", data, "--chat-template"), "has no chat template")
    assert not (tmp_path / "out" / "logs").exists()


def test_without_the_harness_it_says_what_to_install(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lm_eval", None)  # what Python does with a package that is not there
    ran = twinprobe("bench", "harness", model_folder, "--tasks", "arc_easy", "--out", tmp_path / "out")
    refused(ran, 'pip install "twinprobe[bench]"')


@pytest.mark.slow
@pytest.mark.usefixtures("harness")
def test_an_unknown_task_of_the_hub(model_folder: Path, tmp_path: Path) -> None:
    """Slow: the harness reads all of its 14,000 tasks."""
    ran = twinprobe("bench", "harness", model_folder, "--tasks", "arc_esy", "--out", tmp_path / "out")
    refused(ran, "no task 'arc_esy' (did you mean 'arc_easy'")
