"""MMLU (Hendrycks et al. 2021): 57 subjects, each ``mmlu/test/SUBJECT_test.csv`` with examples in ``mmlu/dev``.

CSV without or with a header, columns question, four choices, answer (a letter, or a number from 0).
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

from activations.errors import TwinprobeError
from analyses.benchmarks.local.questions import Part, Question, chosen, files_in, text_of

LETTERS = "ABCD"


def read(data: Path) -> list[Part]:
    """A part per subject; examples are the first of ``dev``."""
    parts = []
    for path in files_in(data / "mmlu" / "test", "*_test.csv"):
        subject = path.stem.removesuffix("_test")
        about = f"The following are multiple choice questions (with answers) about {subject.replace('_', ' ')}.\n\n"
        examples = _questions(data / "mmlu" / "dev" / f"{subject}_dev.csv")
        parts.append(Part(subject, _questions(path), examples, "first", about))
    return parts


def _questions(path: Path) -> tuple[Question, ...]:
    found = []
    for number, row in enumerate(csv.reader(io.StringIO(text_of(path), newline=""))):
        if number == 0 and row[-1:] == ["answer"]:
            continue
        answers = [*LETTERS, "0", "1", "2", "3"]
        if len(row) != 6 or row[5].strip() not in answers:
            raise TwinprobeError(
                f"{path}, row {number + 1}: expected question, four choices and an answer (A to D or 0 to 3), got {row!r:.200}"
            )
        listed = "\n".join(f"{letter}. {choice}" for letter, choice in zip(LETTERS, row[1:5], strict=True))
        gold = answers.index(row[5].strip()) % 4
        found.append(chosen(str(number), f"{row[0].strip()}\n{listed}\nAnswer: ", LETTERS, [gold]))
    return tuple(found)
