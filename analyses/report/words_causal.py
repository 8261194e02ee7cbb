"""The sentences on what changes the answer: prompts that could be patched, and edits of what the probes read."""

from __future__ import annotations

from collections.abc import Sequence

from analyses.report.words import Line, count, number, what
from analyses.report.words_decodable import place

MIN_FOOLED = 0.1
"""An edit reached the probe when it fooled it in this share of prompts more than before, and than random edits did."""
EDITS = {"remove": "removal", "steer": "steering"}
"""How the kinds of edit are called."""


def retained(retention: Sequence[Line]) -> list[str]:
    """Per model, how many prompts it masters and how many were patched."""
    sentences = []
    for model in ("base", "code"):
        own = [line for line in retention if line["model"] == model and line["prompts"]]
        if not own:
            continue
        prompts, right, kept = (int(sum(line[name] for line in own)) for name in ("prompts", "both_right", "patched"))
        chance = sum(line["chance"] * line["prompts"] for line in own)
        over = sum(line["low"] is not None and line["low"] > line["chance"] for line in own)
        sentences.append(
            f"{model} answers {right} of {count(prompts, 'prompt')} rightly in both texts (guessing among the candidates: "
            f"about {number(chance, 0)}), and is above guessing with its whole interval in {over} of "
            f"{count(len(own), 'task form')}; {kept} {'was' if kept == 1 else 'were'} patched."
            + ("" if kept else " So patching says nothing about it.")
            + (
                " They may be right by luck: a map shows how an answer came about, not that the task is mastered."
                if kept and not over
                else ""
            )
        )
    return sentences


def used(edits: Sequence[Line], probes: Sequence[Line]) -> list[str]:
    """Per model and kind of edit, how often changing what the probe reads changed the answer beyond random directions."""
    counted = telling(edits, probes)
    sentences = []
    for model in ("base", "code"):
        for kind, noun in EDITS.items():
            total, own = (
                [line for line in lines if line["model"] == model and line["kind"] == kind and line["prompts"]]
                for lines in (edits, counted)
            )
            if total:
                sentences.append(f"{model}, {noun}: {_outcome(own, len(total))}")
    return sentences


def telling(edits: Sequence[Line], probes: Sequence[Line]) -> list[Line]:
    """The edits whose effect says something: the probe read its label, and the edit fooled it.

    It read its label where its whole interval lies above the commonest label; it was fooled as :data:`MIN_FOOLED` says.
    """
    reads = {
        (line["model"], *place(line))
        for line in probes
        if line["chosen"] and line["low"] is not None and line["low"] > line["majority"]
    }
    return [line for line in edits if line["prompts"] and (line["model"], *place(line)) in reads and _reached(line)]


def _reached(line: Line) -> bool:
    return bool(line["fooled"] - max(line["fooled_before"], line["fooled_control"]) >= MIN_FOOLED)


def _effect(line: Line) -> str:
    """Which way an edit moved the answer: both from where it was and beyond random directions, with whole intervals."""
    if None in (line["low"], line["diff_low"]):
        return "unclear"
    if line["high"] < 0 and line["diff_high"] < 0:
        return "lower"
    return "higher" if line["low"] > 0 and line["diff_low"] > 0 else "unclear"


def _outcome(counted: Sequence[Line], total: int) -> str:
    places = f"{total} {'target and form' if total == 1 else 'targets and forms'}"
    if not counted:
        return (
            f"in none of {places} did the probe read its label and the edit fool it, so nothing follows about what the "
            "model uses."
        )
    found = [_effect(line) for line in counted]
    lower, higher, unclear = (found.count(kind) for kind in ("lower", "higher", "unclear"))
    return (
        f"in {len(counted)} of {places} the probe read its label and the edit fooled it. In {lower} of these the answer’s "
        f"lead fell beyond random directions (by chance in about {number(0.025 * len(counted), 1)})"
        + (f", in {higher} it rose" if higher else "")
        + (f"; in {unclear} the label is decodable, but not seen to be used there." if unclear else ".")
        + (
            f" The other {total - len(counted)} {'says' if total - len(counted) == 1 else 'say'} nothing."
            * (total > len(counted))
        )
    )


def without_prompt(edits: Sequence[Line]) -> list[str]:
    """Items that were left out of the interventions and why, each reason once with the models it holds for."""
    groups: dict[tuple[str, str], list[Line]] = {}
    for line in edits:
        if line["dropped"]:
            groups.setdefault((what(line), line["why_dropped"]), []).append(line)
    return [
        f"{about} ({', '.join(dict.fromkeys(line['model'].replace('_', ' ') for line in lines))}): {why}"
        + ("" if any(line["prompts"] for line in lines) else "; no prompt was left")
        for (about, why), lines in groups.items()
    ]
