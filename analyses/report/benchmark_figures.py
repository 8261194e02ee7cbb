"""The figures of benchmark scores: bars with intervals, and a leaderboard's radar (called as those of ``figures``)."""

from __future__ import annotations

import math
import textwrap
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyses.report.canvas import COLOUR, MARKER, Canvas, drawn, legend_line
from analyses.report.words import MODELS, lines, number
from analyses.report.words_benchmarks import by_task, over_chance

RADAR_TASKS = 3
"""Tasks that a radar needs at least."""
ROLES = ("base", "code", "second_seed")


@drawn
def bars(table: pd.DataFrame) -> Figure | None:
    """The score of every model on every task with its interval, and the score of a blind guess."""
    if table.empty:
        return None
    tasks = by_task(_lines(table))
    models = [model for model in ROLES if model in set(table.model)]
    thick, gap = 0.17, 0.16
    pitch = thick * len(models) + gap
    left = max(1.85, 0.15 + 0.067 * max(len(task) for task, _ in tasks))
    canvas = Canvas(left + 6.6, 0.4 + len(tasks) * pitch + 0.55)
    axes = canvas.axes(left, 0.4, 6.0, len(tasks) * pitch)
    for place, (_, own) in enumerate(tasks):
        top = place * pitch + gap / 2
        for nth, model in enumerate(models):
            if line := own.get(model):
                y = top + (nth + 0.5) * thick
                axes.barh(y, line["score"], height=0.86 * thick, color=COLOUR[model], alpha=0.55, lw=0)
                axes.plot([line["low"], line["high"]], [y, y], color="#1a1a1a", lw=1.0)
                axes.annotate(number(line["score"], 2), (line["high"], y), (5, 0), textcoords="offset points",
                              va="center", fontsize=7.5, color=COLOUR[model])  # fmt: skip
        chance = next(iter(own.values()))["chance"]
        if chance is not None:
            axes.plot(
                [chance] * 2, [top - 0.04, top + len(models) * thick + 0.04], color="black", lw=1.4, ls=(0, (2, 1))
            )
    axes.set_xlim(0, 1.06)
    axes.set_ylim(len(tasks) * pitch, 0)
    axes.set_yticks([(place + 0.5) * pitch for place in range(len(tasks))], [task for task, _ in tasks])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e6e6e6", lw=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("score")
    handles = [Patch(color=COLOUR[model], alpha=0.55, lw=0, label=MODELS[model]) for model in models]
    marks = [
        Line2D([], [], color="#1a1a1a", lw=1.0, label="95% interval"),
        Line2D([], [], color="black", lw=1.4, ls=(0, (2, 1)), label="chance"),
    ]
    canvas.legend([*handles, *marks], columns=5, left=0.1)
    return canvas.figure


@drawn
def radar(table: pd.DataFrame) -> Figure | None:
    """Score above chance of base and code on every task, as a share of what is left above chance; three tasks or more."""
    if table.empty or table.task.nunique() < RADAR_TASKS:
        return None
    tasks = by_task(_lines(table))
    canvas = Canvas(8.2, 5.4)
    axes: Any = canvas.figure.add_axes((0.24, 0.1, 0.52, 0.52 * 8.2 / 5.4), projection="polar")
    angles = [2 * math.pi * place / len(tasks) for place in range(len(tasks))]
    values = {
        model: [over_chance(own[model]) for _, own in tasks]
        for model in ("base", "code")
        if all(model in own for _, own in tasks)
    }
    step = 0.25
    reached = [value for own in values.values() for value in own]
    lowest = step * min(-1, math.floor(min(reached) / step))
    highest = step * max(1, math.ceil(max(reached) / step))
    axes.set_theta_offset(math.pi / 2)
    axes.set_theta_direction(-1)
    axes.set_ylim(lowest, highest)
    rings = [lowest + step * ring for ring in range(1, round((highest - lowest) / step) + 1)]
    axes.set_yticks(rings, ["chance" if abs(ring) < 1e-9 else number(ring, 2) for ring in rings], fontsize=7.5)
    axes.set_rlabel_position(180 / len(tasks))
    axes.set_xticks(angles, [textwrap.fill(task.replace("_", " "), 16) for task, _ in tasks], fontsize=8)
    axes.tick_params(axis="x", pad=14)
    axes.grid(color="#dddddd", lw=0.7)
    axes.spines["polar"].set_color("#bbbbbb")
    axes.plot([2 * math.pi * part / 180 for part in range(181)], [0.0] * 181, color="black", lw=1.2, ls=(0, (2, 1)))
    for model, own in values.items():
        axes.plot(
            [*angles, angles[0]], [*own, own[0]], color=COLOUR[model], marker=MARKER[model], markersize=4.5, lw=1.6
        )
        axes.fill([*angles, angles[0]], [*own, own[0]], color=COLOUR[model], alpha=0.1, lw=0)
    canvas.legend([legend_line(model) for model in values], columns=2, left=0.1)
    return canvas.figure


def _lines(table: pd.DataFrame) -> list[dict[str, object]]:
    """The lines with ``None`` for what is missing."""
    return lines(table.astype(object).where(table.notna(), None))
