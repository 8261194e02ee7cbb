from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import check_grad
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

from probes.bilinear import BilinearProbe, _Problem
from probes.estimators import LogisticProbe

WIDTH = 16


@parametrize_with_checks([BilinearProbe(), BilinearProbe(main_effects=True), BilinearProbe(rank=1, main_effects=True)])
def test_is_a_scikit_learn_estimator(estimator, check) -> None:  # type: ignore[no-untyped-def]
    check(estimator)


def planted(n: int, seed: int, n_relations: int = 2, rank: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Pairs whose relation depends on how they fit together, and on neither row alone."""
    fixed = np.random.default_rng(1)
    forms = 3.0 * fixed.normal(size=(n_relations, WIDTH, rank)) @ fixed.normal(size=(n_relations, rank, WIDTH)) / WIDTH
    mix = fixed.normal(size=(2, WIDTH, WIDTH)) / np.sqrt(np.arange(1, WIDTH + 1))  # rows with unequal axes
    rng = np.random.default_rng(seed)
    left, right = rng.normal(size=(2, n, WIDTH))
    scores = np.einsum("nd,cde,ne->nc", left, forms, right)
    relations = np.array(["none", "head", "child", "same"])[scores.argmax(axis=1)]
    return np.concatenate([left @ mix[0].T + 4.0, right @ mix[1].T - 2.0], axis=1), relations


@pytest.mark.parametrize("n_relations", [2, 4])
def test_a_planted_relation_is_found_where_linear_probes_see_nothing(n_relations: int) -> None:
    pairs, relations = planted(3000, 1, n_relations)
    fresh, fresh_relations = planted(2000, 2, n_relations)
    chance = max(np.unique(fresh_relations, return_counts=True)[1]) / 2000
    probe = BilinearProbe(rank=4 if n_relations == 2 else 2, C=10.0).fit(pairs, relations)
    assert probe.score(fresh, fresh_relations) > 0.9
    assert LogisticProbe(C=0.1).fit(pairs, relations).score(fresh, fresh_relations) < chance + 0.05
    swapped = np.concatenate([fresh[:, WIDTH:], fresh[:, :WIDTH]], axis=1)
    assert probe.score(swapped, fresh_relations) < chance + 0.15  # which row is which matters


def test_the_planted_rank_is_enough_and_less_is_not() -> None:
    pairs, relations = planted(3000, 1, rank=2)  # the difference of two forms of rank 2 has rank 4
    fresh, fresh_relations = planted(2000, 2, rank=2)
    scores = {
        rank: BilinearProbe(rank=rank, C=10.0).fit(pairs, relations).score(fresh, fresh_relations)
        for rank in (1, 2, 4, 8)
    }
    assert scores[1] + 0.05 < scores[2] < scores[4] - 0.1
    assert abs(scores[8] - scores[4]) < 0.03


def test_forms_in_raw_units_give_the_scores() -> None:
    pairs, relations = planted(400, 1, 4)
    probe = BilinearProbe(rank=3, C=0.1, main_effects=True).fit(pairs, relations)
    forms = np.einsum("cdr,cer->cde", probe.left_, probe.right_)
    assert forms.shape == (4, WIDTH, WIDTH)
    centred = pairs - probe.centre_
    by_hand = np.einsum("nd,cde,ne->nc", centred[:, :WIDTH], forms, centred[:, WIDTH:])
    by_hand += centred @ probe.main_.T + probe.intercept_
    assert np.allclose(probe.decision_function(pairs), by_hand)
    assert np.allclose(probe.predict_proba(pairs).sum(axis=1), 1.0)


@pytest.mark.parametrize("main_effects", [True, False])
@pytest.mark.parametrize("n_logits", [1, 3])
def test_the_gradient_is_that_of_the_loss(n_logits: int, main_effects: bool) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, size=(20, 1)) if n_logits == 1 else np.eye(3)[rng.integers(3, size=20)]
    sides = [rng.normal(size=(20, 4)), rng.normal(size=(20, 5))]
    steps = [rng.uniform(0.5, 2, 4), rng.uniform(0.5, 2, 5)]
    problem = _Problem(sides, truth.astype(float), steps, 0.1, main_effects)
    start = problem.start(2)
    point = start + 0.3 * rng.normal(size=start.shape)
    error = check_grad(lambda flat: problem.loss(flat)[0], lambda flat: problem.loss(flat)[1], point)
    assert error < 1e-5 * np.linalg.norm(problem.loss(point)[1]) + 1e-6


def test_main_effects_read_what_one_row_says_alone() -> None:
    rng = np.random.default_rng(0)
    pairs = rng.normal(size=(1200, 2 * WIDTH))
    labels = pairs[:, 3] > 0
    blind, seeing = (BilinearProbe(C=0.01, main_effects=flag).fit(pairs[:800], labels[:800]) for flag in (False, True))
    assert blind.score(pairs[800:], labels[800:]) < 0.6
    assert seeing.score(pairs[800:], labels[800:]) > 0.9


def test_rows_of_different_widths_are_split_where_told() -> None:
    pairs, relations = planted(2000, 1)
    rng = np.random.default_rng(0)
    wider = np.concatenate([pairs, rng.normal(size=(2000, 5))], axis=1)
    probe = BilinearProbe(C=10.0, split=WIDTH).fit(wider[:1500], relations[:1500])
    assert probe.left_.shape[1] == WIDTH and probe.right_.shape[1] == WIDTH + 5
    assert probe.score(wider[1500:], relations[1500:]) > 0.85
    for split in (0, 2 * WIDTH + 5, -1):
        with pytest.raises(ValueError, match="expected 1 to 36"):
            BilinearProbe(split=split).fit(wider, relations)


def test_single_precision_gives_the_same_probe() -> None:
    pairs, relations = planted(800, 1, 4)
    double = BilinearProbe(C=0.1).fit(pairs, relations)
    single = BilinearProbe(C=0.1).fit(pairs.astype(np.float32), relations)
    assert (double.predict(pairs) == single.predict(pairs)).mean() > 0.98


def test_fits_repeat() -> None:
    pairs, relations = planted(300, 1)
    first, again = (BilinearProbe().fit(pairs, relations) for _ in range(2))
    assert np.array_equal(first.left_, again.left_)


def test_a_strong_penalty_leaves_the_majority_and_rows_without_variance_do_no_harm() -> None:
    pairs, relations = planted(400, 1)
    shares = (relations == "none").mean()
    assert BilinearProbe(C=1e-6).fit(pairs, relations).predict_proba(pairs)[:, 1] == pytest.approx(shares, abs=0.01)
    probe = BilinearProbe().fit(np.ones((20, 4)), ["x"] * 5 + ["y"] * 15)
    assert set(probe.predict(np.ones((3, 4)))) == {"y"}


def test_unfinished_fits_warn_and_bad_parameters_are_refused() -> None:
    pairs, relations = planted(300, 1)
    with pytest.warns(ConvergenceWarning, match="stopped after 1 steps"):
        assert not BilinearProbe(max_iter=1).fit(pairs, relations).converged_
    with pytest.raises(ValueError, match="whole number of at least 1"):
        BilinearProbe(rank=0).fit(pairs, relations)
    with pytest.raises(ValueError, match="expected a positive number"):
        BilinearProbe(C=0.0).fit(pairs, relations)
