from __future__ import annotations

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from synthetic import Gaussians

from probes.difference import DifferenceInMeans


@parametrize_with_checks([DifferenceInMeans(), DifferenceInMeans(standardise=False)])
def test_is_a_scikit_learn_estimator(estimator, check) -> None:  # type: ignore[no-untyped-def]
    check(estimator)


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("standardise", [True, False])
def test_agrees_with_the_nearest_centroid_of_scikit_learn(n_classes: int, standardise: bool) -> None:
    features, classes = Gaussians(n_classes, 30, 2.0).sample(300, seed=1)
    fresh, _ = Gaussians(n_classes, 30, 2.0).sample(1000, seed=2)
    probe = DifferenceInMeans(standardise=standardise).fit(features, classes)
    scaler = StandardScaler(with_mean=standardise, with_std=standardise).fit(features)
    library = NearestCentroid().fit(scaler.transform(features), classes)
    assert (probe.predict(fresh) == library.predict(scaler.transform(fresh))).mean() >= 0.998


def test_directions_point_from_the_other_classes_to_their_own() -> None:
    truth = Gaussians(4, 12, 3.0)
    features, classes = truth.sample(20_000, seed=1)
    means = truth.white_means @ truth.mix.T
    probe = DifferenceInMeans().fit(features, np.array(["a", "b", "c", "d"])[classes])
    for index, found in enumerate(probe.directions_):
        others = np.delete(means, index, axis=0).mean(axis=0)
        assert np.abs(found - (means[index] - others)).max() < 0.15
    two = classes < 2
    [between] = DifferenceInMeans().fit(features[two], classes[two]).directions_
    assert np.abs(between - (means[1] - means[0])).max() < 0.15


def test_reaches_the_bayes_score_where_the_noise_is_round() -> None:
    rng = np.random.default_rng(0)
    means = 0.6 * rng.normal(size=(3, 20))
    classes = rng.integers(3, size=(2, 3000))
    train, test = (means[rows] + rng.normal(size=(3000, 20)) for rows in classes)
    bayes = (-((test[:, None] - means) ** 2).sum(axis=2)).argmax(axis=1)
    ceiling = (bayes == classes[1]).mean()
    assert 0.75 < ceiling < 0.97
    assert DifferenceInMeans(standardise=False).fit(train, classes[0]).score(test, classes[1]) > ceiling - 0.015


def test_one_huge_dimension_does_not_decide_when_features_are_standardised() -> None:
    features, classes = Gaussians(2, 10, 4.0).sample(1000, seed=1)
    features[:, 3] = 1000.0 * np.random.default_rng(0).normal(size=1000)  # like the outlier dimensions of a model
    assert DifferenceInMeans().fit(features[:500], classes[:500]).score(features[500:], classes[500:]) > 0.8
    raw = DifferenceInMeans(standardise=False).fit(features[:500], classes[:500])
    assert raw.score(features[500:], classes[500:]) < 0.65


def test_frequent_classes_get_no_head_start() -> None:
    rng = np.random.default_rng(0)
    labels = np.array([0] * 900 + [1] * 100)
    features = rng.normal(size=(1000, 1)) + 2.0 * labels[:, None]
    probe = DifferenceInMeans().fit(features, labels)
    assert probe.score(features[:900], labels[:900]) == pytest.approx(
        probe.score(features[900:], labels[900:]), abs=0.1
    )


def test_rows_without_any_variance_are_survived() -> None:
    probe = DifferenceInMeans().fit(np.ones((6, 2)), [0, 1, 1, 0, 1, 2])
    assert set(probe.predict(np.ones((3, 2)))) <= {0, 1, 2}
