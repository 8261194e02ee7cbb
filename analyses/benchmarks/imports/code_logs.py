"""Results of code generation: evalplus, OpenAI's human-eval and the bigcode-evaluation-harness.

An item is a problem, and its score the share of its samples that pass, which is pass@1 without bias (Chen et al. 2021,
equation 1 for k = 1). None of the files with results by problem names the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from analyses.benchmarks.imports.logs import Log, field, is_number, json_lines, read_json

PASSED = ("pass", "success")
"""What evalplus calls a sample that passed, now and before 0.2."""


def is_evalplus(content: Any) -> bool:
    """Whether a JSON file is evalplus' ``..._eval_results.json``."""
    found = content.get("eval") if isinstance(content, dict) else None
    return isinstance(found, dict) and bool(found) and "samples" not in content and "model" not in found


def is_bigcode_metrics(content: Any) -> bool:
    """Whether a JSON file is the bigcode harness' ``--metric_output_path``: pass@k by task, and config, the run's arguments."""
    return isinstance(content, dict) and isinstance(content.get("config"), dict) and "model" in content["config"]


def is_bigcode_log(content: Any) -> bool:
    """Whether a JSON file is the second result of the metric code_eval, as the harness writes it to ``logs.json``."""
    if not isinstance(content, dict) or not content:
        return False
    first = next(iter(content.values()))
    return isinstance(first, list) and bool(first) and isinstance(first[0], list) and len(first[0]) == 2


def read_evalplus(path: Path) -> Log:
    """Read results by problem: as ``eval[task_id][i]`` with base_status and plus_status, or in the older layout, lists of
    ``[status, details]`` under base and plus. A sample passes the plus tests only where it passes the base ones too.

    Rows are of two tasks, ``humaneval`` and ``humaneval_plus`` or ``mbpp`` and ``mbpp_plus``, of base ones only where no plus
    tests were run.
    """
    rows = []
    for problem, samples in field(read_json(path), "eval", str(path)).items():
        where = f"{path}, {problem}"
        if isinstance(samples, dict):
            plus = field(samples, "plus", where) or [[None]] * len(field(samples, "base", where))
            statuses = [(base[0], more[0]) for base, more in zip(samples["base"], plus, strict=True)]
        else:
            statuses = [(field(one, "base_status", where), one.get("plus_status")) for one in samples]
        task = problem.split("/")[0].lower()
        base = [status in PASSED for status, _ in statuses]
        rows.append(_row(task, problem, base, where))
        if all(more is not None for _, more in statuses):
            both = [passed and more in PASSED for passed, (_, more) in zip(base, statuses, strict=True)]
            rows.append(_row(f"{task}_plus", problem, both, where))
    return Log(path, "evalplus", None, tuple(rows))


def read_human_eval(path: Path) -> Log:
    """Read ``..._results.jsonl``: a sample per line with task_id and passed."""
    found: dict[str, list[bool]] = {}
    for number, line in json_lines(path):
        where = f"{path}, line {number}"
        passed = field(line, "passed", where)
        if not isinstance(passed, bool):
            raise TwinprobeError(f"{where}: passed is {passed!r}; expected true or false")
        found.setdefault(str(field(line, "task_id", where)), []).append(passed)
    return Log(
        path, "human-eval", None,
        tuple(_row(name.split("/")[0].lower(), name, passed, str(path)) for name, passed in found.items()),
    )  # fmt: skip


def read_bigcode(path: Path, metrics: Path | None) -> Log:
    """Read the outcomes of one task by problem, with model and task from the metrics file of the same run.

    Raises:
        TwinprobeError: there is no metrics file, it is of several tasks, or its pass@1 is not that of the log.
    """
    if metrics is None:
        raise TwinprobeError(f"{path} names neither task nor model; give the metrics file of the same run beside it")
    told = read_json(metrics)
    tasks = [name for name in told if name != "config"]
    if len(tasks) != 1:
        raise TwinprobeError(
            f"{metrics} has the tasks {', '.join(tasks)}; a log is of one of them, so run tasks one by one"
        )
    rows = []
    for problem, samples in read_json(path).items():
        where = f"{path}, problem {problem}"
        passed = [bool(field(sample[1], "passed", where)) for sample in samples]
        rows.append(_row(tasks[0], problem, passed, where))
    mean, expected = math.fsum(row["score"] for row in rows) / len(rows), told[tasks[0]].get("pass@1")
    if is_number(expected) and not math.isclose(mean, expected, abs_tol=1e-6):
        raise TwinprobeError(
            f"{path}: its pass@1 is {mean:.6f}, {metrics} says {expected:.6f}; they are not of one run"
        )
    return Log(path, "bigcode", str(told["config"]["model"]), tuple(rows))


def _row(task: str, problem: str, passed: Iterable[bool], where: str) -> dict[str, Any]:
    outcomes = list(passed)
    if not outcomes:
        raise TwinprobeError(f"{where}: no samples; expected one at least")
    return {
        "task": task, "item": problem, "score": sum(outcomes) / len(outcomes), "chance": 0.0, "metric": "pass@1",
        "samples": len(outcomes), "passed": sum(outcomes),
    }  # fmt: skip
