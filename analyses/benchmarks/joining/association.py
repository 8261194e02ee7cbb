"""Are two kinds of right answers to the same items associated? Odds ratios within strata, with whole clusters kept together.

The estimate and, where every item is a cluster of its own, the interval are those of
:mod:`analyses.benchmarks.pairs.stratified`: Mantel and Haenszel's with Robins, Breslow and Greenland's interval, exact
where counts are small. Where clusters hold several items, the interval of the logarithm is wider by the root of the
design effect (Kish 1965): the variance of the linearised estimate with items summed in their clusters (as in Liang &
Zeger 1986) over that with items taken as independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from analyses.benchmarks.pairs.stratified import Counts, OddsRatio, common_odds_ratio
from probes.metrics import Interval

_Z = float(norm.ppf(0.975))
#: Largest number of entries of a block of permuted answers (8 bytes each).
_BLOCK = 2_000_000


def tables(first: ArrayLike, second: ArrayLike, strata: ArrayLike) -> Counts:
    """Counts ``[stratum, first right or wrong, second right or wrong]`` of two truth values per item, each ``[n]``."""
    x, y, codes = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool), _codes(strata)
    cells = np.bincount(4 * codes + 2 * ~x + ~y, minlength=4 * (int(codes.max()) + 1))
    return cells.reshape(-1, 2, 2).astype(np.int64)


def odds_ratio(first: ArrayLike, second: ArrayLike, strata: ArrayLike, clusters: ArrayLike) -> OddsRatio:
    """Odds that ``second`` is right where ``first`` is, over those where it is not, common to all strata.

    Args:
        first, second: whether each item is right, ``[n]``.
        strata: what is compared within, ``[n]``.
        clusters: what belongs together, ``[n]``.

    Returns:
        With ``p`` as if items were independent (:func:`permutation_p` keeps clusters); the exact interval, of small
        counts, takes items as independent, too.
    """
    found = common_odds_ratio(tables(first, second, strata))
    together, own = _codes(clusters), np.arange(len(_codes(clusters)))
    if found.method == "exact" or together.max() + 1 == len(together):
        return found
    influence = _influence(first, second, strata)
    effect = max(1.0, _clustered(influence, together) / _clustered(influence, own))
    low, high = (found.odds_ratio * (bound / found.odds_ratio) ** np.sqrt(effect) for bound in (found.low, found.high))
    return replace(found, low=float(low), high=float(high), method="Mantel-Haenszel, clustered")


@dataclass(frozen=True, eq=False)
class Pair:
    """Two kinds of right answers and the strata that they are compared within, each ``[n]``."""

    first: NDArray[np.bool_]
    second: NDArray[np.bool_]
    strata: NDArray[np.int64]


def ratio_of_odds_ratios(one: Pair, other: Pair, clusters: ArrayLike) -> Interval:
    """How many times larger the odds ratio of ``one`` is than that of ``other``, on the same items, with a 95% interval.

    The logarithms are linearised, their difference taken item by item and summed over clusters ``[n]``. NaN where one of
    them is 0 or infinite.
    """
    values = [tables(pair.first, pair.second, pair.strata).astype(float) for pair in (one, other)]
    logs = [np.log(top) - np.log(bottom) if top and bottom else np.nan for top, bottom in map(_products, values)]
    if np.isnan(logs).any():
        return Interval(float("nan"), float("nan"), float("nan"))
    influences = [_influence(pair.first, pair.second, pair.strata) for pair in (one, other)]
    half = _Z * np.sqrt(_clustered(influences[0] - influences[1], _codes(clusters)))
    centre = logs[0] - logs[1]
    return Interval(*(float(np.exp(value)) for value in (centre, centre - half, centre + half)))


def _codes(names: ArrayLike) -> NDArray[np.int64]:
    return np.unique(np.asarray(names), return_inverse=True)[1].astype(np.int64)


def _products(counts: NDArray[np.float64]) -> tuple[float, float]:
    """Numerator and denominator of Mantel and Haenszel's estimate."""
    a, b, c, d = counts.reshape(-1, 4).T
    n = a + b + c + d
    return float((a * d / n).sum()), float((b * c / n).sum())


def _influence(first: ArrayLike, second: ArrayLike, strata: ArrayLike) -> NDArray[np.float64]:
    """What each item adds to the logarithm of the estimate, to first order, ``[n]``.

    In a stratum of ``m`` items it is enlarged by ``sqrt(m / (m - 1))``, as its margins are estimated: with pairs as strata
    the variance is then McNemar's.
    """
    x, y, codes = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool), _codes(strata)
    counts = tables(x, y, codes).astype(float)
    top, bottom = _products(counts)
    a, b, c, d = counts.reshape(-1, 4).T
    n = a + b + c + d
    up, down = a * d / n**2, b * c / n**2
    by_cell = np.stack(
        [
            (d / n - up) / top + down / bottom,
            -up / top - (c / n - down) / bottom,
            -up / top - (b / n - down) / bottom,
            (a / n - up) / top + down / bottom,
        ],
        axis=1,
    )
    by_cell *= np.sqrt(n / np.maximum(n - 1, 1))[:, None]
    found: NDArray[np.float64] = by_cell[codes, 2 * ~x + ~y]
    return found


def _clustered(influence: NDArray[np.float64], clusters: NDArray[np.int64]) -> float:
    """Variance of a sum of influences, correlated inside clusters; NaN with one cluster."""
    sums = np.bincount(clusters, weights=influence)
    return float((sums**2).sum() * len(sums) / (len(sums) - 1)) if len(sums) > 1 else float("nan")


def permutation_p(
    firsts: Sequence[NDArray[np.bool_]],
    second: NDArray[np.bool_],
    strata: NDArray[np.int64],
    clusters: NDArray[np.int64],
    seed: int = 0,
    n_permutations: int = 10_000,
) -> NDArray[np.float64]:
    """Two-sided p that being right in a first way says nothing about the second, exchanging whole clusters.

    The second answers of clusters are exchanged that have as many items in each stratum, so all margins stay as they are.
    The statistic is how far the items that are right in both ways are from their mean over all exchanges. The observed
    order counts among the random ones, ``(1 + hits) / (1 + n_permutations)`` (Phipson & Smyth 2010).

    Args:
        firsts: kinds of right answers to test against ``second``, all under the same exchanges, each ``[n]``.
        second, strata, clusters: ``[n]``.
        seed, n_permutations: of the exchanges.

    Returns:
        One p per entry of ``firsts``; NaN where no two clusters are alike.
    """
    alike = _alike(strata, clusters)
    if not alike:
        return np.full(len(firsts), np.nan)
    moved = np.concatenate([group.ravel() for group in alike])
    x, y = np.stack(firsts, axis=1).astype(np.float64), second.astype(np.float64)
    mean = sum((x[group].sum(axis=0) * y[group].sum(axis=0)[:, None]).sum(axis=0) / len(group) for group in alike)
    observed = np.abs(y[moved] @ x[moved] - mean) - 1e-6
    rng, hits = np.random.default_rng(seed), np.zeros(len(firsts))
    block = max(1, _BLOCK // len(moved))
    for start in range(0, n_permutations, block):
        count = min(block, n_permutations - start)
        parts = []
        for group in alike:
            order = rng.permuted(np.tile(np.arange(len(group)), (count, 1)), axis=1)
            parts.append(y[group][order].reshape(count, -1))
        hits += (np.abs(np.concatenate(parts, axis=1) @ x[moved] - mean) >= observed).sum(axis=0)
    return np.asarray((1 + hits) / (1 + n_permutations))


def _alike(strata: NDArray[np.int64], clusters: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Clusters that may be exchanged: numbers of items ``[clusters, items each]``, those in a column in one stratum."""
    order = np.lexsort((strata, clusters))
    starts = np.flatnonzero(np.diff(clusters[order])) + 1
    found: dict[tuple[int, ...], list[NDArray[np.int64]]] = {}
    for members in np.split(order, starts):
        found.setdefault(tuple(strata[members].tolist()), []).append(members)
    return [np.stack(group) for group in found.values() if len(group) > 1]
