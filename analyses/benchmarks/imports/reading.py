"""From log files of any known format to one per-item table of one model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from activations.errors import TwinprobeError
from analyses.benchmarks.imports.code_logs import (
    is_bigcode_log,
    is_bigcode_metrics,
    is_evalplus,
    read_bigcode,
    read_evalplus,
    read_human_eval,
)
from analyses.benchmarks.imports.harness_logs import SAMPLES, read_harness
from analyses.benchmarks.imports.inspect_logs import read_inspect
from analyses.benchmarks.imports.logs import Log, Wanted, json_lines, read_json
from analyses.benchmarks.per_item import check_items, gather, read_items

FORMATS = "lm-eval samples_*.jsonl, inspect_ai .json or .eval, evalplus, bigcode, human-eval results, or CSV"


@dataclass(frozen=True)
class Imported:
    """What was read.

    Attributes:
        table: a per-item table with ``log_model`` (the name in the log, empty where it has none), ``format`` and ``log`` (the
            file's name) behind the common columns, then what the formats add.
        model: the model's name in the table.
        log_model: its name in the logs; ``None`` where no log has one.
        unscored: items that were left out as their log has no score for them.
    """

    table: pd.DataFrame
    model: str
    log_model: str | None
    unscored: int


def import_logs(
    paths: Sequence[Path],
    model: str | None = None,
    *,
    rename: bool = False,
    wanted: Wanted | None = None,
    gathered: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Imported:
    """Read logs of one model.

    Args:
        paths: files, or folders of lm-eval or inspect_ai, in which all logs are read.
        model: the model's name; needed where the logs have none. A CSV of several models is narrowed to this one.
        rename: use ``model`` although the logs say another name.
        wanted: which score to take where there are several.
        gathered: names of tasks to gather subtasks under (:func:`analyses.benchmarks.per_item.gather`).
        progress: called with files done and files in all.

    Raises:
        TwinprobeError: a file is of no known format or damaged, the logs are of different models or of another one than
            ``model``, no name is known, an item is there twice, or a score lies outside 0 to 1.
    """
    logs = _read_all(_files(paths), wanted or Wanted(), model, progress)
    names: dict[str, Path] = {}
    for log in logs:
        if log.model is not None:
            names.setdefault(log.model, log.path)
    if len(names) > 1 and not rename:
        told = ", ".join(f"{name} ({path})" for name, path in list(names.items())[:3])
        raise TwinprobeError(f"the logs are of {len(names)} models: {told}; import one model at a time")
    found = next(iter(names), None)
    unnamed = [log for log in logs if log.model is None]
    if model is None and unnamed:
        raise TwinprobeError(f"{unnamed[0].path}: this {unnamed[0].format} log names no model; give --model NAME")
    if rename and model is None:
        raise TwinprobeError("--rename needs the new name; give --model NAME")
    if model is not None and found not in (None, model) and not rename:
        raise TwinprobeError(
            f"{names[str(found)]} is a log of {found!r}, not of {model!r}; give that name, or --rename if they are the same"
        )
    name = str(model or found)
    parts = []
    for log in logs:
        about = {"model": name, "log_model": log.model or "", "format": log.format, "log": log.path.name}
        parts.append(check_items(pd.DataFrame(list(log.rows)).assign(**about), str(log.path)))
    table = pd.concat(parts, ignore_index=True)
    twice = table.duplicated(["task", "subject", "item"])
    if twice.any():
        line = table[twice].iloc[0]
        again = table[(table.task == line.task) & (table.subject == line.subject) & (table["item"] == line["item"])]
        raise TwinprobeError(
            f"item {line['item']!r} of task {line.task!r} is in {' and in '.join(again.log[:2])}; give one log per task"
        )
    return Imported(gather(table, gathered), name, found, sum(log.unscored for log in logs))


def _read_all(
    files: Sequence[Path], wanted: Wanted, model: str | None, progress: Callable[[int, int], None]
) -> list[Log]:
    contents = {path: read_json(path) for path in files if path.suffix == ".json"}
    metrics = [path for path, content in contents.items() if is_bigcode_metrics(content) and "results" not in content]
    logs = []
    for done, path in enumerate(files, 1):
        content = contents.get(path)
        if path in metrics:
            if not any(is_bigcode_log(other) for other in contents.values()):
                raise TwinprobeError(
                    f"{path} has means alone; give the log of the single problems (logs.json) beside it"
                )
        elif path.suffix == ".csv":
            logs.append(_csv(path, model))
        elif path.suffix == ".eval" or (isinstance(content, dict) and "samples" in content and "eval" in content):
            logs.append(read_inspect(path, wanted))
        elif is_evalplus(content):
            logs.append(read_evalplus(path))
        elif is_bigcode_log(content):
            logs.append(read_bigcode(path, metrics[0] if len(metrics) == 1 else None))
        elif path.suffix == ".jsonl":
            logs.append(_jsonl(path, wanted))
        elif not (isinstance(content, dict) and "results" in content and "configs" in content):
            raise TwinprobeError(f"{path} is of no known format; expected {FORMATS}")
        progress(done, len(files))
    if not logs:
        raise TwinprobeError(f"{files[0]} has means alone; give the samples_*.jsonl of the run (lm_eval --log_samples)")
    return logs


def _jsonl(path: Path, wanted: Wanted) -> Log:
    first = next((line for _, line in json_lines(path)), {})
    if SAMPLES.fullmatch(path.name) or "doc_id" in first:
        return read_harness(path, wanted)
    if "passed" in first:
        return read_human_eval(path)
    raise TwinprobeError(
        f"{path} is of no known format: its first line has {', '.join(list(first)[:8]) or 'nothing'}; expected {FORMATS}"
    )


def _csv(path: Path, model: str | None) -> Log:
    """Published scores; a line without an item is a mean, the only item of its task and subject."""
    table = read_items(path, item="all")
    names = list(dict.fromkeys(table.model))
    if len(names) > 1:
        if model not in names:
            raise TwinprobeError(
                f"{path} has {len(names)} models ({', '.join(names[:5])}); choose one of them with --model NAME"
            )
        table = table[table.model == model]
    name = str(table.model.iloc[0])
    rows = table.drop(columns=["model", *({"log_model", "format", "log"} & set(table.columns))]).to_dict("records")
    return Log(path, "csv", name, tuple({str(key): value for key, value in row.items()} for row in rows))


def _files(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and of a folder all sample logs and archives in it."""
    found: list[Path] = []
    for path in paths:
        inside = sorted([*path.rglob("samples_*.jsonl"), *path.rglob("*.eval")]) if path.is_dir() else [path]
        if not inside:
            raise TwinprobeError(f"{path} has no samples_*.jsonl and no .eval; give the log files themselves")
        found += inside
    return list(dict.fromkeys(found))
