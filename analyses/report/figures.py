"""The layer curves and patching maps of a report. Each function draws one table and writes one PNG, its last argument.

They tell whether there was anything to draw; without data nothing is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.report.canvas import COLOUR, DIVERGING, MARKER, WIDTH, Canvas, colour_bar, drawn, frame, ink, legend_line
from analyses.report.panels import panel_grid, site_axis
from analyses.report.words import best_surface, number


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


@drawn
def patching_map(patching: pd.DataFrame, task: str, form: str) -> Figure | None:
    """Mean recovery by layer and token role, base and code side by side, the second seed beside them where the table has it.

    Args:
        patching: columns model, task, form, layer, role, recovery, items (:func:`analyses.patching.sweep.by_role`).
        task: the task to draw.
        form: the form to draw.

    The last argument is the path of the picture; nothing is written when no model had an item to patch.
    """
    part = patching[(patching.task == task) & (patching.form == form)]
    if part.empty:
        return None
    shown = {"base", "code", *patching.model}
    models = [model for model in ("base", "code", "second_seed") if model in shown]
    roles = sorted(set(part.role), key=lambda role: (role == "last", role != "other", role))
    depths = sorted(set(part.layer.astype(int)))
    cell = min(0.66, (WIDTH - 1.7 - 0.35 * len(models)) / (len(models) * len(roles)))
    left, top, gap = 0.6, 0.32, 0.35
    bottom = 0.45 + 0.045 * max(len(role) for role in roles)
    wide, high = max(cell * len(roles), 1.9), max(0.27 * len(depths), 1.2)
    canvas = Canvas(left + len(models) * (wide + gap) + 0.75, top + high + bottom)
    for column, model in enumerate(models):
        own = part[part.model == model]
        axes = canvas.axes(left + column * (wide + gap), top, wide, high)
        count = f"{int(own['items'].max())} item{'s'[: int(own['items'].max()) != 1]}" if len(own) else "no item"
        axes.set_title(f"{model.replace('_', ' ')}: {count}", color=COLOUR[model])
        grid = own.pivot(index="layer", columns="role", values="recovery").reindex(index=depths, columns=roles)
        image = axes.imshow(grid.to_numpy(dtype=float), cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto", origin="lower")
        frame(axes)
        axes.set_xticks(range(len(roles)), roles, rotation=35, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(depths)), [str(depth) for depth in depths] if not column else [])
        axes.tick_params(length=0)
        if not column:
            axes.set_ylabel("patched layer")
        if own.empty:
            axes.text(0.5, 0.5, "nothing retained,\nnothing to patch", transform=axes.transAxes, ha="center", va="center",
                      color="#555555")  # fmt: skip
        for (y, x), value in np.ndenumerate(grid.to_numpy(dtype=float)):
            if np.isfinite(value):
                axes.text(x, y, _short(value), ha="center", va="center", fontsize=7, color=ink(value, 1))
    colour_bar(canvas, image, "mean recovery", left + len(models) * (wide + gap) - 0.1, top, high)
    canvas.figure.text(
        left / canvas.width, 0.05 / canvas.height, f"role of the patched token ({task}, {form} form)", fontsize=8,
        color="#444444", va="bottom",
    )  # fmt: skip
    return canvas.figure


def _short(value: float) -> str:
    """Two decimals, none for large values."""
    return number(value, 0 if abs(value) >= 10 else 2)
