"""Layer curves of one model's probes."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analyses.report.canvas import COLOUR, Canvas, drawn
from analyses.report.words import best_surface

PANEL, PITCH, COLUMNS = 1.7, 2.5, 3


@drawn
def layer_curves(probes: pd.DataFrame) -> Figure | None:
    """Test accuracy over sites with its band (over items and draws), the control, and the surface baselines.

    One panel per task, target and form, whichever of them the table has.
    """
    if probes.empty:
        return None
    by = [name for name in ("task", "target", "form") if name in probes]
    panels = list(probes.groupby(by, sort=False))
    columns = min(COLUMNS, len(panels))
    canvas = Canvas(max(0.6 + 3.2 * columns, 6.4), 0.8 + PITCH * -(-len(panels) // columns))
    for place, (names, part) in enumerate(panels):
        row, column = divmod(place, columns)
        axes = canvas.axes(0.55 + 3.2 * column, 0.8 + PITCH * row, 2.8, PANEL)
        x = range(len(part))
        axes.fill_between(x, part.low.astype(float), part.high.astype(float), color=COLOUR["code"], alpha=0.16, lw=0)
        axes.plot(x, part.score, color=COLOUR["code"], marker="o", markersize=3.4, lw=1.6)
        axes.plot(x, part.control, color=COLOUR["second_seed"], lw=1.2, linestyle=(0, (3, 2)))
        axes.axhline(best_surface(part).max(), color="black", lw=0.9, linestyle="-.")
        axes.axhline(part.majority.max(), color="black", lw=0.9, linestyle=":")
        chosen = part.chosen.to_numpy(dtype=bool)
        axes.plot(
            [i for i in x if chosen[i]], part.score[part.chosen], linestyle="none", marker="o", markersize=10,
            fillstyle="none", color="#444444",
        )  # fmt: skip
        step = -(-len(part) // 14)
        axes.set_xticks(list(x)[::step], list(part.site)[::step], rotation=50, ha="right", fontsize=6.5)
        axes.set_ylim(-0.02, 1.02)
        axes.set_title(" · ".join(map(str, names)))
        if not column:
            axes.set_ylabel("test accuracy")
    canvas.legend(
        [
            Line2D([], [], color=COLOUR["code"], marker="o", markersize=4, label="probe, 95% band"),
            Line2D([], [], color=COLOUR["second_seed"], linestyle=(0, (3, 2)), label="control"),
            Line2D([], [], color="#444444", linestyle="none", marker="o", markersize=10, fillstyle="none", label="chosen"),
            Line2D([], [], color="black", lw=0.9, linestyle="-.", label="best surface baseline"),
            Line2D([], [], color="black", lw=0.9, linestyle=":", label="majority label"),
        ],
        columns=3,
    )  # fmt: skip
    return canvas.figure
