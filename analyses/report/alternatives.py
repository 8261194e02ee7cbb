"""What each figure shows, in words and numbers, for those who can not see it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analyses.report.words import Line, best_surface, count, interval, lines, number, signed, what


def layers(probes: pd.DataFrame) -> str:
    """The layer curves in words."""
    chosen = probes[probes.chosen.astype(bool)]
    said = []
    for (task, target, form), part in chosen.groupby(["task", "target", "form"], sort=False):
        numbers = [
            f"{line['model']} {number(line['score'], 2)} at {line['site']}"
            for line in lines(part[part.model != "second_seed"])
        ]
        said.append(
            f"{task} {target}, {form}: {', '.join(numbers)}; best surface baseline {number(best_surface(part).max(), 2)}"
        )
    return "Test accuracy of the probes by layer. At the layer chosen on dev: " + ". ".join(said) + "."


def transfer(moved: Sequence[Line]) -> str:
    """The transfer matrices in words."""
    said = [
        f"{line['model']}, {what(line)}: {number(line['score'], 2)} against {number(line['in_form'], 2)} in its own form "
        f"and chance {number(line['chance'], 2)}"
        for line in moved
        if line["model"] in ("base", "code")
    ]
    return "Accuracy of probes across forms. " + ". ".join(said) + "."


def patching(patching: pd.DataFrame, task: str, form: str) -> str:
    """One patching map in words: where recovery is largest in the lowest and in the highest layer."""
    part = patching[(patching.task == task) & (patching.form == form)]
    said = []
    for model, own in part.groupby("model", sort=False):
        for name, layer in (("lowest", own.layer.min()), ("highest", own.layer.max())):
            top = own[own.layer == layer].sort_values("recovery").iloc[-1]
            said.append(f"{model}, {name} layer: most at role {top.role} ({number(top.recovery, 2)})")
    return f"Mean recovery by layer and token role for {task}, {form} form. " + "; ".join(said) + "."


def scores(scores: Sequence[Line]) -> str:
    """The scores in words."""
    said = [f"{line['model']} on {line['form']} {number(line['bits_per_byte'])}" for line in scores]
    return "Bits per byte, lower is better: " + ", ".join(said) + "."


def comparisons(comparisons: Sequence[Line]) -> str:
    """The forest plot in words: its largest differences."""
    code = [line for line in comparisons if line["against"] == "code"]
    by_measure: dict[str, Line] = {}
    for line in code:
        largest = by_measure.get(line["measure"])
        if largest is None or abs(line["difference"]) > abs(largest["difference"]):
            by_measure[line["measure"]] = line
    said = [
        f"{measure}: {what(line)} {signed(line['difference'])} ({interval(line['low'], line['high'])})"
        for measure, line in by_measure.items()
    ]
    return (
        f"{count(len(code), 'difference')}, code minus base, with intervals. Largest per measure: "
        + "; ".join(said)
        + "."
    )
