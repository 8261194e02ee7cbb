"""What all maps of patching share: panels of layers × columns side by side, their colours, outlines, axes and caption.

Recovery has one scale of colours everywhere, from -1 to 1: denoising that brings the answer back is red, noising that takes
it away is blue.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analyses.report.canvas import DIVERGING, WIDTH, Canvas, colour_bar, frame, ink
from analyses.report.words import number

LEFT, GAP, BAR, LINE = 0.6, 0.35, 0.85, 0.17
"""Inches: left of the first panel, between panels, for the colour bar, per line of the caption."""
TALLEST = 6.5
"""Inches of a map of many layers."""


@dataclass(frozen=True)
class Panel:
    """One map: a title, its colour, a grid ``[layer, column]`` with its cells that are outlined, what an empty one says."""

    title: str
    colour: str
    values: NDArray[np.float64]
    clear: NDArray[np.bool_]
    empty: str = "nothing retained,\nnothing to patch"


def sheet(
    rows: Sequence[Sequence[Panel]], depths: Sequence[int], columns: Sequence[str | int], *, caption: Sequence[str],
    down: str, along: str = "",
) -> Figure:  # fmt: skip
    """Rows of panels that share their axes.

    Args:
        rows: as many panels in each.
        depths: the layers.
        columns: roles, written aslant below every row, or numbers, of which as many are written as there is room for.
        caption: what is said below, part by part.
        down: what the layers are called.
        along: what the numbers are called.
    """
    aslant = isinstance(columns[0], str)
    count, longest = len(rows[0]), max(len(str(column)) for column in columns)
    left = max(LEFT, 0.058 * len(str(columns[0])))
    room = (WIDTH - left - BAR - GAP * count) / count
    wide = max(min(0.66 * len(columns), room), 1.9) if aslant else min(max(0.3 * len(columns), 1.9), room)
    high = height(len(depths), TALLEST if len(rows) == 1 and aslant else 2.6)
    top = 0.34 + 0.14 * rows[0][0].title.count("\n")
    foot, broad = (0.3 + 0.045 * longest if aslant else 0.26 + top), left + count * (wide + GAP) + BAR
    said = broken(caption, broad - LEFT)
    canvas = Canvas(broad, top + len(rows) * (high + foot) + LINE * len(said))
    step = 1 if aslant else -(-len(columns) // max(1, int(wide / 0.26)))
    for row, panels in enumerate(rows):
        for place, panel in enumerate(panels):
            axes = canvas.axes(left + place * (wide + GAP), top + row * (high + foot), wide, high)
            image = draw(axes, panel, wide, high)
            if aslant:
                axes.set_xticks(range(len(columns)), columns, rotation=35, ha="right", rotation_mode="anchor")
            else:
                axes.set_xticks(range(0, len(columns), step), columns[::step], fontsize=7)
                axes.set_xlabel(along, fontsize=7.5)
            layer_axis(axes, depths, high, "" if place else down)
    colour_bar(canvas, image, "mean recovery", broad - BAR - 0.1, top, max(high, 1.2))
    write_caption(canvas, said)
    return canvas.figure


def draw(axes: Any, panel: Panel, wide: float, high: float) -> Any:
    """One map with its title and outlines, and with figures where they fit; ``wide`` and ``high`` are inches."""
    image = axes.imshow(panel.values, cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto", origin="lower")
    frame(axes)
    axes.set_title(panel.title, color=panel.colour)
    axes.tick_params(length=0)
    if not np.isfinite(panel.values).any():
        axes.text(0.5, 0.5, panel.empty, transform=axes.transAxes, ha="center", va="center", color="#555555")
    rows, columns = panel.values.shape
    if wide / columns >= 0.33 and high / rows >= 0.17:
        for (y, x), value in np.ndenumerate(panel.values):
            if np.isfinite(value):
                said = number(value, 0 if abs(value) >= 10 else 2)
                axes.text(x, y, said, ha="center", va="center", fontsize=7, color=ink(value, 1))
    lines = LineCollection(_borders(panel.clear), colors="black", linewidths=1.3, capstyle="projecting", zorder=3)
    lines.set_clip_on(False)
    axes.add_collection(lines)
    return image


def _borders(clear: NDArray[np.bool_]) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """The edges between cells that are outlined and those that are not."""
    padded = np.pad(clear, 1)
    upright = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])
    level = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])
    return [((x - 0.5, y - 0.5), (x - 0.5, y + 0.5)) for y, x in upright] + [
        ((x - 0.5, y - 0.5), (x + 0.5, y - 0.5)) for y, x in level
    ]


def height(layers: int, most: float = TALLEST) -> float:
    """Inches of a map with so many layers."""
    return max(min(0.27 * layers, most), 1.2)


def layer_axis(axes: Any, depths: Sequence[int], high: float, label: str) -> None:
    """Numbers of layers, as many as there is room for; none without a label."""
    step = -(-len(depths) // max(1, int(high / 0.16)))
    shown = range(0, len(depths), step) if label else []
    axes.set_yticks(list(shown), [str(depths[place]) for place in shown])
    axes.set_ylabel(label)


def broken(parts: Sequence[str], room: float) -> list[str]:
    """A caption in lines of so many inches."""
    return textwrap.wrap("; ".join(filter(None, parts)), int(room / 0.066))


def write_caption(canvas: Canvas, lines: Sequence[str]) -> None:
    """Lines along the bottom."""
    canvas.figure.text(
        LEFT / canvas.width, 0.05 / canvas.height, "\n".join(lines), fontsize=8, color="#444444", va="bottom"
    )
