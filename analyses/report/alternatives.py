"""What each figure shows, in words and numbers, for those who can not see it."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from analyses.report.words import Line, best_surface, count, interval, lines, number, signed, what
from analyses.report.words_across import top_cells
from analyses.report.words_alike import same_site
from analyses.report.words_benchmarks import by_task, over_chance
from analyses.report.words_causal import EDITS


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
    """The transfer matrices in words: per model and target, over all directions."""
    said = []
    for (model, task, target), own in _groups(moved, "model", "task", "target").items():
        if model in ("base", "code"):
            score, in_form, chance = (_range([line[name] for line in own]) for name in ("score", "in_form", "chance"))
            said.append(
                f"{model}, {task} {target}, {count(len(own), 'direction')}: {score} against {in_form} in the tested form "
                f"itself and chance {chance}"
            )
    return "Accuracy of probes across forms. " + ". ".join(said) + "."


def between_layers(moved: Sequence[Line]) -> str:
    """The curves of probes read at other layers in words."""
    said = []
    for (model, task, target, form), own in _groups(moved, "model", "task", "target", "form").items():
        if model in ("base", "code"):
            best = max(own, key=lambda line: float(line["score"]))
            said.append(
                f"{model}, {task} {target}, {form}: {_range([line['score'] for line in own])}, best at {best['target_site']}; "
                f"the probes trained there {_range([line['in_form'] for line in own])}"
            )
    return "Accuracy of the probe of the chosen layer at all other layers. " + ". ".join(said) + "."


def difficulty(levels: Sequence[Line]) -> str:
    """Accuracy over difficulty in words: the easiest and the hardest level."""
    said = []
    for (model, task, target, form), own in _groups(levels, "model", "task", "target", "form").items():
        if model in ("base", "code"):
            easy, hard = (pick(own, key=lambda line: float(line["difficulty"])) for pick in (min, max))
            said.append(
                f"{model}, {task} {target}, {form}: {number(easy['score'], 2)} at difficulty {easy['difficulty']}, "
                f"{number(hard['score'], 2)} at {hard['difficulty']}"
            )
    return "Test accuracy by difficulty, with 95% intervals. " + ". ".join(said) + "."


def interventions(edits: Sequence[Line]) -> str:
    """The effects of the edits in words."""
    said = [
        f"{line['model']}, {what(line)}, {EDITS[line['kind']]} {signed(line['difference'], 2)} "
        f"({interval(line['diff_low'], line['diff_high'], 2)})"
        for line in edits
        if line["prompts"] and line["model"] in ("base", "code")
    ]
    return "Change of the answer’s logit difference, edit minus random edits, with intervals. " + "; ".join(said) + "."


def patching(patching: pd.DataFrame, task: str, form: str) -> str:
    """One patching map in words: where recovery is largest in the lowest and in the highest layer."""
    part = patching[(patching.task == task) & (patching.form == form)]
    said = []
    for model, own in part.groupby("model", sort=False):
        for name, layer in (("lowest", own.layer.min()), ("highest", own.layer.max())):
            top = own[own.layer == layer].sort_values("recovery").iloc[-1]
            said.append(f"{model}, {name} layer: most at role {top.role} ({number(top.recovery, 2)})")
    return f"Mean recovery by layer and token role for {task}, {form} form. " + "; ".join(said) + "."


def heads(table: pd.DataFrame, task: str, form: str) -> str:
    """One map of heads in words: of each model the head that moves the answer most."""
    part = table[(table.task == task) & (table.form == form)]
    said = []
    for model, own in part.groupby("model", sort=False):
        top = own.iloc[int(own.effect.abs().argmax())]
        said.append(
            f"{model}: most with layer {int(top.layer)}, head {int(top['head'])} at role {top.role} "
            f"({number(top.recovery, 2)}, {interval(top.low, top.high, 2)})"
        )
    return f"Mean recovery by layer and head for {task}, {form} form, {part.direction.iloc[0]}. {'; '.join(said)}."


def brought(cross: Sequence[Line]) -> str:
    """Patching across the pair at the last token in words: per task form and way the largest change."""
    said = [
        f"{cell['donor_model']} into {cell['receiver']}, {what(cell)}: most after layer {int(cell['layer'])}, "
        f"{signed(cell['effect'], 2)} logits ({interval(cell['effect_low'], cell['effect_high'], 2)})"
        + (f", another item’s {signed(cell['random']['effect'], 2)}" if cell["random"] else "")
        for cell in top_cells(cross)
        if cell["kind"] == "last"
    ]
    return f"Change of the right answer’s lead by layer, patched at the last token. {'; '.join(said)}."


def alike(similarity: Sequence[Line]) -> str:
    """The curves of similarity in words: per kind of text and pair its range."""
    known = [line for line in same_site(similarity) if line["measure"] == "cka" and line["value"] is not None]
    said = [
        f"{kind} text, base and {model.replace('_', ' ')}: {_range([line['value'] for line in own])}"
        for (kind, model), own in _groups(known, "kind", "model_b").items()
    ]
    return f"CKA by site. {'; '.join(said)}."


def scores(scores: Sequence[Line]) -> str:
    """The scores in words."""
    said = [f"{line['model']} on {line['form']} {number(line['bits_per_byte'])}" for line in scores]
    return "Bits per byte, lower is better: " + ", ".join(said) + "."


def benchmarks(scores: Sequence[Line]) -> str:
    """The bars of benchmark scores in words."""
    said = []
    for task, own in by_task(scores):
        numbers = [
            f"{model} {number(line['score'], 2)} ({interval(line['low'], line['high'], 2)})"
            for model, line in own.items()
        ]
        said.append(f"{task}: {', '.join(numbers)}; chance {number(next(iter(own.values()))['chance'], 2)}")
    return "Scores on benchmarks with intervals. " + ". ".join(said) + "."


def radar(scores: Sequence[Line]) -> str:
    """The radar of benchmark scores in words."""
    said = []
    for model in ("base", "code"):
        values = [over_chance(own[model]) for _, own in by_task(scores) if model in own]
        said.append(f"{model} {_range(values)} over {count(len(values), 'task')}")
    return f"Radar of scores above chance, 0 for a blind guess and 1 for all right: {', '.join(said)}."


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


def _groups(table: Sequence[Line], *names: str) -> dict[tuple[str, ...], list[Line]]:
    groups: dict[tuple[str, ...], list[Line]] = {}
    for line in table:
        groups.setdefault(tuple(str(line[name]) for name in names), []).append(line)
    return groups


def _range(values: Sequence[float]) -> str:
    low, high = number(min(values), 2), number(max(values), 2)
    return low if low == high else f"{low} to {high}"
