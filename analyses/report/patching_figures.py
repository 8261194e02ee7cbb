"""The maps of activation patching: layer × role, layer × head, layer × token. Each function draws one map of a table.

Each function's last argument is the PNG it writes; where there was nothing to draw it writes none, and it tells.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from numpy.typing import NDArray

from analyses.report.canvas import COLOUR, WIDTH, Canvas, colour_bar, drawn
from analyses.report.map_panels import BAR, LEFT, LINE, Panel, broken, draw, height, layer_axis, sheet, write_caption

ALPHA = 0.05
"""Cells whose p over the whole map is smaller are outlined."""
STUDIED = {"direction": "denoising", "donor": "contrast", "site": "resid_pre", "by": "position", "window": 1}
"""The map that every study has."""
FAINT = 0.05
"""Roles where no head's recovery is as large are left out of a map of heads, and named below it."""
MAX_TOKENS = 240
"""Tokens of an example that are drawn, counted from the end."""
MODELS = ("base", "code", "second_seed")
Split = Callable[[pd.DataFrame, Sequence[int], Sequence[Any], str], list[Panel]]
"""From lines, layers, columns and the name of the columns to panels."""


def studied(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of :data:`STUDIED`, of which a report shows maps: the residual stream, denoised position by position."""
    chosen = np.logical_and.reduce([table[name] == value for name, value in STUDIED.items()])
    return table[chosen]


@drawn
def patching_map(patching: pd.DataFrame, task: str, form: str) -> Figure | None:
    """A study's map of the residual stream, see :func:`role_map`.

    Args:
        patching: the table of a study: model, task, form and the columns of :func:`analyses.patching.summaries.summarise`.
        task: the task to draw.
        form: the form to draw.

    The last argument is the path of the picture; nothing is written when no model had an item to patch.
    """
    part = patching[(patching.task == task) & (patching.form == form)]
    return _map(studied(part), f"role of the patched token ({task}, {form} form)", _by_model(part))


@drawn
def role_map(lines: pd.DataFrame, caption: str) -> Figure | None:
    """Mean recovery by layer and token role: base, code, code minus base, and the second seed where the table has it.

    Args:
        lines: one map of :func:`analyses.patching.summaries.summarise`, with a column ``model``.
        caption: what is said below the panels.
    """
    return _map(lines, caption, _by_model(lines))


@drawn
def head_map(lines: pd.DataFrame, caption: str) -> Figure | None:
    """Mean recovery by layer and head (or group of neurons), a row of panels per role; base, code, code minus base.

    Args:
        lines: one map of :func:`analyses.patching.summaries.summarise` whose cells have heads or groups of neurons, with a
            column ``model``.
        caption: what is said below the panels.
    """
    return _map(lines, caption, _by_model(lines))


@drawn
def cross_map(lines: pd.DataFrame, caption: str) -> Figure | None:
    """Mean recovery where one model gets the other's activations, both ways, and where it gets those of another item.

    Args:
        lines: one map of the ``cross`` table (:func:`analyses.across.cross_task.cross_patch_task`).
        caption: what is said below the panels.
    """
    return _map(lines, caption, _receivers)


def _map(lines: pd.DataFrame, caption: str, split: Split) -> Figure | None:
    """Layer × role, or layer × head with a row of panels per role."""
    if lines.empty:
        return None
    depths = sorted(set(lines.layer.astype(int)))
    down = "patched layer" if (window := int(lines.window.iloc[0])) == 1 else f"first of {window} patched layers"
    unit = next((name for name in ("head", "neurons") if lines[name].notna().any()), "role")
    if unit == "role":
        roles = _roles(lines.role)
        rows = [split(lines, depths, roles, unit)]
        return sheet(rows, depths, roles, caption=[caption, *_notes(rows)], down=down)
    numbers = sorted(set(lines[unit].astype(int)))
    telling, faint = _telling(lines)
    # A role that a model has no line of still has that model's panel.
    rows = [split(lines[lines.role == role], depths, numbers, unit) for role in telling]
    if telling != ["all"]:
        rows = [[_under(panels[0], role), *panels[1:]] for role, panels in zip(telling, rows, strict=True)]
    what = "head" if unit == "head" else "group of neurons"
    left_out = f"not drawn, as no {what} there moves the answer by {FAINT:g}: {', '.join(faint)}" if faint else ""
    along = "head" if unit == "head" else "first neuron of the group"
    return sheet(rows, depths, numbers, caption=[caption, *_notes(rows), left_out], down=down, along=along)


@drawn
def token_map(cells: pd.DataFrame, caption: str) -> Figure | None:
    """Recovery by layer and token of one item, a row per model; tokens before the first that matters are left out.

    Args:
        cells: the cells of one map by position (:class:`analyses.patching.sweep.Patching`), with a column ``model``. The
            first item that most models had patched is drawn, of a model that did not its own first one.
        caption: what is said below the panels.
    """
    if cells.empty:
        return None
    commonest = cells.groupby("item", sort=False).model.nunique().idxmax()
    shown = []
    for model in [model for model in MODELS if model in set(cells.model)]:
        own = cells[cells.model == model]
        item = commonest if commonest in set(own["item"]) else own["item"].iloc[0]
        shown.append((model, item, *_example(own[own["item"] == item])))
    widest, high = max(len(tokens) for *_, tokens in shown), max(height(len(values)) for *_, values, _ in shown)
    pitch = min(0.42, max(0.15, (WIDTH - LEFT - BAR) / widest))
    broad = LEFT + max(pitch * widest, 4.5) + BAR
    said = broken([caption, "tokens before the first that matters are not drawn"], broad - LEFT)
    top, foot = 0.36, 0.12 + 0.062 * max(len(token) for *_, tokens in shown for token in tokens)
    canvas = Canvas(broad, len(shown) * (top + high + foot) + LINE * len(said))
    for row, (model, item, values, tokens) in enumerate(shown):
        wide = pitch * len(tokens)
        axes = canvas.axes(LEFT, top + row * (top + high + foot), wide, high)
        panel = Panel(f"{_named(model)}, item {item}", COLOUR[model], values, np.zeros(values.shape, bool))
        image = draw(axes, panel, wide, high)
        axes.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=7, family="DejaVu Sans Mono")
        layer_axis(axes, sorted(set(cells.layer.astype(int))), high, "patched layer")
    colour_bar(canvas, image, "recovery", broad - BAR + 0.1, top, high)
    write_caption(canvas, said)
    return canvas.figure


def _by_model(table: pd.DataFrame) -> Split:
    """Panels of base and code always, of the second seed where the table has it."""
    known = set() if table.empty else set(table.model)
    return partial(_models, [model for model in MODELS if model in {"base", "code", *known}])


def _models(
    models: Sequence[str], lines: pd.DataFrame, depths: Sequence[int], columns: Sequence[Any], name: str
) -> list[Panel]:
    """One panel per model, and after base and code one for the difference of the two."""
    panels, grids = [], {}
    for model in models:
        own = lines[lines.model == model]
        grids[model] = _grid(own, "recovery", depths, columns, name)
        clear = np.nan_to_num(_grid(own, "p_max", depths, columns, name), nan=1.0) < ALPHA
        panels.append(Panel(f"{_named(model)}: {_items(own)}", COLOUR[model], grids[model], clear))
        if model == "code":
            difference = grids["code"] - grids["base"]
            unclear = np.zeros(difference.shape, bool)
            panels.append(Panel("code minus base", "#333333", difference, unclear, "one of the two has nothing"))
    return panels


def _receivers(lines: pd.DataFrame, depths: Sequence[int], columns: Sequence[Any], name: str) -> list[Panel]:
    """Both ways, and of each the control whose donor model reads another item; what was mapped says so."""
    panels, donors = [], set(lines.donor)
    for receiver, giver in (("base", "code"), ("code", "base")):
        for donor, said in (("other", ""), ("mapped", "mapped, "), ("random", "other item, ")):
            own = lines[(lines.receiver == receiver) & (lines.donor_model == giver) & (lines.donor == donor)]
            if donor not in donors:
                continue
            values = _grid(own, "recovery", depths, columns, name)
            low, high = (_grid(own, f"recovery_{end}", depths, columns, name) for end in ("low", "high"))
            title = f"{giver} into {receiver}\n{said}{_items(own)}"
            panels.append(Panel(title, COLOUR[receiver], values, (low > 0) | (high < 0), "no gap to recover"))
    return panels


def _grid(
    own: pd.DataFrame, value: str, depths: Sequence[int], columns: Sequence[Any], name: str
) -> NDArray[np.float64]:
    """``[layer, column]``, NaN where there is no line."""
    table = own.pivot(index="layer", columns=name, values=value)
    return table.reindex(index=pd.Index(depths), columns=pd.Index(columns)).to_numpy(dtype=float)


def _items(own: pd.DataFrame) -> str:
    count = int(own["items"].max()) if len(own) else 0
    return f"{count or 'no'} item{'s'[: count > 1]}"


def _example(cells: pd.DataFrame) -> tuple[NDArray[np.float64], list[str]]:
    """Recovery ``[layer, token]`` from the first token on that any cell of it has an effect, and the tokens."""
    grid = cells.pivot(index="layer", columns="position", values="recovery").sort_index(axis=1)
    values = grid.to_numpy(dtype=float)
    felt = np.flatnonzero((np.nan_to_num(values) != 0).any(0))
    first = max(int(felt[0]) if len(felt) else 0, values.shape[1] - MAX_TOKENS)
    about = cells.drop_duplicates("position").set_index("position").loc[grid.columns]
    return values[:, first:], [_token(str(t), str(r)) for t, r in zip(about.token, about.role, strict=True)][first:]


def _token(token: str, role: str) -> str:
    """A token with its role; bytes that stand for blanks are shown as such."""
    seen = token.replace("Ġ", "␣").replace("▁", "␣").replace("Ċ", "↵").replace("ĉ", "⇥")
    return seen if role == "other" else f"[{role}] {seen}"


def _roles(roles: pd.Series[str]) -> list[str]:
    """Unnamed tokens first, the last one last."""
    return sorted(set(roles), key=lambda role: (role == "last", role != "other", role))


def _telling(lines: pd.DataFrame) -> tuple[list[str], list[str]]:
    """Roles in which some recovery is not faint, and the others; all of them where every one is faint."""
    largest = lines.recovery.abs().groupby(lines.role).max().fillna(0)
    roles = _roles(lines.role)
    telling = [role for role in roles if largest[role] >= FAINT] or roles
    return telling, [role for role in roles if role not in telling]


def _under(panel: Panel, role: str) -> Panel:
    return Panel(f"{panel.title} · {role}", panel.colour, panel.values, panel.clear, panel.empty)


def _notes(rows: Sequence[Sequence[Panel]]) -> list[str]:
    """What a reader of these panels has to know."""
    panels = [panel for row in rows for panel in row]
    if not any(panel.title.startswith("code minus") for panel in panels):
        return ["1: the receiver answers as the donor model does", "outlined: the 95% interval is apart from 0"]
    notes = ["the difference is between means over each model's own items"]
    return (
        [f"outlined: p < {ALPHA:g} over a model's whole map", *notes] if any(p.clear.any() for p in panels) else notes
    )


def _named(model: str) -> str:
    return model.replace("_", " ")
