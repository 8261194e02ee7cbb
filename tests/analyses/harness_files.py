"""Questions of our own in the layout of the benchmarks' files, few and short."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ITEMS = 6
THINGS = ("the box", "the old man", "rain", "a total of three")


def write_questions(data: Path) -> None:
    """All benchmarks that both the harness and ``bench run`` read, :data:`ITEMS` questions each; BBH without prompts."""
    numbers = range(ITEMS)
    _lines(
        data / "arc" / "arc_easy.jsonl",
        ({"query": f"Question: What is {n}?", "choices": THINGS, "gold": n % 4} for n in numbers),
    )
    _lines(
        data / "hellaswag" / "rows.jsonl",
        (
            {
                "ind": n, "activity_label": "Sorting", "ctx_a": f"A man has {n} boxes.", "ctx_b": "he", "label": n % 4,
                "endings": [f"[step] sorts {thing} [title] Then rests." for thing in THINGS], "source_id": "same",
            }
            for n in numbers
        ),
    )  # fmt: skip
    _lines(
        data / "winogrande" / "winogrande.jsonl",
        (
            {"context_options": [f"It held {n} as the {a}" for a in ("box", "man")], "continuation": f"was {n}.", "gold": n % 2}
            for n in numbers
        ),
    )  # fmt: skip
    _lines(
        data / "gsm8k" / "test.jsonl",
        ({"question": f"What is {n} + 1?", "answer": f"#### {n + 1}"} for n in numbers[:2]),
    )
    _lines(
        data / "gsm8k" / "train.jsonl",
        ({"question": f"{n} + {n}?", "answer": f"Twice {n}.\n#### {n * 2}"} for n in numbers),
    )
    for split in ("test", "dev"):
        rows = [[f" {split} {n}? ", *THINGS, "ABCD"[n % 4]] for n in numbers]
        _rows(data / "mmlu" / split / f"anatomy_{split}.csv", rows)
    columns = ["Type", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers", "Source"]
    kinds = ("Rain", "Boxes")
    rows = [["", kinds[n % 2], f"Is it {n}?", "Yes", "Yes; It is.", f"No; Never; {n} times", ""] for n in numbers]
    _rows(data / "truthfulqa" / "TruthfulQA.csv", [columns, *rows])
    for name in ("Test", "Eval"):
        block = "\n{}\nSome are old.All are {}.\nWhich is {}?\nA.old\nB.new\nC.both\nD.none\n"
        text = "".join(block.format("abcd"[n % 4], f"{name} {n}", n) for n in numbers)
        _write(data / "logiqa" / f"{name}.txt", text)
    booleans = [{"input": f"not {bool(n % 2)} and {n} is", "target": str(bool(n % 3))} for n in numbers]
    words = [{"input": f"Sort: rain box {n}", "target": f"{n} box rain"} for n in numbers[:3]]
    for task, examples in (("boolean_expressions", booleans), ("word_sorting", words)):
        _write(data / "bbh" / "bbh" / f"{task}.json", json.dumps({"examples": examples}))


def write_bbh_prompts(data: Path, part: str, description: str, examples: Iterable[dict[str, str]]) -> None:
    """The authors' prompts in their own form, with the harness' wording, of which nothing is kept here."""
    shown = "".join(f"\n\nQ: {one['input']}\nA: So the answer is {one['target']}." for one in examples)
    _write(data / "bbh" / "cot-prompts" / f"{part}.txt", f"canary\n-----\n{description.strip()}{shown}\n")


def _lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    _write(path, "".join(f"{json.dumps(row)}\n" for row in rows))


def _rows(path: Path, rows: Iterable[Iterable[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle).writerows(rows)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
