"""What the activations of one model do in the other, and how far the same heads matter in both: cells and sentences."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

from analyses.report.words import Line, count, interval, number, signed, what

WAYS = (("code", "base"), ("base", "code"))
"""Donor model and receiver."""
KINDS = {
    "last": "residual stream at the last token",
    "elsewhere": "residual stream at the tokens of another role",
    "stream": "whole residual stream",
    "head": "a single head at all tokens",
}
"""The kinds of cell that are told apart."""
Cell = dict[str, Any]


def retained_across(retention: Sequence[Line]) -> list[str]:
    """How many prompts either model gets right, and where nothing could be patched."""
    own = [line for line in retention if line["prompts"]]
    if not own:
        return []
    names = ("prompts", "base_right", "code_right", "both_right", "either_right", "patched")
    prompts, base, code, both, either, patched = (int(sum(line[name] for line in own)) for name in names)
    places = [line for line in own if line["patched"]]
    said = [
        f"Of {count(prompts, 'prompt')} put to both models, base answers {base} rightly in both texts, code {code}, either of "
        f"them {either} and both {both}; {patched} of those that either answers rightly were patched, in {len(places)} of "
        f"{count(len(own), 'task form')}."
    ]
    nothing = [what(line) for line in own if not line["patched"]]
    if nothing:
        said.append(
            f"Neither model answers any prompt rightly in {'; '.join(nothing)}: nothing could be patched there."
        )
    return said


def refused(lines: Sequence[Line]) -> list[str]:
    """Why activations could not be exchanged, each reason once with where it holds."""
    reasons: dict[str, list[str]] = {}
    for line in lines:
        reasons.setdefault(line["reason"], []).append(what(line))
    return [f"{'; '.join(places)}: {reason}" for reason, places in reasons.items()]


def cells(cross: Sequence[Line]) -> list[Cell]:
    """Every cell that the other model gave to, with its controls.

    Returns:
        The line of the donor ``other`` with name (such as ``z.3.5``), kind (of :data:`KINDS`), and under ``random`` and
        ``second_seed`` the lines of the same cell where another item's activations were put in, and where those of the
        second seed were (``None`` where there is none; only base gets them).
    """
    keys = ("task", "form", "receiver", "site", "by", "window", "layer", "head", "neurons", "role")
    controls: dict[tuple[Any, ...], Line] = {}
    for line in cross:
        controls[line["donor_model"], line["donor"], *(line[key] for key in keys)] = line
    found = []
    for line in cross:
        if line["donor"] != "other" or (line["donor_model"], line["receiver"]) not in WAYS:
            continue
        cell = tuple(line[key] for key in keys)
        layer = f"{line['site']}.{int(line['layer'])}"
        beside = {
            "random": controls.get((line["donor_model"], "random", *cell)),
            "second_seed": controls.get(("second_seed", "other", *cell)),
        }
        head = line["head"]
        found.append({**line, "name": layer if head is None else f"{layer}.{int(head)}", "kind": _kind(line), **beside})
    return found


def top_cells(cross: Sequence[Line]) -> list[Cell]:
    """For each task and form, way and kind the cell that moves the answer most."""
    best: dict[tuple[Any, ...], Cell] = {}
    for cell in cells(cross):
        key = tuple(cell[name] for name in ("task", "form", "donor_model", "receiver", "kind"))
        if key not in best or _size(cell) > _size(best[key]):
            best[key] = cell
    order = {"last": 0, "elsewhere": 1, "stream": 2, "head": 3}
    places = list(dict.fromkeys((key[0], key[1]) for key in best))
    return [
        best[key]
        for key in sorted(best, key=lambda key: (places.index(key[:2]), WAYS.index((key[2], key[3])), order[key[4]]))
    ]


def brought(cross: Sequence[Line], kinds: Sequence[str] = tuple(KINDS)) -> list[str]:
    """Per way and kind of cell, in how many cells the receiver's lead rises and falls, and where it moves most."""
    known = cells(cross)
    seeds = [line for line in cross if line["donor_model"] == "second_seed" and line["donor"] == "other"]
    sentences = []
    for donor, receiver in WAYS:
        for kind in kinds:
            own = [
                cell
                for cell in known
                if (cell["donor_model"], cell["receiver"], cell["kind"]) == (donor, receiver, kind)
            ]
            if own:
                null = [line for line in seeds if line["receiver"] == receiver and _kind(line) == kind]
                sentences.append(f"{donor} → {receiver}, {KINDS[kind]}: {_moved(receiver, own, null)}")
    return sentences


def _moved(receiver: str, own: Sequence[Cell], null: Sequence[Line]) -> str:
    rises = _rises(own)
    said = f"{receiver}’s lead rises with its whole interval in {len(rises)} of {count(len(own), 'cell')}"
    if rises:
        said += f", in {sum(map(_beyond, rises))} of them beyond the controls in the same cell,"
    said += f" and falls in {_falls(own)}"
    if null:
        said += f" (second seed as the donor: {len(_rises(null))} and {_falls(null)})"
    top = max(own, key=_size)
    said += (
        f". It moves most with {top['name']}{at(top)} in {what(top)}: {signed(top['effect'], 2)} logits "
        f"({interval(top['effect_low'], top['effect_high'], 2)}), where the donor’s lead is {_apart(top['gap'])}"
    )
    beside = [
        f"{name} there {signed(line['effect'], 2)}"
        for name, line in (("random donor", top["random"]), ("second seed", top["second_seed"]))
        if line
    ]
    return said + "".join(f"; {each}" for each in beside) + "."


def _rises(own: Sequence[Line]) -> list[Line]:
    return [line for line in own if line["effect_low"] is not None and line["effect_low"] > 0]


def _falls(own: Sequence[Line]) -> int:
    return sum(line["effect_high"] is not None and line["effect_high"] < 0 for line in own)


def _beyond(cell: Line) -> bool:
    """Whether the whole interval lies above what the controls of the same cell do."""
    return all(
        control is None or cell["effect_low"] > control["effect"] for control in (cell["random"], cell["second_seed"])
    )


def at(cell: Line) -> str:
    """Which tokens of a cell are replaced, where not all are."""
    return "" if cell["by"] == "all" else f" at role {cell['role']}"


def _apart(gap: float) -> str:
    return f"{number(abs(gap), 2)} {'larger' if gap > 0 else 'smaller'}"


def identity(cross: Sequence[Line]) -> str | None:
    """What a model's own activations do to it; they must do nothing."""
    own = [abs(float(line["effect"])) for line in cross if line["donor"] == "identity"]
    if not own:
        return None
    if not max(own):
        return f"Identity: a model’s own activations, put back, change nothing in any of {count(len(own), 'cell')}."
    return (
        f"Identity: a model’s own activations, put back, should change nothing, but move the answer by up to {max(own):.1e} "
        "logits; smaller effects mean nothing here."
    )


def overlaps(lines: Sequence[Line]) -> list[str]:
    """How alike the order of the heads is in base and code, and in two seeds of base."""
    sentences = []
    for direction in dict.fromkeys(line["direction"] for line in lines):
        ranks = [line for line in lines if line["direction"] == direction and line["measure"] == "spearman"]
        for other, name in (("code", "base and code"), ("second_seed", "two seeds of base")):
            values = [line for line in ranks if line["other"] == other and line["estimate"] is not None]
            if not values:
                continue
            known, maps = [line["estimate"] for line in values], count(len(values), "map")
            above = sum(line["low"] is not None and line["low"] > line["expected"] for line in values)
            extent = f", median of {maps} from {interval(min(known), max(known), 2)}" * (len(values) > 1)
            sentences.append(
                f"{name}, {direction}: Spearman’s correlation of the heads’ effects is {number(median(known), 2)}{extent}; its "
                f"interval lies above what heads exchanged within their layers give in {above} of {maps}."
            )
    return sentences


def _kind(line: Line) -> str:
    if line["head"] is not None:
        return "head"
    if line["by"] == "all":
        return "stream"
    return "last" if line["role"] == "last" else "elsewhere"


def _size(cell: Line) -> float:
    return abs(float(cell["effect"] or 0))
