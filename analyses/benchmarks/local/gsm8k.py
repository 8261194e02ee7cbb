"""GSM8K (Cobbe et al. 2021): the authors' ``gsm8k/test.jsonl``, with examples drawn from ``gsm8k/train.jsonl``.

The model writes its solution; its final number is taken from after ``####`` (strict) or is the last number of all (flexible),
and compared without thousands separators, dollar signs and a closing full stop, as in the harness' task, version 3.
"""

from __future__ import annotations

import re
from pathlib import Path

from analyses.benchmarks.local.questions import Part, Question, json_rows

STOPS = ("Question:", "</s>", "<|im_end|>")
STRICT = re.compile(r"#### (-?[0-9.,]+)")
FLEXIBLE = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
NONE = "[invalid]"
"""Stands for the number of a solution without one."""


def read(data: Path) -> list[Part]:
    """The test questions."""
    folder = data / "gsm8k"
    return [
        Part("gsm8k", _questions(folder / "test.jsonl"), _questions(folder / "train.jsonl"), "drawn", stops=STOPS)
    ]  # fmt: skip


def strict(answer: str) -> str:
    """The number after the first ``####`` with a number."""
    found = STRICT.search(answer)
    return _plain(found[1]) if found else NONE


def flexible(answer: str) -> str:
    """The last number."""
    found = FLEXIBLE.findall(answer)
    return _plain(found[-1]) if found else NONE


def _plain(number: str) -> str:
    return re.sub(r"\.$", "", re.sub(r"[,$]", "", number.strip()))


def _questions(path: Path) -> tuple[Question, ...]:
    rows = json_rows(path, ("question", "answer"))
    return tuple(
        Question(str(number), f"Question: {row['question']}\nAnswer: ", row["answer"])
        for number, (_, row) in enumerate(rows)
    )
