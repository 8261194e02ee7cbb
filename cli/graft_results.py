"""What ``twinprobe graft`` leaves in its folder, and what it prints of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cli.form_tables import Tables, known, picture_path, write_tables
from cli.output import interval, print_table

TABLES = ("grafts", "graft_answers", "interpolation", "interpolation_answers")
PICTURES = ("grafts", "interpolation")
DONORS = ("base", "code", "control")
"""Whose parts a host gets; an untouched host gets none."""
MEASURES = (
    "accuracy: right in both texts; chance: of guesses among the candidates; logit difference: in favour of the text's own "
    "answer, mean of the two texts"
)


def write(tables: Tables, out: Path) -> None:
    """Write the tables in place of those of an earlier run."""
    write_tables(tables, out, TABLES, PICTURES)


def draw(tables: Tables, label: str, out: Path) -> list[str]:
    """Two pictures per form; their paths."""
    from analyses.report.graft_figures import graft_changes, interpolation_curve

    drawn = []
    for name, figure in (("grafts", graft_changes), ("interpolation", interpolation_curve)):
        for form, lines in tables[name].groupby("form", sort=False):
            path = picture_path(out, name, label, str(form))
            if figure(lines, f"{label}, {form} form, {lines.prompts.iloc[0]} prompts", path):
                drawn.append(str(path))
    return drawn


def show(tables: Tables, label: str) -> None:
    """Print what every graft changed, and the way between the two models."""
    for form, lines in tables["grafts"].groupby("form", sort=False):
        print_table(
            f"Parts of one model in the other: {label}, {form} form, {lines.prompts.iloc[0]} prompts, chance "
            f"{lines.chance.iloc[0]:.3f}",
            ("host", "donor", "part", "accuracy", "change", "interval", "logit difference", "change", "interval"),
            [(*_setting(line), *_change(line, "accuracy"), *_change(line, "logit_difference"))
             for line in lines.itertuples()],
            caption=f"{MEASURES}. A graft that takes the answer away does not show that the host's part held it: the donor's "
            "part may only make sense among the donor's others.",
        )  # fmt: skip
    for form, lines in tables["interpolation"].groupby("form", sort=False):
        print_table(
            f"From base (0) to code (1): {label}, {form} form",
            ("alpha", "accuracy", "interval", "logit difference", "interval"),
            [(f"{line.alpha:g}", *_level(line, "accuracy"), *_level(line, "logit_difference"))
             for line in lines.itertuples()],
            caption="alpha: share of code's weights, in all parts alike",
        )  # fmt: skip


def _setting(line: Any) -> tuple[str, str, str]:
    return (line.host, line.donor, line.graft) if line.donor in DONORS else (line.host, "–", "untouched")


def _change(line: Any, measure: str) -> tuple[Any, ...]:
    """A measure with its change, which the untouched host has none of."""
    changed = _level(line, f"{measure}_change") if line.donor in DONORS else (None, "–")
    return (getattr(line, measure), *changed)


def _level(line: Any, measure: str) -> tuple[Any, str]:
    value, low, high = (known(getattr(line, f"{measure}{end}")) for end in ("", "_low", "_high"))
    return value, interval(low, high)
