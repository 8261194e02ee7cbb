"""The maps and curves of a report. Each function draws one table and writes one PNG, its last argument.

They tell whether there was anything to draw; without data nothing is written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.report.canvas import COLOUR, DIVERGING, MARKER, WIDTH, Canvas, colour_bar, drawn, frame, ink, legend_line
from analyses.report.words import best_surface, lines, number


@drawn
def layers(probes: pd.DataFrame) -> Figure | None:
    """Test accuracy over sites, one panel per task, target and form; the dev-chosen site is ringed."""
    if probes.empty:
        return None
    panels = list(probes.groupby(["task", "target", "form"], sort=False))
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    top, panel, pitch = 0.75, 1.62, 2.26
    width = (WIDTH - 0.6) / 4
    canvas = Canvas(max(0.6 + columns * width, 8.0), top + rows * pitch)
    for place, ((task, target, form), part) in enumerate(panels):
        row, column = divmod(place, columns)
        axes = canvas.axes(0.5 + column * width, top + row * pitch, width - 0.28, panel)
        _layer_panel(axes, part)
        axes.set_title(f"{task}: {target} · {form}")
        if column:
            axes.tick_params(labelleft=False)
        else:
            axes.set_ylabel("test accuracy")
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
    axes.set_ylim(0, 1.04)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", ".25", ".5", ".75", "1"])
    axes.set_xlim(-0.4, len(sites) - 0.6 + (len(sites) == 1))
    axes.grid(axis="y", color="#e6e6e6", lw=0.7)
    axes.set_axisbelow(True)
    components = {site.split(".")[0] for site in sites if "." in site}
    step = -(-len(sites) // 9)
    shown = range(0, len(sites), step)
    if len(components) == 1:
        labels = [site.split(".", 1)[1] if "." in site else site for site in sites]
        axes.set_xlabel(f"site: {'embedding, ' if 'embed' in sites else ''}{components.pop()} by layer", fontsize=7.5)
        axes.set_xticks(list(shown), [{"embed": "emb"}.get(labels[place], labels[place]) for place in shown])
    else:
        axes.set_xticks(list(shown), [sites[place] for place in shown], rotation=40, ha="right", fontsize=6.5)


@drawn
def transfer(probes: pd.DataFrame, moved: pd.DataFrame) -> Figure | None:
    """Train form × test form accuracy, a matrix per model and target; coloured by the gain over the majority label."""
    if moved.empty:
        return None
    chosen = probes[probes.chosen.astype(bool)]
    targets = list(dict.fromkeys(zip(moved.task, moved.target, strict=True)))
    models = [model for model in ("base", "code", "second_seed", "random") if model in set(moved.model)]
    per_row = min(5, len(targets))
    blocks = -(-len(targets) // per_row)
    left, top, pitch, row = 1.45, 0.4, (WIDTH - 2.35) / 5, 1.38
    canvas = Canvas(left + per_row * pitch + 0.9, blocks * (top + len(models) * row + 0.1))
    gains: list[float] = [0.05]
    drawn = []
    for spot, (task, target) in enumerate(targets):
        block, column = divmod(spot, per_row)
        for line, model in enumerate(models):
            inside = chosen[(chosen.model == model) & (chosen.task == task) & (chosen.target == target)]
            across = moved[(moved.model == model) & (moved.task == task) & (moved.target == target)]
            forms = list(dict.fromkeys([*across.source, *across.form]))
            score, chance = (np.full((len(forms), len(forms)), np.nan) for _ in range(2))
            for own in lines(inside[inside.form.isin(forms)]):
                place = forms.index(own["form"])
                score[place, place], chance[place, place] = own["score"], own["majority"]
            for other in lines(across):
                cell = forms.index(other["source"]), forms.index(other["form"])
                score[cell], chance[cell] = other["score"], other["chance"]
            y = block * (top + len(models) * row + 0.1) + top + line * row
            axes = canvas.axes(left + column * pitch, y, pitch - 0.32, row - 0.36)
            drawn.append((axes, forms, score, chance))
            gains += np.abs(score - chance)[np.isfinite(score)].tolist()
            if not line:
                axes.set_title(f"{task}: {target}", pad=7)
            if not column:
                canvas.figure.text(
                    0.1 / canvas.width,
                    1 - (y + (row - 0.36) / 2) / canvas.height,
                    model.replace("_", "\n"),
                    weight="bold",
                    fontsize=9.5,
                    color=COLOUR[model],
                    va="center",
                )
            axes.set_xticks(range(len(forms)), [f"on {form}" for form in forms])
            axes.set_yticks(range(len(forms)), [f"from\n{form}" for form in forms] if not column else [])
            axes.tick_params(length=0, labelsize=7.5)
    limit = max(gains)
    for axes, _forms, score, chance in drawn:
        image = axes.imshow(score - chance, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
        frame(axes)
        for (y, x), value in np.ndenumerate(score):
            if np.isfinite(value):
                tint = ink(value - chance[y, x], limit)
                axes.text(x, y - 0.1, f"{value:.2f}", ha="center", va="center", color=tint, weight="bold", fontsize=9.5)
                axes.text(x, y + 0.24, f"chance {chance[y, x]:.2f}", ha="center", va="center", color=tint, fontsize=6.6)
    colour_bar(canvas, image, "accuracy above chance", left + per_row * pitch - 0.08)
    return canvas.figure


@drawn
def patching_map(patching: pd.DataFrame, task: str, form: str) -> Figure | None:
    """Mean recovery by layer and token role, base and code side by side, the second seed beside them where the table has it.

    Args:
        patching: columns model, task, form, layer, role, recovery, items (:func:`analyses.patching_sweep.by_role`).
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
