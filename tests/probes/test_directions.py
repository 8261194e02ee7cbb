from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from synthetic import Gaussians

from activations.errors import TwinprobeError
from probes.directions import (
    class_weights,
    contrast_basis,
    contrast_direction,
    orthonormal,
    project_out,
    random_basis,
    random_direction,
    steer,
)
from probes.estimators import LogisticProbe

NAMES = np.array(["a", "b", "c", "d"])


def _probe(n_classes: int) -> tuple[LogisticProbe, np.ndarray]:
    features, classes = Gaussians(n_classes, 12, 3.0, seed=1).sample(400, seed=2)
    rows = features.astype(np.float64)
    return LogisticProbe(C=0.1).fit(rows, NAMES[classes]), rows


def _by_hand(coef: list[list[float]], labels: str) -> LogisticProbe:
    probe = LogisticProbe()
    probe.coef_, probe.classes_ = np.array(coef), np.array(list(labels))
    probe.intercept_, probe.n_features_in_ = np.zeros(len(coef)), len(coef[0])
    return probe


def test_contrasts_are_unit_differences_of_the_weights() -> None:
    three = _by_hand([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0]], "abc")
    assert contrast_direction(three, "a", "b") == pytest.approx([0.6, -0.8])
    assert contrast_direction(three, "b", "a") == pytest.approx([-0.6, 0.8])
    assert contrast_direction(three, "a") == pytest.approx(np.array([3.0, -2.0]) / np.sqrt(13))
    two = _by_hand([[0.0, -2.0]], "ab")  # one row of weights, of the second class minus the first
    assert contrast_direction(two, "b", "a") == pytest.approx([0.0, -1.0])
    assert contrast_direction(two, "a") == pytest.approx([0.0, 1.0])
    common = _by_hand([[1.0, 5.0], [-1.0, 5.0], [0.0, 5.0]], "abc")  # what all classes share decides nothing
    assert np.abs(contrast_basis(common)).tolist() == [[1.0, 0.0]]
    assert class_weights(two) == pytest.approx(np.array([[0.0, 1.0], [0.0, -1.0]]))


@pytest.mark.parametrize("n_classes", [2, 4])
def test_steering_moves_the_logit_contrast_by_amount_times_weight(n_classes: int) -> None:
    probe, rows = _probe(n_classes)
    direction = contrast_direction(probe, "b", "a")
    weights = class_weights(probe)

    def contrast(x: np.ndarray) -> np.ndarray:
        logits = probe.decision_function(x)
        return logits if n_classes == 2 else logits[:, 1] - logits[:, 0]

    amounts = np.linspace(-2, 2, len(rows))
    gained = contrast(steer(rows, direction, amounts)) - contrast(rows)
    assert gained == pytest.approx(amounts * np.linalg.norm(weights[1] - weights[0]))
    other = random_direction(direction, seed=3)
    assert np.abs(contrast(steer(rows, other, amounts)) - contrast(rows)).max() < np.abs(gained).max()


@pytest.mark.parametrize("n_classes", [2, 4])
def test_without_its_basis_a_probe_says_the_same_of_every_row(n_classes: int) -> None:
    probe, rows = _probe(n_classes)
    basis = contrast_basis(probe)
    assert basis.shape == (n_classes - 1, 12)
    assert basis @ basis.T == pytest.approx(np.eye(n_classes - 1))
    assert len(set(probe.predict(rows))) == n_classes
    for centre in (None, rows.mean(axis=0)):
        without = project_out(rows, basis, centre)
        said = probe.predict_proba(without)
        assert said == pytest.approx(np.tile(said[0], (len(rows), 1)))
        assert project_out(without, basis, centre) == pytest.approx(without)
    control = project_out(rows, random_basis(basis, seed=1), rows.mean(axis=0))
    assert (probe.predict(control) == probe.predict(rows)).mean() > 0.7


def test_projecting_out_by_hand() -> None:
    x = np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert project_out(x, np.array([0.0, 1.0, 0.0])).tolist() == [[1, 0, 3], [4, 0, 6]]
    assert project_out(x, np.array([0.6, 0.8, 0.0])) == pytest.approx(
        np.array([[1 - 0.6 * 2.2, 2 - 0.8 * 2.2, 3], [4 - 0.6 * 6.4, 5 - 0.8 * 6.4, 6]])
    )
    assert project_out(x, np.eye(3)[1:], centre=np.array([9.0, 8.0, 7.0])).tolist() == [[1, 8, 7], [4, 8, 7]]
    assert x.tolist() == [[1, 2, 3], [4, 5, 6]]


def test_steering_by_hand() -> None:
    x = np.zeros((2, 3, 2))
    assert steer(x, [0.6, 0.8], 5.0).tolist() == np.broadcast_to([3.0, 4.0], (2, 3, 2)).tolist()
    moved = steer(x, np.array([1.0, -1.0]), [[1.0], [2.0]])  # one amount per text, for all its positions
    assert moved[:, :, 0].tolist() == [[1, 1, 1], [2, 2, 2]]
    assert moved[:, :, 1].tolist() == [[-1, -1, -1], [-2, -2, -2]]
    assert not x.any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_tensors_and_arrays_agree_and_keep_their_kind(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    x, basis, centre = rng.normal(size=(4, 5, 8)), orthonormal(rng.normal(size=(2, 8))), rng.normal(size=8)
    tensor = torch.tensor(x, dtype=dtype)
    exact = tensor.double().numpy()  # what the tensor holds
    close = {"abs": {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]}
    for found, wanted in (
        (project_out(tensor, basis, centre), project_out(exact, basis, centre)),
        (project_out(tensor, torch.tensor(basis), torch.tensor(centre)), project_out(exact, basis, centre)),
        (steer(tensor, basis[0], 0.5), steer(exact, basis[0], 0.5)),
        (steer(tensor, torch.tensor(basis[0]), torch.ones(4, 1)), steer(exact, basis[0], np.ones((4, 1)))),
    ):
        assert isinstance(found, torch.Tensor)
        assert found.dtype == dtype
        assert found.shape == tensor.shape
        assert found.double().numpy() == pytest.approx(wanted, **close)
    if dtype.itemsize == 2:  # computed in float32, and rounded once
        assert torch.equal(project_out(tensor, basis), project_out(tensor.float(), basis).to(dtype))
        assert torch.equal(steer(tensor, basis[0], 0.3), steer(tensor.float(), basis[0], 0.3).to(dtype))
    halves = project_out(x.astype(np.float16), basis)
    assert halves.dtype == np.float16
    assert steer(x.astype(np.float32), basis[0], 1.0).dtype == np.float32


def test_gradients_flow_through_to_the_rows() -> None:
    x = torch.ones(3, 4, dtype=torch.float64, requires_grad=True)
    steer(project_out(x, np.eye(4)[0]), np.eye(4)[0], 2.0).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 1, 1, 1]] * 3


def test_random_controls_have_the_same_size_and_depend_on_the_seed() -> None:
    like = np.array([3.0, 0.0, 4.0])
    drawn = [random_direction(like, seed) for seed in (0, 0, 1)]
    assert [np.linalg.norm(vector) for vector in drawn] == pytest.approx([5.0] * 3)
    assert np.array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])
    many = np.stack([random_direction(like, seed) for seed in range(4000)])
    assert np.abs(many.mean(axis=0)).max() < 0.25  # no direction is preferred
    assert (many**2).mean(axis=0) == pytest.approx(np.full(3, 25 / 3), rel=0.1)
    basis = random_basis(np.eye(6)[:2], seed=1)
    assert basis @ basis.T == pytest.approx(np.eye(2))
    assert not np.allclose(basis, random_basis(np.eye(6)[:2], seed=2))


def test_orthonormal_spans_the_same_without_repeats() -> None:
    vectors = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, -3.0]])
    basis = orthonormal(vectors)
    assert basis.shape == (2, 3)
    assert vectors @ basis.T @ basis == pytest.approx(vectors)
    assert np.abs(orthonormal(np.array([0.0, 5.0]))).tolist() == [[0.0, 1.0]]


def test_what_has_no_direction_is_refused() -> None:
    probe, rows = _probe(4)
    with pytest.raises(TwinprobeError, match="has no label 'z'; expected one of a, b, c, d"):
        contrast_direction(probe, "z")
    with pytest.raises(TwinprobeError, match="with itself"):
        contrast_direction(probe, "a", "a")
    flat = _by_hand([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], "abc")
    with pytest.raises(TwinprobeError, match="length 0"):
        contrast_direction(flat, "a", "b")
    with pytest.raises(TwinprobeError, match="all weights of the probe are zero"):
        contrast_basis(flat)
    with pytest.raises(NotFittedError):
        contrast_basis(LogisticProbe())
    with pytest.raises(TwinprobeError, match="not orthonormal"):
        project_out(rows, 2 * np.eye(12)[0])
    with pytest.raises(TwinprobeError, match="of width 11"):
        project_out(rows, np.eye(11)[0])
    with pytest.raises(TwinprobeError, match="expected floating rows"):
        steer(np.ones((3, 2), dtype=int), [1.0, 0.0], 1.0)
    with pytest.raises(TwinprobeError, match="expected floating rows"):
        steer(torch.ones(3, 2, dtype=torch.int64), [1.0, 0.0], 1.0)
    with pytest.raises(TwinprobeError, match="expected one number, or one per row"):
        steer(rows, np.eye(12)[0], np.ones(7))
    with pytest.raises(TwinprobeError, match="expected one vector"):
        steer(rows, np.eye(12), 1.0)
    with pytest.raises(TwinprobeError, match="span nothing usable"):
        orthonormal(np.zeros((2, 3)))
    with pytest.raises(TwinprobeError, match="not the rows' width"):
        project_out(rows, np.eye(12)[0], centre=np.ones(5))
