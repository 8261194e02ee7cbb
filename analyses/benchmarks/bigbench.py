"""Read BIG-bench multiple choice tasks from local files, as zero-shot items.

Two layouts: a task's own ``task.json`` (Srivastava et al. 2022, "Beyond the Imitation Game", github.com/google/BIG-bench,
docs/doc.md), and JSON lines with ``query``, ``choices`` and ``gold`` (llm-foundry's). BIG-bench carries a canary: it must not
get into any training text.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from activations.errors import TwinprobeError
from activations.texts import numbered_lines, parse_json
from analyses.benchmarks.multiple_choice import Item

PREFIXES = {
    "task_prefix": "",
    "example_input_prefix": "\nQ: ",
    "choice_prefix": "\n  choice: ",
    "example_output_prefix": "\nA: ",
}
"""The optional fields of a task that go before its parts, with BIG-bench's defaults."""
CHOICE_ORDER = 42
"""Seed of the order in which choices are listed in the context; that of lm-evaluation-harness 0.3."""


def read_bigbench(path: str | Path) -> list[Item]:
    """The multiple choice items of a file in the order of the file, each once; examples without choices are left out.

    Raises:
        TwinprobeError: the file is missing or has neither layout, has no multiple choice, or an example can not be used.
    """
    path = Path(path)
    if not path.is_file():
        raise TwinprobeError(
            f"{path}: no such file; expected a BIG-bench task.json, or a .jsonl with query, choices, gold"
        )
    items = _from_lines(path) if path.suffix == ".jsonl" else _from_task(path)
    if not items:
        raise TwinprobeError(
            f"{path}: no multiple choice in it; expected examples with target_scores, or query and choices"
        )
    return items


def subject_of(path: str | Path) -> str:
    """What the task of a file is called: the name of the file, or of its folder where the file is ``task.json``."""
    path = Path(path)
    return path.parent.name if path.name == "task.json" else path.stem.removeprefix("bigbench_")


def _from_task(path: Path) -> list[Item]:
    try:
        task = parse_json(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise TwinprobeError(f"{path}: not UTF-8 (byte {error.start}); expected a BIG-bench task.json") from None
    examples = task.get("examples") if isinstance(task, dict) else None
    if not isinstance(examples, list):
        raise TwinprobeError(f"{path}: no 'examples' list; expected a BIG-bench task.json")
    prefix = {name: task.get(name, default) for name, default in PREFIXES.items()}
    for name, value in prefix.items():
        if not isinstance(value, str):
            raise TwinprobeError(f"{path}: {name!r} must be a string, got {value!r:.200}")
    listed = task.get("append_choices_to_input", True)
    items, seen = [], set()
    for number, example in enumerate(examples):
        where = f"{path}, example {number}"
        if not isinstance(example, dict) or not isinstance(example.get("input"), str):
            raise TwinprobeError(f"{where}: expected an object with a string 'input'")
        key = json.dumps(example, sort_keys=True)
        scores = example.get("target_scores")
        if scores is None or key in seen:
            continue
        seen.add(key)
        if not isinstance(scores, dict) or not all(score in (0, 1) for score in scores.values()):
            raise TwinprobeError(f"{where}: 'target_scores' must give every choice 0 or 1, got {scores!r:.200}")
        choices = tuple(scores)
        shown = _in_order(choices) if listed else []
        context = "".join(
            (
                prefix["task_prefix"], prefix["example_input_prefix"], example["input"],
                *(prefix["choice_prefix"] + choice for choice in shown), prefix["example_output_prefix"],
            )
        )  # fmt: skip
        gold = tuple(place for place, choice in enumerate(choices) if scores[choice])
        items.append(Item(str(number), subject_of(path), context, choices, gold))
    return items


def _in_order(choices: tuple[str, ...]) -> list[str]:
    order = np.random.RandomState(CHOICE_ORDER).permutation(len(choices))
    known = sorted(choices)
    return [known[place] for place in order]


def _from_lines(path: Path) -> list[Item]:
    items = []
    for number, line in numbered_lines(path):
        row: Any = parse_json(line, f"{path}:{number}")
        if not isinstance(row, dict):
            raise TwinprobeError(f"{path}:{number}: expected a JSON object with query, choices and gold")
        if "choices" not in row:
            continue
        query, gold = row.get("query"), row.get("gold")
        choices: Any = row["choices"]
        strings = isinstance(choices, list) and all(isinstance(choice, str) for choice in choices)
        if not isinstance(query, str) or not strings or type(gold) is not int:
            raise TwinprobeError(
                f"{path}:{number}: expected a string 'query', a list of strings 'choices' and the number of the right one "
                "'gold'"
            )
        # Choices come without the space that parts them from the query.
        items.append(Item(str(number), subject_of(path), f"{query.rstrip()} ", tuple(choices), (gold,)))
    return items
