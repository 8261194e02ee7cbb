from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from synthetic import Gaussians

from activations.errors import TwinprobeError
from probes import batched
from probes.batched import decompose_many, fit_many
from probes.columns import Columns, class_basis
from probes.estimators import STRENGTHS, LogisticProbe
from probes.softmax import decompose

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU at hand")),
]


def label_sets(n_rows: int, n_classes: Sequence[int], seed: int) -> tuple[NDArray[np.float32], list[NDArray[np.int64]]]:
    """Rows with one label set that a linear rule knows, and random ones."""
    features, known = Gaussians(n_classes[0], 40, 3.0).sample(n_rows, seed)
    rng = np.random.default_rng(seed)
    return features, [known, *(rng.integers(0, k, n_rows) for k in n_classes[1:])]


def objective(
    probe: LogisticProbe, rows: NDArray[np.floating], labels: NDArray[np.int64], scale: NDArray[np.float64]
) -> float:
    """``mean cross entropy + |W|^2 / 2 C n`` in float64, W in standardised units."""
    logits = rows.astype(np.float64) @ probe.coef_.T + probe.intercept_
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    entropy = -log_softmax(logits, axis=1)[np.arange(len(rows)), np.searchsorted(probe.classes_, labels)].mean()
    return float(entropy + 0.5 * np.square(probe.coef_ * scale).sum() / (probe.C * len(rows)))


def test_columns_have_the_derivatives_of_cross_entropy() -> None:
    """Against automatic differentiation, for problems of 2, 2, 3 and 5 classes; ``[1, K, 7 rows]``."""
    generator = torch.Generator().manual_seed(0)
    sizes = (2, 2, 3, 5)
    columns = Columns.of(sizes, torch.float64, "cpu")
    logits = torch.randn(1, len(columns.owner), 7, generator=generator, dtype=torch.float64)
    expected, curvature = columns.expected(logits), columns.curvature(logits)
    assert columns.owner.tolist() == [0, 1, 2, 2, 3, 3, 3, 3]
    for problem, k in enumerate(sizes):
        basis = torch.from_numpy(class_basis(k))
        torch.testing.assert_close(basis.T @ basis, torch.eye(k - 1, dtype=torch.float64))
        mine = columns.owner == problem
        for row in range(7):
            label = torch.tensor(row % k)

            def loss(point: torch.Tensor, basis: torch.Tensor = basis, label: torch.Tensor = label) -> torch.Tensor:
                return torch.nn.functional.cross_entropy(basis @ point, label)

            point = logits[0, mine, row]
            gradient = torch.autograd.functional.jacobian(loss, point)
            torch.testing.assert_close(expected[0, mine, row] - basis[label], gradient)
            second = torch.autograd.functional.hessian(loss, point).diagonal()
            torch.testing.assert_close(curvature[0, mine, row], second)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("n_rows", [30, 600], ids=["wide", "tall"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_reaches_the_optimum_of_scikit_learn(device: str, n_rows: int, dtype: type) -> None:
    features, sets = label_sets(n_rows, (4, 2, 3, 2), seed=1)
    fresh, _ = Gaussians(4, 40, 3.0).sample(1000, seed=2)
    features = features.astype(dtype)
    strengths = (1.0, 1e-3, 1e-1)
    data = decompose(features)
    [paths] = fit_many([data], [sets], strengths, device=device)
    for labels, path in zip(sets, paths, strict=True):
        for strength, probe in zip(strengths, path, strict=True):
            library = make_pipeline(StandardScaler(), LogisticRegression(C=strength, tol=1e-8, max_iter=10_000))
            library.fit(features.astype(np.float64), labels)
            best = LogisticProbe(C=strength)
            best.classes_ = library[1].classes_
            best.coef_ = library[1].coef_ / library[0].scale_
            best.intercept_ = library[1].intercept_ - best.coef_ @ library[0].mean_
            assert strength == probe.C
            assert probe.converged_
            assert objective(probe, features, labels, data.scale) <= objective(best, features, labels, data.scale) * (
                1 + 1e-5
            )
            assert (probe.predict(fresh) == library.predict(fresh)).mean() >= 0.998
            assert np.abs(probe.predict_proba(fresh) - library.predict_proba(fresh)).max() < 5e-3


def test_the_batch_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Folds of unequal length, a narrower layer, other label sets: together or one by one, the same probes."""
    features, sets = label_sets(203, (3, 5, 2), seed=1)
    folds = [np.arange(203) % 4 != fold for fold in range(4)]
    data = decompose_many([*(features[fold] for fold in folds), features[:, :13]])
    problems = [[labels[fold] for labels in sets] for fold in folds]
    problems += [[sets[2], sets[0], sets[1]]]
    together = fit_many(data, problems)
    monkeypatch.setattr(batched, "CPU_BATCH", 0)
    alone = fit_many(data, problems)
    for one, other, rows in zip(together, alone, problems, strict=True):
        assert [path[0].classes_.tolist() for path in one] == [np.unique(labels).tolist() for labels in rows]
        for path, same in zip(one, other, strict=True):
            for probe, twin in zip(path, same, strict=True):
                size = np.abs(twin.coef_).max()
                np.testing.assert_allclose(probe.coef_, twin.coef_, atol=2e-3 * size + 1e-12)
                np.testing.assert_allclose(probe.intercept_, twin.intercept_, atol=5e-3)
                assert probe.n_iter_ == pytest.approx(twin.n_iter_, abs=2)


def test_the_number_of_threads_changes_nothing() -> None:
    features, sets = label_sets(150, (3, 2), seed=1)
    data = [decompose(features[start:]) for start in range(0, 30, 10)]
    problems = [[labels[start:] for labels in sets] for start in range(0, 30, 10)]
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            results.append(fit_many(data, problems))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        for path, same in zip(one, other, strict=True):
            for probe, twin in zip(path, same, strict=True):
                assert (probe.coef_ == twin.coef_).all()


def test_takes_labels_of_any_kind_and_no_labels_at_all() -> None:
    features, [codes, _] = label_sets(120, (3, 2), seed=1)
    names = np.array(["no", "yes", "maybe"])[codes]
    data = decompose(features)
    none, [path] = fit_many([data, data], [[], [names]])
    assert none == []
    assert path[-1].classes_.tolist() == ["maybe", "no", "yes"]
    assert path[-1].score(features, names) > 0.9
    assert fit_many([], []) == []


def test_an_unfinished_fit_says_so() -> None:
    features, sets = label_sets(200, (4, 2), seed=1)
    [short] = fit_many([decompose(features)], [sets], max_iter=1)
    [full] = fit_many([decompose(features)], [sets])
    assert sum(not probe.converged_ for path in short for probe in path) >= 6
    assert {probe.n_iter_ for path in short for probe in path} == {1}
    assert all(probe.converged_ for path in full for probe in path)


def test_a_class_that_is_told_apart_perfectly_does_no_harm() -> None:
    features, labels = Gaussians(3, 10, 60.0).sample(300, seed=1)
    [[path]] = fit_many([decompose(features)], [[labels]], (1e-2, 1.0, 1e4))
    assert all(probe.converged_ and probe.score(features, labels) == 1.0 for probe in path)
    norms = [np.linalg.norm(probe.coef_) for probe in path]
    assert norms == sorted(norms)


def test_rows_without_any_variance_give_the_majority() -> None:
    labels = np.array(["x"] * 5 + ["y"] * 15)
    [[path]] = fit_many([decompose(np.ones((20, 3)))], [[labels]])
    for probe in path:
        assert probe.predict_proba(np.ones((1, 3)))[0] == pytest.approx([0.25, 0.75], abs=1e-3)


def test_bad_input_is_refused() -> None:
    features, [labels, other] = label_sets(60, (3, 2), seed=1)
    data = decompose(features)
    assert len(fit_many([data], [[labels, other]])[0][0]) == len(STRENGTHS)
    with pytest.raises(TwinprobeError, match="59 labels, 3 different, for 60 rows"):
        fit_many([data], [[labels[:-1]]])
    with pytest.raises(TwinprobeError, match="at least two different"):
        fit_many([data], [[np.zeros(60)]])
    with pytest.raises(TwinprobeError, match="positive numbers"):
        fit_many([data], [[labels]], (0.0,))
