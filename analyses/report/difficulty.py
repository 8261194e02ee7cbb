"""Accuracy by how hard the items are."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.report.canvas import COLOUR, MARKER, drawn, legend_line
from analyses.report.panels import panel_grid

OFFSET = {"base": -0.09, "code": 0.09}


@drawn
def difficulty(table: pd.DataFrame) -> Figure | None:
    """Accuracy of base and code at the chosen site over the difficulty of the items, with 95% bars and their controls.

    Args:
        table: as :func:`analyses.study.probing.by_difficulty` writes it, with a column model.
    """
    if table.empty:
        return None
    shown = table[table.model.isin(list(OFFSET))]
    canvas, panels = panel_grid(shown, head=0.55, panel=1.3, foot=0.8, ylabel="test accuracy")
    for axes, part in panels:
        levels = sorted(set(part.difficulty))
        for model, shift in OFFSET.items():
            own = part[part.model == model].sort_values("difficulty")
            at = own.difficulty.map(levels.index).to_numpy() + shift
            axes.plot(at, own.control, color=COLOUR[model], linestyle=(0, (3, 2)), lw=1.1)
            axes.vlines(at, own.low.astype(float), own.high.astype(float), color=COLOUR[model], lw=1.6)
            axes.plot(at, own.score, color=COLOUR[model], marker=MARKER[model], markersize=4.2, lw=1.0)
        rows = [" / ".join(dict.fromkeys(map(str, part.n_test[part.difficulty == level]))) for level in levels]
        axes.set_xlim(-0.5, len(levels) - 0.5)
        step = -(-len(levels) // 7)
        places = range(0, len(levels), step)
        axes.set_xticks(list(places), [f"{levels[place]}\nn {rows[place]}" for place in places], fontsize=7)
        axes.set_xlabel("difficulty, test rows", fontsize=7.5)
    models = [model for model in OFFSET if model in set(shown.model)]
    handles = [legend_line(model) for model in models]
    handles += [
        Line2D([], [], color=COLOUR[model], linestyle=(0, (3, 2)), lw=1.1, label=f"{model}: control")
        for model in models
    ]
    canvas.legend(handles, columns=4)
    return canvas.figure
