"""Orthogonal maps between the spaces of two models or layers (the Procrustes problem, Schönemann 1966).

Such a map can turn and mirror but not stretch single directions, so it can not build what is not there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from activations.errors import TwinprobeError
from probes.estimators import LogisticProbe


@dataclass(frozen=True, eq=False)
class OrthogonalMap:
    """``x -> scale * (x - from_mean) @ rotation + to_mean``.

    Attributes:
        from_mean: ``[a]``.
        to_mean: ``[b]``.
        rotation: ``[a, b]`` with orthonormal rows and columns on the directions that the fit determined, zero elsewhere.
        scale: one positive number for all directions.
        rank: how many directions are mapped, at most ``min(a, b)`` and at most the fitted rows less one.
        explained: share of the variance of the fitted rows in the space mapped to that the map reproduces.
    """

    from_mean: NDArray[np.float64]
    to_mean: NDArray[np.float64]
    rotation: NDArray[np.float64]
    scale: float
    rank: int
    explained: float

    def apply(self, features: NDArray[Any]) -> NDArray[np.float64]:
        """Map rows ``[n, a]`` to ``[n, b]``; raises :class:`TwinprobeError` when they are not ``a`` wide."""
        if features.ndim != 2 or features.shape[1] != len(self.from_mean):
            raise TwinprobeError(f"rows of shape {features.shape}; the map takes rows [n, {len(self.from_mean)}]")
        return self.scale * (features - self.from_mean) @ self.rotation + self.to_mean


def fit_map(moving: NDArray[Any], fixed: NDArray[Any], *, scale: bool = True) -> OrthogonalMap:
    """Fit the orthogonal map that brings ``moving [n, a]`` closest to ``fixed [n, b]``, row by row.

    Both are centred. With different widths the map has rank ``min(a, b)``: a narrower space is embedded as if padded
    with zeros, a wider one loses the directions that vary least with the other. Directions in which the rows do not vary
    (always some when ``n <= min(a, b)``) are mapped to nothing rather than anywhere.

    Args:
        moving: rows to map.
        fixed: the same tokens in the space to map to.
        scale: bring the mapped rows to the spread of ``fixed``, the root of its summed variance; otherwise 1. The
            least-squares scale would shrink with the misfit, and so rows of a control map to almost one point.

    Raises:
        TwinprobeError: not as many rows in both, fewer than two, or rows that are not finite or do not vary.
    """
    moving, fixed = _matrix(moving), _matrix(fixed)
    if len(moving) != len(fixed) or len(moving) < 2:
        raise TwinprobeError(f"{len(moving)} rows to map for {len(fixed)}; expected the same tokens in both, 2 or more")
    from_mean, to_mean = moving.mean(axis=0), fixed.mean(axis=0)
    left, values, right = np.linalg.svd((moving - from_mean).T @ (fixed - to_mean), full_matrices=False)
    rank = int((values > values[0] * max(moving.shape[1], fixed.shape[1]) * np.finfo(np.float64).eps).sum())
    if not rank:
        raise TwinprobeError("the rows to fit a map on do not vary together; pass rows of more and different tokens")
    return _completed(moving, fixed, left[:, :rank] @ right[:rank], scale, rank)


def random_map(moving: NDArray[Any], fixed: NDArray[Any], rank: int, seed: int, *, scale: bool = True) -> OrthogonalMap:
    """A map with the means and spread of :func:`fit_map` and a uniformly random rotation of the same rank."""
    moving, fixed = _matrix(moving), _matrix(fixed)
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(rows.shape[1], rank)))[0] for rows in (moving, fixed))
    return _completed(moving, fixed, left @ right.T, scale, rank)


def unturned_map(moving: NDArray[Any], fixed: NDArray[Any], *, scale: bool = True) -> OrthogonalMap:
    """A map between spaces of one width that matches means and spread as :func:`fit_map` does, and turns nothing."""
    width = moving.shape[1]
    return _completed(_matrix(moving), _matrix(fixed), np.eye(width), scale, width)


def _matrix(rows: NDArray[Any]) -> NDArray[np.float64]:
    matrix = np.asarray(rows, dtype=np.float64)
    if matrix.ndim != 2 or not np.isfinite(matrix).all():
        raise TwinprobeError(f"rows of shape {matrix.shape} to fit a map on; expected finite rows [n, width]")
    return matrix


def _completed(
    moving: NDArray[np.float64], fixed: NDArray[np.float64], rotation: NDArray[np.float64], scale: bool, rank: int
) -> OrthogonalMap:
    from_mean, to_mean = moving.mean(axis=0), fixed.mean(axis=0)
    turned, wanted = (moving - from_mean) @ rotation, fixed - to_mean
    spread = float(np.linalg.norm(turned))
    factor = float(np.linalg.norm(wanted)) / spread if scale and spread > 0 else 1.0
    missed = float(np.linalg.norm(wanted - factor * turned) / np.linalg.norm(wanted))
    return OrthogonalMap(from_mean, to_mean, rotation, factor, rank, 1.0 - missed**2)


def moved_probe(probe: LogisticProbe, to_probe: OrthogonalMap) -> LogisticProbe:
    """The probe in the coordinates of the space that is mapped: same logits as for mapped rows, without mapping them.

    Args:
        probe: fitted in the space that ``to_probe`` maps to.
        to_probe: map from the other space.

    Raises:
        TwinprobeError: the map does not end in the probe's space.
    """
    if len(to_probe.to_mean) != probe.n_features_in_:
        raise TwinprobeError(
            f"the map ends in a space of width {len(to_probe.to_mean)} but the probe was trained on "
            f"{probe.n_features_in_}; fit the map from the other space to the probe's"
        )
    moved = clone(probe)
    moved.classes_, moved.n_iter_, moved.converged_ = probe.classes_, probe.n_iter_, probe.converged_
    moved.coef_ = to_probe.scale * probe.coef_ @ to_probe.rotation.T
    moved.intercept_ = probe.intercept_ + probe.coef_ @ to_probe.to_mean - moved.coef_ @ to_probe.from_mean
    moved.n_features_in_ = len(to_probe.from_mean)
    return moved
