"""The figures of ``twinprobe slopes``: a point per model with the line of best fit of each task, and all slopes in a row.

Each function's last argument is the PNG it writes; where there was nothing to draw it writes none, and it tells.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analyses.report.canvas import WIDTH, Canvas, drawn
from analyses.report.words import signed

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7")
MARKERS = "osD^"
"""Settings in their order; a fifth begins again."""
COLUMNS, PANEL, PITCH, TOP, FOOT = 4, 1.25, 1.75, 0.6, 0.25
"""Panels in a row; inches: height of a panel, from one row to the next, above the first, below the last."""
LONGEST = 34
"""Characters of a task's name."""


@drawn
def best_fits(scores: pd.DataFrame, slopes: pd.DataFrame) -> Figure | None:
    """A panel per task: the score of every model over its share of code, and the line of best fit of each setting.

    Args:
        scores: as :func:`analyses.pretraining.scores.read_scores` returns them.
        slopes: :func:`analyses.pretraining.slopes.slopes` of them; the tasks in it are drawn.
    """
    if slopes.empty:
        return None
    tasks = list(dict.fromkeys(slopes.task))
    settings = _settings(scores)
    columns = min(COLUMNS, len(tasks))
    wide = (WIDTH - 0.15) / COLUMNS
    canvas = Canvas(max(columns * wide + 0.15, 4.5), TOP + PITCH * -(-len(tasks) // columns) + FOOT)
    for place, task in enumerate(tasks):
        row, column = divmod(place, columns)
        axes = canvas.axes(column * wide + 0.62, TOP + row * PITCH, wide - 0.68, PANEL)
        for number, setting in enumerate(settings):
            points, fitted = (_of(table, task, setting) for table in (scores, slopes))
            colour, marker = _look(number)
            axes.plot(
                points.share, points.score, color=colour, marker=marker, markersize=3.6, linestyle="none", alpha=0.75
            )
            for line in fitted.itertuples():
                ends = points.share.min(), points.share.max()
                axes.plot(ends, [line.intercept + line.slope * share for share in ends], color=colour, lw=1.5)
        axes.set_title(_short(task), fontsize=8)
        axes.set_xlim(-0.04, 1.04)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.tick_params(labelsize=7)
        axes.grid(axis="y", color="#e6e6e6", lw=0.7)
        axes.set_axisbelow(True)
        if place + columns >= len(tasks):
            axes.set_xlabel("share of code", fontsize=7.5)
        if not column:
            axes.set_ylabel("score", fontsize=7.5)
    canvas.legend(_handles(settings, "a model, and the line of best fit"), columns=len(settings))
    return canvas.figure


@drawn
def all_slopes(slopes: pd.DataFrame) -> Figure | None:
    """The slope of every task with its 95% interval over seeds, the settings side by side; the first setting's order.

    Args:
        slopes: :func:`analyses.pretraining.slopes.slopes`.
    """
    if slopes.empty:
        return None
    settings = _settings(slopes)
    order = list(dict.fromkeys(_of(slopes, None, settings[0]).sort_values("slope").task))
    order = [*order, *(task for task in dict.fromkeys(slopes.task) if task not in order)]
    at = {task: place for place, task in enumerate(order)}
    left, high = 0.3 + 0.066 * max(len(_short(task)) for task in order), max(0.7, 0.2 * len(order))
    wide = min(3.0, (WIDTH - left) / len(settings) - 0.2)
    canvas = Canvas(max(left + len(settings) * (wide + 0.2) + 0.1, 4.5), TOP + high + 0.5)
    shared = None
    for column, setting in enumerate(settings):
        axes = canvas.axes(left + column * (wide + 0.2), TOP, wide, high)
        own = _of(slopes, None, setting)
        colour, marker = _look(column)
        places = own.task.map(at)
        axes.axvline(0, color="#444444", lw=0.8)
        axes.hlines(places, own.low.astype(float), own.high.astype(float), color=colour, lw=1.3)
        axes.plot(own.slope, places, color=colour, marker=marker, markersize=4.2, linestyle="none")
        axes.set_title(f"{setting + ': ' if setting else ''}mean {signed(own.slope.mean())}", fontsize=8)
        if shared is not None:
            axes.sharex(shared)
            axes.autoscale_view()
        shared = axes
        axes.set_yticks(range(len(order)), [] if column else [_short(task) for task in order], fontsize=7)
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.set_xlabel("slope: change of the score from 0 to 1 of code", fontsize=7.5)
        axes.grid(axis="x", color="#e6e6e6", lw=0.7)
        axes.set_axisbelow(True)
    canvas.legend(_handles(settings, "slope, 95% interval over seeds"), columns=len(settings))
    return canvas.figure


def _settings(table: pd.DataFrame) -> list[str]:
    return list(dict.fromkeys(table.setting)) if "setting" in table else [""]


def _of(table: pd.DataFrame, task: str | None, setting: str) -> pd.DataFrame:
    """The lines of a task (any, if None) in a setting."""
    chosen = table if task is None else table[table.task == task]
    return chosen[chosen.setting == setting] if "setting" in chosen else chosen


def _look(number: int) -> tuple[str, str]:
    return COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]


def _short(task: str) -> str:
    return task if len(task) <= LONGEST else f"{task[: LONGEST - 1]}…"


def _handles(settings: list[str], meaning: str) -> list[Any]:
    return [
        Line2D([], [], color=_look(number)[0], marker=_look(number)[1], markersize=4, lw=1.5,
               label=f"{setting}: {meaning}" if setting else meaning)
        for number, setting in enumerate(settings)
    ]  # fmt: skip
