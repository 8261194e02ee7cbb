from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

import analyses.statistics as statistics
from activations.errors import TwinprobeError
from analyses.statistics import (
    clustered_standard_error,
    holm,
    minimum_detectable_effect,
    paired_comparison,
    sign_flip_p,
)


def _two_models(
    rng: np.random.Generator, n_clusters: int, effect: float = 0.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Right or wrong on 6 rows per item: items differ in difficulty, and each model has its own luck per item."""
    clusters = np.repeat(np.arange(n_clusters), 6)
    difficulty = rng.normal(0, 1, n_clusters)
    scores = []
    for shift in (0.0, effect):
        luck = rng.normal(0, 1, n_clusters)
        ability = (difficulty + luck + shift)[clusters]
        scores.append((rng.random(len(clusters)) < 1 / (1 + np.exp(-ability))).astype(float))
    return scores[0], scores[1], clusters


def test_null_comparisons_are_rejected_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    rejected = {"items": 0, "interval": 0, "rows": 0}
    for seed in range(200):
        base, code, clusters = _two_models(rng, 40)
        comparison = paired_comparison(base, code, clusters, seed=seed, n_flips=2000)
        rejected["items"] += comparison.p < 0.05
        rejected["interval"] += not comparison.low <= 0 <= comparison.high
        rejected["rows"] += sign_flip_p(code - base, np.arange(len(base)), seed, 2000) < 0.05
    assert 0.02 <= rejected["items"] / 200 <= 0.08
    assert rejected["interval"] / 200 <= 0.10  # the percentile interval is a little narrow at 40 clusters
    assert rejected["rows"] / 200 > 0.10  # what ignoring the clusters would claim


def test_the_minimum_detectable_effect_is_detected_four_times_in_five() -> None:
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(60), 4)
    found, n_runs = 0, 200
    for seed in range(n_runs):
        difference = rng.normal(0, 1, 60)[clusters] + rng.normal(0, 1, 240)
        effect = (1.959964 + 0.841621) * math.sqrt((1 + 1 / 4) / 60)
        found += sign_flip_p(difference + effect, clusters, seed, 1000) < 0.05
    assert 0.72 <= found / n_runs <= 0.88


def test_comparison_fields() -> None:
    base, code, clusters = _two_models(np.random.default_rng(3), 150, effect=1.5)
    comparison = paired_comparison(base, code, clusters, seed=0)
    assert comparison.difference == pytest.approx((code - base).mean())
    assert 0 < comparison.low < comparison.difference < comparison.high
    assert comparison.p < 0.001
    assert (comparison.n_items, comparison.n_clusters) == (900, 150)
    assert 0 < comparison.minimum_detectable_effect < comparison.difference
    assert comparison == paired_comparison(base, code, clusters, seed=0)
    swapped = paired_comparison(code, base, clusters, seed=0)
    assert swapped.difference == pytest.approx(-comparison.difference)
    assert swapped.p == comparison.p


@pytest.mark.parametrize("n_clusters", [1, 2, 5, 9, 12])
def test_few_clusters_are_enumerated_exactly(n_clusters: int) -> None:
    rng = np.random.default_rng(n_clusters)
    clusters = np.concatenate([np.arange(n_clusters), rng.integers(0, n_clusters, 20)])
    difference = rng.integers(-1, 2, len(clusters)).astype(float)  # ties are common
    sums = [difference[clusters == c].sum() for c in range(n_clusters)]
    hits = [
        abs(sum(sign * value for sign, value in zip(signs, sums, strict=True))) >= abs(sum(sums)) - 1e-12
        for signs in itertools.product((-1, 1), repeat=n_clusters)
    ]
    assert sign_flip_p(difference, clusters) == pytest.approx(np.mean(hits))


def test_ties_survive_rounding() -> None:
    """0.1 + 0.2 - 0.3 is not 0 in floating point; the p value must be that of whole numbers."""
    clusters = np.arange(6)
    numbers = np.array([1, 2, -3, 1, 2, 3])
    assert sign_flip_p(numbers * 0.1, clusters) == sign_flip_p(numbers.astype(float), clusters)


def test_clusters_without_a_difference_do_not_matter() -> None:
    difference, clusters = np.array([1.0, 1, 1, -1, 1]), np.arange(5)
    padded = sign_flip_p(np.concatenate([difference, np.zeros(50)]), np.arange(55))
    assert padded == sign_flip_p(difference, clusters)


def test_sampled_p_agrees_with_the_exact_one(monkeypatch: pytest.MonkeyPatch) -> None:
    difference = np.random.default_rng(0).normal(0.4, 1, 12)
    exact = sign_flip_p(difference, np.arange(12))
    monkeypatch.setattr(statistics, "EXACT_CLUSTERS", 0)
    sampled = sign_flip_p(difference, np.arange(12), seed=1, n_flips=40_000)
    assert sampled == pytest.approx(exact, abs=0.01)
    monkeypatch.setattr(statistics, "_BLOCK", 1000)
    assert sign_flip_p(difference, np.arange(12), seed=1, n_flips=40_000) == pytest.approx(exact, abs=0.01)


def test_sampled_p_is_never_zero() -> None:
    assert sign_flip_p(np.ones(100), np.arange(100), n_flips=999) == pytest.approx(1 / 1000)


def test_degenerate_comparisons() -> None:
    same = paired_comparison([1, 0, 1], [1, 0, 1], ["a", "b", "c"])
    assert (same.difference, same.low, same.high, same.p) == (0.0, 0.0, 0.0, 1.0)
    single = paired_comparison([0, 0], [1, 1], ["a", "a"])
    assert single.difference == 1.0
    assert single.p == 1.0
    assert all(math.isnan(value) for value in (single.low, single.high, single.minimum_detectable_effect))


def test_standard_error_by_hand() -> None:
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert clustered_standard_error(values, np.arange(4)) == pytest.approx(values.std(ddof=1) / 2)
    # clusters {1, 2} and {3, 4}: residual sums -2 and 2, so sqrt(8 * 2 / 1) / 4 = 1
    assert clustered_standard_error(values, [0, 0, 1, 1]) == pytest.approx(1.0)
    assert minimum_detectable_effect(values, [0, 0, 1, 1]) == pytest.approx(1.959964 + 0.841621, abs=1e-5)


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1 = 0.02, 0.03, 0.06, 0.04; running maximum 0.02, 0.03, 0.06, 0.06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0])
    assert holm([0.02]) == pytest.approx([0.02])
    assert holm([]).shape == (0,)


def test_holm_leaves_missing_tests_out_of_the_family() -> None:
    adjusted = holm([float("nan"), 0.01, 0.04, float("nan")])
    assert np.isnan(adjusted[[0, 3]]).all()
    assert adjusted[1:3] == pytest.approx([0.02, 0.04])


def test_bad_input_is_refused() -> None:
    with pytest.raises(TwinprobeError, match=r"shapes \(2,\) and \(3,\)"):
        paired_comparison([0, 1], [0, 1, 1], ["a", "b"])
    with pytest.raises(TwinprobeError, match="2 values for 3 cluster ids"):
        paired_comparison([0, 1], [0, 1], ["a", "b", "c"])
    with pytest.raises(TwinprobeError, match="1 of 2 paired scores are NaN"):
        paired_comparison([0, float("nan")], [0, 1], ["a", "b"])
    with pytest.raises(TwinprobeError, match="0 values"):
        paired_comparison([], [], [])
    with pytest.raises(TwinprobeError, match="outside 0 to 1"):
        holm([0.5, 1.5])
