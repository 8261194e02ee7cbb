"""Do two systems differ in a corpus score? Paired bootstrap and approximate randomisation over the same items.

A corpus score need not be a mean over items (BLEU is none), so every resample and every shuffle adds up the items' statistics
and computes the score anew. Rows of one item's group are not independent: whole groups are drawn and swapped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from activations.errors import TwinprobeError
from analyses.statistics import EXACT_CLUSTERS
from probes.metrics import cluster_codes

Floats = NDArray[np.float64]
Score = Callable[[Floats], Floats]
"""Corpus scores ``[m]`` from summed statistics ``[m, k]``."""

_BLOCK = 4_000_000
"""Largest number of entries of a block of drawn numbers (8 bytes each)."""


@dataclass(frozen=True)
class PairedScores:
    """Second system minus first.

    Attributes:
        first, second: corpus scores.
        difference: ``second - first``.
        low, high: 95% percentile interval of the difference over resampled groups.
        better: share of resamples in which the second system scores higher, ties counting half (Koehn 2004).
        p_bootstrap: two-sided, of the resampled differences moved so that their mean is 0.
        p_randomisation: two-sided, of the differences after swapping the systems in random groups; exact for few groups.
        items, groups: how many.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    better: float
    p_bootstrap: float
    p_randomisation: float
    items: int
    groups: int


def mean_score(totals: Floats) -> Floats:
    """Means ``[m]`` from summed ``(value, 1)`` ``[m, 2]``."""
    return totals[:, 0] / totals[:, 1]


def compare_scores(
    first: ArrayLike,
    second: ArrayLike,
    score: Score,
    groups: ArrayLike,
    *,
    seed: int = 0,
    n_resamples: int = 10_000,
    n_shuffles: int = 10_000,
) -> PairedScores:
    """Compare two systems on the same items.

    Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation" (paired bootstrap); Riezler & Maxwell 2005,
    "On Some Pitfalls in Automatic Evaluation and Significance Testing for MT" (approximate randomisation, and the bootstrap
    moved to the null hypothesis). Differences count by their size, whichever system they favour. Between equal systems the
    randomisation finds a difference in 5% of tests, the bootstrap of few groups in somewhat more (docs/BENCHMARKS.md).

    Args:
        first: statistics of the first system, ``[items, k]``.
        second: statistics of the second system on the same items, ``[items, k]``.
        score: corpus score from summed statistics.
        groups: what is drawn and swapped together, one id per item.
        seed: seed of both tests.
        n_resamples: resamples of the bootstrap.
        n_shuffles: random swaps, where there are too many groups to try all.

    Raises:
        TwinprobeError: the shapes differ, or there are no items.
    """
    both = [np.asarray(statistics, dtype=np.float64) for statistics in (first, second)]
    if both[0].ndim != 2 or both[0].shape != both[1].shape:
        raise TwinprobeError(
            f"statistics of two systems have shapes {both[0].shape} and {both[1].shape}; expected [items, k] for both"
        )
    codes = cluster_codes(groups, len(both[0]))
    a, b = (_summed(statistics, codes) for statistics in both)
    scores = [float(score(sums.sum(0, keepdims=True))[0]) for sums in (a, b)]
    difference = scores[1] - scores[0]
    drawn = resampled_differences(a, b, score, seed, n_resamples)
    shuffled = shuffled_differences(a, b, score, seed, n_shuffles)
    # An observed difference must not lose a tie with itself to rounding.
    bound = abs(difference) - 1e-9 * max(abs(scores[0]), abs(scores[1]), 1e-300)
    exact = _few((a != b).any(1).sum())
    hits = int((np.abs(shuffled) >= bound).sum())
    low, high = np.percentile(drawn, [2.5, 97.5])
    return PairedScores(
        first=scores[0],
        second=scores[1],
        difference=difference,
        low=float(low),
        high=float(high),
        better=float(np.mean((drawn > 0) + 0.5 * (drawn == 0))),
        p_bootstrap=(1 + int((np.abs(drawn - drawn.mean()) >= bound).sum())) / (1 + n_resamples),
        p_randomisation=hits / len(shuffled) if exact else (1 + hits) / (1 + n_shuffles),
        items=len(codes),
        groups=len(a),
    )


def resampled_differences(a: Floats, b: Floats, score: Score, seed: int, n_resamples: int) -> Floats:
    """``score(b) - score(a)`` over resampled groups ``[n_resamples]``; ``a`` and ``b`` are sums per group ``[groups, k]``."""
    rng = np.random.default_rng(seed)
    even = np.full(len(a), 1 / len(a))
    draws = (rng.multinomial(len(a), even, size=rows).astype(np.float64) for rows in _blocks(n_resamples, len(a)))
    return np.concatenate([score(counts @ b) - score(counts @ a) for counts in draws])


def shuffled_differences(a: Floats, b: Floats, score: Score, seed: int, n_shuffles: int) -> Floats:
    """``score(b) - score(a)`` after swapping the two in some of the groups; all ways to do so where they are few.

    ``a`` and ``b`` are sums per group ``[groups, k]``. Groups in which the two are equal are left out of the swapping.
    """
    differs = (a != b).any(1)
    a_sum, b_sum, more = a.sum(0), b.sum(0), (b - a)[differs]
    count = len(more)

    def scored(swapped: NDArray[Any]) -> Floats:
        moved = swapped @ more
        return score(b_sum - moved) - score(a_sum + moved)

    if _few(count):
        return scored((np.arange(2**count)[:, None] >> np.arange(count) & 1).astype(np.float64))
    rng = np.random.default_rng([seed, 1])  # not the bootstrap's numbers
    return np.concatenate(
        [scored(rng.integers(2, size=(rows, count)).astype(np.float64)) for rows in _blocks(n_shuffles, count)]
    )


def _few(groups: int) -> bool:
    """Whether all ways to swap the systems in groups that differ are tried."""
    return groups <= EXACT_CLUSTERS


def _summed(statistics: Floats, codes: NDArray[np.int64]) -> Floats:
    sums = np.zeros((int(codes.max()) + 1, statistics.shape[1]))
    np.add.at(sums, codes, statistics)
    return sums


def _blocks(count: int, width: int) -> Iterator[int]:
    block = max(1, _BLOCK // width)
    for start in range(0, count, block):
        yield min(block, count - start)
