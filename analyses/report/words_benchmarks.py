"""The sentences on benchmark scores: counts of what the intervals and tests say, and what they could not have seen."""

from __future__ import annotations

from collections.abc import Sequence

from analyses.report.words import MODELS, Line, count, number
from analyses.study.results import ALPHA

GENERATED = "generated_"
"""How the names of tasks begin whose questions twinprobe makes itself."""


def by_task(lines: Sequence[Line]) -> list[tuple[str, dict[str, Line]]]:
    """The lines of every task by model."""
    tasks: dict[str, dict[str, Line]] = {}
    for line in lines:
        tasks.setdefault(str(line["task"]), {})[str(line["model"])] = line
    return list(tasks.items())


def over_chance(line: Line) -> float:
    """Score above chance as a share of what is left above it; a task whose answers are written has a chance of 0."""
    chance = line["chance"] or 0.0
    return float((line["score"] - chance) / (1 - chance))


def read(lines: Sequence[Line]) -> list[str]:
    """What the scores say of each model, of their difference, and of the null pair."""
    sentences = [_above(model, lines) for model in ("base", "code")]
    sentences += [_differ("code", lines), _missed(lines), _differ("second_seed", lines)]
    return [sentence for sentence in sentences if sentence]


def like_big_bench(lines: Sequence[Line]) -> str:
    """What generated tasks are, where there are any."""
    if not any(str(line["task"]).startswith(GENERATED) for line in lines):
        return ""
    return (
        f"Tasks called {GENERATED}… are like BIG-bench’s programmatic tasks, not BIG-bench’s: their questions come from "
        "twinprobe’s own generators, so scores on them can not be compared with published ones."
    )


def bits(scores: Sequence[Line]) -> str:
    """Bits per byte of base and code, to be read beside the benchmarks."""
    said = [
        f"{line['model']} {number(line['bits_per_byte'])} on {line['form']} text"
        for line in scores
        if line["model"] in ("base", "code")
    ]
    return f"Beside it, bits per byte of held-out text (lower is better): {', '.join(said)}." if said else ""


def _above(model: str, lines: Sequence[Line]) -> str:
    own = [line for line in lines if line["model"] == model and line["chance"] is not None]
    if not own:
        return ""
    above = sum(line["low"] > line["chance"] for line in own)
    below = sum(line["high"] < line["chance"] for line in own)
    return (
        f"{model} is above chance with its whole interval in {above} of {count(len(own), 'task')} and below it in {below} "
        f"(by luck alone in about {number(ALPHA / 2 * len(own), 1)} each)."
    )


def _differ(model: str, lines: Sequence[Line]) -> str:
    own = [line for line in lines if line["model"] == model]
    tested = [line for line in own if line["p_permutation"] is not None]
    if not tested:
        return ""
    raw = sum(line["p_permutation"] < ALPHA for line in tested)
    clear = [line for line in tested if line["p_permutation_holm"] < ALPHA]
    up = sum(line["difference"] > 0 for line in clear)
    said = (
        f"{MODELS[model]} and base differ at p < {ALPHA:g} in {raw} of {count(len(tested), 'task')} (about "
        f"{number(ALPHA * len(tested), 1)} would by chance), and in {len(clear)} after Holm’s correction over the tasks"
    )
    if clear:
        said += f" ({model.replace('_', ' ')} higher in {up}, base higher in {len(clear) - up})"
        beside = [line for line in clear if line["null_difference"] is not None]
        if beside:
            larger = sum(abs(line["difference"]) > abs(line["null_difference"]) for line in beside)
            said += f"; {larger} of these {'is' if larger == 1 else 'are'} larger than between two seeds of base"
    return f"{said}."


def _missed(lines: Sequence[Line]) -> str:
    """What true differences of code from base would have been missed."""
    own = [line for line in lines if line["model"] == "code"]
    effects = sorted(line["minimum_detectable_effect"] for line in own if line["minimum_detectable_effect"])
    said = []
    if effects:
        least, most = number(effects[0], 2), number(effects[-1], 2)
        reach = least if least == most else f"{least} to {most} (depending on the task)"
        said.append(
            f"With so many items a single test finds a true difference of {reach} in 80% of cases; smaller ones are more "
            "easily missed, so no difference found does not mean that there is none."
        )
    if alike := len(own) - len(effects):
        where = "all tasks" if alike == len(own) > 1 else f"{count(alike, 'task')}"
        said.append(f"In {where} both models got the same items right, and no detectable difference can be stated.")
    return " ".join(said)
