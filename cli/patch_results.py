"""What ``twinprobe patch`` leaves in its folder, and what it prints of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from activations.errors import TwinprobeError
from cli.output import interval, print_table

if TYPE_CHECKING:
    import pandas as pd

TABLES = (
    "behaviour", "retention", "patching", "patching_cells", "attribution", "attribution_cells", "attribution_exact",
    "agreement", "cross_retention", "cross_behaviour", "cross", "cross_cells",
)  # fmt: skip
"""The tables that the command may write, as CSV."""
PRINTED = ("retention", "patching", "attribution", "agreement", "cross_retention", "cross")
"""Those of ``--json``."""
TOP = 5
"""Cells printed per model and map; the tables have them all."""
MAP = ["form", "direction", "site", "by", "window"]


def write_tables(tables: dict[str, pd.DataFrame], out: Path) -> None:
    """Write the tables, and take away what an earlier run of the command left."""
    for old in (*out.glob("*.png"), *(out / f"{name}.csv" for name in TABLES)):
        old.unlink(missing_ok=True)
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)


def require_patched(tables: dict[str, pd.DataFrame], label: str, out: Path) -> None:
    """Raise TwinprobeError where no model has an item to patch, with what became of the items."""
    retention = tables["retention"]
    if not retention.prompts.sum():
        reasons = ", ".join(dict.fromkeys(filter(None, retention.why_not_aligned)))
        raise TwinprobeError(
            f"no item of {label} can be patched: {reasons or 'there are no test items'}; text and contrast must be of "
            "equally many tokens and their answers begin with different ones"
        )
    if not retention.retained.sum():
        said = []
        for model, own in retention.groupby("model", sort=False):
            prompts, right, small = (int(own[name].sum()) for name in ("prompts", "both_right", "gap_too_small"))
            said.append(
                f"{model} answers {prompts - right} of {prompts} prompts wrongly in one of the two texts or in both"
                + f", and {small} with too small a gap" * (small > 0)
            )
        raise TwinprobeError(
            f"nothing to patch on {label}: {'; '.join(said)}; {out / 'behaviour.csv'} has each of them"
        )


def draw(tables: dict[str, pd.DataFrame], label: str, out: Path) -> list[str]:
    """Draw every map; the paths of the pictures."""
    from analyses.report.patching_figures import cross_map, head_map, role_map, token_map

    pictures = []

    def picture(figure: Any, lines: pd.DataFrame, caption: str, *name: object) -> None:
        path = out / ("-".join(quote(str(part), safe="") for part in name) + ".png")
        if figure(lines, caption, path):
            pictures.append(str(path))

    for kind in ("patching", "attribution"):
        for (form, direction, site, by, window), lines in _maps(tables, kind):
            name = (kind, label, form, site, by, direction)
            caption = f"{_title(kind, lines, direction, site, by, window)} ({label}, {form} form)"
            picture(head_map if lines[["head", "neurons"]].notna().any(axis=None) else role_map, lines, caption, *name)
            cells = tables[f"{kind}_cells"]
            chosen = cells[(cells[MAP] == (form, direction, site, by, window)).all(axis=1)]
            if by == "position" and chosen["head"].isna().all() and chosen["neurons"].isna().all():
                picture(token_map, chosen, caption, *name, "example")
    if "cross" in tables:
        for (form, site, by, window), lines in tables["cross"].groupby(["form", "site", "by", "window"], sort=False):
            caption = f"{site} by {by}{_window(window)}, from one model into the other ({label}, {form} form)"
            picture(cross_map, lines, caption, "cross", label, form, site, by)
    return pictures


def show(tables: dict[str, pd.DataFrame], label: str) -> None:
    """Print who was patched, and the largest cells of every map."""
    _show_retention(tables["retention"], label)
    for kind in ("patching", "attribution"):
        for (form, direction, site, by, window), lines in _maps(tables, kind):
            _show_map(f"{_title(kind, lines, direction, site, by, window)}, {form} form", lines)
    if "agreement" in tables:
        columns = ["model", "form", "direction", "site", "maps", "cells", "spearman", "sign", "false_negatives", "top"]
        print_table(
            f"Agreement of the estimates ({tables['agreement'].method.iloc[0]}) with exact patching",
            columns,
            _rows(tables["agreement"], columns),
            caption="Means over maps (one per checked item). spearman: rank correlation; sign: share of cells with the right "
            "sign; false_negatives: share of the top largest cells that are not among the top estimates.",
        )
    if "cross_retention" in tables:
        _show_across(tables)


def _show_retention(retention: pd.DataFrame, label: str) -> None:
    columns = [
        "model", "form", "prompts", "both_right", "chance", "gap_too_small", "retained", "patched", "not_aligned",
        "max_error",
    ]  # fmt: skip
    shown = retention.reindex(columns=[*columns, "checked"])
    print_table(
        f"Retention on {label}",
        columns,
        _rows(shown.assign(max_error=shown.max_error.where(shown.checked > 0)), columns),
        caption="both_right: right in the clean and the corrupted text; chance: share a guess among the candidates would get.",
    )
    for (model, form), own in retention.groupby(["model", "form"], sort=False):
        if longer := int(own.longer_answers.sum()):
            click.echo(
                f"{model}, {form} form: answers of {longer} of {int(own.prompts.sum())} prompts have several tokens; scored "
                "is the first one, in which the two answers differ"
            )


def _show_map(title: str, lines: pd.DataFrame) -> None:
    from analyses.patching.summaries import describe, top_cells

    top = [
        (model, line) for model, own in lines.groupby("model", sort=False) for line in top_cells(own, TOP).itertuples()
    ]
    print_table(
        title,
        ("model", "cell", "recovery", "interval", "effect", "p_max", "items"),
        [
            (
                model, describe(line), _known(line.recovery), interval(_known(line.low), _known(line.high)),
                _known(line.effect), _known(line.p_max), line.items,
            )
            for model, line in top
        ],
    )  # fmt: skip


def _show_across(tables: dict[str, pd.DataFrame]) -> None:
    columns = ["form", "prompts", "base_right", "code_right", "both_right", "patched", "not_aligned", "max_error"]
    print_table("Across the two models: right in both texts", columns, _rows(tables["cross_retention"], columns))
    if "cross" not in tables:
        return
    from analyses.patching.summaries import CELL, describe

    for (form, site, by, window), lines in tables["cross"].groupby(["form", "site", "by", "window"], sort=False):
        shown: list[tuple[Any, ...]] = []
        for (receiver, giver), own in lines.groupby(["receiver", "donor_model"], sort=False):
            control = own[own.donor == "random"][[*CELL, "effect"]].rename(columns={"effect": "control"})
            moved = own[own.donor.isin(("other", "mapped"))].merge(control, on=list(CELL), how="left")
            largest = moved.effect.abs().sort_values(ascending=False, kind="stable").index[:TOP]
            shown += [
                (
                    f"{giver} into {receiver}", describe(line), _known(line.recovery),
                    interval(_known(line.recovery_low), _known(line.recovery_high)), _known(line.effect),
                    interval(_known(line.effect_low), _known(line.effect_high)), _known(line.control),
                    _known(line.accuracy_before), _known(line.accuracy_after), line.items,
                )
                for line in moved.loc[largest].itertuples()
            ]  # fmt: skip
        print_table(
            f"{site} by {by}{_window(window)}, from one model into the other, {form} form",
            (
                "way", "cell", "recovery", "interval", "effect", "interval", "other item", "right before", "after", "items",
            ),
            shown,
            caption="recovery 1: the receiver answers as the donor model does; other item: effect of the control, whose donor "
            "model reads another item.",
        )  # fmt: skip
    identity = tables["cross"][tables["cross"].donor == "identity"].effect.abs().max()
    click.echo(f"identity patches (the receiver's own activations): largest effect {identity:g}")


def _maps(tables: dict[str, pd.DataFrame], kind: str) -> Iterator[tuple[Any, pd.DataFrame]]:
    """The maps of a table with all models' lines, one after the other."""
    if kind in tables:
        yield from tables[kind].groupby(MAP, sort=False)


def _title(kind: str, lines: pd.DataFrame, direction: str, site: str, by: str, window: int) -> str:
    title = f"{direction}, {site} by {by}{_window(window)}, {lines.donor.iloc[0]} donor"
    if kind == "attribution":
        return f"{title}, estimated by {lines.method.iloc[0]}"
    metric = lines.metric.iloc[0]
    return title if metric == "logit_difference" else f"{title}, {metric}"


def _window(window: Any) -> str:
    return "" if window == 1 else f" in windows of {window} layers"


def _rows(table: pd.DataFrame, columns: list[str]) -> list[tuple[Any, ...]]:
    known = table.reindex(columns=columns).astype(object)
    return [tuple(_known(value) for value in line) for line in known.itertuples(index=False)]


def _known(value: Any) -> Any:
    import pandas as pd

    return None if pd.isna(value) else value
