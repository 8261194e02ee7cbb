"""The figure of ``twinprobe bench calibration``: accuracy over confidence, bin by bin.

The last argument is the PNG that is written; where there was nothing to draw none is, and the function tells.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.report.canvas import WIDTH, Canvas, drawn

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
"""Models in their order; an eighth begins again."""
COLUMNS, PANEL, PITCH, FOOT = 4, 2.0, 2.65, 0.15
"""Panels in a row; inches: side of a panel, from one row to the next, below the last."""
PER_LEGEND_ROW = 3


@drawn
def reliability(bins: pd.DataFrame) -> Figure | None:
    """A panel per task: every model's bins with two standard errors, against the diagonal of perfect calibration.

    Args:
        bins: as :func:`analyses.benchmarks.calibration_tables.by_model` gives it.
    """
    if bins.empty:
        return None
    tasks, models = list(dict.fromkeys(bins.task)), list(dict.fromkeys(bins.model))
    columns = min(COLUMNS, len(tasks))
    wide = (WIDTH - 0.15) / COLUMNS
    top = 0.45 + 0.2 * -(-len(models) // PER_LEGEND_ROW)
    canvas = Canvas(max(columns * wide + 0.15, 5.2), top + PITCH * -(-len(tasks) // columns) + FOOT)
    for place, task in enumerate(tasks):
        row, column = divmod(place, columns)
        axes = canvas.axes(column * wide + 0.55, top + row * PITCH, PANEL, PANEL)
        axes.plot((0, 1), (0, 1), color="#444444", lw=0.8)
        for number, model in enumerate(models):
            own = bins[(bins.task == task) & (bins.model == model)]
            axes.errorbar(
                own.confidence, own.accuracy, yerr=2 * own.standard_error, color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)], markersize=3.4, lw=0.9, alpha=0.85,
            )  # fmt: skip
        axes.set_title(task, fontsize=8)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.tick_params(labelsize=7)
        axes.grid(color="#e6e6e6", lw=0.7)
        axes.set_axisbelow(True)
        if place + columns >= len(tasks):
            axes.set_xlabel("confidence", fontsize=7.5)
        if not column:
            axes.set_ylabel("share of right answers", fontsize=7.5)
    handles = [
        Line2D(
            [],
            [],
            color=COLOURS[number % len(COLOURS)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4,
            label=model,
        )
        for number, model in enumerate(models)
    ]
    canvas.legend(handles, columns=min(PER_LEGEND_ROW, len(handles)))
    return canvas.figure
