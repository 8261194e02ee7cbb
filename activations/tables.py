"""What is known about the rows and inputs of a store, as tables, and rows chosen by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from activations.errors import TwinprobeError, did_you_mean
from activations.layout import INPUT_COLUMNS, ROW_COLUMNS, Layout, damaged, get_dataset, opened
from activations.texts import Text

Columns = dict[str, npt.NDArray[np.int64]]
WORDS = ("text", "group", "span", "label", "control")
NUMBERS = ("position", "token", "start", "end")
"""The columns of a table of rows, by what they hold."""


def columns(layout: Layout, kind: str, start: int = 0, stop: int | None = None) -> Columns:
    """The integer columns of ``rows`` or ``inputs`` from ``start`` to ``stop``, as they are on disk.

    Raises:
        TwinprobeError: a file is damaged.
    """
    names = ROW_COLUMNS if kind == "rows" else INPUT_COLUMNS
    first = layout.first(kind).tolist()
    stop = first[-1] if stop is None else stop
    parts: dict[str, list[npt.NDArray[np.int64]]] = {name: [np.empty(0, np.int64)] for name in names}
    # File by file: where one can not be read, the index would give zeros.
    for file, before, end in zip(layout.files, first, first[1:], strict=False):
        if max(start, before) < min(stop, end):
            with opened(file) as handle:
                for name in names:
                    column = get_dataset(handle, f"{kind}/{name}")
                    if column.shape != (end - before,):
                        raise damaged(file, f"{kind}/{name} has {list(column.shape)} numbers, expected {end - before}")
                    parts[name].append(column[max(start - before, 0) : stop - before])
    return {name: np.concatenate(part) for name, part in parts.items()}


def rows_table(texts: Sequence[Text], raw: Columns, path: Path) -> pd.DataFrame:
    """One line per row: text, group, position, token, start, end, span, label, control (None where absent)."""
    _check_texts(texts, raw, path)
    # The spans of all texts in one list; whatever has none takes the one behind the last.
    first = np.cumsum([0, *(len(text.spans) for text in texts)])
    if len(wrong := np.flatnonzero(raw["span"] >= np.diff(first)[raw["text"]])):
        raise damaged(path, f"row {wrong[0]} has a span that its text has not")
    spans = np.where(raw["span"] < 0, first[-1], first[raw["text"]] + raw["span"])
    every = [(text.text, span) for text in texts for span in text.spans]
    words: dict[str, list[str | None]] = {
        "span": [span.name for _, span in every],
        "label": [span.label for _, span in every],
        "control": [span.control or text[span.start : span.end] for text, span in every],
    }
    return pd.DataFrame(
        {
            "text": _objects([text.id for text in texts])[raw["text"]],
            "group": _objects([text.group for text in texts])[raw["text"]],
            **{name: raw[name] for name in NUMBERS},
            **{name: pd.Series(_objects([*known, None])[spans], dtype="object") for name, known in words.items()},
        }
    )


def inputs_table(texts: Sequence[Text], raw: Columns, path: Path) -> pd.DataFrame:
    """One line per token the model read: text (id), token, start, end."""
    _check_texts(texts, raw, path)
    return pd.DataFrame({**raw, "text": _objects([text.id for text in texts])[raw["text"]]})


def matching(rows: pd.DataFrame, wanted: Mapping[str, Any]) -> npt.NDArray[np.int64]:
    """The numbers of the rows whose columns have the wanted values, any of them where several are given.

    Raises:
        TwinprobeError: no such column, or a value that it can not hold.
    """
    chosen = np.ones(len(rows), dtype=bool)
    for name, value in wanted.items():
        check_column(name)
        values = [value] if value is None or np.isscalar(value) else list(value)
        chosen &= rows[name].isin([_as_held(name, value) for value in values]).to_numpy()
    return np.flatnonzero(chosen)


def check_column(name: str) -> None:
    """Refuse what is no column of a table of rows."""
    if name not in (*WORDS, *NUMBERS):
        known = ("text", "group", *NUMBERS, "span", "label", "control")
        raise TwinprobeError(f"rows have no column {name!r}{did_you_mean(name, known)}; they have {', '.join(known)}")


def _as_held(column: str, value: Any) -> Any:
    """A value as a rows table has it: words as strings, anything else as a whole number."""
    if column in WORDS:
        return value if value is None else str(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
        raise TwinprobeError(f"column {column!r} holds whole numbers, got {value!r}")
    return int(value)


def _check_texts(texts: Sequence[Text], raw: Columns, path: Path) -> None:
    numbers = raw["text"]
    if len(wrong := numbers[(numbers < 0) | (numbers >= len(texts))]):
        raise damaged(path, f"a row or token is of text {wrong[0]}, there are {len(texts)} texts")


def _objects(words: Sequence[str | None]) -> npt.NDArray[Any]:
    return np.array(words, dtype=object)
