"""The figure of ``twinprobe bench pairs``: a point per pair, what it gains over what was found inside its models.

The last argument is the PNG that is written; where there was nothing to draw none is, and the function tells.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from analyses.report.canvas import WIDTH, Canvas, drawn

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
"""Families in their order; an eighth begins again, and pairs of no family are grey crosses."""
COLUMNS, PANEL, PITCH, TOP, FOOT = 3, 2.1, 2.75, 0.55, 0.2
"""Panels in a row; inches: height of a panel, from one row to the next, above the first, below the last."""
SMALLEST, LARGEST = 3.5, 9.0
"""Points: markers of the smallest and of the largest base model, by the logarithm of their parameters."""


@drawn
def gains_over(table: pd.DataFrame, measures: Sequence[str], benchmark: str) -> Figure | None:
    """A panel per measure: gain over the measure with both 95% intervals; colour and marker tell the family, area the size.

    Args:
        table: as :func:`analyses.benchmarks.pairs.views.pair_table` gives it.
        measures: columns of it.
        benchmark: which of its lines.
    """
    points = table[table.benchmark == benchmark]
    shown = [measure for measure in measures if points[measure].notna().sum() > 1]
    if not shown:
        return None
    families = [family for family in dict.fromkeys(points.family) if isinstance(family, str)]
    columns = min(COLUMNS, len(shown))
    wide = (WIDTH - 0.15) / COLUMNS
    # A legend takes a line for six families.
    top = TOP + 0.2 * (len(families) // 6)
    canvas = Canvas(max(columns * wide + 0.15, 5.2), top + PITCH * -(-len(shown) // columns) + FOOT)
    for place, measure in enumerate(shown):
        row, column = divmod(place, columns)
        axes = canvas.axes(column * wide + 0.65, top + row * PITCH, wide - 0.75, PANEL)
        axes.axhline(0, color="#444444", lw=0.8)
        known = points[points[measure].notna()]
        middle = float(known[measure].median())
        for line in known.to_dict("records"):
            _point(
                axes,
                line,
                measure,
                middle,
                _look(families, line["family"]),
                _area(line["parameters"], points.parameters),
            )
        if measure == "parameters":
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1e9:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.margins(0.16)
        axes.set_xlabel(
            "billions of parameters of base" if measure == "parameters" else measure.replace("_", " "), fontsize=7.5
        )
        axes.tick_params(labelsize=7)
        axes.grid(color="#e6e6e6", lw=0.7)
        axes.set_axisbelow(True)
        if not column:
            axes.set_ylabel("gain, code minus base", fontsize=7.5)
            axes.set_title(benchmark, fontsize=8)
    handles: list[Any] = [
        Line2D(
            [], [], color=_look(families, family)[0], marker=_look(families, family)[1], linestyle="none", label=family
        )
        for family in families
    ]
    if points.family.isna().any():
        handles.append(Line2D([], [], color="#7A7A7A", marker="x", linestyle="none", label="no family"))
    canvas.legend(handles, columns=min(6, len(handles)))
    return canvas.figure


def _point(axes: Any, line: dict[Any, Any], measure: str, middle: float, look: tuple[str, str], size: float) -> None:
    x, y = line[measure], line["gain"]
    bars = [_bar(y, line["low"], line["high"]), _bar(x, line.get(f"{measure}_low"), line.get(f"{measure}_high"))]
    axes.errorbar(
        x,
        y,
        yerr=bars[0],
        xerr=bars[1],
        color=look[0],
        marker=look[1],
        markersize=size,
        lw=0.9,
        linestyle="none",
        alpha=0.85,
    )
    side = 1 if x <= middle else -1  # names stay inside the panel
    axes.annotate(
        line["pair"], (x, y), xytext=(4 * side, 4), textcoords="offset points", ha="left" if side > 0 else "right",
        fontsize=6, color="#333333",
    )  # fmt: skip


def _bar(value: float, low: float | None, high: float | None) -> list[list[float]] | None:
    """Lengths of an error bar; none where there is no interval."""
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return None
    return [[max(0.0, value - low)], [max(0.0, high - value)]]


def _look(families: list[str], family: object) -> tuple[str, str]:
    if not isinstance(family, str):
        return "#7A7A7A", "x"
    place = families.index(family)
    return COLOURS[place % len(COLOURS)], MARKERS[place % len(MARKERS)]


def _area(parameters: float, everyone: pd.Series) -> float:
    """Marker size in points."""
    low, high = np.log(everyone.min()), np.log(everyone.max())
    if pd.isna(parameters) or not high > low:
        return (SMALLEST + LARGEST) / 2
    return float(SMALLEST + (LARGEST - SMALLEST) * (np.log(parameters) - low) / (high - low))
