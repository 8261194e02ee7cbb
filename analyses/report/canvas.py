"""What all figures share: the drawing board, colours and markers.

Colours are Okabe & Ito's, and every model also has its own marker and line, so nothing hangs on colour alone. Figures are
built as objects, without pyplot's global state; sizes are in inches, and the files have twice the density of a page.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.report.words import MODELS

DENSITY = 192
"""Dots per inch: two for each CSS pixel."""
WIDTH = 10.6
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#8a8a8a",
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "text.parse_math": False,  # a user's names may hold dollar signs
}
COLOUR = {"base": "#0072B2", "code": "#D55E00", "second_seed": "#7A7A7A", "random": "#009E73"}
MARKER = {"base": "o", "code": "s", "second_seed": "D", "random": "^"}
DIVERGING = "RdBu_r"
LIGHT_ENOUGH = 0.55
"""Above this share of the colour scale, figures on a cell are white."""


def drawn(draw: Callable[..., Figure | None]) -> Callable[..., bool]:
    """Make a function that builds a figure write it to its last argument; it tells whether there was anything to draw."""

    def write(*args: Any) -> bool:
        *data, path = args
        with matplotlib.rc_context(STYLE):
            figure = draw(*data)
            if figure is None:
                return False
            FigureCanvasAgg(figure)
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, dpi=DENSITY, metadata={"Software": None})
        return True

    write.__doc__, write.__name__ = draw.__doc__, draw.__name__
    return write


class Canvas:
    """A figure whose axes are placed in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        """New axes; all four are inches, ``left`` and ``top`` from the top left corner."""
        bottom = self.height - top - height
        return self.figure.add_axes((left / self.width, bottom / self.height, width / self.width, height / self.height))

    def legend(self, handles: list[Any], columns: int, left: float = 0.05) -> None:
        """One legend for the whole figure, along its top."""
        self.figure.legend(
            handles=handles, loc="upper left", ncol=columns, bbox_to_anchor=(left / self.width, 1), borderaxespad=0.2,
            columnspacing=1.6, handlelength=2.6,
        )  # fmt: skip


def legend_line(model: str, joined: bool = True) -> Line2D:
    """How a model is drawn, for a legend."""
    return Line2D(
        [], [], color=COLOUR[model], marker=MARKER[model], markersize=4.5, lw=1.6 if joined else 1.4, label=MODELS[model]
    )  # fmt: skip


def frame(axes: Any) -> None:
    """A thin frame on all four sides, as a map has."""
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color("#b0b0b0")


def colour_bar(
    canvas: Canvas, image: Any, label: str, left: float, top: float = 0.5, height: float | None = None
) -> None:
    """A colour bar at ``left`` inches."""
    bar = canvas.figure.colorbar(image, cax=canvas.axes(left, top, 0.13, height or min(2.2, canvas.height - 1)))
    bar.set_label(label, fontsize=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=7.5)


def ink(value: float, limit: float) -> str:
    """The colour of a figure written on a cell of the diverging scale from ``-limit`` to ``limit``."""
    return "white" if abs(value) > LIGHT_ENOUGH * limit else "#1a1a1a"
