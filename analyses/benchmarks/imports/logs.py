"""What the readers of all formats share: a log, the wish which of its scores to take, and JSON read with clear errors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from activations.errors import TwinprobeError


@dataclass(frozen=True)
class Log:
    """What one log says.

    Attributes:
        path: the file.
        format: who wrote it: lm-eval, inspect_ai, evalplus, bigcode, human-eval or csv.
        model: the model's name in the log; ``None`` where the format has none.
        rows: a mapping per item with task, item, score and whatever else the log has.
        unscored: items that the log has without a score.
    """

    path: Path
    format: str
    model: str | None
    rows: tuple[dict[str, Any], ...]
    unscored: int = 0


@dataclass(frozen=True)
class Wanted:
    """Which score to take where a log has several.

    Attributes:
        metrics: names of metrics (lm-eval) or scorers (inspect_ai), the first that a task has is taken.
        filter: of an lm-eval task that has several (GSM8K: ``strict-match`` and ``flexible-extract``).
    """

    metrics: tuple[str, ...] = ()
    filter: str | None = None


def choose(path: Path, task: str, what: str, found: Sequence[str], wanted: Iterable[str], flag: str) -> str:
    """The first of ``wanted`` that there is, or the only one there is.

    Raises:
        TwinprobeError: there is none, or several and none of them is wanted.
    """
    for name in wanted:
        if name in found:
            return name
    if len(found) == 1:
        return found[0]
    told = f"has the {what}s {', '.join(found)}; choose one with {flag}" if found else f"has no {what} with a number"
    raise TwinprobeError(f"{path}: task {task!r} {told}")


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        TwinprobeError: the file is absent or no JSON; the line is named.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TwinprobeError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise TwinprobeError(f"{path} is no text in UTF-8: {error}") from None
    except json.JSONDecodeError as error:
        raise TwinprobeError(f"{path}, line {error.lineno}: no JSON ({error.msg})") from None


def json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Objects of a JSONL file with their line numbers.

    Raises:
        TwinprobeError: the file is absent, or a line is no JSON object; the line is named.
    """
    try:
        with path.open(encoding="utf-8") as handle:
            for number, line in enumerate(handle, 1):
                if not line.strip():
                    continue
                found = json.loads(line)
                if not isinstance(found, dict):
                    raise TwinprobeError(f"{path}, line {number}: {type(found).__name__}; expected a JSON object")
                yield number, found
    except FileNotFoundError:
        raise TwinprobeError(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise TwinprobeError(f"{path} is no text in UTF-8: {error}") from None
    except json.JSONDecodeError as error:
        raise TwinprobeError(f"{path}, line {number}: no JSON ({error.msg})") from None


def field(mapping: Any, name: str, where: str) -> Any:
    """``mapping[name]``; raises :class:`TwinprobeError` that says where it is missing."""
    if not isinstance(mapping, dict) or name not in mapping:
        raise TwinprobeError(f"{where}: no field {name!r}; this is not the format that the file seemed to have")
    return mapping[name]


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a JSON value is a number or a truth value."""
    return isinstance(value, int | float)
