"""Scores of models trained with several shares of code, read from a CSV of anyone's (docs/FORMATS.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError
from analyses.text_tables import read_text_table

REQUIRED = ("task", "share", "score")
OPTIONAL = ("setting", "seed", "category", "group")
KINDS = ("category", "group")
"""The columns that sort tasks into kinds."""


def read_scores(path: Path) -> pd.DataFrame:
    """Read one score per line: ``task``, ``share`` of code (0 to 1), ``score``; any of :data:`OPTIONAL` as text.

    Other columns are left out. The lines keep their order.

    Raises:
        TwinprobeError: the file is absent, empty or no CSV, lacks a column, or a line can not be used; the line is named.
    """
    table = read_text_table(path, f"{', '.join(REQUIRED)} and a line per score")
    missing = [name for name in REQUIRED if name not in table]
    if missing:
        raise TwinprobeError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}; it has {', '.join(table.columns)}"
        )
    table = table[[name for name in (*REQUIRED, *OPTIONAL) if name in table]]
    table = table[(table != "").any(axis=1)]  # lines with something in the columns that are read
    if table.empty:
        raise TwinprobeError(f"{path} has a header and no scores; expected a line per model and task")
    for name in ("task", "setting", "seed"):
        if name in table and (table[name] == "").any():
            line = table.index[table[name] == ""][0]
            raise TwinprobeError(f"{path}, line {line}: {name} is empty; fill it in on every line")
    scores = table.assign(share=_numbers(path, table["share"]), score=_numbers(path, table["score"]))
    outside = ~scores.share.between(0, 1)
    if outside.any():
        line = scores.index[outside][0]
        raise TwinprobeError(
            f"{path}, line {line}: share {table.share[line]} is not from 0 to 1; write 30% of code as 0.3"
        )
    _check_tasks(path, scores)
    return scores.reset_index(drop=True)


def _numbers(path: Path, column: pd.Series) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    bad = ~np.isfinite(numbers)
    if bad.any():
        line = column.index[bad][0]
        raise TwinprobeError(
            f"{path}, line {line}: {column.name} {column[line]!r} is no number; leave out missing ones"
        )
    return numbers


def _check_tasks(path: Path, scores: pd.DataFrame) -> None:
    """Raise TwinprobeError where a task has a single share, the same model twice, or is of two kinds."""
    by = [name for name in ("setting", "task") if name in scores]
    shares = scores.groupby(by, sort=False)["share"].nunique()
    if (shares < 2).any():
        what = shares.index[shares < 2][0]
        name = ", ".join(map(str, what)) if isinstance(what, tuple) else str(what)
        raise TwinprobeError(f"{path}: {name!r} has scores at one share only; a slope needs 2 different shares or more")
    if "seed" in scores:
        again = scores.duplicated([*by, "seed", "share"])
        if again.any():
            line = scores.index[again][0]
            told = ", ".join(f"{name} {value!s}" for name, value in scores.loc[line, [*by, "seed", "share"]].items())
            raise TwinprobeError(f"{path}, line {line}: a second score of {told}; expected one per model")
    for kind in (name for name in KINDS if name in scores):
        kinds = scores.groupby("task", sort=False)[kind].unique()
        for task, names in kinds.items():
            if len(names) > 1:
                raise TwinprobeError(
                    f"{path}: task {str(task)!r} has {kind} {names[0]!r} and {names[1]!r}; each needs a task name of its own"
                )
