from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from activations.errors import TwinprobeError
from analyses.benchmarks.per_item import COLUMNS, check_items, gather, read_items, write_items

ITEMS = pd.DataFrame(
    {"model": "m", "task": ["a", "a", "b"], "item": ["1", "2", "1"], "score": [1, 0, 1 / 3], "length": [3, 4, 5]}
)


def _read(tmp_path: Path, text: str) -> pd.DataFrame:
    (tmp_path / "t.csv").write_text(text)
    return read_items(tmp_path / "t.csv")


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    table = ITEMS.assign(score=rng.random(3), chance=[0.25, np.nan, 0.5], group=['x, "y"', "line\nbreak", "é"])
    write_items(table, tmp_path / "t.csv")
    again = read_items(tmp_path / "t.csv")
    assert list(again.columns) == [*COLUMNS, "length"]
    assert again.score.tolist() == table.score.tolist() and again.length.tolist() == ["3", "4", "5"]
    assert again.group.tolist() == table.group.tolist() and again.subject.tolist() == ["a", "a", "b"]
    np.testing.assert_array_equal(again.chance, table.chance)


def test_subject_and_group_are_filled_in() -> None:
    checked = check_items(ITEMS.assign(subject=["s", "", None]), "here")
    assert checked.subject.tolist() == ["s", "a", "b"] and checked.group.tolist() == ["1", "2", "1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "t.csv is empty; expected columns model, task"),
        ("model,task,item\nm,a,1\n", "lacks the column score; it has model, task, item"),
        ("model,task,item,score\n", "has a header and no items"),
        ("model,task,item,score\nm,a,1\n", "line 2: 3 fields; expected 4"),
        ("model,task,item,score\n\nm,a,1,1\nm,,2,1\n", "line 4: task is empty"),
        ("model,task,item,score\nm,a,1,1\nm,a,2,yes\n", "line 3: score 'yes' is no number"),
        ("model,task,item,score\nm,a,1,59.6\n", "line 2: score 59.6 is not from 0 to 1; write a percentage as a share"),
        ("model,task,item,score\nm,a,1,nan\n", "line 2: score 'nan' is no number"),
        ("model,task,item,score,chance\nm,a,1,1,4\n", "line 2: chance '4' is no number from 0 to 1"),
        ('model,task,item,score\nm,"a\nb",1,1\nm,a,1,1\nm,a,1,0\n', "line 5: item '1' of task 'a' is there a second time"),
        ("model,task,item,score,score\nm,a,1,1,1\n", "two columns are named 'score'"),
    ],
    ids=range(11),
)  # fmt: skip
def test_mistakes_name_file_and_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(TwinprobeError) as raised:
        _read(tmp_path, text)
    assert expected in str(raised.value) and "t.csv" in str(raised.value) and "\n" not in str(raised.value)


def test_items_of_other_subjects_and_models_may_share_a_name(tmp_path: Path) -> None:
    text = "model,task,subject,item,score\nm,a,s,1,1\nm,a,t,1,1\nn,a,s,1,1\n"
    assert len(_read(tmp_path, text)) == 3


def test_subtasks_become_subjects_and_clusters() -> None:
    table = check_items(ITEMS.assign(task=["mmlu_x", "mmlu_y", "mmluz"]), "here")
    gathered = gather(table, ["mmlu"])
    assert gathered.task.tolist() == ["mmlu", "mmlu", "mmluz"]
    assert gathered.subject.tolist() == ["mmlu_x", "mmlu_y", "mmluz"] and gathered.group.tolist() == [
        "mmlu_x",
        "mmlu_y",
        "1",
    ]
    assert table.task.tolist() == ["mmlu_x", "mmlu_y", "mmluz"]
    with pytest.raises(TwinprobeError, match="no task begins with 'arc_'"):
        gather(table, ["arc"])
