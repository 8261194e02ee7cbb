"""Scores of predictions, and bootstrap intervals that resample whole items.

Rows of one item (or document) share a text and are not independent. The intervals therefore resample clusters of rows,
not rows (cluster bootstrap; Miller 2024, "Adding Error Bars to Evals", argues the same for standard errors).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import f1_score

from activations.errors import TwinprobeError

#: Largest number of entries of a block of resampling weights (8 bytes each).
_BLOCK = 4_000_000


@dataclass(frozen=True)
class Interval:
    """A point estimate with its 95% interval; the bounds are NaN when they can not be estimated."""

    estimate: float
    low: float
    high: float


def accuracy(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Share of rows that are predicted right."""
    return float(np.mean(np.asarray(truth) == np.asarray(predicted)))


def macro_f1(truth: NDArray[Any], predicted: NDArray[Any]) -> float:
    """Mean F1 over all classes that occur in ``truth`` or ``predicted``; a class without a hit counts 0."""
    return float(f1_score(truth, predicted, average="macro", zero_division=0))


def bootstrap_means(values: ArrayLike, clusters: ArrayLike, n_resamples: int, seed: int) -> NDArray[np.float64]:
    """Means of the columns of ``values [n, m]`` over resampled clusters, ``[n_resamples, m]``.

    Every resample draws as many clusters as there are, with replacement, and averages over all their rows; the columns
    see the same resamples, so that differences and ratios of columns are paired. Same seed, same resamples.
    """
    table = np.asarray(values, dtype=np.float64)
    codes = cluster_codes(clusters, len(table))
    n_clusters = int(codes.max()) + 1
    sizes = np.bincount(codes, minlength=n_clusters).astype(np.float64)
    sums = np.stack([np.bincount(codes, weights=column, minlength=n_clusters) for column in table.T], axis=1)
    blocks = [
        (weights @ sums) / (weights @ sizes)[:, None] for weights in _resampling_weights(n_clusters, n_resamples, seed)
    ]
    return np.concatenate(blocks)


def _resampling_weights(n_clusters: int, n_resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Blocks of rows of how often each cluster is drawn: multinomial counts, in bounded memory."""
    rng = np.random.default_rng(seed)
    block = max(1, _BLOCK // n_clusters)
    for start in range(0, n_resamples, block):
        rows = min(block, n_resamples - start)
        drawn = rng.integers(n_clusters, size=(rows, n_clusters)) + np.arange(rows)[:, None] * n_clusters
        yield np.bincount(drawn.ravel(), minlength=rows * n_clusters).reshape(rows, n_clusters).astype(np.float64)


def cluster_codes(clusters: ArrayLike, n_rows: int) -> NDArray[np.int64]:
    """Number the clusters from 0; raises :class:`TwinprobeError` unless there is one per row, and at least one row."""
    _, codes = np.unique(np.asarray(clusters), return_inverse=True)
    if len(codes) != n_rows or n_rows == 0:
        raise TwinprobeError(f"{n_rows} values for {len(codes)} cluster ids; expected as many, and at least one")
    return codes.astype(np.int64)


def percentile_interval(estimate: float, replicates: NDArray[np.float64]) -> Interval:
    """The 2.5% and 97.5% percentiles of bootstrap replicates around an estimate."""
    low, high = np.percentile(replicates, [2.5, 97.5])
    return Interval(estimate, float(low), float(high))


def mean_intervals(values: ArrayLike, clusters: ArrayLike, n_resamples: int = 1000, seed: int = 0) -> list[Interval]:
    """One percentile interval per column of ``values [n, m]``, all from the same resampled clusters.

    With a single cluster there is nothing to resample: the bounds are NaN. With fewer than about 20 the percentile
    interval is too narrow; report the number of clusters beside it.
    """
    table = np.asarray(values, dtype=np.float64)
    codes = cluster_codes(clusters, len(table))
    estimates = table.mean(axis=0)
    if codes.max() == 0:
        return [Interval(float(estimate), float("nan"), float("nan")) for estimate in estimates]
    replicates = bootstrap_means(table, codes, n_resamples, seed)
    return [
        percentile_interval(float(estimate), column) for estimate, column in zip(estimates, replicates.T, strict=True)
    ]


def cluster_bootstrap(values: ArrayLike, clusters: ArrayLike, n_resamples: int = 1000, seed: int = 0) -> Interval:
    """Mean of ``values [n]`` with a 95% percentile interval over resampled ``clusters [n]``.

    Raises:
        TwinprobeError: there are no values, or not one cluster id per value.
    """
    [interval] = mean_intervals(np.asarray(values, dtype=np.float64)[:, None], clusters, n_resamples, seed)
    return interval


def selectivity(
    correct: ArrayLike, control_correct: ArrayLike, clusters: ArrayLike, n_resamples: int = 1000, seed: int = 0
) -> Interval:
    """Task accuracy minus control accuracy (Hewitt & Liang 2019), paired by row, interval over resampled clusters."""
    gain = np.asarray(correct, dtype=np.float64) - np.asarray(control_correct, dtype=np.float64)
    return cluster_bootstrap(gain, clusters, n_resamples, seed)
