"""Ridge probes for numeric labels, their scores, and intervals of scores that are not means over rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from activations.errors import TwinprobeError
from probes.estimators import STRENGTHS, check_strengths
from probes.metrics import Interval, bootstrap_means, cluster_codes, percentile_interval
from probes.softmax import Decomposition, decompose, one_blas_thread


class RidgeProbe(RegressorMixin, BaseEstimator):
    """Linear probe for numbers: features standardised on the training rows, then least squares with an L2 penalty.

    The optimum is that of ``make_pipeline(StandardScaler(), Ridge(alpha=1 / C))``; the intercept is not penalised.

    Args:
        C: inverse regularisation strength of ``C * sum(squared error) + |w|^2``, w in standardised units.

    Attributes:
        coef_: weights in the units of the raw features, ``[d]``.
        intercept_: a number.
        n_features_in_: width ``d`` seen in fit.
    """

    def __init__(self, C: float = 1.0) -> None:
        self.C = C

    def fit(self, X: ArrayLike, y: ArrayLike) -> RidgeProbe:
        """Fit to rows ``X [n, d]`` and numbers ``y [n]``.

        Raises:
            ValueError: X or y is not finite and numeric, or C is not positive.
        """
        rows, numbers = validate_data(self, X, y, dtype=[np.float64, np.float32], y_numeric=True)
        if not self.C > 0:
            raise ValueError(f"C is {self.C!r}; expected a positive number")
        [(self.coef_, self.intercept_)] = _solve(decompose(rows), numbers, [self.C])
        return self

    def predict(self, X: ArrayLike) -> NDArray[np.float64]:
        """The expected number of every row, ``[n]``."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        with one_blas_thread():
            return np.asarray(rows @ self.coef_ + self.intercept_, dtype=np.float64)


def _solve(
    data: Decomposition, numbers: ArrayLike, strengths: Sequence[float]
) -> list[tuple[NDArray[np.float64], float]]:
    """Raw weights and intercept per strength; in the principal axes each weight has a closed form of its own."""
    target = np.asarray(numbers, dtype=np.float64)
    centre = float(target.mean())
    with one_blas_thread():
        slopes = data.scores.T @ (target - centre)
        solutions = []
        for strength in strengths:
            raw = data.axes @ (slopes / (len(target) * data.variances + 1.0 / strength)) / data.scale
            solutions.append((raw, centre - float(raw @ data.mean)))
    return solutions


def fit_ridge_path(data: Decomposition, numbers: ArrayLike, strengths: Sequence[float] = STRENGTHS) -> list[RidgeProbe]:
    """Fit one probe per strength, in the order given, on rows that are decomposed already."""
    probes = []
    for strength, (weights, intercept) in zip(strengths, _solve(data, numbers, strengths), strict=True):
        probe = RidgeProbe(C=strength)
        probe.coef_, probe.intercept_, probe.n_features_in_ = weights, intercept, len(weights)
        probes.append(probe)
    return probes


@dataclass(frozen=True, eq=False)
class RidgeChoice:
    """A ridge probe with the strength that did best on dev, and its R² there."""

    probe: RidgeProbe
    dev_score: float


def choose_ridge_strength(
    data: Decomposition,
    numbers: ArrayLike,
    dev_features: NDArray[np.floating[Any]],
    dev_numbers: ArrayLike,
    strengths: Sequence[float] = STRENGTHS,
) -> RidgeChoice:
    """Fit the path on the training rows, keep the probe with the highest R² on dev; ties go to the stronger penalty.

    Raises:
        TwinprobeError: the dev numbers are all equal, so that R² is undefined, or a strength is not positive.
    """
    check_strengths(strengths)
    if np.ptp(np.asarray(dev_numbers, dtype=np.float64)) == 0:
        raise TwinprobeError(
            "every dev row has the same number; expected at least two different ones, as R² compares with their "
            "variance: use more dev items"
        )
    path = fit_ridge_path(data, numbers, sorted(strengths))
    scores = [r_squared(dev_numbers, probe.predict(dev_features)) for probe in path]
    best = int(np.argmax(scores))
    return RidgeChoice(path[best], scores[best])


@dataclass(frozen=True)
class RidgeScores:
    """Test scores of a ridge probe: R² with its 95% interval over clusters, and Spearman's correlation."""

    r2: Interval
    spearman: float


def numbers(labels: NDArray[np.str_]) -> NDArray[np.float64] | None:
    """The labels as numbers ``[n]``; None unless all are, with at least three different values."""
    distinct = np.unique(labels)
    if len(distinct) < 3:
        return None
    try:
        return labels.astype(np.float64) if np.isfinite(distinct.astype(np.float64)).all() else None
    except ValueError:
        return None


def ridge_scores(
    data: Decomposition,
    train: NDArray[np.float64],
    dev_features: NDArray[np.floating[Any]],
    dev: NDArray[np.float64],
    test_features: NDArray[np.floating[Any]],
    test: NDArray[np.float64],
    clusters: NDArray[Any],
    strengths: Sequence[float] = STRENGTHS,
    n_resamples: int = 1000,
    seed: int = 0,
) -> RidgeScores | None:
    """Choose a ridge probe on dev and score it on test; None when dev or test have a single value only.

    Args:
        data: the decomposed training rows.
        train, dev, test: the numbers of each split's rows.
        dev_features, test_features: rows of the splits.
        clusters: what the interval resamples, one per test row.
        strengths: inverse regularisation strengths.
        n_resamples: bootstrap resamples.
        seed: seed of the bootstrap.
    """
    if np.ptp(dev) == 0 or np.ptp(test) == 0:
        return None
    probe = choose_ridge_strength(data, train, dev_features, dev, strengths).probe
    predicted = probe.predict(test_features)
    estimate, rank = r_squared(test, predicted), spearman(test, predicted)
    if len(np.unique(clusters)) == 1:
        return RidgeScores(Interval(estimate, float("nan"), float("nan")), rank)
    # R² of a resample needs three of its means only.
    error, mean, square = bootstrap_means(
        np.stack([(test - predicted) ** 2, test, test**2], axis=1), clusters, n_resamples, seed
    ).T
    variance = square - mean**2
    kept = variance > 1e-12 * np.mean(test**2)
    return RidgeScores(percentile_interval(estimate, 1.0 - error[kept] / variance[kept]), rank)


def r_squared(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Share of the variance of ``truth`` that is explained: 1 is perfect, 0 is the mean of ``truth``, below is worse.

    NaN when all of ``truth`` is equal.
    """
    expected, found = np.asarray(truth, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    total = float(np.sum((expected - expected.mean()) ** 2))
    return 1.0 - float(np.sum((expected - found) ** 2)) / total if total > 0 else float("nan")


def spearman(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Spearman's rank correlation, tied values at their mean rank.

    Predictions that are all equal order nothing and score 0; NaN when all of ``truth`` is equal.
    """
    expected, found = (ranks - ranks.mean() for ranks in (rankdata(truth), rankdata(predicted)))
    if not expected.any():
        return float("nan")
    norm = float(np.linalg.norm(expected) * np.linalg.norm(found))
    return float(expected @ found) / norm if norm > 0 else 0.0


def statistic_interval(
    statistic: Callable[[NDArray[Any], NDArray[Any]], float],
    truth: ArrayLike,
    predicted: ArrayLike,
    clusters: ArrayLike,
    n_resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """``statistic(truth, predicted)`` with a 95% percentile interval over resampled ``clusters [n]``.

    For scores that are not means over rows, such as R², Spearman's correlation or AUROC; for means
    :func:`probes.metrics.cluster_bootstrap` is faster. Resamples in which the statistic is NaN are left out. With a
    single cluster the bounds are NaN.

    Raises:
        TwinprobeError: there are no values, or not one cluster id per value.
    """
    expected, found = np.asarray(truth), np.asarray(predicted)
    codes = cluster_codes(clusters, len(expected))
    estimate = statistic(expected, found)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    rng = np.random.default_rng(seed)
    replicates = np.empty(n_resamples)
    for i in range(n_resamples):
        rows = np.concatenate([members[j] for j in rng.integers(len(members), size=len(members))])
        replicates[i] = statistic(expected[rows], found[rows])
    replicates = replicates[~np.isnan(replicates)]
    if len(members) == 1 or not len(replicates):
        return Interval(estimate, float("nan"), float("nan"))
    return percentile_interval(estimate, replicates)
