"""Orthogonal maps between the spaces of two models or layers (the Procrustes problem, Schönemann 1966).

Such a map can turn and mirror but not stretch single directions, so it can not build what is not there. It is fitted on
*neutral* rows, together with the maps that tell how much any map would give; no label takes part, so that the same maps
serve every probe of a site.
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
    rows = _pairing(moving, fixed)
    return _fit(rows, rows.moving.T @ rows.fixed, scale)


def random_map(moving: NDArray[Any], fixed: NDArray[Any], rank: int, seed: int, *, scale: bool = True) -> OrthogonalMap:
    """A map with the means and spread of :func:`fit_map` and a uniformly random rotation of the same rank."""
    rows = _pairing(moving, fixed)
    return _random(rows, rows.moving.T @ rows.fixed, rank, seed, scale)


@dataclass(frozen=True, eq=False)
class _Pairing:
    """Rows less their means, and the moments that all maps between them need: maps then cost no pass over the rows."""

    from_mean: NDArray[np.float64]
    to_mean: NDArray[np.float64]
    moving: NDArray[np.float64]
    fixed: NDArray[np.float64]
    gram: NDArray[np.float64]
    spread: float


def _pairing(moving: NDArray[Any], fixed: NDArray[Any]) -> _Pairing:
    moving, fixed = (np.asarray(rows, dtype=np.float64) for rows in (moving, fixed))
    for rows in (moving, fixed):
        if rows.ndim != 2 or not np.isfinite(rows).all():
            raise TwinprobeError(f"rows of shape {rows.shape} to fit a map on; expected finite rows [n, width]")
    if len(moving) != len(fixed) or len(moving) < 2:
        raise TwinprobeError(f"{len(moving)} rows to map for {len(fixed)}; expected the same tokens in both, 2 or more")
    from_mean, to_mean = moving.mean(axis=0), fixed.mean(axis=0)
    moving, fixed = moving - from_mean, fixed - to_mean
    return _Pairing(from_mean, to_mean, moving, fixed, moving.T @ moving, float(np.linalg.norm(fixed)))


def _fit(rows: _Pairing, cross: NDArray[np.float64], scale: bool) -> OrthogonalMap:
    """The map for the cross-moments ``cross [a, b]``, those of the rows or of a shuffled pairing of them."""
    left, values, right = np.linalg.svd(cross, full_matrices=False)
    rank = int((values > values[0] * max(cross.shape) * np.finfo(np.float64).eps).sum())
    if not rank:
        raise TwinprobeError("the rows to fit a map on do not vary together; pass rows of more and different tokens")
    return _completed(rows, cross, left[:, :rank] @ right[:rank], scale, rank)


def _random(rows: _Pairing, cross: NDArray[np.float64], rank: int, seed: int, scale: bool) -> OrthogonalMap:
    rng = np.random.default_rng(seed)
    left, right = (np.linalg.qr(rng.normal(size=(width, rank)))[0] for width in cross.shape)
    return _completed(rows, cross, left @ right.T, scale, rank)


def _completed(
    rows: _Pairing, cross: NDArray[np.float64], rotation: NDArray[np.float64], scale: bool, rank: int
) -> OrthogonalMap:
    turned = float(np.sqrt(np.sum((rows.gram @ rotation) * rotation)))  # the norm of the turned rows
    factor = rows.spread / turned if scale and turned > 0 else 1.0
    missed = rows.spread**2 - 2 * factor * float(np.sum(cross * rotation)) + (factor * turned) ** 2
    return OrthogonalMap(rows.from_mean, rows.to_mean, rotation, factor, rank, 1.0 - missed / rows.spread**2)


@dataclass(frozen=True, eq=False)
class Neutral:
    """Rows to fit a map on: the same tokens in two spaces.

    Attributes:
        source: rows in the space of the probe, ``[n, a]``.
        target: rows in the space it is to read, ``[n, b]``.
        ids: the text of every row, strings ``[n]``, named as the probed rows name their items or groups, with or
            without a store's ``/form`` at the end; by these, and nothing else, an overlap is found.
    """

    source: NDArray[np.floating[Any]]
    target: NDArray[np.floating[Any]]
    ids: NDArray[np.str_]


@dataclass(frozen=True, eq=False)
class Maps:
    """The map from the target's space into the probe's, and its controls; each holds a rotation ``[b, a]``.

    Attributes:
        fitted: on the neutral rows.
        shuffled: fitted on the same rows after their pairing was shuffled, one per draw.
        random: random orthogonal maps with the means, spread and rank of ``fitted``, one per draw.
        unturned: means and spread matched, nothing turned; None when the widths differ.
        ids: as in :class:`Neutral`.
    """

    fitted: OrthogonalMap
    shuffled: tuple[OrthogonalMap, ...]
    random: tuple[OrthogonalMap, ...]
    unturned: OrthogonalMap | None
    ids: NDArray[np.str_]


def fit_maps(neutral: Neutral, *, scale: bool = True, n_draws: int = 10, seed: int = 0) -> Maps:
    """Fit the map that lets a probe of the source read the target, and draw its controls.

    Args:
        neutral: rows in both spaces.
        scale: see :func:`fit_map`.
        n_draws: random maps, and shuffled fits.
        seed: seed of the controls.

    Raises:
        TwinprobeError: not one row in both spaces for every id, rows that no map can be fitted on, or ``n_draws`` below 1.
    """
    of, to, ids = neutral.target, neutral.source, np.asarray(neutral.ids, dtype=np.str_)
    if not len(of) == len(to) == len(ids):
        raise TwinprobeError(f"{len(to)} and {len(of)} neutral rows for {len(ids)} ids; expected one each")
    if n_draws < 1:
        raise TwinprobeError(f"n_draws is {n_draws}; expected at least 1 draw of each control")
    rows = _pairing(of, to)
    cross = rows.moving.T @ rows.fixed
    fitted = _fit(rows, cross, scale)
    rngs = [np.random.default_rng([seed, draw]) for draw in range(n_draws)]
    shuffled = tuple(_fit(rows, rows.moving.T @ rows.fixed[rng.permutation(len(to))], scale) for rng in rngs)
    seeds = [int(rng.integers(2**32)) for rng in rngs]
    same_width = cross.shape[0] == cross.shape[1]
    return Maps(
        fitted=fitted,
        shuffled=shuffled,
        random=tuple(_random(rows, cross, fitted.rank, drawn, scale) for drawn in seeds),
        unturned=_completed(rows, cross, np.eye(len(cross)), scale, len(cross)) if same_width else None,
        ids=ids,
    )


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
