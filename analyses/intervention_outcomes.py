"""What an intervention did to the answers and to the probe: a line per prompt and kind, and what they come to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.intervention_cases import Case
from analyses.last_position import EditedRuns
from probes.estimators import LogisticProbe
from probes.metrics import mean_intervals

KINDS = ("remove", "steer")
"""The kinds of edit. A prompt's variants are: as it is, then of each kind the probe's edit and the random ones."""


def outcomes(
    runs: EditedRuns, chosen: Sequence[Case], probe: LogisticProbe, ranks: Mapping[str, int]
) -> dict[int, list[dict[str, Any]]]:
    """The lines of each prompt of ``runs``, by its number."""
    logits, states = (tensor.float().cpu() for tensor in (runs.logits, runs.states))
    moved = (states - states[:, :1]).norm(dim=-1).numpy()
    beliefs = probe.predict_proba(states.flatten(0, 1).numpy()).reshape(*moved.shape, -1)
    totals = logits.logsumexp(-1).numpy()
    return {
        number: _lines(
            chosen[number], scores, total, far, dict(zip(probe.classes_.tolist(), belief.T, strict=True)), ranks
        )
        for number, scores, total, far, belief in zip(runs.numbers, logits.numpy(), totals, moved, beliefs, strict=True)
    }


def _lines(
    case: Case,
    logits: NDArray[np.float32],
    totals: NDArray[np.float32],
    moved: NDArray[np.float32],
    beliefs: Mapping[str, NDArray[np.float64]],
    ranks: Mapping[str, int],
) -> list[dict[str, Any]]:
    """A line per kind from one prompt's variants: ``logits [variant, vocab]``, the rest ``[variant]``."""
    prompt = case.prompt
    read = np.array(list(beliefs))[np.argmax(list(beliefs.values()), axis=0)]
    difference = prompt.logit_difference(logits)
    logprob = logits[:, prompt.answer] - totals
    right = np.array([prompt.right(scores) for scores in logits])
    per_kind = (len(logits) - 1) // len(KINDS)
    lines = []
    for number, kind in enumerate(KINDS):
        after = 1 + number * per_kind
        control = slice(after + 1, after + per_kind)
        fooled = read != case.label if kind == "remove" else read == case.contrast
        line: dict[str, Any] = {
            "kind": kind,
            "item": prompt.item,
            "group": prompt.group,
            "difficulty": prompt.difficulty,
            "label": case.label,
            "contrast_label": case.contrast,
            "rank": ranks[kind],
            "amount": moved[after],
            "amount_control": moved[control].mean(),
        }
        measured = {
            "": difference,
            "logprob_": logprob,
            "right_": right,
            "fooled_": fooled,
            "belief_": beliefs[case.label],
        }
        for name, values in measured.items():
            means = {"before": values[0], "after": values[after], "control": values[control].mean()}
            line |= {f"{name}{when}": float(value) for when, value in means.items()}
        lines.append({**line, "read_before": read[0], "read_after": read[after]})
    return lines


def summary(rows: pd.DataFrame, clusters: str, n_resamples: int, seed: int) -> dict[str, Any]:
    """Means of one kind's rows, and intervals of its changes."""
    logits, logprob = (
        [rows[f"{prefix}after"] - rows[f"{prefix}before"], rows[f"{prefix}control"] - rows[f"{prefix}before"]]
        for prefix in ("", "logprob_")
    )
    changes = np.stack([*logits, logits[0] - logits[1], *logprob, logprob[0] - logprob[1]], axis=1)
    change, control, difference, logprob_change, logprob_control, logprob_difference = mean_intervals(
        changes, rows[clusters], n_resamples, seed
    )
    means = rows.filter(regex="^(amount|right|fooled|belief)").mean()
    return {
        "prompts": len(rows),
        "clusters": rows[clusters].nunique(),
        "rank": rows["rank"].iloc[0],
        "amount": means["amount"],
        "amount_control": means["amount_control"],
        "accuracy_before": means["right_before"],
        "accuracy_after": means["right_after"],
        "accuracy_control": means["right_control"],
        "change": change.estimate,
        "low": change.low,
        "high": change.high,
        "control": control.estimate,
        "difference": difference.estimate,
        "diff_low": difference.low,
        "diff_high": difference.high,
        "logprob_change": logprob_change.estimate,
        "logprob_low": logprob_change.low,
        "logprob_high": logprob_change.high,
        "logprob_control": logprob_control.estimate,
        "logprob_difference": logprob_difference.estimate,
        "logprob_diff_low": logprob_difference.low,
        "logprob_diff_high": logprob_difference.high,
        "fooled_before": means["fooled_before"],
        "fooled": means["fooled_after"],
        "fooled_control": means["fooled_control"],
        "belief_before": means["belief_before"],
        "belief": means["belief_after"],
        "belief_control": means["belief_control"],
    }
