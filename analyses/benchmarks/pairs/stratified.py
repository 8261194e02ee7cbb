"""Two models' right and wrong answers, level of difficulty by level, when only the counts are known.

Every level is a 2 × 2 table. Mixing levels lets their sizes decide the answer, so tables are compared within levels and then
joined (Mantel & Haenszel 1959). The tests are unpaired: where both models saw the same items and tend to be right on the same
ones, they are conservative. They take items as independent: where several belong together, they are too ready to reject.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import gammaln, logsumexp
from scipy.stats import chi2, norm

from activations.errors import TwinprobeError
from analyses.statistics import wilson

Counts = NDArray[np.int64]
"""``[level, code or base, right or wrong]``."""

ENOUGH = 5.0
"""The sum of code's right answers must be able to lie this far to both sides of its expectation for the chi-squared test
(Mantel & Fleiss 1980). With one level that is Cochran's rule: every expected count is at least 5."""
SMALLEST_P = 1e-300
"""No p value is zero; smaller ones are written as this."""
_TAIL = 0.025
_Z = float(norm.ppf(1 - _TAIL))
_FARTHEST = 60.0
"""Log odds ratio beyond which no bound is looked for."""


@dataclass(frozen=True)
class OddsRatio:
    """Odds that code is right over the odds that base is, common to all levels.

    Attributes:
        odds_ratio: 0 or infinite where one model has no right or no wrong answer; NaN where the counts say nothing.
        low, high: 95% interval.
        p: two-sided p of no difference (an odds ratio of 1 at every level), at least :data:`SMALLEST_P`.
        method: ``"Mantel-Haenszel"`` or ``"exact"``.
    """

    odds_ratio: float
    low: float
    high: float
    p: float
    method: str


@dataclass(frozen=True)
class Homogeneity:
    """Whether the odds ratio is the same at all levels; NaN with fewer than two levels that say anything about it.

    ``smallest_expected``: smallest count of the fitted tables. The chi-squared ``p`` is rough where it is below 5.
    """

    statistic: float
    degrees_of_freedom: int
    p: float
    smallest_expected: float


@dataclass(frozen=True)
class Difference:
    """Accuracy of code minus accuracy of base, levels weighted by their items, with a 95% interval."""

    difference: float
    low: float
    high: float


def count_tables(code_right: ArrayLike, code_items: ArrayLike, base_right: ArrayLike, base_items: ArrayLike) -> Counts:
    """Tables ``[level, 2, 2]`` from right answers and items per level, ``[level]`` each.

    Raises:
        TwinprobeError: not whole numbers, not one of each per level, no items, or more right answers than items.
    """
    given = [
        np.atleast_1d(np.asarray(each, dtype=np.float64)) for each in (code_right, code_items, base_right, base_items)
    ]
    if len({each.shape for each in given}) != 1 or given[0].ndim != 1 or not len(given[0]):
        shapes = ", ".join(str(each.shape) for each in given)
        raise TwinprobeError(f"counts have shapes {shapes}; expected one number per level in each of the four")
    table = np.stack(given)
    bad = ~np.isfinite(table) | (table != np.round(table)) | (table < 0)
    if bad.any():
        raise TwinprobeError(f"{table[bad][0]} is no count; give whole numbers of right answers and of items")
    for right, items in (table[:2], table[2:]):
        wrong = (right > items) | (items < 1)
        if wrong.any():
            raise TwinprobeError(
                f"{right[wrong][0]:.0f} right answers of {items[wrong][0]:.0f} items; expected 1 item at least and no more "
                "right answers than items"
            )
    code, code_all, base, base_all = table.astype(np.int64)
    return np.stack([np.stack([code, code_all - code], 1), np.stack([base, base_all - base], 1)], 1)


def common_odds_ratio(tables: Counts) -> OddsRatio:
    """The common odds ratio: exact where counts are small (:data:`ENOUGH`) or the estimate is 0 or infinite."""
    right, expected, _ = _moments(tables)
    low, high = _support(tables)
    room = min(float((expected - low).sum()), float((high - expected).sum()))
    at_an_end = right.sum() in (low.sum(), high.sum())
    return exact(tables) if room < ENOUGH or at_an_end else mantel_haenszel(tables)


def mantel_haenszel(tables: Counts) -> OddsRatio:
    """Mantel and Haenszel's estimate and their chi-squared test without continuity correction.

    The interval is Robins, Breslow & Greenland's (1986). With one level the variance of the test is that of the
    hypergeometric distribution, so that the statistic is Pearson's times ``(n - 1) / n``.
    """
    right, expected, variance = _moments(tables)
    statistic = (right - expected).sum() ** 2 / variance.sum() if variance.sum() > 0 else float("nan")
    a, b, c, d, n = _cells(tables)
    agree, differ, with_code, against = (a + d) / n, (b + c) / n, a * d / n, b * c / n
    for_code, for_base = with_code.sum(), against.sum()
    if not for_code or not for_base:
        ratio = float("nan") if for_code == for_base else float(np.inf if for_code else 0.0)
        return OddsRatio(ratio, float("nan"), float("nan"), _p(chi2.logsf(statistic, 1)), "Mantel-Haenszel")
    spread = np.sqrt(
        (agree * with_code).sum() / (2 * for_code**2)
        + (agree * against + differ * with_code).sum() / (2 * for_code * for_base)
        + (differ * against).sum() / (2 * for_base**2)
    )
    ratio = for_code / for_base
    low, high = ratio * np.exp(-_Z * spread), ratio * np.exp(_Z * spread)
    return OddsRatio(float(ratio), float(low), float(high), _p(chi2.logsf(statistic, 1)), "Mantel-Haenszel")


def exact(tables: Counts) -> OddsRatio:
    """Conditional maximum likelihood estimate, exact test and exact interval of the common odds ratio (Gart 1970).

    Given all margins, the sum of code's right answers is a sum of independent hypergeometric numbers, whose distributions
    are convolved. ``p`` sums all outcomes no more probable than the observed one (with one level: Fisher's exact test);
    the interval has 2.5% in each tail, so that rarely one excludes 1 where the other does not.
    """
    low, high = _support(tables)
    log_weights = np.zeros(1)
    for table, first, last in zip(tables, low, high, strict=True):
        log_weights = _log_convolve(log_weights, _log_weights(table, int(first), int(last)))
    observed = int((tables[:, 0, 0] - low).sum())
    steps = np.arange(len(log_weights))

    def log_probabilities(log_ratio: float) -> NDArray[np.float64]:
        tilted = log_weights + steps * log_ratio
        found: NDArray[np.float64] = tilted - logsumexp(tilted)
        return found

    null = log_probabilities(0.0)
    # Outcomes that are equally probable on paper may differ in the last digits.
    p = _p(logsumexp(null[null <= null[observed] + 1e-7]))
    if len(steps) == 1:
        return OddsRatio(float("nan"), 0.0, float("inf"), p, "exact")
    centre = 0.0 if observed == 0 else float("inf")
    if 0 < observed < steps[-1]:
        centre = _root(lambda log_ratio: float(np.exp(log_probabilities(log_ratio)) @ steps) - observed)
    tail = np.log(_TAIL)
    lower = 0.0 if observed == 0 else _root(lambda x: float(logsumexp(log_probabilities(x)[observed:])) - tail)
    upper = float("inf")
    if observed < steps[-1]:
        upper = _root(lambda x: tail - float(logsumexp(log_probabilities(x)[: observed + 1])))
    return OddsRatio(centre, lower, upper, p, "exact")


def homogeneity(tables: Counts) -> Homogeneity:
    """Breslow and Day's test that the odds ratio is the same at all levels, with Tarone's (1985) correction.

    Levels that both models have all right or all wrong say nothing and are left out.
    """
    low, high = _support(tables)
    tables = tables[high > low]
    ratio = mantel_haenszel(tables).odds_ratio if len(tables) else float("nan")
    if len(tables) < 2 or not 0 < ratio < np.inf:
        return Homogeneity(float("nan"), max(len(tables) - 1, 0), float("nan"), float("nan"))
    a, b, c, d, _ = _cells(tables)
    code, base, right = a + b, c + d, a + c
    middle = base - right + ratio * (code + right)
    root = np.sqrt(middle**2 + 4 * (1 - ratio) * ratio * code * right)
    fitted = 2 * ratio * code * right / (middle + root)
    cells = np.stack([fitted, code - fitted, right - fitted, base - right + fitted])
    variance = 1 / (1 / cells).sum(axis=0)
    off = a - fitted
    statistic = float((off**2 / variance).sum() - off.sum() ** 2 / variance.sum())
    freedom = len(tables) - 1
    return Homogeneity(statistic, freedom, _p(chi2.logsf(statistic, freedom)), float(cells.min()))


def difference(tables: Counts) -> Difference:
    """Difference of accuracies, with levels weighted by ``n m / (n + m)`` for ``n`` and ``m`` items of the two models.

    Where both have the same items, it is the plain difference of their overall accuracies. The interval recovers
    variances from Wilson's intervals of all accuracies (Zou, Huang & Zhang 2009); with one level it is Newcombe's (1998).
    """
    items = tables.sum(axis=2)
    rates = tables[:, :, 0] / items
    low, high = wilson(tables[:, :, 0], items)
    weights = items[:, 0] * items[:, 1] / items.sum(axis=1)
    weights = (weights / weights.sum())[:, None]
    down, up = (weights * (rates - low)) ** 2, (weights * (high - rates)) ** 2
    estimate = float((weights[:, 0] * (rates[:, 0] - rates[:, 1])).sum())
    below, above = (float(np.sqrt((code[:, 0] + base[:, 1]).sum())) for code, base in ((down, up), (up, down)))
    return Difference(estimate, estimate - below, estimate + above)


def _cells(tables: Counts) -> tuple[NDArray[np.float64], ...]:
    """Code right, code wrong, base right, base wrong, and all items of each level."""
    a, b, c, d = tables.reshape(-1, 4).T.astype(np.float64)
    return a, b, c, d, a + b + c + d


def _moments(tables: Counts) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Code's right answers, and their mean and variance given the margins, by level."""
    a, b, c, d, n = _cells(tables)
    expected = (a + b) * (a + c) / n
    return a, expected, expected * (c + d) * (b + d) / n / np.maximum(n - 1, 1)


def _support(tables: Counts) -> tuple[Counts, Counts]:
    """Fewest and most right answers that code can have given the margins, by level."""
    code, base, right = tables[:, 0].sum(axis=1), tables[:, 1].sum(axis=1), tables[:, :, 0].sum(axis=1)
    return np.maximum(0, right - base), np.minimum(code, right)


def _log_weights(table: Any, first: int, last: int) -> NDArray[np.float64]:
    """Log of the number of ways to share out a level's right answers, for each number that code may have."""
    (code, base), right = table.sum(axis=1), table[:, 0].sum()
    mine = np.arange(first, last + 1)
    ways: NDArray[np.float64] = _log_choose(code, mine) + _log_choose(base, right - mine)
    return ways - logsumexp(ways)


def _log_choose(n: Any, k: Any) -> Any:
    return gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)


def _log_convolve(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convolution of distributions kept as logarithms: tails far below the smallest float stay right."""
    short, long = sorted((first, second), key=len)
    out = np.full(len(short) + len(long) - 1, -np.inf)
    for shift, value in enumerate(short):
        part = out[shift : shift + len(long)]
        np.logaddexp(part, long + value, out=part)
    return out


def _root(function: Callable[[float], float]) -> float:
    """The odds ratio at which a function rising with its logarithm is zero; 0 or infinite beyond all reason."""
    if function(-_FARTHEST) > 0:
        return 0.0
    if function(_FARTHEST) < 0:
        return float("inf")
    return float(np.exp(brentq(function, -_FARTHEST, _FARTHEST, xtol=1e-12)))


def _p(log_p: Any) -> float:
    if np.isnan(log_p):
        return float("nan")
    return float(np.clip(np.exp(log_p), SMALLEST_P, 1.0))
