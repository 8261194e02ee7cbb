"""The sentences on what can be read off the activations, and where it carries over. None of them speaks about use."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from analyses.report.words import MODELS, Line, count, interval, number

_SURFACE = ("bag_of_tokens", "token", "position")


def probes_over_floor(probes: Sequence[Line]) -> list[str]:
    """Per model, how many probes lie above everything that needs no trained model."""
    chosen = [line for line in probes if line["chosen"]]
    floor = {place(line): line["score"] for line in chosen if line["model"] == "random"}
    sentences = []
    for model in ("base", "code"):
        own = [line for line in chosen if line["model"] == model]
        if not own:
            continue
        surface = [line for line in own if _low(line) > max(line["majority"], *(line[name] for name in _SURFACE))]
        over = [line for line in surface if _low(line) > floor.get(place(line), -1)]
        selective = sum((line["selectivity_low"] or 0) > 0 for line in own)
        sentences.append(
            f"{model}: {len(surface)} of {count(len(own), 'probe')} lie above every surface baseline with their whole interval"
            + (f", {len(over)} also above the random-initialised model" if floor else "")
            + f"; {selective} {'is' if selective == 1 else 'are'} selective (task above control)."
        )
    return sentences


def transfers(moved: Sequence[Line]) -> list[str]:
    """Per model, how much of a probe's gain over chance survives the change of form."""
    sentences = []
    for model in ("base", "code", "random"):
        own = [line for line in moved if line["model"] == model]
        ratios = [line["ratio"] for line in own if line["ratio"] is not None]
        if not own:
            continue
        if not ratios:
            sentences.append(
                f"{MODELS[model]}: no transfer ratio could be formed in {count(len(own), 'direction')}, as no probe "
                "gains enough over chance in its own form."
            )
            continue
        above = sum(line["ratio"] is not None and (line["ratio_low"] or 0) > 0 for line in own)
        sentences.append(
            f"{MODELS[model]}: of what a probe gains over chance in its own form, a probe from another form keeps "
            f"{number(median(ratios), 2)} (median of the {len(ratios)} of {len(own)} directions where the ratio can be formed; "
            f"range {interval(min(ratios), max(ratios), 2)}); its interval lies above 0 in {above}."
        )
    return sentences


def left_out(held: Sequence[Line]) -> list[str]:
    """Per model, how far a probe of all other forms reads a form that it never saw."""
    sentences = []
    for model in ("base", "code", "random"):
        own = [line for line in held if line["model"] == model]
        if not own:
            continue
        above = sum(_low(line) > line["chance"] for line in own)
        ratios = [line["ratio"] for line in own if line["ratio"] is not None]
        sentences.append(
            f"{MODELS[model]}: trained on all other forms, a probe lies above chance with its whole interval in {above} of "
            f"{count(len(own), 'form')} left out"
            + (f"; of the gain of a probe of that form itself it keeps {_spread(ratios)}." if ratios else ".")
        )
    return sentences


def over_controls(line: Line) -> bool:
    """Whether a probe read another model better than through any map that knows nothing, and better than chance."""
    return bool(line["score"] > max(line["controls_high"], line["floor"]))


def between_models(mapped: Sequence[Line]) -> list[str]:
    """Per direction between two models, how many probes read the other one through the map, and how well."""
    sentences = []
    for source, target in dict.fromkeys((line["source_model"], line["target_model"]) for line in mapped):
        own = [line for line in mapped if (line["source_model"], line["target_model"]) == (source, target)]
        read = [line for line in own if not line["left_out"]]
        over = [line for line in read if over_controls(line)]
        ratios = [line["ratio"] for line in over if line["ratio"] is not None]
        null = " (the null pair, the yardstick)" if target == "second_seed" else ""
        goal = target.replace("_", " ")
        sentences.append(
            f"{source} → {goal}{null}: {len(over)} of {count(len(read), 'probe')} read the other model "
            "through the map better than through any control map"
            + (f"; of what {goal}’s own probe gains they keep {_spread(ratios)}" if ratios else "")
            + (f"; {count(len(own) - len(read), 'probe')} could not be mapped." if len(read) < len(own) else ".")
        )
    return sentences


def place(line: Line) -> tuple[str, str, str]:
    """The task, target and form of a line."""
    return line["task"], line["target"], line["form"]


def _low(line: Line) -> float:
    return float("-inf") if line["low"] is None else float(line["low"])


def _spread(ratios: Sequence[float]) -> str:
    if len(ratios) == 1:
        return number(ratios[0], 2)
    extent = interval(min(ratios), max(ratios), 2)
    return f"{number(median(ratios), 2)} (median of the {len(ratios)} ratios formed, range {extent})"
