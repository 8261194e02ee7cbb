"""The figures of probes read elsewhere than where they were trained: in other forms, in other layers."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from analyses.report.canvas import COLOUR, DIVERGING, MARKER, WIDTH, Canvas, colour_bar, drawn, frame, ink, legend_line
from analyses.report.panels import panel_grid, site_axis
from analyses.report.words import lines

LEFT, BAR, GAP, HEAD = 1.45, 0.9, 0.32, 0.45
ROOMY_TARGETS = 10


@dataclass(frozen=True)
class Matrix:
    """Scores from form to form of one model and target, and the chance of each, ``[form, form]``; NaN where there is none."""

    score: NDArray[np.float64]
    chance: NDArray[np.float64]


@dataclass(frozen=True)
class Layout:
    """How much room the matrices of these forms take, in inches.

    ``roomy`` says whether a cell has room for the chance below its score; many forms or targets leave none.
    """

    names: tuple[str, ...]
    roomy: bool

    @property
    def side(self) -> tuple[float, float]:
        """Width and height of a matrix."""
        wide, high = (0.66, 0.51) if self.roomy else (0.42, 0.3)
        return len(self.names) * wide, len(self.names) * high

    @property
    def pitch(self) -> tuple[float, float]:
        """From one matrix to the next, sideways and downwards."""
        return self.side[0] + GAP, self.side[1] + (0.36 if self.roomy else 0.12)

    @property
    def foot(self) -> float:
        """Room below the last matrix, for the slanted names of many forms."""
        return 0.1 if self.roomy else 0.3 + 0.06 * max(map(len, self.names))

    @property
    def per_row(self) -> int:
        """Matrices side by side."""
        return max(1, int((WIDTH - LEFT - BAR) / self.pitch[0]))


@drawn
def transfer(probes: pd.DataFrame, moved: pd.DataFrame) -> Figure | None:
    """Train form × test form accuracy, a matrix per model and target; coloured by the gain over the majority label."""
    if moved.empty:
        return None
    models = [model for model in ("base", "code", "second_seed", "random") if model in set(moved.model)]
    forms: dict[tuple[str, str], tuple[str, ...]] = {
        (str(task), str(target)): tuple(dict.fromkeys([*part.source, *part.form]))
        for (task, target), part in moved.groupby(["task", "target"], sort=False)
    }
    # Targets in one block have the same forms, so that one column of labels serves the whole row.
    blocks = [
        (layout, block)
        for names in dict.fromkeys(forms.values())
        for layout in [Layout(names, roomy=len(names) < 4 and len(forms) <= ROOMY_TARGETS)]
        for block in _chunks([key for key in forms if forms[key] == names], layout.per_row)
    ]
    matrices = {(model, key): _matrix(probes, moved, model, key, forms[key]) for model in models for key in forms}
    gains = [np.abs(each.score - each.chance) for each in matrices.values()]
    limit = max(0.05, *(float(np.nanmax(gain)) for gain in gains if np.isfinite(gain).any()))
    widest = max(LEFT + len(block) * layout.pitch[0] for layout, block in blocks)
    heights = [HEAD + len(models) * layout.pitch[1] + layout.foot for layout, _ in blocks]
    canvas = Canvas(widest + BAR, max(sum(heights), 2.2))
    top, image = 0.0, None
    for (layout, block), height in zip(blocks, heights, strict=True):
        for (column, key), (line, model) in product(enumerate(block), enumerate(models)):
            y = top + HEAD + line * layout.pitch[1]
            axes = canvas.axes(LEFT + column * layout.pitch[0], y, *layout.side)
            image = _draw(axes, matrices[model, key], limit, layout.roomy)
            _label(axes, layout, first=not column, last=line == len(models) - 1)
            if not line:
                axes.set_title((": " if layout.roomy else "\n").join(key), pad=7, fontsize=9 if layout.roomy else 8)
            if not column:
                canvas.figure.text(
                    0.1 / canvas.width, 1 - (y + layout.side[1] / 2) / canvas.height, model.replace("_", "\n"),
                    weight="bold", fontsize=9.5, color=COLOUR[model], va="center",
                )  # fmt: skip
        top += height
    colour_bar(canvas, image, "accuracy above chance", widest - 0.08)
    return canvas.figure


def _chunks(keys: list[Any], size: int) -> list[list[Any]]:
    return [keys[start : start + size] for start in range(0, len(keys), size)]


def _matrix(
    probes: pd.DataFrame, moved: pd.DataFrame, model: str, key: tuple[str, str], forms: tuple[str, ...]
) -> Matrix:
    """The ordinary probes on the diagonal, the transferred ones off it."""
    score, chance = (np.full((len(forms), len(forms)), np.nan) for _ in range(2))
    chosen, across = (
        table[(table.model == model) & (table.task == key[0]) & (table.target == key[1])]
        for table in (probes[probes.chosen.astype(bool)], moved)
    )
    for own in lines(chosen[chosen.form.isin(forms)]):
        place = forms.index(own["form"])
        score[place, place], chance[place, place] = own["score"], own["majority"]
    for other in lines(across):
        cell = forms.index(other["source"]), forms.index(other["form"])
        score[cell], chance[cell] = other["score"], other["chance"]
    return Matrix(score, chance)


def _draw(axes: Any, matrix: Matrix, limit: float, roomy: bool) -> Any:
    gain = matrix.score - matrix.chance
    image = axes.imshow(gain, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
    frame(axes)
    for (y, x), value in np.ndenumerate(matrix.score):
        if np.isfinite(value):
            tint = ink(float(gain[y, x]), limit)
            axes.text(x, y - 0.1 * roomy, f"{value:.2f}", ha="center", va="center", color=tint, weight="bold",
                      fontsize=9.5 if roomy else 7.5)  # fmt: skip
            if roomy:
                chance = f"chance {matrix.chance[y, x]:.2f}"
                axes.text(x, y + 0.24, chance, ha="center", va="center", color=tint, fontsize=6.6)
    return image


def _label(axes: Any, layout: Layout, *, first: bool, last: bool) -> None:
    """Name the forms: trained on at the left of a block, tested on below; in small matrices only below the last model."""
    names, roomy, places = layout.names, layout.roomy, range(len(layout.names))
    axes.tick_params(length=0, labelsize=7.5)
    axes.set_yticks(places, [f"from\n{name}" if roomy else name for name in names] if first else [])
    if roomy:
        axes.set_xticks(places, [f"on {name}" for name in names])
    else:
        axes.set_xticks(places, names if last else [], rotation=40, ha="right",
                        rotation_mode="anchor")  # fmt: skip


@drawn
def between_layers(probes: pd.DataFrame, moved: pd.DataFrame) -> Figure | None:
    """The probe of the chosen layer read at every other one, beside the probe trained at each; base and code."""
    if moved.empty:
        return None
    shown = moved[moved.model.isin(["base", "code"])]
    canvas, panels = panel_grid(shown, head=0.55, panel=1.3, foot=0.64, ylabel="test accuracy")
    for axes, part in panels:
        of_panel = probes
        for name in ("task", "target", "form"):
            of_panel = of_panel[of_panel[name] == part[name].iloc[0]]
        sites = list(dict.fromkeys(of_panel.site))
        axes.axhline(part.chance.max(), color="black", lw=0.9, linestyle=":")
        for model, moved_own in part.groupby("model", sort=False):
            own = of_panel[of_panel.model == model].set_index("site").reindex(sites)
            read = moved_own.set_index("target_site").score.reindex(sites)
            chosen = own.chosen.eq(True).to_numpy()
            at = np.arange(len(sites))
            colour = COLOUR[str(model)]
            axes.plot(at, own.score, color=colour, linestyle=(0, (3, 2)), lw=1.0)
            axes.plot(at, read.where(~chosen, own.score), color=colour, marker=MARKER[str(model)], markersize=3, lw=1.5)
            axes.plot(at[chosen], own.score[chosen], linestyle="none", marker=MARKER[str(model)], markersize=9.5,
                      color=colour, fillstyle="none", markeredgewidth=1.3)  # fmt: skip
        site_axis(axes, sites)
    models = [model for model in ("base", "code") if model in set(shown.model)]
    canvas.legend(
        [
            *(legend_line(model) for model in models),
            Line2D([], [], color="#444444", linestyle="none", marker="o", markersize=10, fillstyle="none",
                   label="layer the probe was trained at"),
            Line2D([], [], color="#444444", lw=1.0, linestyle=(0, (3, 2)), label="probe trained at each layer"),
            Line2D([], [], color="black", lw=0.9, linestyle=":", label="chance"),
        ],
        columns=5,
    )  # fmt: skip
    return canvas.figure
