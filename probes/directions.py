"""Directions that a probe reads, and how to take them out of rows or push rows along them.

"Decodable" is not "used": the causal companion of a probe removes its direction from the forward pass (amnesic probing,
Elazar et al. 2021) or adds it (steering) and looks at the behaviour, beside a random direction of the same length. This
module holds the arithmetic only, on NumPy arrays and torch tensors alike; the forward pass is not its business.

A probe's weights point where its logits rise fastest. That is the direction to remove or steer if the question is what
the probe reads; it is in general not the difference of the class means (Haufe et al. 2014).
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from activations.errors import TwinprobeError
from probes.estimators import LogisticProbe

if TYPE_CHECKING:
    import torch

Array = TypeVar("Array", NDArray[Any], "torch.Tensor")

#: Directions whose singular value is below this share of the largest are not counted as independent.
RANK_TOLERANCE = 1e-8


def class_weights(probe: LogisticProbe) -> NDArray[np.float64]:
    """Weights of every class, ``[k, d]``, in raw units and centred over classes (only differences have a meaning)."""
    check_is_fitted(probe)
    weights = np.asarray(probe.coef_, dtype=np.float64)
    if len(probe.classes_) == 2:
        return np.concatenate([-weights, weights]) / 2
    return weights - weights.mean(axis=0)


def contrast_direction(probe: LogisticProbe, towards: Hashable, away: Hashable | None = None) -> NDArray[np.float64]:
    """Unit direction ``[d]`` along which the logit of one class rises fastest against another's.

    Args:
        probe: a fitted probe.
        towards: the label whose logit rises.
        away: the label whose logit falls; None for the mean of all the others.

    Raises:
        TwinprobeError: a label is not one of the probe's, both are the same, or the probe does not tell them apart.
    """
    weights = class_weights(probe)
    index = _index(probe, towards)
    others = np.arange(len(weights)) != index if away is None else np.arange(len(weights)) == _index(probe, away)
    if others[index]:
        raise TwinprobeError(f"a contrast of {towards!r} with itself has no direction; name two different labels")
    return _unit(weights[index] - weights[others].mean(axis=0), f"the probe's contrast of {towards!r}")


def contrast_basis(probe: LogisticProbe) -> NDArray[np.float64]:
    """Orthonormal basis ``[r, d]`` of all the contrasts between classes; without it the probe has nothing to go by.

    Raises:
        TwinprobeError: all weights are zero.
    """
    weights = class_weights(probe)
    if not np.abs(weights).max() > 0:
        raise TwinprobeError("all weights of the probe are zero; fit it on rows that vary, or with a larger C")
    return orthonormal(weights)


def orthonormal(vectors: NDArray[Any]) -> NDArray[np.float64]:
    """Orthonormal basis ``[r, d]`` of the span of ``vectors [m, d]`` or of one vector ``[d]``.

    Raises:
        TwinprobeError: the vectors are not finite, or all zero.
    """
    stacked = np.atleast_2d(np.asarray(vectors, dtype=np.float64))
    if stacked.ndim != 2 or not np.isfinite(stacked).all() or not np.abs(stacked).max(initial=0.0) > 0:
        raise TwinprobeError(f"vectors of shape {stacked.shape} span nothing usable; expected finite, non-zero [m, d]")
    _, values, basis = np.linalg.svd(stacked, full_matrices=False)
    return np.asarray(basis[values > RANK_TOLERANCE * values[0]])


def random_direction(like: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """Uniformly random direction of the same length as the vector ``like [d]``; the control for steering."""
    drawn = np.random.default_rng(seed).normal(size=np.shape(like))
    return np.asarray(drawn * (np.linalg.norm(like) / np.linalg.norm(drawn)))


def random_basis(like: NDArray[Any], seed: int) -> NDArray[np.float64]:
    """Orthonormal basis of a uniformly random subspace, as many vectors as ``like [r, d]``; the control for removal."""
    return orthonormal(np.random.default_rng(seed).normal(size=np.atleast_2d(like).shape))


def project_out(x: Array, basis: Any, centre: Any = None) -> Array:
    """Remove from rows what lies in a subspace: ``x - (x - centre) B'B``.

    Args:
        x: rows ``[..., d]``, array or tensor; it is not changed. Half precision is computed in float32 and cast back.
        basis: orthonormal vectors ``[r, d]``, or one unit vector ``[d]``; see :func:`orthonormal`.
        centre: ``[d]``; where the rows' component ends up, None for the origin. Pass the mean of the training rows to
            compare with a random basis: where rows lie far from the origin, any removal towards it shifts them all.

    Returns:
        Rows of the kind, dtype, device and shape of ``x``.

    Raises:
        TwinprobeError: widths differ, ``x`` is not floating, or the basis is not orthonormal.
    """
    vectors = np.atleast_2d(_host(basis))
    gram = vectors @ vectors.T
    if not np.allclose(gram, np.eye(len(vectors)), atol=1e-4):
        raise TwinprobeError(
            f"the {len(vectors)} vectors to project out are not orthonormal; pass orthonormal(vectors) instead"
        )
    wide = _computable(x, vectors)
    axes = _beside(wide, vectors)
    if centre is None:
        return _as(wide - (wide @ axes.T) @ axes, x)
    point = _host(centre)
    if point.shape != vectors.shape[1:]:
        raise TwinprobeError(f"a centre of shape {point.shape} is not the rows' width; expected {vectors.shape[1:]}")
    return _as(wide - ((wide - _beside(wide, point)) @ axes.T) @ axes, x)


def steer(x: Array, direction: Any, amount: Any) -> Array:
    """Push rows along a direction: ``x + amount * direction``.

    Along a unit direction from :func:`contrast_direction`, ``amount`` is a distance in the space of the rows.

    Args:
        x: rows ``[..., d]``, array or tensor; it is not changed. Half precision is computed in float32 and cast back.
        direction: ``[d]``, used as it is, without being brought to unit length.
        amount: one number, or one per row: a shape that broadcasts to ``x.shape[:-1]``.

    Returns:
        Rows of the kind, dtype, device and shape of ``x``.

    Raises:
        TwinprobeError: widths differ, ``x`` is not floating, or there is not one amount per row.
    """
    vector = _host(direction)
    if vector.ndim != 1:
        raise TwinprobeError(f"a direction of shape {vector.shape}; expected one vector [d]")
    wide = _computable(x, vector[None])
    amounts = _host(amount)
    try:
        amounts = np.broadcast_to(amounts, tuple(x.shape[:-1]))
    except ValueError:
        raise TwinprobeError(
            f"amounts of shape {amounts.shape} for rows of shape {tuple(x.shape)}; expected one number, or one per row"
        ) from None
    return _as(wide + _beside(wide, amounts[..., None] * vector), x)


def _index(probe: LogisticProbe, label: Hashable) -> int:
    found = np.flatnonzero(probe.classes_ == label)
    if len(found) != 1:
        known = ", ".join(str(name) for name in probe.classes_.tolist())
        raise TwinprobeError(f"the probe has no label {label!r}; expected one of {known}")
    return int(found[0])


def _unit(vector: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    length = float(np.linalg.norm(vector))
    if not length > 0:
        raise TwinprobeError(f"{what} has length 0; fit the probe on rows that vary, or with a larger C")
    return vector / length


def _host(value: Any) -> NDArray[np.float64]:
    """Any array, tensor or number as a NumPy array; directions are data here, gradients do not flow into them."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().double().numpy()
    return np.asarray(value, dtype=np.float64)


def _computable(x: Any, vectors: NDArray[np.float64]) -> Any:
    """Rows in a dtype that can hold the result of the arithmetic, after a check of dtype and width."""
    is_floating = x.dtype.is_floating_point if hasattr(x, "detach") else np.issubdtype(x.dtype, np.floating)
    if not is_floating or x.shape[-1] != vectors.shape[1]:
        raise TwinprobeError(
            f"rows of shape {tuple(x.shape)} and dtype {x.dtype} for vectors of width {vectors.shape[1]}; "
            "expected floating rows [..., d] of the same width"
        )
    if x.dtype.itemsize >= 4:
        return x
    return x.float() if hasattr(x, "detach") else x.astype(np.float32)


def _beside(wide: Any, values: NDArray[np.float64]) -> Any:
    """Values as the kind, dtype and device of ``wide``."""
    if hasattr(wide, "detach"):
        return wide.new_tensor(values)
    return values.astype(wide.dtype)


def _as(result: Any, x: Any) -> Any:
    return result.to(x.dtype) if hasattr(x, "detach") else result.astype(x.dtype, copy=False)
