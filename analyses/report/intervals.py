"""The figures made of points with intervals: scores, comparisons, interventions (called as those of ``figures``)."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from analyses.report.canvas import COLOUR, MARKER, WIDTH, Canvas, drawn, legend_line
from analyses.report.words import MEASURES, Line, lines, number, what
from analyses.report.words_causal import EDITS, telling
from analyses.study.results import ALPHA


@drawn
def scores(table: pd.DataFrame) -> Figure | None:
    """Bits per byte of every model on each kind of text, with intervals."""
    if table.empty:
        return None
    forms = list(dict.fromkeys(table.form))
    models = [model for model in ("base", "code", "second_seed") if model in set(table.model)]
    pitch = 0.27 * len(models) + 0.25
    canvas = Canvas(8.2, 0.45 + len(forms) * pitch + 0.55)
    axes = canvas.axes(0.85, 0.45, 6.9, len(forms) * pitch)
    for place, form in enumerate(forms):
        for nth, model in enumerate(models):
            y = place * pitch + 0.27 * (nth + 0.5) + 0.125
            for line in lines(table[(table.form == form) & (table.model == model)]):
                value = line["bits_per_byte"]
                _interval(axes, y, value, line, model)
                axes.annotate(number(value), (_or(line["high"], value), y), (6, 0), textcoords="offset points", va="center",
                              fontsize=8, color=COLOUR[model])  # fmt: skip
        if place:
            axes.axhline(place * pitch, color="#cccccc", lw=0.8)
    axes.set_ylim(len(forms) * pitch, 0)
    axes.set_yticks([(place + 0.5) * pitch for place in range(len(forms))], [f"{form} text" for form in forms])
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.grid(axis="x", color="#e6e6e6", lw=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("bits per byte (lower is better)")
    canvas.legend([legend_line(model, joined=False) for model in models], columns=len(models), left=0.85)
    return canvas.figure


@drawn
def comparisons(table: pd.DataFrame) -> Figure | None:
    """Every difference from base with its interval; the null pair in grey below each one of code."""
    if table.empty:
        return None
    code = table[table.against == "code"].groupby("measure", sort=False)
    groups = [(str(measure), part) for measure, part in code]
    rest = table[table.against == "second_seed"]
    pitch, head, foot, top = 0.27, 0.34, 0.62, 0.3
    heights = [len(part) * pitch + head + foot for _, part in groups]
    # Two columns, in order, split where the taller one is least tall.
    split = min(range(1, len(groups) + 1), key=lambda place: max(sum(heights[:place]), sum(heights[place:])))
    columns = [column for column in (groups[:split], groups[split:]) if column]
    names = max(len(what(line)) for line in lines(table))
    left = max(1.85, 0.1 + 0.062 * names)
    canvas = Canvas(WIDTH if len(columns) == 2 else WIDTH * 0.62, top + max(sum(heights[:split]), sum(heights[split:])))
    for side, column in enumerate(columns):
        y = top
        for measure, part in column:
            axes = canvas.axes(left + side * WIDTH / 2, y + head, WIDTH / 2 - left - 0.25, len(part) * pitch)
            _forest(axes, part, rest[rest.measure == measure])
            words = MEASURES.get(measure)
            axes.set_title(words.title if words else measure)
            favourable = words.favourable if words else "higher"
            arrow = f"code {favourable} →" if part.higher_is_better.iloc[0] else f"← code {favourable}"
            axes.set_xlabel(f"difference in {words.unit if words else measure}; {arrow}", fontsize=7.8)
            y += len(part) * pitch + head + foot
    handles: list[Any] = [
        Line2D([], [], color=COLOUR["code"], marker="s", markersize=5, lw=1.6, label="code − base, stands after Holm"),
        Line2D(
            [], [], color=COLOUR["code"], marker="s", markersize=5, mfc="white", lw=1.6, label="code − base, does not"
        ),
    ]
    if len(rest):
        handles.append(
            Line2D([], [], color=COLOUR["second_seed"], marker="D", markersize=3.5, lw=1.1, label="second seed − base")
        )
    handles.append(Patch(color="#ececec", label="± minimum detectable effect"))
    canvas.legend(handles, columns=4)
    return canvas.figure


@drawn
def interventions(table: pd.DataFrame, probes: pd.DataFrame) -> Figure | None:
    """What each edit did to the answer beyond random directions, base and code; hollow where that says nothing.

    Args:
        table: as :func:`analyses.interventions.intervene` writes it, with a column model.
        probes: the study's table of probes.
    """
    edits = [line for line in lines(table) if line["prompts"] and line["model"] in ("base", "code")]
    if not edits:
        return None
    counted = telling(edits, lines(probes))
    names = list(dict.fromkeys(map(what, edits)))
    pitch, head, foot, top = 0.3, 0.34, 0.62, 0.3
    left = max(1.85, 0.1 + 0.062 * max(map(len, names)))
    wide = (WIDTH - left - 0.5) / 2
    canvas = Canvas(WIDTH, top + head + len(names) * pitch + foot)
    for side, (kind, noun) in enumerate(EDITS.items()):
        axes = canvas.axes(left + side * (wide + 0.3), top + head, wide, len(names) * pitch)
        for line in edits:
            if line["kind"] == kind:
                bounds = {"low": line["diff_low"], "high": line["diff_high"]}
                y = names.index(what(line)) + (0.17 if line["model"] == "code" else -0.17)
                _interval(axes, y, line["difference"], bounds, line["model"], hollow=line not in counted)
        axes.axvline(0, color="#444444", lw=0.9, zorder=1)
        axes.set_ylim(len(names) - 0.5, -0.5)
        axes.set_yticks(range(len(names)), [] if side else names)
        axes.tick_params(axis="y", length=0, labelsize=8)
        axes.grid(axis="y", color="#eeeeee", lw=0.7)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        axes.set_title(noun)
        axes.set_xlabel("← answer pushed down · logit difference, edit − random edits", fontsize=7.8)
    models = [model for model in ("base", "code") if model in {line["model"] for line in edits}]
    hollow = Line2D(
        [], [], color="#444444", marker="o", markersize=5, mfc="white", lw=0, label="does not count: see below"
    )
    canvas.legend([*(legend_line(model, joined=False) for model in models), hollow], columns=3)
    return canvas.figure


def _forest(axes: Any, part: pd.DataFrame, null: pd.DataFrame) -> None:
    names = [what(line) for line in lines(part)]
    beside = {what(line): line for line in lines(null)}
    reach = [0.0]
    for y, (name, line) in enumerate(zip(names, lines(part), strict=True)):
        effect = _or(line["minimum_detectable_effect"], 0.0)
        axes.barh(y, 2 * effect, left=-effect, height=0.86, color="#ececec", lw=0)
        _interval(axes, y - 0.12, line["difference"], line, "code", hollow=not line["p_holm"] < ALPHA)
        reach.append(effect)
        if name in beside:
            _interval(axes, y + 0.24, beside[name]["difference"], beside[name], "second_seed", size=3.2)
        for drawn_line in (line, beside.get(name, line)):
            reach += [_or(drawn_line[end], drawn_line["difference"]) for end in ("low", "high")]
    limit = 1.08 * max(abs(value) for value in reach) or 0.01
    axes.axvline(0, color="#444444", lw=0.9, zorder=1)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(part) - 0.5, -0.5)
    axes.set_yticks(range(len(part)), names)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, symmetric=True))
    axes.spines["left"].set_visible(False)


def _interval(
    axes: Any, y: float, value: float, line: Line, model: str, *, hollow: bool = False, size: float = 5
) -> None:
    """A point with the 95% interval of ``line``; that of a single cluster is unknown and not drawn."""
    colour = COLOUR[model]
    if pd.notna(line["low"]) and pd.notna(line["high"]):
        axes.plot(
            [line["low"], line["high"]], [y, y], color=colour, lw=1.6 if model != "second_seed" else 1.1, zorder=2
        )
    axes.plot([value], [y], marker=MARKER[model], markersize=size, color=colour, zorder=3, linestyle="none",
              markerfacecolor="white" if hollow else colour, markeredgewidth=1.2)  # fmt: skip


def _or(value: float | None, fallback: float) -> float:
    return fallback if value is None or pd.isna(value) else float(value)
