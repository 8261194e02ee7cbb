"""Questions from local files in the form in which the harness' own task files expect them.

A task of the harness is a data set on a hub, and prompts, metrics and filters. Only the data set is replaced here: rows of
local files (the layout of :mod:`analyses.benchmarks.local`) under the names of that data set's fields. Everything else stays
the harness'.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError, did_you_mean
from analyses.benchmarks.local import logiqa, truthfulqa
from analyses.benchmarks.local.questions import Question, checked, files_in, json_list, json_rows, text_of

Rows = list[dict[str, Any]]
Splits = dict[str, Rows]
"""Rows by split: ``test`` is asked, examples come from ``training``, ``validation`` or ``fewshot``, or from ``test`` itself."""
SPLITS = ("training", "validation", "test", "fewshot")


@dataclass(frozen=True)
class Source:
    """Where the rows of a task come from.

    Attributes:
        read: gives them; the second argument is the part of the benchmark that the task is about (MMLU's subject).
        folder: of the harness' task files.
        parts: the parts that the data folder has, of a benchmark in many tasks named ``NAME_PART``.
        examples: whether few-shot examples come from the rows, not from the harness' task file.
    """

    read: Callable[[Path, str], Splits]
    folder: str
    parts: Callable[[Path], list[str]] | None = None
    examples: bool = True


def local_tasks(name: str, data: Path) -> list[str]:
    """The harness' tasks that ``name`` stands for, all of which can be read: itself, or every part of a benchmark.

    Raises:
        TwinprobeError: no such task can be read from local files, or its files are missing.
    """
    found = _source(name)
    if found is None:
        names = [known if source.parts is None else f"{known}[_PART]" for known, source in SOURCES.items()]
        raise TwinprobeError(
            f"no task {name!r}{did_you_mean(name, SOURCES)} can be read from --data-dir; there are {', '.join(names)}"
        )
    source, part = found
    if source.parts is None or part:
        return [name]
    return [f"{name}_{each}" for each in source.parts(data)]


def local_splits(name: str, data: Path) -> Splits:
    """The rows of one task of :func:`local_tasks`.

    Raises:
        TwinprobeError: its files are missing or can not be used.
    """
    found = _source(name)
    assert found is not None, name
    return found[0].read(data, found[1])


def folder_of(name: str) -> str:
    """The folder of the harness' task files that has the task ``name``; empty where it is not known."""
    found = _source(name)
    return found[0].folder if found else ""


def overrides(name: str, splits: Splits) -> dict[str, Any]:
    """What replaces the data set of the task ``name`` by ``splits``, for a group of tasks as the harness takes it."""

    def dataset(**_told: Any) -> dict[str, Any]:
        from datasets import Dataset

        return {split: Dataset.from_list(rows) for split, rows in splits.items()}

    replaced: dict[str, Any] = {f"{split}_split": split if split in splits else None for split in SPLITS}
    found = _source(name)
    if found is not None and found[0].examples:
        # Only where it is told that examples come from the questions does the harness leave out the one that is asked.
        shown = ("fewshot", "training", "validation", "test")
        replaced["fewshot_split"] = next(split for split in shown if split in splits)
    return {"custom_dataset": dataset, "dataset_path": "local files", "dataset_name": None, **replaced}


def _source(name: str) -> tuple[Source, str] | None:
    if name in SOURCES:
        return SOURCES[name], ""
    family = max((known for known in SOURCES if name.startswith(f"{known}_")), key=len, default="")
    if not family or SOURCES[family].parts is None:
        return None
    return SOURCES[family], name.removeprefix(f"{family}_")


def _arc(data: Path, _part: str, *, name: str) -> Splits:
    rows = []
    for _, row in json_rows(data / "arc" / f"{name}.jsonl", ("query", "choices", "gold")):
        labels = [str(number) for number in range(len(row["choices"]))]
        question = row["query"].rstrip().removeprefix("Question: ")
        choices = {"text": row["choices"], "label": labels}
        rows.append({"question": question, "choices": choices, "answerKey": labels[row["gold"]]})
    return {"test": rows}


def _hellaswag(data: Path, _part: str) -> Splits:
    fields = ("activity_label", "ctx_a", "ctx_b", "endings", "label")
    rows = json_rows(files_in(data / "hellaswag", "*.jsonl")[0], fields)
    return {"test": [{field: row[field] for field in fields} for _, row in rows]}


def _winogrande(data: Path, _part: str) -> Splits:
    rows = []
    fields = ("context_options", "continuation", "gold")
    for _, row in json_rows(data / "winogrande" / "winogrande.jsonl", fields):
        first, second = row["context_options"]
        # The whole beginning is the option: where in it the name stands makes no difference to the prompt.
        sentence = f"_ {row['continuation']}"
        rows.append({"sentence": sentence, "option1": first, "option2": second, "answer": str(int(row["gold"]) + 1)})
    return {"test": rows}


def _mmlu(data: Path, part: str) -> Splits:
    folder = data / "mmlu"
    return {
        "test": _mmlu_rows(folder / "test" / f"{part}_test.csv"),
        "fewshot": _mmlu_rows(folder / "dev" / f"{part}_dev.csv"),
    }


def _mmlu_rows(path: Path) -> Rows:
    rows: Rows = []
    for number, row in enumerate(csv.reader(io.StringIO(text_of(path), newline=""))):
        if number == 0 and row[-1:] == ["answer"]:
            continue
        answers = [*"ABCD", *"0123"]
        if len(row) != 6 or row[5].strip() not in answers:
            raise TwinprobeError(
                f"{path}, row {number + 1}: expected question, four choices and an answer, got {row!r:.200}"
            )
        rows.append({"question": row[0], "choices": row[1:5], "answer": answers.index(row[5].strip()) % 4})
    return rows


def _mmlu_parts(data: Path) -> list[str]:
    return [path.stem.removesuffix("_test") for path in files_in(data / "mmlu" / "test", "*_test.csv")]


def _truthfulqa(data: Path, _part: str) -> Splits:
    forms = {form: _in_file_order(truthfulqa.read(data, form)) for form in ("mc1", "mc2")}
    rows: list[dict[str, Any]] = [
        {"question": question.text.removeprefix("Q: ").removesuffix("\nA: ")} for question in forms["mc1"]
    ]
    for form, questions in forms.items():
        for row, question in zip(rows, questions, strict=True):
            labels = [int(number in question.gold) for number in range(len(question.choices))]
            row[f"{form}_targets"] = {"choices": list(question.choices), "labels": labels}
    return {"test": rows}


def _in_file_order(parts: Any) -> list[Question]:
    return sorted((question for part in parts for question in part.questions), key=lambda question: int(question.id))


def _logiqa(data: Path, _part: str) -> Splits:
    part = logiqa.read(data)[0]
    return {"test": [_logiqa_row(one) for one in part.questions], "validation": [_logiqa_row(one) for one in part.pool]}


def _logiqa_row(question: Question) -> dict[str, Any]:
    found = re.match(r"Passage: (.*)\nQuestion: (.*)\nChoices:\n", question.text)
    assert found is not None, question.text
    label = logiqa.LETTERS[question.gold[0]]
    return {"context": found[1], "question": found[2], "options": list(question.choices), "label": label}


def _gsm8k(data: Path, _part: str) -> Splits:
    files = {"test": "test.jsonl", "training": "train.jsonl"}
    return {split: list(_fields(data / "gsm8k" / name, ("question", "answer"))) for split, name in files.items()}


def _fields(path: Path, fields: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for where, row in json_rows(path, fields):
        yield {field: checked(row, where, fields)[field] for field in fields}


def _bbh(data: Path, part: str) -> Splits:
    rows = json_list(data / "bbh" / "bbh" / f"{part}.json", "examples", ("input", "target"))
    return {"test": [{"input": row["input"], "target": row["target"]} for _, row in rows]}


def _bbh_parts(data: Path) -> list[str]:
    return [path.stem for path in files_in(data / "bbh" / "bbh", "*.json")]


SOURCES: dict[str, Source] = {
    "arc_easy": Source(partial(_arc, name="arc_easy"), "arc"),
    "arc_challenge": Source(partial(_arc, name="arc_challenge"), "arc"),
    "hellaswag": Source(_hellaswag, "hellaswag"),
    "winogrande": Source(_winogrande, "winogrande"),
    "truthfulqa_mc1": Source(_truthfulqa, "truthfulqa"),
    "truthfulqa_mc2": Source(_truthfulqa, "truthfulqa"),
    "logiqa": Source(_logiqa, "logiqa"),
    "gsm8k": Source(_gsm8k, "gsm8k"),
    "mmlu": Source(_mmlu, "mmlu/default", _mmlu_parts),
    "leaderboard_bbh": Source(_bbh, "leaderboard/bbh_mc", _bbh_parts, examples=False),
    "bbh_zeroshot": Source(_bbh, "bbh/zeroshot", _bbh_parts, examples=False),
    "bbh_fewshot": Source(_bbh, "bbh/fewshot", _bbh_parts, examples=False),
    "bbh_cot_zeroshot": Source(_bbh, "bbh/cot_zeroshot", _bbh_parts, examples=False),
    "bbh_cot_fewshot": Source(_bbh, "bbh/cot_fewshot", _bbh_parts, examples=False),
}
"""By the harness' name of the task, or of the benchmark whose parts are tasks."""


def digest(splits: dict[str, Splits]) -> str:
    """A hash of all rows by task."""
    import hashlib

    return hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()[:32]
