"""Rank correlations of few points: against brute force and scipy, and with a confounder that makes them."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
from scipy.stats import kendalltau, rankdata, spearmanr

from activations.errors import TwinprobeError
from analyses.benchmarks.pairs.ranks import partial_rank_correlation, rank_correlation


def brute(x: np.ndarray, y: np.ndarray, statistic: object) -> float:
    """The exact two-sided permutation p by going through all arrangements."""
    values = [abs(statistic(x, y[list(order)]).statistic) for order in permutations(range(len(x)))]  # type: ignore[operator]
    return float(np.mean(np.array(values) >= values[0] - 1e-9))


@pytest.mark.parametrize(("points", "tied"), [(4, False), (5, False), (5, True)])
def test_p_is_exact(points: int, tied: bool) -> None:
    rng = np.random.default_rng(points)
    x, y = rng.normal(size=(2, points))
    if tied:
        x, y = np.round(x), np.round(y + x)
    found = rank_correlation(x, y)
    assert found.all_tried and found.arrangements == np.prod(range(1, points + 1))
    assert found.spearman == pytest.approx(spearmanr(x, y).statistic)
    assert found.kendall == pytest.approx(kendalltau(x, y).statistic)
    assert found.p_spearman == pytest.approx(brute(x, y, spearmanr))
    assert found.p_kendall == pytest.approx(brute(x, y, kendalltau))


def test_seven_points_as_scipy_has_them() -> None:
    x, y = np.random.default_rng(3).normal(size=(2, 7))
    found = rank_correlation(x, y + 0.8 * x)
    assert found.p_kendall == pytest.approx(kendalltau(x, y + 0.8 * x, method="exact").pvalue)
    assert found.smallest_p == pytest.approx(2 / 5040)
    assert np.isnan(found.low)


def test_many_points_take_random_arrangements_and_an_interval() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=12)
    y = x + 3 * rng.normal(size=12)
    found = rank_correlation(x, y, trials=10_000, seed=4)
    assert (found.arrangements, found.all_tried) == (10_000, False)
    assert found == rank_correlation(x, y, trials=10_000, seed=4)
    assert found.p_spearman == pytest.approx(spearmanr(x, y).pvalue, abs=0.02)
    assert rank_correlation(x, x, trials=200).p_spearman == pytest.approx(1 / 200), "the observed one counts among them"
    half = 1.959964 * np.sqrt((1 + found.spearman**2 / 2) / 9)
    assert (found.low, found.high) == pytest.approx(
        np.tanh(np.arctanh(found.spearman) + np.array([-half, half])), abs=1e-5
    )


def test_within_strata_what_differs_between_them_is_gone() -> None:
    strata = np.repeat([0, 1, 2], 4)
    rng = np.random.default_rng(5)
    x, y = 10 * strata + rng.normal(size=(2, 12))
    assert rank_correlation(x, y).spearman > 0.85
    found = rank_correlation(x, y, strata)
    ranks = [np.concatenate([rankdata(part) - 2.5 for part in np.split(values, 3)]) for values in (x, y)]
    assert found.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    assert found.p_spearman > 0.2
    assert rank_correlation(x, x, strata, trials=500).kendall == pytest.approx(1)
    mixed = rng.permutation(12)
    assert rank_correlation(x[mixed], y[mixed], strata[mixed]).spearman == pytest.approx(found.spearman)


def test_exact_within_strata() -> None:
    x, y, strata = np.array([1, 2, 3, 9, 8, 7.0]), np.array([3, 1, 2, 7, 8, 9.0]), ["a", "a", "a", "b", "b", "b"]
    found = rank_correlation(x, y, strata)
    assert found.arrangements == 36 and found.all_tried
    values = []
    for first in permutations(range(3)):
        for second in permutations(range(3, 6)):
            moved = y[[*first, *second]]
            values.append(sum(float((rankdata(x[s]) - 2) @ (rankdata(moved[s]) - 2)) for s in (slice(3), slice(3, 6))))
    assert found.p_spearman == pytest.approx(np.mean(np.abs(values) >= abs(values[0]) - 1e-9))
    alone = rank_correlation([*x, 100], [*y, -100], [*strata, "c"])
    assert (alone.points, alone.spearman) == (6, pytest.approx(found.spearman)), "a stratum of one says nothing"


def test_partial_is_the_partial_correlation_of_ranks() -> None:
    x, y, z = np.random.default_rng(6).normal(size=(3, 8))
    xy, xz, yz = spearmanr(x, y).statistic, spearmanr(x, z).statistic, spearmanr(y, z).statistic
    expected = (xy - xz * yz) / np.sqrt((1 - xz**2) * (1 - yz**2))
    found = partial_rank_correlation(x, y, np.exp(z))
    assert found.spearman == pytest.approx(expected)
    assert found.all_tried and np.isnan(found.kendall)
    assert "exactly" in partial_rank_correlation(x, y, 3 * x).reason
    assert "equal" in partial_rank_correlation(x, y, np.ones(8)).reason


def test_a_confounder_makes_a_correlation_that_is_gone_given_it() -> None:
    """Size drives both sides; nothing else joins them."""
    rng = np.random.default_rng(7)
    raw = partial = 0
    runs = 60
    for _ in range(runs):
        size, *noise = rng.normal(size=(3, 7))
        x, y = size + 0.3 * noise[0], size + 0.3 * noise[1]
        raw += rank_correlation(x, y).p_spearman < 0.05
        partial += partial_rank_correlation(x, y, size).p_spearman < 0.05
    assert raw > 0.65 * runs
    assert partial < 0.2 * runs
    joined = sum(
        partial_rank_correlation(size + noise, 0.5 * size + noise, size).p_spearman < 0.05
        for size, noise in rng.normal(size=(20, 2, 8))
    )
    assert joined > 15, "what does not come from size stays"


def test_the_level_is_held_without_a_confounder() -> None:
    rng = np.random.default_rng(8)
    hits = sum(rank_correlation(*rng.normal(size=(2, 6))).p_spearman <= 0.05 for _ in range(400))
    assert hits / 400 < 0.08


def test_too_little_says_nothing() -> None:
    assert rank_correlation([1, 2, 3], [1, 2, 3]).reason == "3 points; nothing is said below 4"
    assert (
        partial_rank_correlation([1, 2, 3, 4], [1, 2, 3, 4], [2, 1, 4, 3]).reason == "4 points; nothing is said below 5"
    )
    assert "equal" in rank_correlation([1, 1, 1, 1], [1, 2, 3, 4]).reason
    with pytest.raises(TwinprobeError, match="missing or infinite"):
        rank_correlation([1, 2, np.nan, 4], [1, 2, 3, 4])
    with pytest.raises(TwinprobeError, match=r"shapes \(3,\) and \(4,\)"):
        rank_correlation([1, 2, 3], [1, 2, 3, 4])
