"""Tidy tables as CSV, read back to the very numbers that were written, and as JSON records."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pandas as pd


def read_table(path: Path) -> pd.DataFrame:
    """Read a table; an empty field is missing, no other text is."""
    return pd.read_csv(path, float_precision="round_trip", keep_default_na=False, na_values=[""])


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table."""
    table.to_csv(path, index=False)


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of a table with plain JSON values; what is missing or not finite becomes ``None``."""
    return [
        {str(name): plain(value) for name, value in line.items()} for line in table.astype(object).to_dict("records")
    ]


def plain(value: Any) -> Any:
    """A value as JSON has it; a number that is not finite is ``None``."""
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value
