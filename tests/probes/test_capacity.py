from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks
from synthetic import Gaussians

from probes.capacity import LowRankProbe, MLPProbe
from probes.estimators import LogisticProbe


@parametrize_with_checks([LowRankProbe(), LowRankProbe(rank=5, C=0.1), MLPProbe()])
def test_is_a_scikit_learn_estimator(estimator, check) -> None:  # type: ignore[no-untyped-def]
    check(estimator)


def planted_directions(rank: int, width: int = 30) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(6).normal(size=(width, rank)))[0]


def planted(rank: int, n: int, seed: int, n_classes: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """Classes drawn from logits of the given rank; at rank 2 the classes lie around a circle."""
    outer = np.random.default_rng(5).normal(size=(n_classes, rank))
    if rank == 2:
        angles = 2 * np.pi * np.arange(n_classes) / n_classes
        outer = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, 30))
    logits = 6.0 * features @ planted_directions(rank) @ outer.T
    return features, (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)


def objective(probe: LogisticProbe, features: np.ndarray, classes: np.ndarray) -> float:
    """C * sum(cross entropy) + |W|^2 / 2 in standardised units, computed apart from the package."""
    logits = features @ probe.coef_.T + probe.intercept_
    weights = probe.coef_ * features.std(axis=0)
    entropy = -log_softmax(logits, axis=1)[np.arange(len(classes)), classes].sum()
    return float(probe.C * entropy + 0.5 * (weights**2).sum())


def effective_rank(probe: LogisticProbe) -> int:
    return int(np.linalg.matrix_rank(probe.coef_, tol=1e-6 * np.linalg.norm(probe.coef_)))


def test_the_curve_rises_to_the_planted_rank_and_stays_there() -> None:
    features, classes = planted(2, 3000, seed=1)
    fresh, fresh_classes = planted(2, 3000, seed=2)
    scores = {}
    for rank in (1, 2, 3, 7):
        probe = LowRankProbe(rank=rank, C=0.1).fit(features, classes)
        assert effective_rank(probe) == rank
        scores[rank] = probe.score(fresh, fresh_classes)
    assert scores[2] > scores[1] + 0.2
    assert abs(scores[7] - scores[2]) < 0.03
    assert abs(scores[3] - scores[2]) < 0.03


def test_the_planted_subspace_is_found() -> None:
    features, classes = planted(3, 6000, seed=1, n_classes=10)
    probe = LowRankProbe(rank=3, C=0.1).fit(features, classes)
    found = np.linalg.svd(probe.coef_)[2][:3].T
    cosines = np.linalg.svd(planted_directions(3).T @ found)[1]  # of the principal angles between the two subspaces
    assert cosines.min() > 0.97


def test_full_rank_is_the_logistic_probe() -> None:
    features, classes = Gaussians(4, 30, 2.0).sample(300, seed=1)
    plain = LogisticProbe(C=0.1).fit(features, classes)
    for rank in (3, 4, 100):
        assert np.array_equal(LowRankProbe(rank=rank, C=0.1).fit(features, classes).coef_, plain.coef_)


def test_a_lower_rank_is_never_better_on_the_rows_and_the_fit_beats_plain_truncation() -> None:
    features, classes = Gaussians(6, 20, 2.5).sample(400, seed=1)
    features = features.astype(np.float64)
    full = LogisticProbe(C=0.1, tol=1e-6).fit(features, classes)
    losses = [
        objective(LowRankProbe(rank=rank, C=0.1, tol=1e-6).fit(features, classes), features, classes)
        for rank in (1, 2, 3, 4)
    ]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] > objective(full, features, classes)
    truncated = LogisticProbe(C=0.1)
    left, sizes, right = np.linalg.svd(full.coef_ * features.std(axis=0), full_matrices=False)
    truncated.coef_ = (left[:, :2] * sizes[:2]) @ right[:2] / features.std(axis=0)
    truncated.intercept_ = full.intercept_ + (full.coef_ - truncated.coef_) @ features.mean(axis=0)
    assert losses[1] < objective(truncated, features, classes)


def test_no_random_start_does_better_than_the_deterministic_one() -> None:
    import torch

    features, classes = Gaussians(6, 8, 2.5).sample(300, seed=1)
    features = features.astype(np.float64)
    ours = objective(LowRankProbe(rank=2, C=0.1, tol=1e-6).fit(features, classes), features, classes)
    rows = torch.from_numpy((features - features.mean(axis=0)) / features.std(axis=0))
    found = []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        factors = [
            torch.randn(*shape, generator=generator, dtype=torch.float64).requires_grad_()
            for shape in ((6, 2), (2, 8), (6,))
        ]
        optimiser = torch.optim.LBFGS(factors, max_iter=500, line_search_fn="strong_wolfe", tolerance_change=1e-12)

        def closure(factors: list = factors, optimiser: torch.optim.Optimizer = optimiser) -> torch.Tensor:
            optimiser.zero_grad()
            weights = factors[0] @ factors[1]
            entropy = torch.nn.functional.cross_entropy(
                rows @ weights.T + factors[2], torch.from_numpy(classes), reduction="sum"
            )
            loss = 0.1 * entropy + 0.5 * (weights**2).sum()
            loss.backward()
            return loss

        optimiser.step(closure)
        found.append(closure().item())
    assert ours <= min(found) * (1 + 1e-4)


def xor(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    bits = rng.integers(0, 2, size=(n, 2))
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(10, 10)))[0]
    plain = np.concatenate([4.0 * bits, rng.normal(size=(n, 8))], axis=1) + 0.3 * rng.normal(size=(n, 10))
    return plain @ turn + 2.0, np.array(["even", "odd"])[bits.sum(axis=1) % 2]


def test_xor_is_read_by_a_hidden_layer_but_not_by_a_linear_probe() -> None:
    features, labels = xor(800, seed=1)
    fresh, fresh_labels = xor(800, seed=2)
    assert MLPProbe(hidden=8).fit(features, labels).score(fresh, fresh_labels) > 0.95
    assert LogisticProbe().fit(features, labels).score(fresh, fresh_labels) < 0.6
    assert LowRankProbe(rank=1).fit(features, labels).score(fresh, fresh_labels) < 0.6


def test_fits_repeat_and_seeds_differ() -> None:
    features, labels = xor(200, seed=1)
    first, again, other = (
        MLPProbe(random_state=seed).fit(features, labels).predict_proba(features) for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    numbers, classes = planted(3, 300, seed=1)
    coefficients = [LowRankProbe(rank=2).fit(numbers, classes).coef_ for _ in range(2)]
    assert np.array_equal(*coefficients)


def test_a_strong_penalty_gives_the_class_frequencies() -> None:
    features, labels = xor(300, seed=1)
    share = (labels == "odd").mean()
    assert MLPProbe(C=1e-6).fit(features, labels).predict_proba(features)[:, 1] == pytest.approx(share, abs=0.02)
    numbers, classes = planted(3, 300, seed=1)
    shares = np.unique(classes, return_counts=True)[1] / 300
    assert np.abs(LowRankProbe(rank=2, C=1e-7).fit(numbers, classes).predict_proba(numbers) - shares).max() < 0.01


def test_constant_features_and_huge_offsets_do_no_harm() -> None:
    features, classes = Gaussians(4, 20, 3.0).sample(400, seed=1)
    padded = np.concatenate([features + np.float32(4096), np.full((400, 2), 7, np.float32)], axis=1)
    for probe in (LowRankProbe(rank=2, C=0.1), MLPProbe(C=1e-2)):
        plain = probe.fit(features, classes).predict(features)
        assert (probe.fit(padded, classes).predict(padded) == plain).mean() > 0.97


def test_unfinished_fits_warn_and_say_so() -> None:
    features, classes = planted(3, 300, seed=1)
    for probe in (LowRankProbe(rank=2, max_iter=1), MLPProbe(max_iter=1)):
        with pytest.warns(ConvergenceWarning, match="max_iter"):
            probe.fit(features, classes)
        assert not probe.converged_


def test_bad_parameters_are_refused() -> None:
    features, classes = planted(3, 60, seed=1)
    for probe in (LowRankProbe(rank=0), LowRankProbe(rank=1.5), MLPProbe(hidden=0)):  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="whole number of at least 1"):
            probe.fit(features, classes)
    for probe in (LowRankProbe(C=0.0), MLPProbe(C=-1.0)):
        with pytest.raises(ValueError, match="expected a positive number"):
            probe.fit(features, classes)
