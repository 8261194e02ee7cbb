"""Does a probe say more about whether a model is right than the model's own confidence does? Logistic regression."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from scipy.stats import norm

from probes.metrics import Interval, cluster_codes

_Z = float(norm.ppf(0.975))
_STEPS = 50
_FARTHEST = 15.0
"""A coefficient of standardised predictors beyond this has no maximum: right and wrong are parted by a threshold."""


def standardised_coefficients(
    predictors: Sequence[ArrayLike], outcome: ArrayLike, clusters: ArrayLike
) -> list[Interval]:
    """Logistic regression of ``outcome`` on standardised predictors, by maximum likelihood (Newton's steps).

    Args:
        predictors: each ``[n]``; a coefficient is the change of the log odds for one standard deviation.
        outcome: truth values, ``[n]``.
        clusters: of the standard errors, ``[n]``: the sandwich estimate of Liang & Zeger (1986) with independence as
            working correlation, times ``c / (c - 1)`` for ``c`` clusters.

    Returns:
        A coefficient per predictor with its normal 95% interval; all NaN where the outcome or a predictor is constant,
        predictors are collinear or part right from wrong without error, or there are no more clusters than coefficients.
    """
    y, codes = np.asarray(outcome, dtype=np.float64), cluster_codes(clusters, len(np.asarray(outcome)))
    raw = np.stack([np.asarray(each, dtype=np.float64) for each in predictors], axis=1)
    unknown = [Interval(float("nan"), float("nan"), float("nan"))] * len(predictors)
    if not np.isfinite(raw).all():
        return unknown
    spread, count = raw.std(axis=0), int(codes.max()) + 1
    if (spread <= 1e-12).any() or y.std() == 0 or count <= len(predictors) + 1:
        return unknown
    x = np.column_stack([np.ones(len(y)), (raw - raw.mean(axis=0)) / spread])
    if np.linalg.matrix_rank(x) < x.shape[1]:
        return unknown
    found = _maximum(x, y)
    if found is None:
        return unknown
    probability = expit(x @ found)
    bread = np.linalg.inv((x * (probability * (1 - probability))[:, None]).T @ x)
    scores = np.zeros((count, x.shape[1]))
    np.add.at(scores, codes, x * (y - probability)[:, None])
    errors = np.sqrt(np.diag(bread @ (scores.T @ scores) @ bread) * count / (count - 1))
    return [
        Interval(float(value), float(value - _Z * error), float(value + _Z * error))
        for value, error in zip(found[1:], errors[1:], strict=True)
    ]


def _maximum(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Coefficients at the maximum of the likelihood, None where there is none."""
    found = np.zeros(x.shape[1])
    for _ in range(_STEPS):
        probability = expit(x @ found)
        information = (x * (probability * (1 - probability))[:, None]).T @ x
        try:
            step = np.linalg.solve(information, x.T @ (y - probability))
        except np.linalg.LinAlgError:
            return None
        found = found + step / max(1.0, float(np.abs(step).max()))  # a whole Newton step may overshoot
        if np.abs(found).max() > _FARTHEST:
            return None
        if np.abs(step).max() < 1e-8:
            return found
    return None
