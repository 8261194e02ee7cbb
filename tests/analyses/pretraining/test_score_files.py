"""Files of scores: what is read, and what is refused in one line that says where."""

from __future__ import annotations

from pathlib import Path

import pytest

from activations.errors import TwinprobeError
from analyses.pretraining.scores import read_scores

HEAD = "task,share,score"


def read(folder: Path, text: str | bytes) -> list[dict[str, object]]:
    file = folder / "scores.csv"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return [{str(name): value for name, value in line.items()} for line in read_scores(file).to_dict("records")]


def test_required_columns_are_enough_and_numbers_are_numbers(tmp_path: Path) -> None:
    assert read(tmp_path, f"{HEAD}\na,0,1\na,5e-1,-2.5\n") == [
        {"task": "a", "share": 0.0, "score": 1.0},
        {"task": "a", "share": 0.5, "score": -2.5},
    ]


def test_optional_columns_stay_text_and_others_are_left_out(tmp_path: Path) -> None:
    """A spreadsheet's byte order mark, blanks after commas and blank lines do no harm; ``None`` is a name like another."""
    lines = "\ufeffshare, task,seed ,notes,score, category\r\n0, None,01,,1,\r\n\r\n1, None ,01,x,2, \r\n"
    assert read(tmp_path, lines) == [
        {"task": "None", "share": 0.0, "score": 1.0, "seed": "01", "category": ""},
        {"task": "None", "share": 1.0, "score": 2.0, "seed": "01", "category": ""},
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["is empty", "task, share, score"]),
        (f"{HEAD}\n", ["has a header and no scores"]),
        (f"{HEAD}\n\n,,\n", ["has a header and no scores"]),
        ("task,fraction\na,0\n", ["lacks the columns share, score", "it has task, fraction"]),
        ("task,share,accuracy\na,0,1\n", ["lacks the column score;"]),
        (f"{HEAD}\na,0,1\na,30,1\n", ["line 3", "share 30 is not from 0 to 1", "0.3"]),
        (f"{HEAD}\na,0,1\n\na,-0.1,1\n", ["line 4", "share -0.1"]),
        (f"{HEAD}\na,50%,1\na,0,1\n", ["line 2", "share '50%' is no number"]),
        (f"{HEAD}\na,0,1\na,1,high\n", ["line 3", "score 'high' is no number"]),
        (f"{HEAD}\na,0,\na,1,2\n", ["line 2", "score '' is no number"]),
        (f"{HEAD}\na,0,nan\na,1,2\n", ["line 2", "score 'nan'"]),
        (f"{HEAD}\na,0,1\na,1,inf\n", ["line 3", "score 'inf'"]),
        (f"{HEAD}\na,0,1\n,1,2\n", ["line 3", "task is empty"]),
        (f"{HEAD},seed\na,0,1,1\na,1,1,\n", ["line 3", "seed is empty"]),
        (f"{HEAD}\na,0,1\na,1,1\nb,0.5,1\nb,0.5,2\n", ["'b'", "one share only", "2 different shares"]),
        (f"{HEAD},setting\na,0,1,x\na,1,1,x\na,0,1,y\n", ["'y, a'", "one share only"]),
        (f"{HEAD},seed\na,0,1,1\na,1,1,1\na,1,3,1\n", ["line 4", "second score of task a, seed 1, share 1"]),
        (f"{HEAD},group\na,0,1,g\na,1,1,h\n", ["task 'a' has group 'g' and 'h'"]),
        (f"{HEAD}\na,0,1\na,0,1,2,3\n", ["no CSV file", "line 3"]),
        (b"task,share,score\n\xff,0,1\n", ["no CSV file in UTF-8"]),
    ],
)  # fmt: skip
def test_what_can_not_be_used_is_refused(tmp_path: Path, text: str | bytes, expected: list[str]) -> None:
    with pytest.raises(TwinprobeError) as refusal:
        read(tmp_path, text)
    said = str(refusal.value)
    assert "\n" not in said and said.startswith(str(tmp_path / "scores.csv"))
    for part in expected:
        assert part in said


def test_an_absent_file_is_said_to_be_absent(tmp_path: Path) -> None:
    with pytest.raises(TwinprobeError, match="absent.csv: no such file"):
        read_scores(tmp_path / "absent.csv")
