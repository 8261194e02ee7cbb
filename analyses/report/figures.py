"""The layer curves of a report. A function draws a table and writes one PNG, its last argument.

It tells whether there was anything to draw; without data nothing is written.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.report.canvas import COLOUR, MARKER, drawn, legend_line
from analyses.report.panels import panel_grid, site_axis
from analyses.report.words import best_surface


@drawn
def layers(probes: pd.DataFrame) -> Figure | None:
    """Test accuracy over sites, one panel per task, target and form; the dev-chosen site is ringed."""
    if probes.empty:
        return None
    canvas, panels = panel_grid(probes, head=0.75, panel=1.62, foot=0.64, ylabel="test accuracy")
    for axes, part in panels:
        _layer_panel(axes, part)
    models = [model for model in ("base", "code", "random") if model in set(probes.model)]
    handles = [legend_line(model) for model in models]
    handles += [
        Line2D([], [], color="#444444", linestyle="none", marker="o", markersize=10, fillstyle="none", label="chosen on dev"),
        *(
            Line2D([], [], color=COLOUR[model], linestyle=(0, (3, 2)), lw=1.2, label=f"{model}: control")
            for model in models
            if model != "random"
        ),
        Line2D([], [], color="black", lw=0.9, linestyle="-.", label="best surface baseline"),
        Line2D([], [], color="black", lw=0.9, linestyle=":", label="majority label"),
    ]  # fmt: skip
    canvas.legend(handles, columns=4)
    return canvas.figure


def _layer_panel(axes: Any, part: pd.DataFrame) -> None:
    sites = list(dict.fromkeys(part.site))
    at = {site: place for place, site in enumerate(sites)}
    axes.axhline(part.majority.max(), color="black", lw=0.9, linestyle=":")
    axes.axhline(best_surface(part).max(), color="black", lw=0.9, linestyle="-.")
    for model in ("random", "base", "code"):
        own = part[part.model == model]
        if own.empty:
            continue
        x, colour = own.site.map(at).to_numpy(), COLOUR[model]
        style = {"color": colour, "marker": MARKER[model], "markersize": 3.6 if len(sites) < 16 else 2.2, "lw": 1.6}
        if model == "random":
            axes.plot(x, own.score, **{**style, "lw": 1.0})
            continue
        axes.fill_between(x, own.low.astype(float), own.high.astype(float), color=colour, alpha=0.16, lw=0)
        axes.plot(x, own.control, color=colour, linestyle=(0, (3, 2)), lw=1.2)
        axes.plot(x, own.score, **style)
        chosen = own.chosen.astype(bool).to_numpy()
        axes.plot(x[chosen], own.score[chosen], linestyle="none", marker=MARKER[model], markersize=9.5, color=colour,
                  fillstyle="none", markeredgewidth=1.3)  # fmt: skip
    site_axis(axes, sites)
