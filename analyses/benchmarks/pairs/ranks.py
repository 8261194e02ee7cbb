"""Rank correlation of few points, tested by permutation: plainly, within strata, and given a third quantity.

Spearman's rho and Kendall's tau-b, with all arrangements tried where there are at most :data:`EXACT` of them (8 points: 8!),
else random ones among which the observed one counts (Phipson & Smyth 2010). Within strata, ranks are taken and values exchanged
inside each stratum only, so that what differs between strata neither makes nor hides a correlation. The correlation given a
third quantity is that of the residuals of the ranks; its test permutes the residuals of one side, adds them to what the
third quantity predicts, and fits again (Freedman & Lane 1983).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import permutations
from math import factorial, prod

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm, rankdata

from activations.errors import TwinprobeError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

EXACT = factorial(8)
"""Up to this many arrangements all are tried."""
FEWEST, FEWEST_GIVEN = 4, 5
"""Points below which nothing is said; a third quantity takes one more."""
FEWEST_INTERVAL = 10
"""Points from which an interval is given."""
_BLOCK = 4_000_000
_TIED = 1e-9


@dataclass(frozen=True)
class RankCorrelation:
    """How two quantities go together over points.

    Attributes:
        points: how many were used (in strata: those with company).
        spearman, kendall: rho and tau-b; NaN with a ``reason``. Given a third quantity there is no tau.
        p_spearman, p_kendall: two-sided, by permutation.
        low, high: 95% of rho by Fisher's z with Bonett & Wright's (2000) standard error; NaN below :data:`FEWEST_INTERVAL`
            points and within strata.
        arrangements: how many were tried.
        all_tried: whether these were all there are.
        smallest_p: no p of rho can be smaller with these values.
        reason: why there is no estimate; empty otherwise.
    """

    points: int
    spearman: float = np.nan
    p_spearman: float = np.nan
    kendall: float = np.nan
    p_kendall: float = np.nan
    low: float = np.nan
    high: float = np.nan
    arrangements: int = 0
    all_tried: bool = False
    smallest_p: float = np.nan
    reason: str = ""


def rank_correlation(
    first: ArrayLike, second: ArrayLike, strata: ArrayLike | None = None, *, trials: int = 10_000, seed: int = 0
) -> RankCorrelation:
    """Spearman's and Kendall's correlation of ``first [n]`` and ``second [n]``, within ``strata [n]`` where they are given.

    A stratum of one point says nothing and is left out. With several strata, rho is the correlation of the ranks within
    strata, each stratum's centred on its mean, and tau counts the pairs of points within strata.

    Raises:
        TwinprobeError: the lengths differ, or a value is not finite.
    """
    x, y = _checked(first, second)
    groups = np.unique(np.zeros(len(x)) if strata is None else np.asarray(strata), return_inverse=True)[1].ravel()
    used = np.bincount(groups, minlength=1)[groups] > 1
    x, y, groups = x[used], y[used], groups[used]
    if len(x) < FEWEST:
        return RankCorrelation(len(x), reason=_few(len(x), FEWEST))
    order = np.argsort(groups, kind="stable")
    x, y, groups = x[order], y[order], groups[order]
    sizes = np.bincount(groups)[np.unique(groups)]
    ranks = [_within(values, sizes) for values in (x, y)]
    if any(np.abs(each).max() < _TIED for each in ranks):
        return RankCorrelation(len(x), reason="all values of one side are equal")
    tried, everything = _arrangements(sizes, trials, seed)
    together = groups[:, None] == groups[None, :]
    signs = [np.sign(values[:, None] - values[None, :]) * together for values in (x, y)]
    tau_scale = np.sqrt(np.abs(signs[0]).sum() * np.abs(signs[1]).sum()) / 2
    rhos = _correlations(ranks[0], ranks[1][tried])
    ahead, behind = np.nonzero(np.triu(signs[0]))
    taus = np.concatenate(
        [
            signs[1][block[:, ahead], block[:, behind]] @ signs[0][ahead, behind]
            for block in np.array_split(tried, max(1, len(tried) * len(ahead) // _BLOCK))
        ]
    )
    taus /= tau_scale
    rho = float(_correlations(ranks[0], ranks[1][None])[0])
    tau = float((signs[0] * signs[1]).sum() / 2 / tau_scale)
    low, high = _fisher(rho, len(x)) if len(sizes) == 1 else (np.nan, np.nan)
    return RankCorrelation(
        len(x),
        rho,
        _p(rho, rhos),
        tau,
        _p(tau, taus),
        low,
        high,
        len(tried),
        everything,
        _p(np.abs(rhos).max(), rhos),
    )


def partial_rank_correlation(
    first: ArrayLike, second: ArrayLike, given: ArrayLike, *, trials: int = 10_000, seed: int = 0
) -> RankCorrelation:
    """Spearman's correlation of ``first [n]`` and ``second [n]`` with the ranks of ``given [n]`` taken out of both.

    Ranks of a quantity and of its logarithm are the same. The test is nearly exact (see the module).

    Raises:
        TwinprobeError: the lengths differ, or a value is not finite.
    """
    x, y = _checked(first, second)
    _, z = _checked(first, given)
    if len(x) < FEWEST_GIVEN:
        return RankCorrelation(len(x), reason=_few(len(x), FEWEST_GIVEN))
    ranks = [rankdata(values) - (len(x) + 1) / 2 for values in (x, y, z)]
    spread = float(ranks[2] @ ranks[2])
    if not spread:
        return RankCorrelation(len(x), reason="all values given are equal")
    out = np.eye(len(x)) - 1 / len(x) - np.outer(ranks[2], ranks[2]) / spread
    ours, theirs = out @ ranks[0], out @ ranks[1]
    if min(np.abs(ours).max(), np.abs(theirs).max()) < 1e-6:
        return RankCorrelation(len(x), reason="one side is ranked exactly as what is given")
    tried, everything = _arrangements(np.array([len(x)]), trials, seed)
    rho = float(_correlations(ours, theirs[None])[0])
    # What the third quantity predicts goes away again when it is taken out of the permuted values.
    rhos = _correlations(ours, theirs[tried] @ out)
    low, high = _fisher(rho, len(x) - 1)
    return RankCorrelation(
        len(x),
        rho,
        _p(rho, rhos),
        low=low,
        high=high,
        arrangements=len(tried),
        all_tried=everything,
        smallest_p=_p(np.abs(rhos).max(), rhos),
    )


def _checked(first: ArrayLike, second: ArrayLike) -> tuple[Floats, Floats]:
    x, y = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if x.ndim != 1 or x.shape != y.shape:
        raise TwinprobeError(f"values have shapes {x.shape} and {y.shape}; expected one of each per point")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise TwinprobeError("a value is missing or infinite; leave such points out")
    return x, y


def _few(points: int, fewest: int) -> str:
    return f"{points} points; nothing is said below {fewest}"


def _within(values: Floats, sizes: Integers) -> Floats:
    """Ranks within consecutive strata of ``sizes``, centred in each."""
    parts = np.split(values, np.cumsum(sizes)[:-1])
    return np.concatenate([rankdata(part) - (len(part) + 1) / 2 for part in parts])


def _arrangements(sizes: Integers, trials: int, seed: int) -> tuple[Integers, bool]:
    """Orders ``[arrangement, point]`` within consecutive strata of ``sizes``, and whether they are all of them."""
    starts = np.cumsum(sizes) - sizes
    if prod(factorial(int(size)) for size in sizes) <= EXACT:
        found = np.zeros((1, 0), dtype=np.int64)
        for start, size in zip(starts, sizes, strict=True):
            own = start + _permutations(int(size))
            found = np.hstack([np.repeat(found, len(own), axis=0), np.tile(own, (len(found), 1))])
        return found, True
    rng = np.random.default_rng(seed)
    parts = [
        start + rng.permuted(np.tile(np.arange(size), (trials - 1, 1)), axis=1)
        for start, size in zip(starts, sizes, strict=True)
    ]
    return np.vstack([np.arange(sizes.sum()), np.hstack(parts)]), False


@cache
def _permutations(size: int) -> Integers:
    return np.array(list(permutations(range(size))), dtype=np.int64)


def _correlations(one: Floats, many: Floats) -> Floats:
    """Correlations of centred ``one [n]`` with centred ``many [m, n]``; 0 where nothing is left of one of them."""
    scale = np.sqrt((one @ one) * (many**2).sum(axis=1))
    return np.divide(many @ one, scale, out=np.zeros(len(many)), where=scale > _TIED)


def _p(observed: float, tried: Floats) -> float:
    """Share of arrangements at least as far from 0 as the observed one, which is among them."""
    return float(np.mean(np.abs(tried) >= abs(observed) - _TIED))


def _fisher(rho: float, points: int) -> tuple[float, float]:
    """95% interval of Spearman's rho; a quantity that was taken out costs a point."""
    if points < FEWEST_INTERVAL or abs(rho) > 1 - _TIED:
        return np.nan, np.nan
    half = norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / (points - 3))
    low, high = np.tanh(np.arctanh(rho) + np.array([-half, half]))
    return float(low), float(high)
