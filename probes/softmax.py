"""L2-regularised multinomial logistic regression, fitted along a path of strengths.

The optimum is scikit-learn's ``LogisticRegression`` on standardised features (a test holds the two together). The way
there is shorter. Activations are strongly correlated, which costs plain L-BFGS hundreds of steps. So the rows are
rotated once into their principal axes, and each axis is scaled by the square root of the curvature that the loss has
along it at zero weights, ``variance / n_classes + penalty``. Every strength starts from the solution of the next
stronger one. Measured on 500 x 192 rows with 8 classes, single-threaded, this is 2 times (mildly correlated features)
to 5 times (strongly correlated) faster than scikit-learn at its default tolerance.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, softmax
from sklearn.preprocessing import StandardScaler
from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

FloatArray = NDArray[np.floating[Any]]

#: Principal axes whose variance is below this share of the largest one are rounding noise of the Gram matrix.
RANK_TOLERANCE = 1e-10


@dataclass(frozen=True, eq=False)
class Decomposition:
    """Standardised rows in their principal axes; shared by all probes that are fitted on the same rows.

    Attributes:
        mean: feature means ``[d]``.
        scale: feature standard deviations ``[d]``, 1 where a feature is constant.
        axes: principal axes of the standardised rows, ``[d, r]``.
        variances: variance along each axis, ``[r]``.
        scores: the rows in these axes, ``[n, r]``, in the dtype of the features.
    """

    mean: NDArray[np.float64]
    scale: NDArray[np.float64]
    axes: NDArray[np.float64]
    variances: NDArray[np.float64]
    scores: FloatArray


@dataclass(frozen=True, eq=False)
class Solution:
    """One fitted strength: ``weights [k, d]`` and ``intercepts [k]`` in the units of the raw features."""

    weights: NDArray[np.float64]
    intercepts: NDArray[np.float64]
    n_iter: int
    converged: bool


@cache
def _thread_pools() -> Any:
    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Hold BLAS to one thread: the products here take microseconds, waiting for a second thread can take milliseconds.

    Measured on two busy cores: 1,000 fits of 500 x 192 rows take 5 seconds with one thread and 7 minutes with two.
    """
    limit: AbstractContextManager[Any] = _thread_pools().limit(limits=1, user_api="blas")
    return limit


def moments(features: FloatArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of every feature, each ``[d]``; the deviation of a constant feature is 1."""
    scaler = StandardScaler().fit(features.astype(np.float64, copy=False))
    return scaler.mean_, scaler.scale_


def decompose(features: FloatArray) -> Decomposition:
    """Standardise rows ``[n, d]`` and rotate them into their principal axes (through the smaller Gram matrix)."""
    mean, scale = moments(features)
    standard = (features - mean) / scale
    n_rows, width = standard.shape
    wide = width > n_rows
    with one_blas_thread():
        gram = (standard @ standard.T if wide else standard.T @ standard) / n_rows
        variances, vectors = np.linalg.eigh(gram)
        keep = variances > max(RANK_TOLERANCE * variances[-1], 0.0)
        keep[-1] = True  # rows without any variance still get an intercept
        variances, vectors = np.maximum(variances[keep], 0.0), vectors[:, keep]
        if wide:
            norms = np.sqrt(np.maximum(variances * n_rows, np.finfo(np.float64).tiny))
            axes, scores = standard.T @ (vectors / norms), vectors * norms
        else:
            axes, scores = vectors, standard @ vectors
    return Decomposition(mean, scale, axes, variances, scores.astype(features.dtype, copy=False))


def solve_path(
    data: Decomposition,
    targets: NDArray[np.int64],
    n_classes: int,
    strengths: Sequence[float],
    tol: float,
    max_iter: int,
) -> list[Solution]:
    """Minimise ``C * sum(cross entropy) + |W|^2 / 2`` for every ``C`` in ``strengths``.

    Args:
        data: the training rows.
        targets: class index of every row, ``[n]``, from 0 to ``n_classes - 1``.
        n_classes: number of classes, at least 2. Two classes are one logistic unit, as in scikit-learn.
        strengths: inverse regularisation strengths ``C``, any order.
        tol: stop when no entry of the preconditioned gradient of the mean loss exceeds this.
        max_iter: most L-BFGS steps per strength.

    Returns:
        One solution per strength, in the order of ``strengths``.
    """
    n_rows = len(targets)
    truth = np.zeros((n_classes, n_rows), dtype=data.scores.dtype)
    truth[targets, np.arange(n_rows)] = 1.0
    weights = np.zeros((n_classes, len(data.variances)))
    intercepts = np.log(truth.mean(axis=1, dtype=np.float64))
    # Two softmax columns (-w/2, w/2) share the penalty of one weight vector w: doubling it restores |w|^2 / 2.
    symmetric = 2.0 if n_classes == 2 else 1.0
    solutions: dict[int, Solution] = {}
    for index in np.argsort(strengths):
        penalty = symmetric / (strengths[index] * n_rows)
        step = 1.0 / np.sqrt(data.variances / n_classes + penalty)
        start = np.concatenate([weights / step, intercepts[:, None]], axis=1)
        with one_blas_thread():
            found = minimize(
                loss_and_gradient,
                start.ravel(),
                args=((data.scores * step).astype(data.scores.dtype, copy=False), truth, penalty * step**2),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": max_iter, "gtol": tol, "ftol": 1e-9},
            )
        parameters = found.x.reshape(n_classes, -1)
        weights, intercepts = parameters[:, :-1] * step, parameters[:, -1]
        raw = (weights @ data.axes.T) / data.scale
        solutions[int(index)] = Solution(raw, intercepts - raw @ data.mean, int(found.nit), bool(found.success))
    return [solutions[index] for index in range(len(strengths))]


def likeliest(logits: NDArray[np.floating[Any]], classes: NDArray[Any]) -> NDArray[Any]:
    """The class ``[n]`` with the highest of logits ``[n, k]``; of two classes by the sign of the second's, ``[n]``."""
    chosen = (logits > 0).astype(int) if logits.ndim == 1 else logits.argmax(axis=1)
    return np.asarray(classes[chosen])


def probabilities(logits: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Probability of every class ``[n, k]`` from logits ``[n, k]``, or from those of the second of two, ``[n]``."""
    if logits.ndim == 1:
        return np.stack([expit(-logits), expit(logits)], axis=1)
    return np.asarray(softmax(logits, axis=1))


def loss_and_gradient(
    flat: NDArray[np.float64], scores: FloatArray, truth: FloatArray, penalty: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """Mean cross entropy plus penalty and its gradient; products in the rows' dtype, sums in float64."""
    n_classes, n_rows = truth.shape
    parameters = flat.reshape(n_classes, -1)
    weights = parameters[:, :-1]
    logits = weights.astype(scores.dtype) @ scores.T  # [k, n]: sums over classes run along whole rows
    logits += parameters[:, -1:].astype(scores.dtype)
    logits -= logits.max(axis=0)
    right = np.einsum("ij,ij->", logits, truth, dtype=np.float64)
    residual = np.exp(logits, out=logits)
    total = residual.sum(axis=0)
    loss = (np.log(total, dtype=np.float64).sum() - right) / n_rows
    residual /= total
    residual -= truth
    shrink = penalty * weights
    gradient = np.empty_like(parameters)
    gradient[:, :-1] = residual @ scores
    gradient[:, -1] = residual.sum(axis=1, dtype=np.float64)
    gradient /= n_rows
    gradient[:, :-1] += shrink
    return float(loss + 0.5 * np.vdot(shrink, weights)), gradient.ravel()
