"""Probes of chosen capacity, below and above the linear one: a rank limit, and one hidden layer.

A curve of scores over ``rank`` shows how many directions a label needs; the step from linear to a hidden layer shows
what a model keeps in a form that no linear reader can use. A bigger probe also learns more by itself: such curves are
read beside the control task's (Hewitt & Liang 2019).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.estimators import LogisticProbe
from probes.softmax import (
    Decomposition,
    FloatArray,
    Solution,
    decompose,
    loss_and_gradient,
    moments,
    one_blas_thread,
    solve_path,
)
from probes.validated import check_count, check_positive, rows_and_classes


class LowRankProbe(LogisticProbe):
    """Multinomial logistic probe whose weight matrix has rank ``rank`` at most: ``softmax(A B z + b)``, ``B [rank, d]``.

    The loss is :class:`LogisticProbe`'s, penalty on the product ``A B`` included, so that the rank is the only
    difference: from ``rank = k - 1`` on the two are the same. Below that the problem is not convex. The fit starts from
    the best approximation of the unrestricted logits and goes downhill by L-BFGS; there is no randomness in it.

    Args:
        rank: the largest rank of the weights, at least 1.
        C: inverse regularisation strength of ``C * sum(cross entropy) + |A B|^2 / 2``, in standardised units.
        tol: stop when no entry of the (preconditioned) gradient of the mean loss exceeds this.
        max_iter: most L-BFGS steps; a fit that needs more warns and sets ``converged_`` to False.

    Its attributes are those of :class:`LogisticProbe`; ``coef_`` has rank ``min(rank, k - 1)`` at most.
    """

    def __init__(self, rank: int = 2, C: float = 1.0, tol: float = 1e-4, max_iter: int = 1000) -> None:
        super().__init__(C=C, tol=tol, max_iter=max_iter)
        self.rank = rank

    def fit(self, X: ArrayLike, y: ArrayLike) -> LowRankProbe:
        """Fit to rows ``X [n, d]`` and labels ``y [n]``.

        Raises:
            ValueError: X is not a finite two-dimensional array, y has fewer than two classes, C is not positive, or
                rank is not a whole number of at least 1.
        """
        rows, classes, targets = rows_and_classes(self, X, y)
        check_positive(self.C)
        check_count("rank", self.rank)
        data = decompose(rows)
        [solution] = solve_path(data, targets, len(classes), [self.C], self.tol, self.max_iter)
        if self.rank < len(classes) - 1:  # the penalty takes the shift common to all classes out of the weights
            solution = _restrict(solution, data, targets, int(self.rank), self.C, self.tol, self.max_iter)
        self._adopt(solution, classes)
        if not self.converged_:
            warnings.warn(
                f"LowRankProbe(rank={self.rank}, C={self.C:g}) stopped after {self.n_iter_} steps short of "
                f"tol={self.tol:g}; raise max_iter, or loosen tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self


def _restrict(
    full: Solution,
    data: Decomposition,
    targets: NDArray[np.int64],
    rank: int,
    strength: float,
    tol: float,
    max_iter: int,
) -> Solution:
    """The best solution of the given rank downhill of ``full``, for at least three classes.

    The factors live in the coordinates of :mod:`probes.softmax`: principal axes, scaled by the square root of the
    curvature along each.
    """
    n_rows, n_classes = len(targets), len(full.intercepts)
    truth = np.zeros((n_classes, n_rows), dtype=data.scores.dtype)
    truth[targets, np.arange(n_rows)] = 1.0
    penalty = 1.0 / (strength * n_rows)
    step = 1.0 / np.sqrt(data.variances / n_classes + penalty)
    scores = (data.scores * step).astype(data.scores.dtype, copy=False)
    # The axes are uncorrelated, so the error of the logits is that of the weights times the deviations.
    deviations = np.sqrt(np.maximum(data.variances, np.finfo(np.float64).tiny))
    left, sizes, right = np.linalg.svd((full.weights * data.scale) @ data.axes * deviations, full_matrices=False)
    kept = (left[:, :rank] * sizes[:rank]) @ right[:rank] / (deviations * step)
    left, sizes, right = np.linalg.svd(kept, full_matrices=False)
    root = np.sqrt(sizes[:rank])
    rank = len(root)
    n_left = n_classes * rank

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        outer, inner = flat[:n_left].reshape(n_classes, rank), flat[n_left:-n_classes].reshape(rank, -1)
        product = np.concatenate([outer @ inner, flat[-n_classes:, None]], axis=1)
        value, slope = loss_and_gradient(product.ravel(), scores, truth, penalty * step**2)
        slopes = slope.reshape(n_classes, -1)
        weights = slopes[:, :-1]
        return value, np.concatenate([(weights @ inner.T).ravel(), (outer.T @ weights).ravel(), slopes[:, -1]])

    at_mean = full.intercepts + full.weights @ data.mean
    start = np.concatenate([(left[:, :rank] * root).ravel(), (root[:, None] * right[:rank]).ravel(), at_mean])
    with one_blas_thread():
        found = minimize(
            loss, start, jac=True, method="L-BFGS-B", options={"maxiter": max_iter, "gtol": tol, "ftol": 1e-9}
        )
    outer, inner = found.x[:n_left].reshape(n_classes, rank), found.x[n_left:-n_classes].reshape(rank, -1)
    raw = (outer @ (inner * step)) @ data.axes.T / data.scale
    return Solution(raw, found.x[-n_classes:] - raw @ data.mean, int(found.nit), bool(found.success))


class MLPProbe(ClassifierMixin, BaseEstimator):
    """Probe with one small hidden layer (ReLU) on standardised features; scikit-learn's ``MLPClassifier`` by L-BFGS.

    L-BFGS sees all rows at every step, so that the only randomness is the seeded start.

    Args:
        hidden: units of the hidden layer.
        C: inverse regularisation strength of ``C * sum(loss) + |W|^2 / 2`` over the weights of both layers
            (``MLPClassifier``'s ``alpha`` is ``1 / C``).
        max_iter: most L-BFGS steps; a fit that needs more warns and sets ``converged_`` to False.
        random_state: seed of the initial weights.

    Attributes:
        classes_: sorted labels ``[k]``.
        network_: the fitted ``MLPClassifier``, on standardised features and class indices.
        mean_, scale_: what the features are standardised with, each ``[d]``.
        n_iter_: L-BFGS steps taken.
        converged_: whether the optimiser stopped by itself.
        n_features_in_: width ``d`` seen in fit.
    """

    def __init__(self, hidden: int = 32, C: float = 1.0, max_iter: int = 500, random_state: int = 0) -> None:
        self.hidden = hidden
        self.C = C
        self.max_iter = max_iter
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: ArrayLike) -> MLPProbe:
        """Fit to rows ``X [n, d]`` and labels ``y [n]``.

        Raises:
            ValueError: X is not a finite two-dimensional array, y has fewer than two classes, C is not positive, or
                hidden is not a whole number of at least 1.
        """
        rows, self.classes_, targets = rows_and_classes(self, X, y)
        check_positive(self.C)
        check_count("hidden", self.hidden)
        self.mean_, self.scale_ = moments(rows)
        self.network_ = MLPClassifier(
            hidden_layer_sizes=(self.hidden,),
            solver="lbfgs",
            alpha=1.0 / self.C,
            max_iter=self.max_iter,
            random_state=self.random_state,
        )
        with one_blas_thread():
            self.network_.fit(self._standardised(rows), targets)
        self.n_iter_ = max(int(self.network_.n_iter_), 1)
        self.converged_ = self.n_iter_ < self.max_iter
        return self

    def _standardised(self, rows: FloatArray) -> FloatArray:
        standard: FloatArray = ((rows - self.mean_) / self.scale_).astype(rows.dtype, copy=False)
        return standard

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of every class, ``[n, k]``."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        with one_blas_thread():
            return np.asarray(self.network_.predict_proba(self._standardised(rows)))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The likeliest label of every row, ``[n]``."""
        chosen = self.predict_proba(X).argmax(axis=1)
        return np.asarray(self.classes_[chosen])
