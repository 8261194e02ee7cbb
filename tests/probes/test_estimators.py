from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator
from synthetic import Gaussians

from activations.errors import TwinprobeError
from probes.estimators import STRENGTHS, LogisticProbe, choose_strength, fit_path
from probes.softmax import decompose


def test_is_a_scikit_learn_estimator() -> None:
    check_estimator(LogisticProbe())


@pytest.mark.parametrize("n_classes", [2, 5])
@pytest.mark.parametrize("n_rows", [60, 400], ids=["wide", "tall"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reaches_the_optimum_of_scikit_learn(n_classes: int, n_rows: int, dtype: type) -> None:
    features, classes = Gaussians(n_classes, 80, 2.0).sample(n_rows, seed=1)
    fresh, _ = Gaussians(n_classes, 80, 2.0).sample(1000, seed=2)
    tol, close = (1e-6, 2e-4) if dtype is np.float64 else (1e-4, 5e-3)
    for strength in (1e-3, 1e-1):
        probe = LogisticProbe(C=strength, tol=tol).fit(features.astype(dtype), classes)
        library = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-8, max_iter=10_000))
        library.fit(features.astype(np.float64), classes)
        assert np.abs(probe.predict_proba(fresh) - library.predict_proba(fresh)).max() < close
        assert (probe.predict(fresh) == library.predict(fresh)).mean() >= 0.998


def test_the_path_gives_the_same_probes_as_single_fits() -> None:
    features, classes = Gaussians(4, 60, 2.0).sample(300, seed=1)
    shuffled = (1e-2, 1.0, 1e-4)
    path = fit_path(decompose(features), classes, shuffled)
    assert [probe.C for probe in path] == list(shuffled)
    for probe in path:
        alone = LogisticProbe(C=probe.C).fit(features, classes)
        assert (probe.predict(features) == alone.predict(features)).mean() >= 0.99
        assert np.abs(probe.predict_proba(features) - alone.predict_proba(features)).max() < 0.02


def test_stronger_penalties_give_smaller_weights() -> None:
    features, classes = Gaussians(3, 30, 2.0).sample(200, seed=1)
    norms = [np.linalg.norm(probe.coef_) for probe in fit_path(decompose(features), classes, STRENGTHS)]
    assert norms == sorted(norms)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_reaches_the_bayes_score(n_classes: int) -> None:
    truth = Gaussians(n_classes, 24, 1.7 if n_classes == 2 else 2.2, seed=3)
    features, classes = truth.sample(6000, seed=4)
    test_features, test_classes = truth.sample(20_000, seed=5)
    choice = choose_strength(decompose(features[:4500]), classes[:4500], features[4500:], classes[4500:])
    bayes = truth.bayes_score()
    assert 0.75 < bayes < 0.97  # neither trivial nor hopeless
    assert abs(choice.probe.score(test_features, test_classes) - bayes) < 0.02


def test_constant_features_and_huge_offsets_do_no_harm() -> None:
    features, classes = Gaussians(3, 20, 3.0).sample(400, seed=1)
    plain = LogisticProbe(C=0.1).fit(features, classes)
    padded = np.concatenate([features + np.float32(4096), np.full((400, 2), 7, np.float32)], axis=1)
    assert (LogisticProbe(C=0.1).fit(padded, classes).predict(padded) == plain.predict(features)).mean() > 0.99


def test_rows_without_any_variance_give_the_majority() -> None:
    labels = np.array(["x"] * 5 + ["y"] * 15)
    probe = LogisticProbe().fit(np.ones((20, 3)), labels)
    assert set(probe.predict(np.ones((4, 3)))) == {"y"}
    assert probe.predict_proba(np.ones((1, 3)))[0] == pytest.approx([0.25, 0.75], abs=1e-3)


def test_an_unfinished_fit_warns_or_is_counted() -> None:
    features, classes = Gaussians(5, 40, 2.0).sample(300, seed=1)
    with pytest.warns(ConvergenceWarning, match="stopped after 1 steps"):
        LogisticProbe(C=1.0, max_iter=1).fit(features, classes)
    path = fit_path(decompose(features), classes, STRENGTHS, max_iter=1)
    assert sum(not probe.converged_ for probe in path) >= 4
    assert all(probe.converged_ for probe in fit_path(decompose(features), classes, STRENGTHS))


def test_dev_ties_go_to_the_stronger_penalty() -> None:
    features, classes = Gaussians(2, 10, 40.0).sample(300, seed=1)  # separable: all of these strengths score 1 on dev
    strengths = (1.0, 1e-2, 1e-1)
    choice = choose_strength(decompose(features[:200]), classes[:200], features[200:], classes[200:], strengths)
    assert choice.dev_score == 1.0
    assert choice.probe.C == 1e-2
    assert choice.n_unconverged == 0


def test_strength_follows_dev() -> None:
    features, classes = Gaussians(2, 150, 2.0).sample(400, seed=7)  # few rows, many features
    data, dev, dev_classes = decompose(features[:120]), features[120:], classes[120:]
    choice = choose_strength(data, classes[:120], dev, dev_classes)
    scores = {probe.C: probe.score(dev, dev_classes) for probe in fit_path(data, classes[:120], STRENGTHS)}
    assert len(set(scores.values())) > 1
    assert choice.dev_score == max(scores.values()) == scores[choice.probe.C]


def test_bad_input_is_refused() -> None:
    features, classes = Gaussians(2, 4, 1.0).sample(20, seed=1)
    data = decompose(features)
    with pytest.raises(TwinprobeError, match="at least two labels"):
        choose_strength(data, np.array(["a"] * 20), features, np.array(["a"] * 20))
    for strengths in ((), (0.0,), (1.0, -1.0), (float("nan"),)):
        with pytest.raises(TwinprobeError, match="positive numbers"):
            choose_strength(data, classes, features, classes, strengths)
    with pytest.raises(ValueError, match="expected a positive number"):
        LogisticProbe(C=0.0).fit(features, classes)
