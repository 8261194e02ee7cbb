"""The table that every benchmark ends in: one line per model and item, with the item's score from 0 to 1.

Columns: ``model``, ``task``, ``subject`` (part of the task), ``item``, ``score`` (1 or 0 for right and wrong, or a real number
between), ``chance`` (score of a blind guess, NaN where unknown) and ``group`` (the cluster that the item belongs to within its
subject: a document, a problem, the subject itself). Anything further is kept as it is.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pandas as pd

from activations.errors import TwinprobeError
from activations.files import write_whole

COLUMNS = ("model", "task", "subject", "item", "score", "chance", "group")
REQUIRED = ("model", "task", "item", "score")
ITEM = ("task", "subject", "item")
"""What an item is known by; an item's name is unique within its subject."""


def read_items(path: Path, *, item: str | None = None) -> pd.DataFrame:
    """Read a per-item table from CSV: model, task, item and score on every line, the other columns where they are.

    Without ``subject`` it is the task, without ``group`` every item is a group of its own.

    Args:
        path: the file.
        item: name for all items of a file without that column, as published means have it (one line per task or subject).

    Returns:
        :data:`COLUMNS`, then the file's further columns as text.

    Raises:
        TwinprobeError: the file is absent, empty or no CSV, lacks a column, or a line can not be used; the line is named.
    """
    lines = _lines(path)
    names = [name.strip() for name in next(lines, (0, []))[1]]
    if not names:
        raise TwinprobeError(f"{path} is empty; expected columns {', '.join(COLUMNS)} and a line per item")
    if len(set(names)) < len(names):
        again = next(name for name in names if names.count(name) > 1)
        raise TwinprobeError(f"{path}: two columns are named {again!r}; expected each name once")
    missing = [name for name in REQUIRED if name not in names and not (name == "item" and item)]
    if missing:
        raise TwinprobeError(f"{path} lacks the column {', '.join(missing)}; it has {', '.join(names)}")
    numbers, rows = [], []
    for number, fields in lines:
        if len(fields) != len(names):
            raise TwinprobeError(f"{path}, line {number}: {len(fields)} fields; expected {len(names)} as in the header")
        numbers.append(number)
        rows.append([field.strip() for field in fields])
    table = pd.DataFrame(rows, columns=names, dtype=object)
    if table.empty:
        raise TwinprobeError(f"{path} has a header and no items; expected a line per item")
    if "item" not in table:
        table["item"] = item
    return check_items(table, str(path), numbers)


def check_items(table: pd.DataFrame, where: str, lines: Sequence[int] | None = None) -> pd.DataFrame:
    """Check and complete a per-item table.

    Args:
        table: at least model, task, item and score; numbers may be text.
        where: what to call the table in an error.
        lines: the number of each row in its file, to be named in an error; else rows are counted from 1.

    Returns:
        The same rows with all of :data:`COLUMNS` first; names are text, score and chance are floats.

    Raises:
        TwinprobeError: a name is empty, a score or chance is no number from 0 to 1, or an item is there twice for a model.
    """
    word, numbers = ("line", lines) if lines else ("row", range(1, len(table) + 1))
    table = table.reset_index(drop=True)
    given = table.reindex(columns=COLUMNS)

    def complain(bad: pd.Series, told: str) -> None:
        if bad.any():
            row = int(bad.to_numpy().argmax())
            shown = {name: given.at[row, name] for name in COLUMNS}
            raise TwinprobeError(f"{where}, {word} {numbers[row]}: {told.format(**shown)}")

    texts = given[["model", "task", "subject", "item", "group"]].fillna("").astype(str)
    for name in ("model", "task", "item"):
        complain(texts[name] == "", f"{name} is empty; fill it in on every line")
    texts["subject"] = texts.subject.where(texts.subject != "", texts.task)
    texts["group"] = texts.group.where(texts.group != "", texts["item"])
    score = pd.to_numeric(given.score, errors="coerce").astype(float)
    complain(score.isna(), "score {score!r} is no number; leave out items without a score")
    complain(~score.between(0, 1), "score {score} is not from 0 to 1; write a percentage as a share, 59.6 as 0.596")
    blank = given.chance.isna() | (given.chance.astype(str) == "")
    chance = pd.to_numeric(given.chance.where(~blank), errors="coerce").astype(float)
    complain(~blank & ~chance.between(0, 1), "chance {chance!r} is no number from 0 to 1; leave it empty where unknown")
    complain(
        texts.duplicated(["model", *ITEM]),
        "item {item!r} of task {task!r} is there a second time for model {model!r}; expected one line per model and item",
    )
    checked = texts.assign(score=score, chance=chance)[list(COLUMNS)]
    further = table[[name for name in table.columns if name not in COLUMNS]]
    return pd.concat([checked, further], axis=1)


def write_items(table: pd.DataFrame, path: Path) -> None:
    """Check the table and write it as CSV, whole or not at all; :func:`read_items` gives the same scores bit for bit."""
    write_whole(path, check_items(table, str(path)).to_csv(index=False).encode())


def gather(table: pd.DataFrame, tasks: Iterable[str]) -> pd.DataFrame:
    """Make the tasks ``NAME_something`` subjects of the task NAME, each a cluster, as MMLU's 57 subjects are one benchmark.

    Raises:
        TwinprobeError: no task begins like that.
    """
    table = table.copy()
    for name in tasks:
        part = table.task.str.startswith(f"{name}_")
        if not part.any():
            raise TwinprobeError(f"no task begins with '{name}_'; there are {', '.join(table.task.unique()[:10])}")
        table.loc[part, "subject"] = table.loc[part, "task"]
        table.loc[part, "group"] = table.loc[part, "task"]
        table.loc[part, "task"] = name
    return table


def one_model(table: pd.DataFrame, where: str) -> str:
    """The model of the table; raises :class:`TwinprobeError` where there are several."""
    models = list(dict.fromkeys(table.model))
    if len(models) != 1:
        raise TwinprobeError(
            f"{where} has {len(models)} models ({', '.join(models[:5])}); expected the items of one model"
        )
    return str(models[0])


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Lines that are not blank, with the number that each ends at in the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            reader = csv.reader(handle, strict=True)
            for fields in reader:
                if any(field.strip() for field in fields):
                    yield reader.line_num, fields
    except FileNotFoundError:
        raise TwinprobeError(f"{path}: no such file") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise TwinprobeError(f"{path} is no CSV file in UTF-8: {error}") from None
