"""Grids of small panels, one per task, target and form, and the axes they share."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from analyses.report.canvas import WIDTH, Canvas

COLUMNS = 4
LEFT = 0.5
PITCH = (WIDTH - 0.6) / COLUMNS
TITLE_LENGTH = 32
"""Characters of a title that fit over a panel at the usual size."""


def panel_grid(
    table: pd.DataFrame, *, head: float, panel: float, foot: float, ylabel: str
) -> tuple[Canvas, list[tuple[Any, pd.DataFrame]]]:
    """Axes with accuracies from 0 to 1 for every task, target and form of a table, the forms of a target side by side.

    Args:
        table: columns task, target, form.
        head: inches above the first row, for the legend and its titles.
        panel: height of a panel in inches.
        foot: inches from one row of panels to the next.
        ylabel: label of the leftmost panels.

    Returns:
        The canvas, and for each panel its axes and its lines of the table.
    """
    parts = list(table.groupby(["task", "target", "form"], sort=False))
    spots = _spots([len(list(group)) for _, group in groupby(parts, key=lambda part: part[0][:2])])
    columns, rows = (1 + max(spot[side] for spot in spots) for side in (1, 0))
    canvas = Canvas(max(LEFT + 0.1 + columns * PITCH, 8.0), head + rows * (panel + foot))
    panels = []
    for (row, column), ((task, target, form), part) in zip(spots, parts, strict=True):
        axes = canvas.axes(LEFT + column * PITCH, head + row * (panel + foot), PITCH - 0.28, panel)
        title = f"{task}: {target} · {form}"
        axes.set_title(title, fontsize=9 * min(1, TITLE_LENGTH / len(title)))
        axes.set_ylim(0, 1.04)
        axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
        axes.grid(axis="y", color="#e6e6e6", lw=0.7)
        axes.set_axisbelow(True)
        if column:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel(ylabel)
        panels.append((axes, part))
    return canvas, panels


def _spots(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Row and column of the panels of groups so large; a group that would break at the end of a row starts a new one."""
    spots, row, column = [], 0, 0
    for size in sizes:
        if column + min(size, COLUMNS) > COLUMNS:
            row, column = row + 1, 0
        for _ in range(size):
            if column == COLUMNS:
                row, column = row + 1, 0
            spots.append((row, column))
            column += 1
    return spots


def site_axis(axes: Any, sites: Sequence[str]) -> None:
    """Name the sites along the x axis, one apart from 0; by their layers where all are of one component."""
    axes.set_xlim(-0.4, len(sites) - 0.6 + (len(sites) == 1))
    components = {site.split(".")[0] for site in sites if "." in site}
    step = -(-len(sites) // 9)
    shown = range(0, len(sites), step)
    if len(components) == 1:
        labels = [site.split(".", 1)[1] if "." in site else site for site in sites]
        axes.set_xlabel(f"site: {'embedding, ' if 'embed' in sites else ''}{components.pop()} by layer", fontsize=7.5)
        axes.set_xticks(list(shown), [{"embed": "emb"}.get(labels[place], labels[place]) for place in shown])
    else:
        axes.set_xticks(list(shown), [sites[place] for place in shown], rotation=40, ha="right", fontsize=6.5)
