"""The names, numbers and first sentences of a report; those on the evidence are in ``words_decodable`` and ``words_causal``.

Every sentence is made from numbers of ``results.json``. "Decodable" is never called "used".
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass
from typing import Any

import pandas as pd

Line = Mapping[str, Any]

MODELS = {
    "base": "base",
    "code": "code",
    "second_seed": "second seed of base",
    "random": "random-initialised",
}


@dataclass(frozen=True)
class Wording:
    """How a measure is called: as a title, in the middle of a sentence, its unit, and what counts as favourable."""

    title: str
    meaning: str
    unit: str
    favourable: str = "higher"


MEASURES = {
    "probe": Wording("Probes", "what a linear probe reads off the activations", "accuracy"),
    "transfer": Wording("Transfer", "a probe trained on one form, tested on another", "accuracy"),
    "behaviour": Wording("Behaviour", "prompts answered rightly in both their texts", "share of prompts"),
    "arrival": Wording(
        "Arrival", "how early on the way up the answer reaches the last token", "mean recovery", "earlier"
    ),
    "benchmark": Wording("Benchmarks", "questions of benchmarks answered rightly", "score"),
    "bits per byte": Wording("Bits per byte", "how well held-out text is predicted", "bits per byte", "lower"),
}


def number(value: float | None, digits: int = 3) -> str:
    """A number with a real minus sign, or a dash for what is missing."""
    if value is None or pd.isna(value):
        return "–"
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float | None, digits: int = 3) -> str:
    """A difference, always with its sign."""
    return "–" if value is None or pd.isna(value) else f"{round(value, digits) + 0.0:+.{digits}f}".replace("-", "−")


def interval(low: float | None, high: float | None, digits: int = 3) -> str:
    """``low to high``; a dash where there was a single cluster and hence no interval."""
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return "–"
    return f"{number(low, digits)} to {number(high, digits)}"


def count(amount: int, noun: str) -> str:
    """``1 item``, ``2 items``."""
    return f"{amount} {noun}" + ("" if amount == 1 else "s")


def lines(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of a table as dictionaries."""
    return [{str(name): value for name, value in line.items()} for line in table.to_dict("records")]


def what(line: Line) -> str:
    """What a line of the comparisons is about, such as ``binding value, code → prose``."""
    known = {name: line.get(name) for name in ("task", "target", "source", "form")}
    task, target, source, form = (None if pd.isna(value) else str(value) for value in known.values())
    about = " ".join(part for part in (task, target) if part)
    where = f"{source} → {form}" if source else form
    return ", ".join(part for part in (about, where) if part)


def written(forms: Set[str]) -> str:
    """How the problems of a study were written."""
    if forms <= {"code", "prose"}:
        return "as code and as prose"
    return "as code, as prose and in a formal notation" if forms <= {"code", "prose", "formal"} else "in several forms"


def best_surface(probes: pd.DataFrame) -> pd.Series:
    """The best of the surface baselines, line by line."""
    return probes[["majority", "bag_of_tokens", "token", "position"]].max(axis=1)


def verdict(results: Line) -> str:
    """The first sentence: how many of all differences stand, and how that compares with two seeds of one model."""
    found = results["findings"]
    total, clear = (sum(entry[name] for entry in found) for name in ("comparisons", "clear"))
    if not total:
        return "Nothing could be compared: the two models have too few rows in common."
    if clear:
        code, base = (sum(entry[f"{side}_better"] for entry in found) for side in ("code", "base"))
        sides = [(amount, side) for amount, side in ((code, "code"), (base, "base")) if amount]
        split = [f"{'all' if amount == clear > 1 else amount} in favour of {side}" for amount, side in sides]
        said = (
            f"Of {count(total, 'comparison')} between the two models, {clear} {'stands' if clear == 1 else 'stand'} after "
            f"correction for their number, {' and '.join(split)}."
        )
    else:
        said = (
            f"None of the {count(total, 'comparison')} between the two models stands after correction for their number: "
            "this study shows no difference between them."
        )
    beyond = [entry["clear_beyond_null"] for entry in found if entry["clear"]]
    if clear and None not in beyond:
        many = sum(beyond)
        whose = "All" if many == clear > 1 else str(many or "None")
        said += (
            f" {whose} of {'these' if clear > 1 else 'them'} {'is' if many < 2 else 'are'} larger than the same difference "
            "between two seeds of base."
        )
    return said


def finding(entry: Line) -> str:
    """What one kind of measure says about the pair."""
    words = MEASURES.get(entry["measure"], Wording(entry["measure"], entry["measure"], "units"))
    clear, total = entry["clear"], entry["comparisons"]
    mean = f"the mean difference is {signed(entry['mean_difference'])}"
    effect = entry["median_minimum_detectable_effect"]
    if clear:
        text = (
            f"{clear} of {count(total, 'difference')} in {words.unit} {'stands' if clear == 1 else 'stand'} "
            f"(code {words.favourable} in {entry['code_better']}, base {words.favourable} in {entry['base_better']}"
        )
        beyond = entry["clear_beyond_null"]
        text += f"; {beyond} larger than between two seeds of base); {mean}" if beyond is not None else f"); {mean}"
    else:
        text = f"none of {count(total, 'difference')} in {words.unit} stands; {mean}"
    if effect:
        return f"{text}; detectable {number(effect)}."
    return f"{text}; on most of them the two models agree row by row, so no detectable difference can be stated."


def calibration(entry: Line | None) -> str:
    """How often two seeds of one model are told apart."""
    if entry is None:
        return (
            "This study has no null pair (two seeds of one model), so it is unknown how far two trainings on the same text "
            "would differ."
        )
    total, alpha = entry["comparisons"], entry["alpha"]
    raw, clear = entry["below_alpha"], entry["below_alpha_after_holm"]
    said = (
        f"Calibration: two seeds of base, compared in the same way, differ at p < {alpha:g} in {raw} of "
        f"{count(total, 'comparison')} (about {number(alpha * total, 1)} would by chance if training seeds changed nothing), "
        f"and in {clear} after Holm correction."
    )
    if clear:
        said += (
            " So a difference can stand without any difference in training text: read each beside the grey second seed."
        )
    return said
