"""Where patching inside each model finds the answer: the cells that matter most, and the sentences on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analyses.report.words import Line, count, interval, number, what
from analyses.study.results import ALPHA

HALF = 0.5
"""The share of the answer from which a cell is said to decide it."""
HEADS_SHOWN = 3
"""Heads in the table of every model, task and form."""
DIRECTIONS = ("denoising", "noising")
MAPS = {"resid_pre": "position", "z": "role"}
"""The maps that a report shows, by what their cells replace."""
Cell = dict[str, Any]


def cells(patching: Sequence[Line], site: str) -> dict[tuple[str, str, str], list[Cell]]:
    """The cells of one site's map by model, task and form.

    Returns:
        Of each cell model, task, form, name (such as ``z.3.5``), layer, role and its lines ``denoising`` and ``noising``
        (``None`` where the study has none).
    """
    found: dict[tuple[str, str, str], dict[tuple[Any, ...], Cell]] = {}
    for line in patching:
        if (line["site"], line["by"], line["window"], line["donor"]) != (site, MAPS[site], 1, "contrast"):
            continue
        layer, head = int(line["layer"]), line["head"]
        name = f"{site}.{layer}" if head is None else f"{site}.{layer}.{int(head)}"
        about = {key: line[key] for key in ("model", "task", "form", "role")}
        group = found.setdefault((line["model"], line["task"], line["form"]), {})
        cell = group.setdefault(
            (name, line["role"]), {**about, "name": name, "layer": layer, **dict.fromkeys(DIRECTIONS)}
        )
        cell[line["direction"]] = line
    return {place: list(group.values()) for place, group in found.items()}


def top_cells(patching: Sequence[Line]) -> list[Cell]:
    """For each model, task and form the cells worth a line: two of the residual stream, and the heads that move most.

    At the lowest layer the tokens in which the texts differ are the whole difference, and at the highest the last token
    holds all that is left of it. The stream is therefore shown where the last token first holds half of the answer, and at
    the role above the lowest layer that holds most of it elsewhere.
    """
    streams, heads = (cells(patching, site) for site in MAPS)
    found = []
    for place in dict.fromkeys([*streams, *heads]):
        stream = streams.get(place, [])
        elsewhere = [cell for cell in stream if cell["role"] != "last" and cell["layer"]]
        arrived = arrival(stream)
        found += [cell for cell in (largest(elsewhere), arrived) if cell]
        found += sorted(heads.get(place, []), key=_size, reverse=True)[:HEADS_SHOWN]
    return found


def arrival(stream: Sequence[Cell]) -> Cell | None:
    """The lowest layer at which patching the last token alone restores half of the answer."""
    last = [
        cell for cell in stream
        if cell["role"] == "last" and cell["denoising"] and (cell["denoising"]["recovery"] or 0) >= HALF
    ]  # fmt: skip
    return min(last, key=lambda cell: int(cell["layer"]), default=None)


def largest(among: Sequence[Cell]) -> Cell | None:
    """The cell of largest mean effect, whichever way it goes."""
    return max(among, key=_size, default=None)


def decided(patching: Sequence[Line]) -> list[str]:
    """Per model, in how many task forms a single head decides, and from which layer on the last token holds the answer."""
    streams, heads = (cells(patching, site) for site in MAPS)
    sentences = []
    for model in ("base", "code"):
        own = {place: group for place, group in heads.items() if place[0] == model}
        if own:
            sentences.append(_heads(model, own))
        lasts = [group for place, group in streams.items() if place[0] == model and _has(group, "denoising")]
        if lasts:
            sentences.append(_arrivals(model, lasts))
    return sentences


def _heads(model: str, maps: dict[tuple[str, str, str], list[Cell]]) -> str:
    parts = []
    said = {
        "denoising": "a single head at one role restores at least half of the answer in",
        "noising": "a single head at one role that is taken away costs at least half of it in",
    }
    for direction, sign in (("denoising", 1), ("noising", -1)):
        known = [group for group in maps.values() if _has(group, direction)]
        over = [[cell for cell in group if _share(cell, direction, sign) >= HALF] for group in known]
        clear = sum(any((cell[direction]["p_max"] or 0) < ALPHA for cell in group) for group in over)
        if known:
            parts.append(
                f"{said[direction]} {sum(map(bool, over))} of {count(len(known), 'task form')} ({direction}; in {clear} with "
                f"p < {ALPHA:g} over the whole map)"
            )
    top = largest([cell for group in maps.values() for cell in group if cell["denoising"]])
    sentence = f"{model}: {', and '.join(parts)}."
    if top:
        line = top["denoising"]
        sentence += (
            f" The head that restores most is {top['name']} at role {top['role']} in {what(top)}: "
            f"{number(line['recovery'], 2)} ({interval(line['low'], line['high'], 2)})."
        )
    return sentence


def _arrivals(model: str, streams: Sequence[Sequence[Cell]]) -> str:
    layers = sorted(int(cell["layer"]) for cell in map(arrival, streams) if cell)
    missing = len(streams) - len(layers)
    parts = []
    if layers:
        lowest, highest = layers[0], layers[-1]
        extent = f"layer {lowest}" if lowest == highest else f"layer {lowest} or, at the latest, {highest}"
        parts.append(
            f"the residual stream of the last token alone restores half of the answer from the input of {extent} on"
        )
    if missing:
        late = (
            "not even the input of the last layer holds half of it there, so that the last layer brings the better part"
        )
        parts.append(late if not layers else f"in {missing} {late}")
    return f"{model}: in {len(layers) or missing} of {count(len(streams), 'task form')} {'; '.join(parts)}."


def _has(group: Sequence[Cell], direction: str) -> bool:
    return any(cell[direction] for cell in group)


def _share(cell: Cell, direction: str, sign: int) -> float:
    line = cell[direction]
    return sign * float(line["recovery"] or 0) if line else 0.0


def _size(cell: Cell) -> float:
    line = cell["denoising"] or cell["noising"]
    return abs(float(line["effect"] or 0))
