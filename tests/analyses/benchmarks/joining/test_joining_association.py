"""Odds ratios, exchanges and regressions on answers that were drawn with a known association, or with none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from analyses.benchmarks.joining.association import Pair, odds_ratio, permutation_p, ratio_of_odds_ratios, tables
from analyses.benchmarks.joining.beside import standardised_coefficients
from analyses.benchmarks.pairs.stratified import common_odds_ratio, mantel_haenszel

Answers = tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.int64], NDArray[np.int64]]


def uniforms(rng: np.random.Generator, clusters: NDArray[np.int64], shared: float) -> NDArray[np.float64]:
    """Uniform numbers, alike inside clusters: the marginal odds are what they were asked to be."""
    common = rng.normal(size=int(clusters.max()) + 1)[clusters]
    return np.asarray(norm.cdf(np.sqrt(shared) * common + np.sqrt(1 - shared) * rng.normal(size=len(clusters))))


def drawn(
    rng: np.random.Generator, items: int, strata: int, ratio: float, together: int = 1, shared: float = 0.0
) -> Answers:
    """Answers of a probe and of a model with odds ratio ``ratio`` in each stratum, of clusters of ``together`` items."""
    clusters = np.repeat(np.arange(items // together), together)
    strata_of = rng.integers(strata, size=items)
    hardness = rng.normal(size=strata)[strata_of]
    first = uniforms(rng, clusters, shared) < expit(0.3 + hardness)
    second = uniforms(rng, clusters, shared) < expit(-0.5 + hardness + np.log(ratio) * first)
    return first, second, strata_of, clusters


@pytest.mark.parametrize(
    ("items", "strata", "ratio", "together"),
    [
        (200, 1, 1.0, 1),
        (200, 40, 1.0, 1),
        pytest.param(60, 20, 1.0, 1, marks=pytest.mark.slow),  # exact intervals take time
        (200, 4, 3.0, 1),
        (400, 4, 1.0, 4),
        (400, 4, 3.0, 4),
    ],
    ids=["independent", "many strata", "few items", "dependent", "clusters", "dependent clusters"],
)
def test_the_interval_covers_the_odds_ratio_that_was_planted(
    items: int, strata: int, ratio: float, together: int
) -> None:
    rng, draws, covered, naive = np.random.default_rng(1), 400, 0, 0
    for _ in range(draws):
        first, second, strata_of, clusters = drawn(rng, items, strata, ratio, together, 0.7 if together > 1 else 0.0)
        found = odds_ratio(first, second, strata_of, clusters)
        covered += found.low <= ratio <= found.high
        plain = common_odds_ratio(tables(first, second, strata_of))
        naive += plain.low <= ratio <= plain.high
        assert found.odds_ratio == plain.odds_ratio
        if together == 1:
            assert found == plain
    assert 0.92 <= covered / draws <= (0.995 if items == 60 else 0.985)  # an exact interval is wider
    if together > 1:
        assert naive / draws < covered / draws - 0.03, "taking items as independent claims too much"


def test_counts_are_those_of_a_table_by_hand() -> None:
    first, second = np.array([1, 1, 0, 0, 1, 0], bool), np.array([1, 0, 1, 0, 1, 0], bool)
    assert tables(first, second, np.array([5, 5, 5, 5, 9, 9])).tolist() == [[[1, 1], [1, 1]], [[1, 0], [0, 1]]]


@pytest.mark.parametrize(
    ("strata", "together"), [(3, 1), (3, 4), (200, 1)], ids=["items", "clusters", "pairs as strata"]
)
def test_the_interval_covers_how_many_times_larger_a_planted_odds_ratio_is(strata: int, together: int) -> None:
    """Two models whose answers go together on an item beyond what the probe says."""
    # Where strata are pairs, all of the margins are estimated: without regard to that 83% are covered.
    rng, draws, covered = np.random.default_rng(2), 300, 0
    clusters = np.repeat(np.arange(400 // together), together)
    shared = 0.8 if together > 1 else 0.0
    for _ in range(draws):
        first, strata_of = uniforms(rng, clusters, shared) < 0.5, np.arange(400) * strata // 400
        noise = uniforms(rng, clusters, shared)
        copied = np.where(rng.random(len(clusters) // together)[clusters] < 0.3, noise, uniforms(rng, clusters, shared))
        one, other = noise < expit(np.log(4.0) * first - 0.5), copied < expit(np.log(2.0) * first - 0.5)
        found = ratio_of_odds_ratios(Pair(first, one, strata_of), Pair(first, other, strata_of), clusters)
        covered += found.low <= 2.0 <= found.high
    assert 0.92 <= covered / draws <= 0.985


def test_the_interval_of_the_ratio_is_that_of_the_jackknife() -> None:
    rng = np.random.default_rng(8)
    first, one, strata, clusters = drawn(rng, 300, 3, 4.0, 3, 0.5)
    other = np.where(rng.random(300) < 0.5, one, rng.random(300) < 0.2 + 0.3 * first)
    found = ratio_of_odds_ratios(Pair(first, one, strata), Pair(first, other, strata), clusters)

    def log_ratio(kept: NDArray[np.bool_]) -> float:
        parts = [mantel_haenszel(tables(first[kept], answers[kept], strata[kept])) for answers in (one, other)]
        return float(np.log(parts[0].odds_ratio / parts[1].odds_ratio))

    left_out = np.array([log_ratio(clusters != cluster) for cluster in range(100)])
    error = np.sqrt(99 / 100 * ((left_out - left_out.mean()) ** 2).sum())
    assert np.log(found.estimate) == pytest.approx(log_ratio(clusters >= 0))
    assert np.log(found.high / found.low) / 2 / 1.95996 == pytest.approx(error, rel=0.04)


def test_the_same_answers_have_the_same_odds_ratio_and_an_infinite_one_has_no_ratio() -> None:
    first, second, strata, clusters = drawn(np.random.default_rng(2), 300, 3, 2.0)
    same = ratio_of_odds_ratios(Pair(first, second, strata), Pair(first, second, strata), clusters)
    assert (same.estimate, same.low, same.high) == (1.0, 1.0, 1.0)
    none = ratio_of_odds_ratios(Pair(first, first, strata), Pair(first, second, strata), clusters)
    assert np.isnan([none.estimate, none.low, none.high]).all()


@pytest.mark.parametrize("together", [1, 4])
def test_the_permutation_test_rejects_at_its_level_and_finds_what_is_there(together: int) -> None:
    rng, draws = np.random.default_rng(3), 300
    rejected, found = 0, 0
    for draw in range(draws):
        first, second, strata, clusters = drawn(rng, 160, 1, 1.0, together, 0.7)
        rejected += permutation_p([first], second, strata, clusters, draw, 199)[0] <= 0.05
        first, second, strata, clusters = drawn(rng, 160, 1, 8.0, together, 0.3)
        found += permutation_p([first], second, strata, clusters, draw, 199)[0] <= 0.05
    assert 0.02 <= rejected / draws <= 0.085
    assert found / draws > 0.9


def test_the_permutation_p_is_that_of_all_exchanges() -> None:
    """Three clusters of two items in the strata (0, 1), three single items of stratum 1, one cluster like no other."""
    strata = np.array([0, 1, 1, 0, 0, 1, 1, 1, 1, 2, 2])
    clusters = np.array([0, 0, 1, 1, 2, 2, 3, 4, 5, 6, 6])
    first = np.array([1, 0, 1, 1, 0, 0, 1, 1, 0, 1, 1], bool)
    second = np.array([1, 0, 1, 1, 0, 1, 1, 1, 0, 1, 0], bool)
    pairs, singles = np.array([[0, 1], [3, 2], [4, 5]]), np.array([6, 7, 8])
    counts = []
    for of_pairs in itertools.permutations(range(3)):
        for of_singles in itertools.permutations(range(3)):
            moved = second.copy()
            moved[pairs] = second[pairs[list(of_pairs)]]
            moved[singles] = second[singles[list(of_singles)]]
            counts.append(int((first & moved).sum()))
    far = np.abs(np.array(counts) - np.mean(counts))
    exact = float(np.mean(far >= far[0] - 1e-9))
    [found, same] = permutation_p([first, first], second, strata, clusters, 0, 20_000)
    assert found == pytest.approx(exact, abs=0.01) and same == found
    assert np.isnan(permutation_p([first], second, np.arange(11), np.arange(11))).all()


def test_coefficients_are_covered_with_clusters_kept_together() -> None:
    rng, draws, covered = np.random.default_rng(4), 300, np.zeros(2)
    for _ in range(draws):
        clusters = np.repeat(np.arange(100), 3)
        strong = rng.normal(size=300) + rng.normal(size=100)[clusters]
        idle = 0.5 * strong + rng.normal(size=300)
        outcome = uniforms(rng, clusters, 0.4) < expit(0.5 * (strong - strong.mean()) / strong.std())
        found = standardised_coefficients([strong, idle], outcome, clusters)
        covered += [one.low <= truth <= one.high for one, truth in zip(found, (0.5, 0.0), strict=True)]
    assert (covered / draws > 0.91).all() and (covered / draws < 0.985).all()


def test_coefficients_are_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(5)
    x = rng.normal(size=(200, 2)) * [3.0, 0.1] + [5.0, 0.0]
    y = rng.random(200) < expit(x[:, 0] - 5 + 8 * x[:, 1])
    model = LogisticRegression(C=1e10, tol=1e-8, max_iter=1000).fit((x - x.mean(0)) / x.std(0), y)
    found = standardised_coefficients(list(x.T), y, np.arange(200))
    np.testing.assert_allclose([one.estimate for one in found], model.coef_[0], rtol=1e-4)


@pytest.mark.parametrize(
    ("predictors", "outcome"),
    [
        ([[0.0, 1, 2, 3, 4, 5]], [0, 0, 0, 1, 1, 1]),
        ([[1.0] * 6], [0, 1, 0, 1, 0, 1]),
        ([[0.0, 1, 2, 3, 4, 5]], [1] * 6),
        ([[0.0, 1, 2, 3, 4, 5], [0.0, 2, 4, 6, 8, 10]], [0, 1, 0, 1, 0, 1]),
        ([[0.0, 1, np.inf, 3, 4, 5]], [0, 1, 0, 1, 0, 1]),
    ],
    ids=["parted", "constant", "one outcome", "collinear", "infinite"],
)
def test_what_has_no_maximum_has_no_coefficient(predictors: list[list[float]], outcome: list[int]) -> None:
    for one in standardised_coefficients(predictors, outcome, np.arange(6)):
        assert np.isnan([one.estimate, one.low, one.high]).all()
