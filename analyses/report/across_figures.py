"""The curves over layers of the two models together: patching across the pair, and how alike they are."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from analyses.report.canvas import COLOUR, MARKER, WIDTH, Canvas, drawn
from analyses.report.panels import site_axis

COLUMNS = 4
DASHED = (0, (3, 2))
WAYS = (("base", "second_seed"), ("code", "base"), ("base", "code"))
"""Receiver and donor model, the last one drawn on top."""


@drawn
def brought(cross: pd.DataFrame) -> Figure | None:
    """What another model's residual stream at the last token does to the lead of the right answer, layer by layer.

    One panel per task form, both ways, with a random donor and the second seed beside it.

    Args:
        cross: the table of a study, see :func:`analyses.across.cross_task.summary`, with task and form.
    """
    if cross.empty:
        return None
    stream = cross[(cross.by == "role") & (cross.role == "last") & cross["head"].isna() & (cross.donor != "identity")]
    parts = list(stream.groupby(["task", "form"], sort=False))
    if not parts:
        return None
    columns = min(COLUMNS, len(parts))
    pitch, head, panel, foot = (WIDTH - 0.7) / COLUMNS, 0.8, 1.6, 0.72
    canvas = Canvas(max(0.7 + columns * pitch, 8.0), head + (panel + foot) * -(-len(parts) // columns))
    for place, ((task, form), part) in enumerate(parts):
        row, column = divmod(place, columns)
        axes = canvas.axes(0.68 + column * pitch, head + row * (panel + foot), pitch - 0.46, panel)
        title = f"{task} · {form}"
        axes.set_title(title, fontsize=9 * min(1, 32 / len(title)))
        _panel(axes, part)
        axes.set_xlabel(f"{part.site.iloc[0]} by layer, {_items(part)}", fontsize=7.5)
        if not column:
            axes.set_ylabel("change of lead (logits)")
    canvas.legend(_legend(stream), columns=3)
    return canvas.figure


def _panel(axes: Any, part: pd.DataFrame) -> None:
    axes.axhline(0, color="#444444", lw=0.8)
    for receiver, giver in WAYS:
        own = part[(part.receiver == receiver) & (part.donor_model == giver)]
        given = own[own.donor == "other"].sort_values("layer")
        if given.empty:
            continue
        colour = COLOUR[giver]
        low, high = (given[f"effect_{end}"].astype(float) for end in ("low", "high"))
        axes.fill_between(given.layer, low, high, color=colour, alpha=0.16, lw=0)
        axes.plot(given.layer, given.effect, color=colour, marker=MARKER[giver], markersize=3.6, lw=1.6)
        if giver == "second_seed":
            continue
        random = own[own.donor == "random"].sort_values("layer")
        axes.plot(random.layer, random.effect, color=colour, linestyle=DASHED, lw=1.1)
        axes.axhline(given.gap.mean(), color=colour, linestyle=":", lw=1.0)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.grid(axis="y", color="#e6e6e6", lw=0.7)
    axes.set_axisbelow(True)


def _items(part: pd.DataFrame) -> str:
    most = int(part["items"].max())
    return f"{most} item{'s' * (most > 1)}"


def _legend(stream: pd.DataFrame) -> list[Line2D]:
    given = stream[stream.donor == "other"]
    ways = [way for way in reversed(WAYS) if ((given.receiver == way[0]) & (given.donor_model == way[1])).any()]
    lines = [
        Line2D([], [], color=COLOUR[giver], marker=MARKER[giver], markersize=4.5, lw=1.6,
               label=f"{giver.replace('_', ' ')} into {receiver}")
        for receiver, giver in ways
    ]  # fmt: skip
    return [
        *lines,
        Line2D([], [], color="#444444", linestyle=DASHED, lw=1.1, label="the same donor on another item"),
        Line2D([], [], color="#444444", linestyle=":", lw=1.0, label="donor’s lead minus receiver’s"),
    ]


PAIRS = {"random": "base and random (floor)", "second_seed": "base and second seed (ceiling)", "code": "base and code"}
"""The pairs of base that are drawn, by the other model; the last one on top."""


@drawn
def alike(similarity: pd.DataFrame) -> Figure | None:
    """CKA of base with each other model by site, one panel per kind of text, with 95% bands.

    Args:
        similarity: as :func:`analyses.across.similarity.similarity_table` writes it.
    """
    if similarity.empty:
        return None
    shown = similarity[
        (similarity.measure == "cka") & (similarity.site_a == similarity.site_b) & (similarity.model_a == "base")
        & similarity.model_b.isin(list(PAIRS)) & similarity.value.notna()
    ]  # fmt: skip
    kinds = list(dict.fromkeys(shown.kind))
    if not kinds:
        return None
    wide = min(4.4, (WIDTH - 0.7) / len(kinds) - 0.35)
    canvas = Canvas(max(0.7 + len(kinds) * (wide + 0.35), 8.0), 3.35)
    for column, kind in enumerate(kinds):
        axes = canvas.axes(0.6 + column * (wide + 0.35), 0.6, wide, 2.1)
        part = shown[shown.kind == kind]
        sites = list(dict.fromkeys(part.site_a))
        at = {site: place for place, site in enumerate(sites)}
        for model in [model for model in PAIRS if model in set(part.model_b)]:
            own = part[part.model_b == model]
            x, colour = own.site_a.map(at), COLOUR[model]
            axes.fill_between(x, own.low.astype(float), own.high.astype(float), color=colour, alpha=0.16, lw=0)
            axes.plot(
                x, own.value, color=colour, marker=MARKER[model], markersize=3.6 if len(sites) < 16 else 2.2, lw=1.6
            )
        axes.set_title(f"{kind} text")
        axes.set_ylim(min(0.0, float(shown[["low", "value"]].min().min())) - 0.02, 1.02)
        axes.grid(axis="y", color="#e6e6e6", lw=0.7)
        axes.set_axisbelow(True)
        site_axis(axes, sites)
        if not column:
            axes.set_ylabel("CKA (1: alike)")
    known = [model for model in reversed(PAIRS) if model in set(shown.model_b)]
    canvas.legend(
        [
            Line2D([], [], color=COLOUR[model], marker=MARKER[model], markersize=4.5, lw=1.6, label=PAIRS[model])
            for model in known
        ],
        columns=3,
    )
    return canvas.figure
