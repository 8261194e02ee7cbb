"""Sample logs of EleutherAI's lm-evaluation-harness (``--log_samples``).

A run leaves ``results_DATE.json`` and a ``samples_TASK_DATE.jsonl`` per task in one folder. A line of the latter has doc_id,
doc, target, arguments, resps, filtered_resps, filter, metrics (their names), doc_hash, prompt_hash, target_hash and every
metric under its own name; a document has a line per filter. The former has results (``"acc,none"``) and
model_name (or, before 0.4.4, config.model_args alone).
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from analyses.benchmarks.imports.logs import Log, Wanted, choose, field, is_number, json_lines, read_json

SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.\-]+)\.jsonl")
USUAL = ("acc", "exact_match", "pass@1", "pass_at_1")
"""Metrics that are taken where none is asked for; all are means over items."""
FIELDS = {
    "doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "metrics", "doc_hash", "prompt_hash",
    "target_hash",
}  # fmt: skip
"""What is no metric in logs older than the field ``metrics``."""
CHOSEN = ("acc", "acc_norm")
"""Metrics that are right by chance in one of as many cases as there are choices."""
_NAMES = ("peft", "delta", "pretrained", "model", "path", "engine")
"""Arguments that name the model, in the order in which the harness looks for them."""


def read_harness(path: Path, wanted: Wanted) -> Log:
    """Read the samples of one task.

    Raises:
        TwinprobeError: a line can not be used, the score to take is not clear, or the samples' mean is not the one in the
            results file beside them (a log that was cut off).
    """
    named = SAMPLES.fullmatch(path.name)
    task = named["task"] if named else path.stem.removeprefix("samples_")
    lines = list(json_lines(path))
    if not lines:
        raise TwinprobeError(f"{path} is empty; expected a line per document")
    for number, line in lines:
        field(line, "doc_id", f"{path}, line {number}")
    filters = list(dict.fromkeys(str(line.get("filter", "none")) for _, line in lines))
    chosen = choose(path, task, "filter", filters, [wanted.filter] if wanted.filter else [], "--filter")
    lines = [(number, line) for number, line in lines if str(line.get("filter", "none")) == chosen]
    metrics = [name for name in _metrics(lines[0][1]) if is_number(lines[0][1].get(name))]
    metric = choose(path, task, "metric", metrics, wanted.metrics or USUAL, "--metric")
    rows = []
    for number, line in lines:
        score = field(line, metric, f"{path}, line {number}")
        if not is_number(score):
            raise TwinprobeError(f"{path}, line {number}: {metric} is {score!r}; expected a number")
        further = {name: line[name] for name in metrics if name != metric and is_number(line.get(name))}
        rows.append(
            {"task": task, "item": str(line["doc_id"]), "score": float(score), "chance": _chance(metric, line),
             "metric": metric, "filter": chosen, "doc_hash": line.get("doc_hash", ""), **further}
        )  # fmt: skip
    results = _results(path, named["date"] if named else None)
    if results is not None:
        _check_mean(path, results, task, metric, chosen, [row["score"] for row in rows])
    return Log(path, "lm-eval", _model(results), tuple(rows))


def _metrics(line: dict[str, Any]) -> list[str]:
    return list(line["metrics"]) if "metrics" in line else [name for name in line if name not in FIELDS]


def _chance(metric: str, line: dict[str, Any]) -> float:
    """One over the number of choices, where there are as many answers as choices and one of them is right."""
    answers = line.get("filtered_resps") or []
    choices = len(answers)
    # A log-likelihood comes with whether it is the greedy answer; mutual information asks for every choice twice.
    scored = choices > 1 and all(isinstance(answer, list) and len(answer) == 2 for answer in answers)
    several = str(line.get("target", "")).startswith("[")
    if metric not in CHOSEN or not scored or several or "acc_mutual_info" in line or line[metric] not in (0, 1):
        return math.nan
    return 1 / choices


def _results(path: Path, date: str | None) -> dict[str, Any] | None:
    """The results file of the same run; without a date in the samples' name, the only one beside them."""
    found = [path.with_name(f"results_{date}.json")] if date else sorted(path.parent.glob("results_*.json"))
    if len(found) != 1 or not found[0].exists():
        return None
    results = read_json(found[0])
    field(results, "results", str(found[0]))
    return dict(results)


def _model(results: dict[str, Any] | None) -> str | None:
    if results is None:
        return None
    if results.get("model_name"):
        return str(results["model_name"])
    arguments = (results.get("config") or {}).get("model_args") or ""
    if not isinstance(arguments, dict):
        arguments = dict(part.split("=", 1) for part in str(arguments).split(",") if "=" in part)
    return next((str(arguments[name]) for name in _NAMES if name in arguments), None)


def _check_mean(path: Path, results: dict[str, Any], task: str, metric: str, chosen: str, scores: list[float]) -> None:
    told = (results["results"].get(task) or {}).get(f"{metric},{chosen}")
    mean = math.fsum(scores) / len(scores)
    if metric in (*USUAL, *CHOSEN) and is_number(told) and not math.isclose(mean, told, abs_tol=1e-6):
        raise TwinprobeError(
            f"{path}: {metric} of its {len(scores)} items is {mean:.6f} on average, the results file says {told:.6f}; "
            "the log is not whole or not of that run"
        )
