"""A CSV file as text, with the number of every line kept for whoever has to complain about it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from activations.errors import TwinprobeError


def read_text_table(path: Path, expected: str) -> pd.DataFrame:
    """Read a CSV file as stripped text; the index is each line's number in the file, blank lines are left out.

    Args:
        path: the file.
        expected: the columns, in words for an error.

    Raises:
        TwinprobeError: the file is absent, empty or no CSV.
    """
    try:
        table = pd.read_csv(
            path, dtype=str, keep_default_na=False, skip_blank_lines=False, skipinitialspace=True, encoding="utf-8-sig"
        )
    except FileNotFoundError:
        raise TwinprobeError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise TwinprobeError(f"{path} is a directory; expected a CSV file with the columns {expected}") from None
    except pd.errors.EmptyDataError:
        raise TwinprobeError(f"{path} is empty; expected the columns {expected}") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise TwinprobeError(f"{path} is no CSV file in UTF-8: {str(error).splitlines()[0]}") from None
    table.columns = pd.Index([str(name).strip() for name in table.columns])
    table = table.fillna("").apply(lambda column: column.str.strip())
    table.index = pd.RangeIndex(2, len(table) + 2)  # the number of each line in the file, below its header
    return table[(table != "").any(axis=1)]
