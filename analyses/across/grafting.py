"""What each part of a model brings: its behaviour with parts grafted from its counterpart, and on the way between the two.

Grafting takes some parts' weights from the other model, in both directions; interpolation takes all weights a share of
the way (Frankle et al. 2020, "Linear Mode Connectivity and the Lottery Ticket Hypothesis"; Wortsman et al. 2022, "Robust
fine-tuning of zero-shot models"). A part whose graft brings the answer holds something that the rest of the host can use.
One whose graft takes it away need not: a donor's part may only make sense among the donor's others. The control is a donor
that never saw code (the pair's null model): where its grafts do the same harm, the harm says nothing about code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pandas as pd

from activations.errors import TwinprobeError
from activations.models import LoadedModel
from analyses.across.mixing import check_mixing, mix, parts
from analyses.answers import answers
from analyses.prompts import Prompt
from probes.metrics import mean_intervals

UNTOUCHED = "none"
"""The graft that is none: the host as it is."""
MEASURED = {"right": "accuracy", "logit_difference": "logit_difference"}
"""The measures of a prompt, and what their means are called."""


def single_parts(loaded: LoadedModel) -> list[tuple[str, ...]]:
    """Every part alone, as grafts."""
    return [(part,) for part in parts(loaded)]


def graft(
    base: LoadedModel,
    code: LoadedModel,
    prompts: Sequence[Prompt],
    grafts: Sequence[Sequence[str]],
    *,
    hosts: Sequence[str] = ("base", "code"),
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Answers of each model to every prompt, untouched and with each graft (a set of parts) from the other.

    ``prompts`` are both models' (:func:`analyses.across.compatibility.shared_prompts`). The models are left as they were found.
    ``hosts`` are grafted into; ``progress`` is told of readings of the prompts done and in all.

    Returns:
        One line per host (``base`` or ``code``: the model that is grafted into), graft (its parts joined by ``+``;
        ``none`` for the untouched host) and prompt, with the columns of :func:`analyses.answers.answers` and what the
        graft changed: right_change, logit_difference_change.

    Raises:
        TwinprobeError: the models are not compatible or differ in more than their weights, or a part is not known.
    """
    _check(base, code, prompts)
    frames: list[pd.DataFrame] = []
    different = list(dict.fromkeys(map(tuple, grafts)))
    total = len(hosts) * (1 + len(different))
    for name in hosts:
        host, donor = (base, code) if name == "base" else (code, base)
        before = answers(host, prompts)
        frames.append(_changes(before, before).assign(host=name, graft=UNTOUCHED))
        progress(len(frames), total)
        for taken in different:
            after = answers(mix(host, donor, dict.fromkeys(taken, 1.0)), prompts)
            frames.append(_changes(after, before).assign(host=name, graft="+".join(taken)))
            progress(len(frames), total)
    return pd.concat(frames, ignore_index=True)


def interpolate(
    base: LoadedModel,
    code: LoadedModel,
    prompts: Sequence[Prompt],
    alphas: Sequence[float],
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Answers to every prompt with all weights ``(1 - alpha) * base + alpha * code``.

    Returns:
        One line per alpha and prompt, with the columns of :func:`analyses.answers.answers` and what changed from ``base``:
        right_change, logit_difference_change.

    Raises:
        TwinprobeError: the models are not compatible or differ in more than their weights, or an alpha is
            missing or not in 0 to 1.
    """
    _check(base, code, prompts)
    if not alphas:
        raise TwinprobeError("no alphas to interpolate at; expected at least one number from 0 to 1")
    before = answers(base, prompts)
    frames = []
    different = list(dict.fromkeys(alphas))
    for done, alpha in enumerate(different, 1):
        after = answers(mix(base, code, dict.fromkeys(parts(base), alpha)), prompts)
        frames.append(_changes(after, before).assign(alpha=alpha))
        progress(done, len(different))
    return pd.concat(frames, ignore_index=True)


def summary(
    rows: pd.DataFrame,
    by: Sequence[str],
    *,
    clusters: Literal["item", "group"],
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Means over the prompts of each setting, with 95% intervals that resample clusters.

    ``by`` names the columns of a setting: host and graft, or alpha.

    Returns:
        Those columns; prompts, clusters; accuracy (right in both texts), accuracy_clean, accuracy_corrupted;
        logit_difference; accuracy_change and logit_difference_change, paired by prompt with the untouched host. All
        but the accuracies of one text come with ``_low`` and ``_high``.
    """
    lines = []
    for setting, part in rows.groupby(list(by), sort=False):
        line: dict[str, Any] = {
            **dict(zip(by, setting, strict=True)), "prompts": len(part), "clusters": part[clusters].nunique(),
            "accuracy_clean": part.clean_right.mean(), "accuracy_corrupted": part.corrupted_right.mean(),
        }  # fmt: skip
        columns = {column + change: name + change for change in ("", "_change") for column, name in MEASURED.items()}
        intervals = mean_intervals(part[list(columns)].to_numpy(float), part[clusters], n_resamples, seed)
        for name, interval in zip(columns.values(), intervals, strict=True):
            line |= {name: interval.estimate, f"{name}_low": interval.low, f"{name}_high": interval.high}
        lines.append(line)
    return pd.DataFrame(lines)


def _check(base: LoadedModel, code: LoadedModel, prompts: Sequence[Prompt]) -> None:
    if not prompts:
        raise TwinprobeError(
            "no prompts to answer; expected at least one, see the reasons for which items were dropped"
        )
    longest = max((prompt.clean for prompt in prompts), key=len)
    check_mixing(base, code, longest)
    check_mixing(code, base, longest)


def _changes(after: pd.DataFrame, before: pd.DataFrame) -> pd.DataFrame:
    """``after`` with what is changed from ``before``, the same prompts in the same order."""
    changes = {f"{column}_change": after[column].astype(float) - before[column].astype(float) for column in MEASURED}
    return after.assign(**changes)
