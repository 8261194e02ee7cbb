"""The figures of ``twinprobe graft`` and ``twinprobe lens``: what parts bring, the way between two models, layer by layer.

Each function's last argument is the PNG it writes; where there was nothing to draw it writes none, and it tells.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from analyses.across.grafting import UNTOUCHED
from analyses.report.canvas import COLOUR, MARKER, WIDTH, Canvas, drawn, legend_line
from analyses.report.map_panels import LINE, broken, write_caption
from analyses.report.words import number

HOSTS = ("base", "code")
DONORS = {"base": "base", "code": "code", "control": "second_seed"}
"""The donors, and the model as which each is drawn: a control is meant to be another seed of base."""
MEASURES = {"accuracy": "right in both texts", "logit_difference": "logit difference"}
LEFT, GAP, MARGIN, HIGH, BETWEEN = 0.85, 0.6, 0.15, 1.55, 0.5
"""Inches: left of the panels, between them, right of them, their height, between two rows of them."""


@drawn
def graft_changes(grafts: pd.DataFrame, caption: str) -> Figure | None:
    """What each part of one model changed in the other: a column of panels per host, a row per measure, with 95% intervals.

    Args:
        grafts: one form's lines of ``grafts.csv`` (:func:`analyses.across.grafting.summary` by host, donor and graft).
        caption: what is said below the panels.
    """
    changed = grafts[grafts.graft != UNTOUCHED]
    if changed.empty:
        return None
    names = list(dict.fromkeys(changed.graft))
    labels = [name.replace("blocks.", "") for name in names]
    wide = min(max(0.3 * len(names), 3.2), (WIDTH - LEFT - GAP - MARGIN) / 2)
    foot = 0.5 + 0.055 * max(map(len, labels))
    broad, top = LEFT + 2 * wide + GAP + MARGIN, 0.62
    said = broken([caption, "95% intervals", "dotted: all parts of the other model of the pair"], broad - LEFT)
    canvas = Canvas(broad, top + 2 * HIGH + BETWEEN + foot + LINE * len(said))
    for row, (measure, words) in enumerate(MEASURES.items()):
        shared = None
        for column, host in enumerate(HOSTS):
            axes = canvas.axes(LEFT + column * (wide + GAP), top + row * (HIGH + BETWEEN), wide, HIGH)
            _changes(axes, grafts, host, measure, names)
            level = grafts[(grafts.host == host) & (grafts.graft == UNTOUCHED)][measure]
            axes.set_title(f"into {host} (untouched: {number(level.iloc[0], 2)})", color=COLOUR[host])
            if shared is not None:
                axes.sharey(shared)
                axes.autoscale_view()
            shared = axes
            step = -(-len(names) // max(1, int(wide / 0.19)))
            axes.set_xticks(range(0, len(names), step), labels[::step], rotation=90 if row else 0, fontsize=7)
            axes.set_xlim(-0.6, len(names) - 0.4)
            if row:
                axes.set_xlabel("part (numbers: blocks)", fontsize=7.5)
            else:
                axes.tick_params(labelbottom=False)
            if not column:
                axes.set_ylabel(f"change of\n{words}")
    canvas.legend(
        [
            Line2D([], [], color=COLOUR[drawn_as], marker=MARKER[drawn_as], markersize=4.5, lw=1.4, label=f"{donor}’s part")
            for donor, drawn_as in DONORS.items() if donor in set(changed.donor)
        ],
        columns=3,
    )  # fmt: skip
    write_caption(canvas, said)
    return canvas.figure


def _changes(axes: Any, grafts: pd.DataFrame, host: str, measure: str, names: list[str]) -> None:
    """The changes of one measure in one host, a point with its interval per part."""
    own = grafts[(grafts.host == host) & (grafts.graft != UNTOUCHED)]
    untouched = grafts[grafts.graft == UNTOUCHED].set_index("host")[measure]
    other = HOSTS[1 - HOSTS.index(host)]
    axes.axhline(0, color="#444444", lw=0.8)
    axes.axhline(untouched[other] - untouched[host], color=COLOUR[other], linestyle=":", lw=1.0)
    for donor, given in own.groupby("donor", sort=False):
        drawn_as = DONORS[str(donor)]
        at = given.graft.map({name: place for place, name in enumerate(names)}) + (0.22 if donor == "control" else 0)
        change, low, high = (given[f"{measure}_change{end}"].astype(float) for end in ("", "_low", "_high"))
        size = 4 if len(names) <= 24 else 2.4
        axes.vlines(at, low, high, color=COLOUR[drawn_as], lw=0.35 * size)
        axes.plot(at, change, color=COLOUR[drawn_as], marker=MARKER[drawn_as], markersize=size, linestyle="none")
    _ground(axes)


@drawn
def interpolation_curve(interpolation: pd.DataFrame, caption: str) -> Figure | None:
    """Accuracy and logit difference with all weights on the way from base to code, with 95% bands.

    Args:
        interpolation: one form's lines of ``interpolation.csv`` (:func:`analyses.across.grafting.summary` by alpha).
        caption: what is said below the panels.
    """
    if interpolation.empty:
        return None
    wide = 3.4
    said = broken([caption, "bands: 95% intervals"], 2 * (wide + GAP))
    canvas = Canvas(LEFT + 2 * wide + GAP + MARGIN, 0.36 + HIGH + 0.55 + LINE * len(said))
    lines = interpolation.sort_values("alpha")
    for column, (measure, words) in enumerate(MEASURES.items()):
        axes = canvas.axes(LEFT + column * (wide + GAP), 0.36, wide, HIGH)
        low, high = (lines[f"{measure}_{end}"].astype(float) for end in ("low", "high"))
        axes.fill_between(lines.alpha, low, high, color="#444444", alpha=0.16, lw=0)
        axes.plot(lines.alpha, lines[measure], color="#444444", marker=".", lw=1.6)
        for model, end in (("base", 0.0), ("code", 1.0)):
            own = lines[lines.alpha == end]
            axes.plot(
                own.alpha, own[measure], color=COLOUR[model], marker=MARKER[model], markersize=6, linestyle="none"
            )
            side = "left" if model == "base" else "right"
            axes.text(
                end, 1.02, model, transform=axes.get_xaxis_transform(), ha=side, fontsize=7.5, color=COLOUR[model]
            )
        axes.set_title(words, loc="center")
        axes.set_xlim(-0.03, 1.03)
        axes.set_xlabel("share of code’s weights (alpha)", fontsize=7.5)
        _ground(axes)
    write_caption(canvas, said)
    return canvas.figure


@drawn
def lens_curves(lens: pd.DataFrame, caption: str) -> Figure | None:
    """The logit lens of both models: lead of the answer with its 95% band, median rank, and how often it comes first.

    Args:
        lens: one form's lines of ``lens.csv`` (:func:`analyses.across.logit_lens.by_layer` with a column ``model``).
        caption: what is said below the panels.
    """
    if lens.empty:
        return None
    wide = (WIDTH - LEFT - MARGIN - 2 * GAP) / 3
    said = broken([caption, "band: 95% interval", "the last layer is what the model says"], WIDTH - LEFT)
    canvas = Canvas(WIDTH, 0.62 + HIGH + 0.55 + LINE * len(said))
    panels = {
        "logit_difference": "logit difference",
        "median_rank": "median rank of the answer",
        "first": "share ranked first",
    }
    models = [model for model in HOSTS if model in set(lens.model)]
    for column, (measure, title) in enumerate(panels.items()):
        axes = canvas.axes(LEFT + column * (wide + GAP), 0.62, wide, HIGH)
        for model in models:
            own = lens[lens.model == model].sort_values("layer")
            if measure == "logit_difference":
                low, high = own.low.astype(float), own.high.astype(float)
                axes.fill_between(own.layer, low, high, color=COLOUR[model], alpha=0.16, lw=0)
            axes.plot(own.layer, own[measure], color=COLOUR[model], marker=MARKER[model], markersize=4, lw=1.6)
        if measure == "logit_difference":
            axes.axhline(0, color="#444444", lw=0.8)
        elif measure == "median_rank":
            axes.set_yscale("log")
            axes.set_ylim(1.4 * lens.median_rank.max(), 0.8)  # the first rank on top
            # Matplotlib writes powers as formulas, which are switched off.
            axes.yaxis.set_major_formatter(lambda rank, _: f"{rank:,.0f}" if rank >= 1 else "")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(-0.03, 1.03)
        axes.set_title(title)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.set_xlabel("after layer", fontsize=7.5)
        _ground(axes)
    canvas.legend([legend_line(model) for model in models], columns=2)
    write_caption(canvas, said)
    return canvas.figure


def _ground(axes: Any) -> None:
    axes.grid(axis="y", color="#e6e6e6", lw=0.7)
    axes.set_axisbelow(True)
