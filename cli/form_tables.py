"""What the commands that work form by form share: prompts or the reason why there are none, tables, names of pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

if TYPE_CHECKING:
    import pandas as pd

    from analyses.prompts import Prompt

Tables = dict[str, "pd.DataFrame"]


def usable(found: tuple[list[Prompt], Counter[str]], most: int, label: str, form: str) -> list[Prompt]:
    """The first prompts of a form, ``most`` at most.

    Raises:
        TwinprobeError: there is none; the reasons for which items were dropped are counted.
    """
    from activations.errors import TwinprobeError

    kept, dropped = found
    if not kept:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(dropped.items()))
        raise TwinprobeError(
            f"no item of {label} in {form} form gives a usable prompt: {reasons or 'there are no test items'}"
        )
    return kept[:most]


def clusters_of(task: str | None) -> Literal["item", "group"]:
    """What intervals resample: what the task says; groups of a user's file, which are single items where it names none."""
    from probes.tasks import get_task

    return get_task(task).clusters if task else "group"


def write_tables(tables: Tables, out: Path, names: Sequence[str], pictures: Sequence[str]) -> None:
    """Write the tables as CSV, and take away those of ``names`` and ``pictures`` that an earlier run left."""
    for old in (
        *(out / f"{name}.csv" for name in names),
        *(one for kind in pictures for one in out.glob(f"{kind}-*.png")),
    ):
        old.unlink(missing_ok=True)
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)


def picture_path(out: Path, *name: str) -> Path:
    """The file of a picture; a user's names can not lead out of the folder."""
    return out / ("-".join(quote(part, safe="") for part in name) + ".png")


def known(value: Any) -> Any:
    """A value for a table on the screen, ``None`` where it is missing."""
    import pandas as pd

    return None if pd.isna(value) else value
