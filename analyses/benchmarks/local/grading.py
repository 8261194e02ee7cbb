"""From log-likelihoods and written answers to a score per item, and from those to a score with its error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from analyses.benchmarks.local.questions import Prompt
from analyses.benchmarks.multiple_choice import Item, grade
from analyses.statistics import clustered_standard_error, wilson

KEYS = ["subject", "item"]


def grade_choices(items: Sequence[Item], likelihoods: pd.DataFrame) -> pd.DataFrame:
    """The metrics of every item.

    Args:
        items: what was asked.
        likelihoods: as :func:`analyses.benchmarks.multiple_choice.score_choices` gives it for them.

    Returns:
        subject, item, chance, picked, acc; acc_norm (log-likelihoods per character, as the harness has it), acc_bytes (per
        byte), mc2 (the right choices' share of the probability of all choices, Lin et al. 2022), confidence (the picked
        choice's share of it), cut.
    """
    by_bytes = grade(likelihoods)
    lengths = [len(choice) for item in items for choice in item.choices]
    by_characters = grade(likelihoods.assign(bytes=lengths))
    key = [likelihoods[name] for name in KEYS]
    own = likelihoods.log_likelihood
    # Whatever is equal for all choices of an item cancels; without it the exponentials of long choices would be 0.
    mass = (own - own.groupby(key, sort=False).transform("max")).map(math.exp)
    by_item = mass.groupby(key, sort=False)
    shares = (mass * likelihoods.gold).groupby(key, sort=False).sum() / by_item.sum()
    return by_bytes[[*KEYS, "chance", "picked", "acc"]].assign(
        acc_norm=by_characters.acc_norm, acc_bytes=by_bytes.acc_norm, mc2=shares.to_numpy(),
        confidence=(by_item.max() / by_item.sum()).to_numpy(), cut=by_bytes.cut,
    )  # fmt: skip


def grade_answers(
    prompts: Sequence[Prompt], answers: Sequence[str], marks: Mapping[Any, Callable[[str], str]]
) -> pd.DataFrame:
    """Which written answers agree with the right ones, in what each of ``marks`` makes of both.

    Returns:
        subject, item, a column per mark (1.0 where they agree) and written, the answer.
    """
    rows = []
    for prompt, answer in zip(prompts, answers, strict=True):
        agree = {name: float(mark(answer) == mark(prompt.answer)) for name, mark in marks.items()}
        rows.append({"subject": prompt.subject, "item": prompt.id, **agree, "written": answer})
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> dict[str, Any]:
    """The mean score of a per-item table with its error.

    Errors are clustered by ``group`` (Miller 2024). The interval of scores that are
    all 0 or 1 is Wilson's (1927), for the number of independent items that would have that standard error; that of other
    scores is normal.

    Returns:
        items, subjects, clusters, score, standard_error, low, high (95%), chance (NaN without), mean_of_subjects, cut (share
        of items whose text was cut).
    """
    scores = table.score.to_numpy(float)
    subjects = table.subject.nunique()
    mean, error = float(scores.mean()), clustered_standard_error(scores, table.group)
    low, high = _interval(scores, mean, error)
    return {
        "items": len(scores), "subjects": subjects, "clusters": int(table.group.nunique()), "score": mean,
        "standard_error": error, "low": low, "high": high, "chance": float(table.chance.mean()),
        "mean_of_subjects": float(table.groupby("subject").score.mean().mean()), "cut": float((table.cut > 0).mean()),
    }  # fmt: skip


def _interval(scores: np.ndarray[Any, Any], mean: float, error: float) -> tuple[float, float]:
    if not set(np.unique(scores)) <= {0.0, 1.0}:
        half = float(norm.ppf(0.975)) * error
        return max(0.0, mean - half), min(1.0, mean + half)
    spread = mean * (1 - mean)
    # Where the error says nothing (one cluster, all right or all wrong), items count as independent.
    independent = spread / error**2 if spread and error and not math.isnan(error) else len(scores)
    count = min(independent, len(scores))
    low, high = wilson(mean * count, count)
    return float(low), float(high)
