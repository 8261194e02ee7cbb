from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from activations.errors import TwinprobeError
from probes.metrics import mean_intervals
from probes.regression import (
    RidgeProbe,
    choose_ridge_strength,
    fit_ridge_path,
    r_squared,
    spearman,
    statistic_interval,
)
from probes.softmax import decompose

STRENGTHS = (1e-4, 1e-2, 1.0)


@parametrize_with_checks([RidgeProbe()])
def test_is_a_scikit_learn_estimator(estimator, check) -> None:  # type: ignore[no-untyped-def]
    check(estimator)


def planted(n: int, seed: int, noise: float = 1.0, width: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Rows with strongly unequal axes and a large offset; the number is a fixed linear function plus noise."""
    fixed = np.random.default_rng(0)
    mix, weights = fixed.normal(size=(width, width)) / np.arange(1, width + 1), fixed.normal(size=width)
    rng = np.random.default_rng(seed)
    white = rng.normal(size=(n, width))
    signal = white @ weights / np.linalg.norm(weights)
    return (white @ mix.T + 7.0).astype(np.float32), 3.0 * signal + noise * rng.normal(size=n) - 50.0


@pytest.mark.parametrize("n_rows", [30, 300], ids=["wide", "tall"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reaches_the_optimum_of_scikit_learn(n_rows: int, dtype: type) -> None:
    features, numbers = planted(n_rows, seed=1)
    fresh, _ = planted(200, seed=2)
    for probe in fit_ridge_path(decompose(features.astype(dtype)), numbers, STRENGTHS):
        library = make_pipeline(StandardScaler(), Ridge(alpha=1 / probe.C)).fit(features.astype(np.float64), numbers)
        alone = RidgeProbe(C=probe.C).fit(features.astype(dtype), numbers)
        close = 1e-6 if dtype is np.float64 else 2e-2
        assert np.abs(probe.predict(fresh) - library.predict(fresh.astype(np.float64))).max() < close
        assert np.abs(alone.predict(fresh) - probe.predict(fresh)).max() < 1e-9


def test_finds_a_planted_linear_number() -> None:
    features, numbers = planted(4000, seed=1)
    test_features, test_numbers = planted(4000, seed=2)
    choice = choose_ridge_strength(decompose(features[:3000]), numbers[:3000], features[3000:], numbers[3000:])
    ceiling = 9 / 10  # variance 9 of the signal, 1 of the noise
    found = choice.probe.predict(test_features)
    assert abs(r_squared(test_numbers, found) - ceiling) < 0.03
    assert choice.probe.score(test_features, test_numbers) == pytest.approx(r_squared(test_numbers, found))
    assert spearman(test_numbers, found) > 0.9


def test_strength_follows_dev() -> None:
    features, numbers = planted(300, seed=1, noise=6.0)
    data, dev, dev_numbers = decompose(features[:45]), features[45:], numbers[45:]
    choice = choose_ridge_strength(data, numbers[:45], dev, dev_numbers, (1e3, *STRENGTHS))
    scores = {probe.C: r_squared(dev_numbers, probe.predict(dev)) for probe in fit_ridge_path(data, numbers[:45])}
    assert len(set(scores.values())) == len(scores)
    assert choice.dev_score >= max(scores[C] for C in STRENGTHS)
    assert choice.probe.C < 1e3  # 45 rows of 40 features and much noise: hardly any penalty must lose


def test_scores_know_their_corner_cases() -> None:
    rng = np.random.default_rng(0)
    truth, found = rng.integers(0, 5, 80), rng.integers(0, 4, 80) + 0.5  # many ties
    assert spearman(truth, found) == pytest.approx(spearmanr(truth, found).statistic)
    assert spearman(truth, truth**3) == pytest.approx(1.0)
    assert spearman(truth, -truth) == pytest.approx(-1.0)
    assert spearman(truth, np.ones(80)) == 0.0
    assert np.isnan(spearman(np.ones(80), truth))
    assert r_squared(truth, truth) == 1.0
    assert r_squared(truth, np.full(80, truth.mean())) == pytest.approx(0.0)
    assert np.isnan(r_squared(np.ones(3), np.arange(3)))


def test_the_interval_of_a_mean_is_that_of_the_cluster_bootstrap() -> None:
    rng = np.random.default_rng(0)
    clusters = np.repeat(np.arange(60), rng.integers(1, 6, 60))
    truth = rng.normal(size=60)[clusters] + rng.normal(size=len(clusters))
    found = statistic_interval(lambda a, b: float(np.mean(a * b)), truth, truth, clusters, n_resamples=2000)
    [known] = mean_intervals((truth**2)[:, None], clusters, n_resamples=2000)
    assert found.estimate == pytest.approx(known.estimate)
    assert found.low == pytest.approx(known.low, rel=0.05)
    assert found.high == pytest.approx(known.high, rel=0.05)


def test_intervals_cover_the_true_score() -> None:
    """R² of 0.5 in the population; rows of an item share half of their noise, so rows alone would be too sure."""
    covered = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        clusters = np.repeat(np.arange(80), 5)
        signal = rng.normal(size=80)[clusters]
        truth = signal + np.sqrt(0.5) * (rng.normal(size=80)[clusters] + rng.normal(size=400))
        interval = statistic_interval(r_squared, truth, signal, clusters, n_resamples=200, seed=seed)
        covered += interval.low <= 0.5 <= interval.high
    assert 51 <= covered <= 60


def test_intervals_serve_other_statistics_and_say_when_there_is_none() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 200)
    scores = truth + rng.normal(size=200)
    interval = statistic_interval(roc_auc_score, truth, scores, np.arange(200), n_resamples=200)
    assert interval.low < interval.estimate == roc_auc_score(truth, scores) < interval.high
    single = statistic_interval(spearman, truth, scores, np.zeros(200))
    assert np.isnan([single.low, single.high]).all()
    assert single.estimate == spearman(truth, scores)
    with pytest.raises(TwinprobeError, match="as many, and at least one"):
        statistic_interval(spearman, truth, scores, np.zeros(3))


def test_bad_input_is_refused() -> None:
    features, numbers = planted(20, seed=1)
    with pytest.raises(ValueError, match="expected a positive number"):
        RidgeProbe(C=-1.0).fit(features, numbers)
    with pytest.raises(TwinprobeError, match="positive numbers"):
        choose_ridge_strength(decompose(features), numbers, features, numbers, (0.0,))
    with pytest.raises(TwinprobeError, match="every dev row has the same number"):
        choose_ridge_strength(decompose(features), numbers, features, np.ones(20))
