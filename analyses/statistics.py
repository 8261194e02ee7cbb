"""Comparing two models on the same items, with the errors clustered as the items are.

Both models see the same items, so comparisons are paired (Dror et al. 2018, "The Hitchhiker's Guide to Testing
Statistical Significance in NLP"); rows of one item are not independent, so resampling, sign flips and standard errors
treat whole clusters (Miller 2024, "Adding Error Bars to Evals").
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from activations.errors import TwinprobeError
from probes.metrics import cluster_bootstrap, cluster_codes

#: Up to this many clusters all sign patterns are enumerated, and the p value is exact.
EXACT_CLUSTERS = 12
#: Largest number of entries of a block of random signs (8 bytes each).
_BLOCK = 2_000_000


@dataclass(frozen=True)
class Comparison:
    """Code model minus base model on the same rows.

    Attributes:
        difference: mean of ``code - base`` over rows.
        low, high: 95% percentile interval over resampled clusters; NaN with one cluster.
        p: two-sided p of the cluster-level sign-flip permutation test.
        n_items: rows compared.
        n_clusters: clusters resampled and flipped.
        minimum_detectable_effect: the true difference that a two-sided 5% test would detect with 80% power.
    """

    difference: float
    low: float
    high: float
    p: float
    n_items: int
    n_clusters: int
    minimum_detectable_effect: float


def paired_comparison(
    base: ArrayLike,
    code: ArrayLike,
    clusters: ArrayLike,
    seed: int = 0,
    n_resamples: int = 1000,
    n_flips: int = 10_000,
) -> Comparison:
    """Compare two models row by row.

    Args:
        base: score of the base model on every row, ``[n]`` (0 and 1, or real numbers).
        code: score of the code model on the same rows, ``[n]``.
        clusters: cluster id of every row, ``[n]``.
        seed: seed of the bootstrap and of the sign flips.
        n_resamples: bootstrap resamples of the interval.
        n_flips: random sign patterns, when there are too many clusters to enumerate them.

    Raises:
        TwinprobeError: the lengths differ, there are no rows, or a score is not finite.
    """
    scores = [np.asarray(values, dtype=np.float64) for values in (base, code)]
    if scores[0].shape != scores[1].shape or scores[0].ndim != 1:
        raise TwinprobeError(
            f"base and code have shapes {scores[0].shape} and {scores[1].shape}; expected one score per row in both"
        )
    difference = scores[1] - scores[0]
    if not np.isfinite(difference).all():
        bad = int((~np.isfinite(difference)).sum())
        raise TwinprobeError(f"{bad} of {len(difference)} paired scores are NaN or infinite; drop and count those rows")
    codes = cluster_codes(clusters, len(difference))
    interval = cluster_bootstrap(difference, codes, n_resamples, seed)
    return Comparison(
        difference=interval.estimate,
        low=interval.low,
        high=interval.high,
        p=sign_flip_p(difference, codes, seed, n_flips),
        n_items=len(difference),
        n_clusters=int(codes.max()) + 1,
        minimum_detectable_effect=minimum_detectable_effect(difference, codes),
    )


def sign_flip_p(difference: ArrayLike, clusters: ArrayLike, seed: int = 0, n_flips: int = 10_000) -> float:
    """Two-sided p that paired differences are symmetric around zero, flipping the sign of whole clusters.

    With at most :data:`EXACT_CLUSTERS` clusters that differ at all, every sign pattern is tried and the p is exact.
    Otherwise ``n_flips`` random ones are, and the observed one counts among them, ``(1 + hits) / (1 + n_flips)``: an
    estimated p must never be zero (Phipson & Smyth 2010). Patterns that tie with the observed sum count as hits.
    """
    values = np.asarray(difference, dtype=np.float64)
    codes = cluster_codes(clusters, len(values))
    sums = np.bincount(codes, weights=values)
    tolerance = 1e-9 * float(np.abs(sums).sum())
    observed = abs(float(sums.sum())) - tolerance
    sums = sums[np.abs(sums) > tolerance]  # a cluster without a difference is the same under either sign
    if not len(sums):
        return 1.0
    if len(sums) <= EXACT_CLUSTERS:
        patterns = np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums)) & 1
        return float(np.mean(np.abs((2.0 * patterns - 1.0) @ sums) >= observed))
    rng = np.random.default_rng(seed)
    hits, block = 0, max(1, _BLOCK // len(sums))
    for start in range(0, n_flips, block):
        shape = (min(block, n_flips - start), len(sums))
        signs = 2.0 * rng.integers(2, size=shape, dtype=np.int8) - 1.0
        hits += int((np.abs(signs @ sums) >= observed).sum())
    return (1 + hits) / (1 + n_flips)


def clustered_standard_error(values: ArrayLike, clusters: ArrayLike) -> float:
    """Standard error of the mean of ``values [n]`` with rows correlated inside clusters; NaN with one cluster.

    Miller 2024's clustered standard error, times ``sqrt(c / (c - 1))`` for ``c`` clusters, as it is too small for few.
    """
    table = np.asarray(values, dtype=np.float64)
    codes = cluster_codes(clusters, len(table))
    residuals = np.bincount(codes, weights=table - table.mean())
    count = len(residuals)
    if count == 1:
        return float("nan")
    return float(np.sqrt((residuals**2).sum() * count / (count - 1)) / len(table))


def minimum_detectable_effect(
    difference: ArrayLike, clusters: ArrayLike, alpha: float = 0.05, power: float = 0.8
) -> float:
    """True difference that a two-sided test at ``alpha`` detects with ``power``, from the clustered standard error.

    ``(z[1 - alpha / 2] + z[power]) * SE``, the sample-size formula of Miller 2024 solved for the effect.
    """
    factor = norm.ppf(1 - alpha / 2) + norm.ppf(power)
    return float(factor * clustered_standard_error(difference, clusters))


def wilson(right: ArrayLike, items: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Wilson's (1927) 95% intervals of shares of independent items: lower and upper bounds, in the shape of the counts."""
    k, n = np.asarray(right, dtype=np.float64), np.asarray(items, dtype=np.float64)
    z = float(norm.ppf(0.975))
    centre = (k + z**2 / 2) / (n + z**2)
    half = z / (n + z**2) * np.sqrt(k * (n - k) / n + z**2 / 4)
    return np.where(k == 0, 0.0, centre - half), np.where(k == n, 1.0, centre + half)


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    """Holm's step-down adjustment (Holm 1979) of a family of p values, in their order.

    A NaN (a test that could not be run) stays NaN and does not count as a member of the family.

    Raises:
        TwinprobeError: a p value lies outside 0 to 1.
    """
    given: NDArray[Any] = np.asarray(p_values, dtype=np.float64)
    valid = np.flatnonzero(~np.isnan(given))
    if ((given[valid] < 0) | (given[valid] > 1)).any():
        raise TwinprobeError(f"p values {given.tolist()} reach outside 0 to 1; pass unadjusted p values")
    adjusted = np.full(given.shape, np.nan)
    order = valid[np.argsort(given[valid], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(given[order] * factors), 1.0)
    return adjusted
