"""The figures of a report. Each function draws one table and writes one PNG.

Colours are Okabe & Ito's, and every model also has its own marker and line, so nothing hangs on colour alone. Figures are
built as objects, without pyplot's global state; sizes are in inches, and the files have twice the density of a page.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.ticker
import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analyses.report.words import MEASURES, MODELS, best_surface, number, what

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
}
COLOUR = {"base": "#0072B2", "code": "#D55E00", "null": "#7A7A7A", "random": "#009E73"}
MARKER = {"base": "o", "code": "s", "null": "D", "random": "^"}
DIVERGING = "RdBu_r"
LIGHT_ENOUGH = 0.55
"""Above this share of the colour scale, figures on a cell are white."""


def _drawn(draw: Callable[..., Figure | None]) -> Callable[..., bool]:
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


class _Canvas:
    """A figure whose axes are placed in inches from its top left corner."""

    def __init__(self, width: float, height: float) -> None:
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")

    def axes(self, left: float, top: float, width: float, height: float) -> Any:
        bottom = self.height - top - height
        return self.figure.add_axes(
            (left / self.width, bottom / self.height, width / self.width, height / self.height)
        )

    def legend(self, handles: list[Any], columns: int, left: float = 0.05) -> None:
        self.figure.legend(
            handles=handles, loc="upper left", ncol=columns, bbox_to_anchor=(left / self.width, 1), borderaxespad=0.2,
            columnspacing=1.6, handlelength=2.6,
        )  # fmt: skip


@_drawn
def layers(probes: pd.DataFrame) -> Figure | None:
    """Test accuracy over sites, one panel per task, target and form; the dev-chosen site is ringed."""
    if probes.empty:
        return None
    panels = list(probes.groupby(["task", "target", "form"], sort=False))
    columns = min(4, len(panels))
    rows = -(-len(panels) // columns)
    top, panel, pitch = 0.75, 1.62, 2.26
    width = (WIDTH - 0.6) / 4
    canvas = _Canvas(max(0.6 + columns * width, 8.0), top + rows * pitch)
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
    handles = [_line(model) for model in models]
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
        style = {"color": colour, "marker": MARKER[model], "markersize": 3.6, "lw": 1.6}
        if model == "random":
            axes.plot(x, own.score, **{**style, "lw": 1.0, "markersize": 3.2})
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


@_drawn
def transfer(probes: pd.DataFrame, moved: pd.DataFrame) -> Figure | None:
    """Train form × test form accuracy, a matrix per model and target; coloured by the gain over the majority label."""
    if moved.empty:
        return None
    chosen = probes[probes.chosen.astype(bool)]
    targets = list(dict.fromkeys(zip(moved.task, moved.target, strict=True)))
    models = [model for model in ("base", "code", "null", "random") if model in set(moved.model)]
    per_row = min(5, len(targets))
    blocks = -(-len(targets) // per_row)
    left, top, pitch, row = 1.45, 0.4, (WIDTH - 2.35) / 5, 1.38
    canvas = _Canvas(left + per_row * pitch + 0.9, blocks * (top + len(models) * row + 0.1))
    gains: list[float] = [0.05]
    drawn = []
    for spot, (task, target) in enumerate(targets):
        block, column = divmod(spot, per_row)
        for line, model in enumerate(models):
            inside = chosen[(chosen.model == model) & (chosen.task == task) & (chosen.target == target)]
            across = moved[(moved.model == model) & (moved.task == task) & (moved.target == target)]
            forms = list(dict.fromkeys([*across.source, *across.form]))
            score, chance = (np.full((len(forms), len(forms)), np.nan) for _ in range(2))
            for own in inside[inside.form.isin(forms)].itertuples():
                place = forms.index(own.form)
                score[place, place], chance[place, place] = own.score, own.majority
            for other in across.itertuples():
                cell = forms.index(other.source), forms.index(other.form)
                score[cell], chance[cell] = other.score, other.chance
            y = block * (top + len(models) * row + 0.1) + top + line * row
            axes = canvas.axes(left + column * pitch, y, pitch - 0.32, row - 0.36)
            drawn.append((axes, forms, score, chance))
            gains += np.abs(score - chance)[np.isfinite(score)].tolist()
            if not line:
                axes.set_title(f"{task}: {target}", pad=7)
            if not column:
                canvas.figure.text(
                    0.1 / canvas.width, 1 - (y + (row - 0.36) / 2) / canvas.height, model, weight="bold", fontsize=9.5,
                    color=COLOUR[model], va="center",
                )  # fmt: skip
            axes.set_xticks(range(len(forms)), [f"on {form}" for form in forms])
            axes.set_yticks(range(len(forms)), [f"from\n{form}" for form in forms] if not column else [])
            axes.tick_params(length=0, labelsize=7.5)
    limit = max(gains)
    for axes, _forms, score, chance in drawn:
        image = axes.imshow(score - chance, cmap=DIVERGING, vmin=-limit, vmax=limit, aspect="auto")
        _frame(axes)
        for (y, x), value in np.ndenumerate(score):
            if np.isfinite(value):
                ink = _ink(value - chance[y, x], limit)
                axes.text(x, y - 0.1, f"{value:.2f}", ha="center", va="center", color=ink, weight="bold", fontsize=9.5)
                axes.text(x, y + 0.24, f"chance {chance[y, x]:.2f}", ha="center", va="center", color=ink, fontsize=6.6)
    _colour_bar(canvas, image, "accuracy above chance", left + per_row * pitch - 0.08)
    return canvas.figure


@_drawn
def patching_map(patching: pd.DataFrame, task: str, form: str) -> Figure | None:
    """Mean recovery by layer and token role, base and code side by side, null beside them where the table has it.

    Args:
        patching: columns model, task, form, layer, role, recovery, items (:func:`analyses.patching_sweep.by_role`).
        task: the task to draw.
        form: the form to draw.

    The last argument is the path of the picture; nothing is written when no model had an item to patch.
    """
    part = patching[(patching.task == task) & (patching.form == form)]
    if part.empty:
        return None
    models = [model for model in ("base", "code", "null") if model != "null" or "null" in set(patching.model)]
    roles = sorted(set(part.role), key=lambda role: (role == "last", role != "other", role))
    depths = sorted(set(part.layer.astype(int)))
    cell = min(0.66, (WIDTH - 1.7 - 0.35 * len(models)) / (len(models) * len(roles)))
    left, top, gap = 0.6, 0.32, 0.35
    bottom = 0.45 + 0.045 * max(len(role) for role in roles)
    wide, high = max(cell * len(roles), 1.9), max(0.27 * len(depths), 1.2)
    canvas = _Canvas(left + len(models) * (wide + gap) + 0.75, top + high + bottom)
    for column, model in enumerate(models):
        own = part[part.model == model]
        axes = canvas.axes(left + column * (wide + gap), top, wide, high)
        count = f"{int(own['items'].max())} item{'s'[: int(own['items'].max()) != 1]}" if len(own) else "no item"
        axes.set_title(f"{model}: {count}", color=COLOUR[model])
        grid = own.pivot(index="layer", columns="role", values="recovery").reindex(index=depths, columns=roles)
        image = axes.imshow(grid.to_numpy(dtype=float), cmap=DIVERGING, vmin=-1, vmax=1, aspect="auto", origin="lower")
        _frame(axes)
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
                axes.text(x, y, _short(value), ha="center", va="center", fontsize=7, color=_ink(value, 1))
    _colour_bar(canvas, image, "mean recovery", left + len(models) * (wide + gap) - 0.1, top, high)
    canvas.figure.text(
        left / canvas.width, 0.05 / canvas.height, f"role of the patched token ({task}, {form} form)", fontsize=8,
        color="#444444", va="bottom",
    )  # fmt: skip
    return canvas.figure


@_drawn
def scores(table: pd.DataFrame) -> Figure | None:
    """Bits per byte of every model on each kind of text, with intervals."""
    if table.empty:
        return None
    forms = list(dict.fromkeys(table.form))
    models = [model for model in ("base", "code", "null") if model in set(table.model)]
    pitch = 0.27 * len(models) + 0.25
    canvas = _Canvas(8.2, 0.45 + len(forms) * pitch + 0.55)
    axes = canvas.axes(0.85, 0.45, 6.9, len(forms) * pitch)
    for place, form in enumerate(forms):
        for nth, model in enumerate(models):
            y = place * pitch + 0.27 * (nth + 0.5) + 0.125
            for line in table[(table.form == form) & (table.model == model)].itertuples():
                _interval(axes, y, line.bits_per_byte, line.low, line.high, model)
                axes.annotate(f"{line.bits_per_byte:.3f}", (_or(line.high, line.bits_per_byte), y), (6, 0),
                              textcoords="offset points", va="center", fontsize=8, color=COLOUR[model])  # fmt: skip
        if place:
            axes.axhline(place * pitch, color="#cccccc", lw=0.8)
    axes.set_ylim(len(forms) * pitch, 0)
    axes.set_yticks([(place + 0.5) * pitch for place in range(len(forms))], [f"{form} text" for form in forms])
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.12)
    axes.grid(axis="x", color="#e6e6e6", lw=0.7)
    axes.set_axisbelow(True)
    axes.set_xlabel("bits per byte (lower is better)")
    canvas.legend([_line(model, joined=False) for model in models], columns=len(models), left=0.85)
    return canvas.figure


@_drawn
def comparisons(table: pd.DataFrame) -> Figure | None:
    """Every difference from base with its interval; the null pair in grey below each one of code."""
    if table.empty:
        return None
    groups = list(table[table.against == "code"].groupby("measure", sort=False))
    rest = table[table.against == "null"]
    pitch, head, foot, top = 0.27, 0.34, 0.62, 0.3
    columns: list[list[tuple[str, pd.DataFrame]]] = [[], []]
    for measure, part in groups:  # the first column takes panels until it holds half of the lines
        total, first = sum(len(lines) for _, lines in groups), sum(len(lines) for _, lines in columns[0])
        columns[first >= total / 2].append((str(measure), part))
    columns = [column for column in columns if column]
    heights = [sum(len(part) * pitch + head + foot for _, part in column) for column in columns]
    canvas = _Canvas(WIDTH if len(columns) == 2 else WIDTH * 0.62, top + max(heights))
    for side, column in enumerate(columns):
        y = top
        for measure, part in column:
            axes = canvas.axes(1.85 + side * WIDTH / 2, y + head, WIDTH / 2 - 2.1, len(part) * pitch)
            _forest(axes, part, rest[rest.measure == measure])
            words = MEASURES.get(measure)
            axes.set_title(words.title if words else measure)
            favourable = words.favourable if words else "higher"
            arrow = f"code {favourable} →" if part.higher_is_better.iloc[0] else f"← code {favourable}"
            axes.set_xlabel(f"difference in {words.unit if words else measure}; {arrow}", fontsize=7.8)
            y += len(part) * pitch + head + foot
    handles: list[Any] = [
        Line2D([], [], color=COLOUR["code"], marker="s", markersize=5, lw=1.6, label="code − base, stands after Holm"),
        Line2D([], [], color=COLOUR["code"], marker="s", markersize=5, mfc="white", lw=1.6, label="code − base, does not"),
    ]
    if len(rest):
        handles.append(Line2D([], [], color=COLOUR["null"], marker="D", markersize=3.5, lw=1.1, label="null − base"))
    handles.append(Patch(color="#ececec", label="± minimum detectable effect"))
    canvas.legend(handles, columns=4)
    return canvas.figure


def _forest(axes: Any, part: pd.DataFrame, null: pd.DataFrame) -> None:
    from analyses.study.results import ALPHA

    names = [what(line) for line in part.to_dict("records")]
    beside = {what(line): line for line in null.to_dict("records")}
    limit = 0.0
    for y, (name, line) in enumerate(zip(names, part.itertuples(), strict=True)):
        effect = _or(line.minimum_detectable_effect, 0.0)
        axes.barh(y, 2 * effect, left=-effect, height=0.86, color="#ececec", lw=0)
        _interval(axes, y - 0.12, line.difference, line.low, line.high, "code", hollow=not line.p_holm < ALPHA)
        reach = [line.difference, _or(line.low, 0.0), _or(line.high, 0.0), effect]
        if name in beside:
            other = beside[name]
            _interval(axes, y + 0.24, other["difference"], other["low"], other["high"], "null", size=3.2)
            reach += [other["difference"], _or(other["low"], 0.0), _or(other["high"], 0.0)]
        limit = max(limit, *(abs(value) for value in reach))
    limit = limit * 1.08 or 0.01
    axes.axvline(0, color="#444444", lw=0.9, zorder=1)
    axes.set_xlim(-limit, limit)
    axes.set_ylim(len(part) - 0.5, -0.5)
    axes.set_yticks(range(len(part)), names)
    axes.tick_params(axis="y", length=0, labelsize=8)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(5, symmetric=True))
    axes.spines["left"].set_visible(False)


def _interval(
    axes: Any, y: float, value: float, low: float, high: float, model: str, *, hollow: bool = False, size: float = 5
) -> None:
    """A point with its 95% interval; the interval of a single cluster is unknown and not drawn."""
    colour = COLOUR[model]
    if pd.notna(low) and pd.notna(high):
        axes.plot([low, high], [y, y], color=colour, lw=1.6 if model != "null" else 1.1, zorder=2)
    axes.plot([value], [y], marker=MARKER[model], markersize=size, color=colour, zorder=3, linestyle="none",
              markerfacecolor="white" if hollow else colour, markeredgewidth=1.2)  # fmt: skip


def _line(model: str, joined: bool = True) -> Line2D:
    return Line2D(
        [], [], color=COLOUR[model], marker=MARKER[model], markersize=4.5, lw=1.6 if joined else 1.4, label=MODELS[model]
    )  # fmt: skip


def _frame(axes: Any) -> None:
    for side in axes.spines.values():
        side.set_visible(True)
        side.set_color("#b0b0b0")


def _colour_bar(
    canvas: _Canvas, image: Any, label: str, left: float, top: float = 0.5, height: float | None = None
) -> None:
    bar = canvas.figure.colorbar(image, cax=canvas.axes(left, top, 0.13, height or min(2.2, canvas.height - 1)))
    bar.set_label(label, fontsize=8)
    bar.outline.set_visible(False)
    bar.ax.tick_params(length=2, labelsize=7.5)


def _ink(value: float, limit: float) -> str:
    return "white" if abs(value) > LIGHT_ENOUGH * limit else "#1a1a1a"


def _short(value: float) -> str:
    """Two decimals, none for large values."""
    return number(value, 0 if abs(value) >= 10 else 2)


def _or(value: float | None, fallback: float) -> float:
    return fallback if value is None or pd.isna(value) else float(value)
