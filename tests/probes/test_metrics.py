from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score

import probes.metrics as metrics
from activations.errors import TwinprobeError
from probes.metrics import accuracy, bootstrap_means, cluster_bootstrap, macro_f1, mean_intervals, selectivity


def test_scores_by_hand() -> None:
    truth, predicted = np.array(list("aabbc")), np.array(list("aabab"))
    assert accuracy(truth, predicted) == pytest.approx(3 / 5)
    # a: 2 hits, 3 predicted, 2 true -> 0.8; b: 1 hit, 2 predicted, 2 true -> 0.5; c: no hit -> 0
    assert macro_f1(truth, predicted) == pytest.approx((0.8 + 0.5 + 0.0) / 3)
    assert macro_f1(truth, predicted) == pytest.approx(f1_score(truth, predicted, average="macro"))


def test_resampling_equals_a_plain_loop_over_clusters() -> None:
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=(30, 2)), rng.integers(0, 7, 30)
    fast = bootstrap_means(values, clusters, n_resamples=50, seed=4)
    draws = np.random.default_rng(4).integers(7, size=(50, 7))
    for row, drawn in enumerate(draws):
        stacked = np.concatenate([values[clusters == cluster] for cluster in drawn])
        assert fast[row] == pytest.approx(stacked.mean(axis=0))


def test_memory_bound_does_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    values, clusters = rng.normal(size=60), rng.integers(0, 20, 60)
    whole = cluster_bootstrap(values, clusters, 200, seed=1)
    monkeypatch.setattr(metrics, "_BLOCK", 70)
    assert cluster_bootstrap(values, clusters, 200, seed=1) == whole


def _clustered(rng: np.random.Generator, n_clusters: int, size: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    clusters = np.repeat(np.arange(n_clusters), size)
    values = rng.normal(0, spread, n_clusters)[clusters] + rng.normal(0, 1, n_clusters * size)
    return values, clusters


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(11)
    covered = {"clusters": 0, "rows": 0}
    for seed in range(400):
        values, clusters = _clustered(rng, 60, 5, spread=1.0)
        for name, ids in (("clusters", clusters), ("rows", np.arange(len(values)))):
            interval = cluster_bootstrap(values, ids, 500, seed)
            covered[name] += interval.low <= 0 <= interval.high
    assert 0.915 <= covered["clusters"] / 400 <= 0.975  # 95% less the small-sample bias, within 3 binomial deviations
    assert covered["rows"] / 400 < 0.85  # what ignoring the clusters costs


def test_width_matches_the_standard_error() -> None:
    values, clusters = _clustered(np.random.default_rng(0), 400, 3, spread=0.5)
    interval = cluster_bootstrap(values, clusters, 4000, seed=0)
    expected = 2 * 1.96 * math.sqrt((0.25 + 1 / 3) / 400)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.1)
    assert interval.estimate == pytest.approx(values.mean())


def test_one_cluster_has_no_bounds() -> None:
    interval = cluster_bootstrap([1.0, 0.0, 1.0], ["a", "a", "a"])
    assert interval.estimate == pytest.approx(2 / 3)
    assert math.isnan(interval.low)
    assert math.isnan(interval.high)


def test_same_seed_same_interval_and_paired_columns() -> None:
    values, clusters = _clustered(np.random.default_rng(1), 20, 3, 1.0)
    assert cluster_bootstrap(values, clusters, seed=5) == cluster_bootstrap(values, clusters, seed=5)
    assert cluster_bootstrap(values, clusters, seed=5) != cluster_bootstrap(values, clusters, seed=6)
    both = mean_intervals(np.stack([values, values + 1.0], axis=1), clusters, seed=5)
    assert both[1].low - both[0].low == pytest.approx(1.0)


def test_selectivity_is_paired() -> None:
    rng = np.random.default_rng(0)
    control = rng.random(400) < 0.5
    clusters = np.arange(400) // 2
    same = selectivity(control, control, clusters)
    assert (same.estimate, same.low, same.high) == (0.0, 0.0, 0.0)
    better = selectivity(control | (rng.random(400) < 0.6), control, clusters)
    assert better.low > 0.2


def test_bad_input_is_refused() -> None:
    with pytest.raises(TwinprobeError, match="3 values for 2 cluster ids"):
        cluster_bootstrap([1.0, 2.0, 3.0], ["a", "b"])
    with pytest.raises(TwinprobeError, match="at least one"):
        cluster_bootstrap([], [])
