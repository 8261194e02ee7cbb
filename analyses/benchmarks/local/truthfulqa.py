"""TruthfulQA (Lin et al. 2022), both multiple choice forms, from the authors' ``truthfulqa/TruthfulQA*.csv``.

mc1: the best answer against all false ones. mc2: all true against all false ones. The answers are built from the columns of
the CSV as the authors' own script does it (parted at semicolons, closed with a full stop); the harness reads a list that
was made from a later version of the file. The authors' primer is no part of the CSV: where ``truthfulqa/primer.txt`` has it
("Q: ...", "A: ...", an empty line after each), it goes before every question as in the harness; without it nothing does.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from activations.errors import TwinprobeError
from analyses.benchmarks.local.questions import Part, Question, chosen, files_in, text_of

COLUMNS = ("Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers")
PRIMER = "primer.txt"
"""The authors' six fixed questions and answers that go before every question (their "QA" prompt), in a file beside the CSV."""


def read(data: Path, form: str) -> list[Part]:
    """The questions of ``mc1`` or ``mc2``, a part per category."""
    by_category: dict[str, list[dict[str, str]]] = {}
    number = 0
    primer = data / "truthfulqa" / PRIMER
    opening = f"{text_of(primer).strip()}\n\n" if primer.exists() else ""
    for path in files_in(data / "truthfulqa", "TruthfulQA*.csv"):
        for row in csv.DictReader(io.StringIO(text_of(path), newline="")):
            if not set(COLUMNS) <= set(row):
                raise TwinprobeError(f"{path}: expected the columns {', '.join(COLUMNS)}, got {', '.join(row)}")
            by_category.setdefault(row["Category"], []).append({**row, "id": str(number)})
            number += 1
    return [
        Part(category, tuple(_question(row, form) for row in rows), description=opening)
        for category, rows in by_category.items()
    ]


def _question(row: dict[str, str], form: str) -> Question:
    true = [_closed(row["Best Answer"].strip())] if form == "mc1" else _answers(row["Correct Answers"])
    false = [answer for answer in _answers(row["Incorrect Answers"]) if answer not in true]
    return chosen(row["id"], f"Q: {row['Question']}\nA: ", [*true, *false], range(len(true)))


def _answers(cell: str) -> list[str]:
    """The distinct answers of a cell."""
    return list(dict.fromkeys(_closed(answer.strip()) for answer in cell.split(";") if answer.strip()))


def _closed(answer: str) -> str:
    return answer if answer.endswith(".") else f"{answer}."
