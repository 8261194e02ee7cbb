"""Stratified tests against published worked examples, other people's code, full enumeration, and simulation."""

from __future__ import annotations

from itertools import product
from math import comb, prod

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import chi2, fisher_exact
from scipy.stats.contingency import odds_ratio

from activations.errors import TwinprobeError
from analyses.benchmarks.pairs.stratified import (
    common_odds_ratio,
    count_tables,
    difference,
    exact,
    homogeneity,
    mantel_haenszel,
)
from analyses.statistics import wilson

PENICILLIN = np.array(
    [[[0, 0], [6, 5]], [[3, 0], [3, 6]], [[6, 2], [0, 4]], [[5, 6], [1, 0]], [[2, 5], [0, 0]]]
).transpose(0, 2, 1)
"""Rabbits by dose: Mantel-Haenszel odds ratio 7 (1.026713 to 47.725133), chi-squared with continuity correction 3.9286,
exact p 0.03994, conditional estimate 10.36102 (R's documentation of mantelhaen.test)."""
BERKELEY = np.array(
    [
        [[512, 313], [89, 19]], [[353, 207], [17, 8]], [[120, 205], [202, 391]],
        [[138, 279], [131, 244]], [[53, 138], [94, 299]], [[22, 351], [24, 317]],
    ]
)  # fmt: skip
"""Admissions to Berkeley, men over women by department (Bickel, Hammel & O'Connell 1975): the classic reversal."""


def drawn(rng: np.random.Generator, levels: int = 1, most: int = 12) -> np.ndarray:
    tables = rng.integers(0, most, (levels, 2, 2))
    tables[:, :, 0] += 1
    return tables


def test_the_penicillin_example() -> None:
    found = mantel_haenszel(PENICILLIN)
    assert found.odds_ratio == pytest.approx(7.0)
    assert (found.low, found.high) == pytest.approx((1.026713, 47.725133), rel=1e-6)
    a, n = PENICILLIN[:, 0, 0], PENICILLIN.sum(axis=(1, 2))
    code, right = PENICILLIN[:, 0].sum(axis=1), PENICILLIN[:, :, 0].sum(axis=1)
    expected = code * right / n
    variance = code * (n - code) * right * (n - right) / n**2 / (n - 1)
    assert (abs((a - expected).sum()) - 0.5) ** 2 / variance.sum() == pytest.approx(3.9286, abs=1e-4), (
        "data as in print"
    )
    assert found.p == pytest.approx(chi2.sf((a - expected).sum() ** 2 / variance.sum(), 1))
    chosen = common_odds_ratio(PENICILLIN)
    assert chosen == exact(PENICILLIN) and chosen.method == "exact"
    assert chosen.p == pytest.approx(0.03994, abs=1e-5) and chosen.odds_ratio == pytest.approx(10.36102, rel=1e-5)


def test_the_berkeley_example() -> None:
    found = common_odds_ratio(BERKELEY)
    assert (found.method, found.odds_ratio) == ("Mantel-Haenszel", pytest.approx(0.9046968, rel=1e-6))
    assert (found.low, found.high) == pytest.approx((0.7719074, 1.0603298), rel=1e-6)
    assert found.p == pytest.approx(0.2169, abs=1e-4)
    pooled = common_odds_ratio(BERKELEY.sum(axis=0, keepdims=True))
    assert pooled.odds_ratio == pytest.approx(1.84108, rel=1e-4) and pooled.p < 1e-15, "levels must not be mixed"
    strictly = exact(BERKELEY)
    assert strictly.odds_ratio == pytest.approx(found.odds_ratio, rel=0.01) and strictly.p == pytest.approx(
        found.p, abs=0.02
    )


def test_homogeneity_from_the_fitted_tables() -> None:
    """Breslow and Day's fitted tables found by bisection; Tarone's correction by its formula."""
    ratio = mantel_haenszel(BERKELEY).odds_ratio
    off, variances, smallest = [], [], []
    for (a, b), (c, d) in BERKELEY.tolist():
        code, base, right = a + b, c + d, a + c
        edges = max(0, right - base) + 1e-9, min(code, right) - 1e-9
        fit = brentq(lambda x: np.log(x * (base - right + x) / ((code - x) * (right - x))) - np.log(ratio), *edges)  # noqa: B023
        cells = np.array([fit, code - fit, right - fit, base - right + fit])
        off.append(a - fit)
        variances.append(1 / (1 / cells).sum())
        smallest.append(cells.min())
    expected = (np.square(off) / variances).sum() - np.sum(off) ** 2 / np.sum(variances)
    found = homogeneity(BERKELEY)
    assert (found.statistic, found.degrees_of_freedom) == (pytest.approx(expected), 5)
    assert found.statistic == pytest.approx(18.83, abs=0.01) and found.p == pytest.approx(chi2.sf(expected, 5))
    assert found.smallest_expected == pytest.approx(min(smallest))
    with_empty = np.concatenate([BERKELEY, [[[9, 0], [7, 0]], [[0, 4], [0, 4]]]])
    assert homogeneity(with_empty) == found, "levels that are all right or all wrong say nothing"


def test_one_level_is_fishers_exact_test() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        table = drawn(rng)
        found, other = exact(table), odds_ratio(table[0])
        assert found.p == pytest.approx(fisher_exact(table[0]).pvalue, rel=1e-8)
        expected = [other.statistic, *other.confidence_interval(0.95)]
        assert [found.odds_ratio, found.low, found.high] == pytest.approx(expected, rel=1e-6, nan_ok=True)


def test_several_levels_by_enumeration() -> None:
    """Every way the right answers can be shared out, with its number of ways as a whole number."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        tables = drawn(rng, levels=3, most=6)
        margins = [(int(t[0].sum()), int(t[1].sum()), int(t[:, 0].sum())) for t in tables]
        ways: dict[int, int] = {}
        for cells in product(*(range(max(0, m - n0), min(n1, m) + 1) for n1, n0, m in margins)):
            number = prod(comb(n1, x) * comb(n0, m - x) for (n1, n0, m), x in zip(margins, cells, strict=True))
            ways[sum(cells)] = ways.get(sum(cells), 0) + number
        observed = int(tables[:, 0, 0].sum())
        p = sum(number for number in ways.values() if number <= ways[observed]) / sum(ways.values())
        found = exact(tables)
        assert found.p == pytest.approx(p)

        def tail(ratio: float, total: list[int], ways: dict[int, int] = ways) -> float:
            whole = sum(number * ratio**s for s, number in ways.items())
            return sum(ways[s] * ratio**s for s in total) / whole

        if found.low > 0:
            assert tail(found.low, [s for s in ways if s >= observed]) == pytest.approx(0.025, rel=1e-6)
        if np.isfinite(found.high):
            assert tail(found.high, [s for s in ways if s <= observed]) == pytest.approx(0.025, rel=1e-6)
        if 0 < found.odds_ratio < np.inf:
            weights = [number * found.odds_ratio**s for s, number in ways.items()]
            assert np.average(list(ways), weights=weights) == pytest.approx(observed), "the likelihood is highest there"


def test_large_counts_and_tails_below_any_float() -> None:
    tables = count_tables([900, 700], [1000, 1000], [500, 250], [1000, 1000])
    found, strictly = mantel_haenszel(tables), exact(tables)
    assert common_odds_ratio(tables) == found
    assert np.log(found.p) == pytest.approx(np.log(strictly.p), rel=0.05)
    assert [strictly.odds_ratio, strictly.low, strictly.high] == pytest.approx(
        [found.odds_ratio, found.low, found.high], rel=0.05
    )
    far = count_tables([1999, 1999], [2000, 2000], [1, 1], [2000, 2000])
    assert mantel_haenszel(far).p == exact(far).p == 1e-300
    assert np.isfinite([exact(far).low, exact(far).high]).all()


@pytest.mark.parametrize(("items", "rates"), [((8, 6, 5), (0.9, 0.5, 0.2)), ((300, 200, 100), (0.8, 0.4, 0.15))])
def test_level_and_coverage(items: tuple[int, ...], rates: tuple[float, ...]) -> None:
    """No difference at any level: at most 5% of p below 0.05, and intervals that hold 1 or 0 in 95%."""
    rng = np.random.default_rng(2)
    draws = 150 if items[0] < 10 else 1000
    methods, rejected, held, held_difference = set(), 0, 0, 0
    for _ in range(draws):
        right = rng.binomial(items, rates, (2, 3))
        tables = count_tables(right[0], items, right[1], items)
        found, gap = common_odds_ratio(tables), difference(tables)
        methods.add(found.method)
        rejected += found.p < 0.05
        held += found.low <= 1 <= found.high
        held_difference += gap.low <= 0 <= gap.high
    small = items[0] < 10
    assert methods >= ({"exact"} if small else {"Mantel-Haenszel"})
    slack = 3 * np.sqrt(0.05 * 0.95 / draws)
    assert rejected / draws < 0.05 + slack and held / draws > 0.95 - slack
    assert small or rejected / draws > 0.02, "exact tests of few items may be far below 5%, chi-squared may not"
    assert held_difference / draws > 0.95 - slack


def test_homogeneity_has_its_level_and_finds_what_differs() -> None:
    rng = np.random.default_rng(3)
    items, base = np.array([300, 200, 250]), np.array([0.8, 0.5, 0.3])
    odds = base / (1 - base)
    alike = 2.5 * odds / (1 + 2.5 * odds)
    unlike = np.array([0.7, 0.5, 0.45])
    rejected = {}
    for name, code in (("alike", alike), ("unlike", unlike)):
        p = [
            homogeneity(count_tables(rng.binomial(items, code), items, rng.binomial(items, base), items)).p
            for _ in range(400)
        ]
        rejected[name] = np.mean(np.less(p, 0.05))
    assert 0.02 < rejected["alike"] < 0.09 and rejected["unlike"] > 0.9


def test_intervals_as_newcombe_printed_them() -> None:
    """56/70 against 48/80: 0.2, method 10: 0.0524 to 0.3339. 81/263: Wilson 0.2553 to 0.3662 (Newcombe 1998)."""
    gap = difference(count_tables(56, 70, 48, 80))
    assert (gap.difference, gap.low, gap.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    assert np.array(wilson(81, 263)) == pytest.approx(np.array([0.2553, 0.3662]), abs=1e-4)
    low, high = wilson([0, 20], [20, 20])
    assert (
        (low[0], high[1]) == (0.0, 1.0)
        and high[0] == pytest.approx(0.1611, abs=1e-4)
        and low[1] == pytest.approx(1 - high[0])
    )


def test_the_difference_of_equal_items_is_the_overall_one() -> None:
    gap = difference(count_tables([9, 30], [10, 90], [5, 10], [10, 90]))
    assert gap.difference == pytest.approx(39 / 100 - 15 / 100) and gap.low < gap.difference < gap.high


def test_counts_that_say_little() -> None:
    nothing = common_odds_ratio(count_tables([5, 0], [5, 4], [6, 0], [6, 4]))
    assert np.isnan(nothing.odds_ratio) and (nothing.low, nothing.high, nothing.p) == (0.0, np.inf, 1.0)
    assert np.isnan(homogeneity(count_tables([5, 2], [5, 4], [5, 1], [5, 4])).p), "one level can not differ"
    always = common_odds_ratio(count_tables(50, 50, 20, 50))
    assert (always.odds_ratio, always.high, always.method) == (np.inf, np.inf, "exact") and always.low > 1
    swapped = common_odds_ratio(count_tables(20, 50, 50, 50))
    assert swapped.odds_ratio == swapped.low == 0 and swapped.high == pytest.approx(1 / always.low)


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (([1], [2], [1, 1], [2, 2]), r"shapes \(1,\), \(1,\), \(2,\), \(2,\)"),
        (([], [], [], []), r"one number per level"),
        (([0.5], [2], [1], [2]), r"0\.5 is no count"),
        (([3], [2], [1], [2]), r"3 right answers of 2 items"),
        (([0], [0], [1], [2]), r"0 right answers of 0 items"),
    ],
)
def test_what_is_no_count_is_refused(counts: tuple, expected: str) -> None:
    with pytest.raises(TwinprobeError, match=expected):
        count_tables(*counts)
