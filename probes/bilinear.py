"""The bilinear probe for relations between two rows: does word x govern word y, does use x read definition y.

A linear probe on the concatenation of two rows can only add up what each row says alone. The bilinear form scores how
the two fit together; its rank bounds the probe's capacity, as in the structural probes (Hewitt & Manning 2019) and the
biaffine parser (Dozat & Manning 2017).
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize
from scipy.special import expit, logsumexp, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.softmax import FloatArray, decompose, likeliest, one_blas_thread, probabilities
from probes.validated import check_count, check_positive, rows_and_classes

#: Deviation of the logits that the fit starts from: off the saddle at zero, far from confident.
_START = 0.3


class BilinearProbe(ClassifierMixin, BaseEstimator):
    """Relation probe: ``x^T W_c y + b_c`` for relation ``c``, with ``W_c = U_c V_c^T`` of rank ``rank`` at most.

    ``X [n, 2d]`` holds the two rows side by side, ``x`` first. Both are standardised on the training rows. Two classes
    share one form (the second class's logit), more have one each and a softmax over them. The forms are not symmetric:
    x and y may play different parts. The penalty ``(|U|^2 + |V|^2) / 2`` is the nuclear norm of ``W`` at its optimum,
    so that a strong one also lowers the rank, down to 0 (the majority).

    The fit starts at the leading singular directions of the loss's slope at ``W = 0``, and goes downhill by L-BFGS;
    there is no randomness in it.

    Args:
        rank: the largest rank of each form, at least 1.
        C: inverse regularisation strength of ``C * sum(cross entropy) + (|U|^2 + |V|^2) / 2``, in standardised units.
        main_effects: add ``f_c x + g_c y``, what each row says alone. Off by default, so that a score above chance
            means that the relation is read from both.
        split: width of ``x``; None is half of the columns (one less than ``y`` if their number is odd). For rows of
            different widths, as from two models.
        tol: stop when no entry of the (preconditioned) gradient of the mean loss exceeds this.
        max_iter: most L-BFGS steps; a fit that needs more warns and sets ``converged_`` to False.

    Attributes:
        classes_: sorted labels ``[k]``.
        left_, right_: ``U [c, d_x, rank]`` and ``V [c, d_y, rank]`` in the units of the raw, centred features; c is 1
            for two classes, else k.
        main_: weights of the main effects in raw units, ``[c, d_x + d_y]``; zeros without ``main_effects``.
        centre_: feature means ``[d_x + d_y]``, taken off before the forms apply.
        intercept_: ``[c]``.
        n_iter_: L-BFGS steps taken.
        converged_: whether the optimiser reached its tolerance.
        n_features_in_: width ``d_x + d_y`` seen in fit.
    """

    def __init__(
        self,
        rank: int = 4,
        C: float = 1.0,
        main_effects: bool = False,
        split: int | None = None,
        tol: float = 1e-4,
        max_iter: int = 1000,
    ) -> None:
        self.rank = rank
        self.C = C
        self.main_effects = main_effects
        self.split = split
        self.tol = tol
        self.max_iter = max_iter

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.poor_score = not self.main_effects  # blind to labels that show in one row alone
        return tags

    def fit(self, X: ArrayLike, y: ArrayLike) -> BilinearProbe:
        """Fit to pairs of rows ``X [n, d_x + d_y]`` and relations ``y [n]``.

        Raises:
            ValueError: X is not a finite two-dimensional array of at least two columns, ``split`` leaves a side empty,
                y has fewer than two classes, C is not positive, or rank is not a whole number of at least 1.
        """
        rows, self.classes_, targets = rows_and_classes(self, X, y, min_width=2)
        check_positive(self.C)
        check_count("rank", self.rank)
        self.split_ = rows.shape[1] // 2 if self.split is None else self.split
        if not 0 < self.split_ < rows.shape[1]:
            raise ValueError(
                f"split is {self.split!r}; expected 1 to {rows.shape[1] - 1}, as X has {rows.shape[1]} columns"
            )
        sides = [decompose(rows[:, : self.split_]), decompose(rows[:, self.split_ :])]
        n_rows, n_classes = len(rows), len(self.classes_)
        truth = (targets == 1)[:, None] if n_classes == 2 else np.eye(n_classes, dtype=bool)[targets]
        problem = _Problem(
            [side.scores for side in sides],
            truth.astype(np.float64),
            [1.0 / np.sqrt(side.variances + 1.0 / (self.C * n_rows)) for side in sides],
            1.0 / (self.C * n_rows),
            self.main_effects,
        )
        with one_blas_thread():
            found = minimize(
                problem.loss,
                problem.start(int(self.rank)),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": self.max_iter, "gtol": self.tol, "ftol": 1e-9},
            )
        factors, mains, self.intercept_ = problem.unpack(found.x)
        back = [(side.axes * step).T / side.scale for side, step in zip(sides, problem.steps, strict=True)]  # [m, d]
        self.left_, self.right_ = (
            np.einsum("mcr,md->cdr", factor, turn) for factor, turn in zip(factors, back, strict=True)
        )
        self.main_ = np.concatenate([main.T @ turn for main, turn in zip(mains, back, strict=True)], axis=1)
        self.centre_ = np.concatenate([side.mean for side in sides])
        self.n_iter_ = max(int(found.nit), 1)
        self.converged_ = bool(found.success)
        if not self.converged_:
            warnings.warn(
                f"BilinearProbe(rank={self.rank}, C={self.C:g}) stopped after {self.n_iter_} steps short of "
                f"tol={self.tol:g}; raise max_iter, or loosen tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits ``[n, k]``, or the logit of the second class ``[n]`` when there are two."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False) - self.centre_
        with one_blas_thread():
            sides = [
                np.tensordot(side, form, axes=(1, 1))  # [n, c, r]
                for side, form in ((rows[:, : self.split_], self.left_), (rows[:, self.split_ :], self.right_))
            ]
            logits = np.einsum("ncr,ncr->nc", *sides) + rows @ self.main_.T + self.intercept_
        return logits.ravel() if len(self.classes_) == 2 else logits

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The likeliest relation of every pair, ``[n]``."""
        return likeliest(self.decision_function(X), self.classes_)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of every class, ``[n, k]``."""
        return probabilities(self.decision_function(X))


class _Problem:
    """The loss in preconditioned coordinates: both sides in their principal axes, scaled to about unit variance.

    Args:
        scores: the two sides' rows in their principal axes, ``[n, m_x]`` and ``[n, m_y]``.
        truth: one column per logit, ``[n, c]``; one column stands for the second of two classes.
        steps: scale of every axis, ``[m_x]`` and ``[m_y]``.
        penalty: of the mean loss.
        main_effects: whether weights of the sides alone are free.
    """

    def __init__(
        self,
        scores: list[FloatArray],
        truth: NDArray[np.float64],
        steps: list[NDArray[np.float64]],
        penalty: float,
        main_effects: bool,
    ) -> None:
        self.plain = scores
        self.sides = [(side * step).astype(side.dtype, copy=False) for side, step in zip(scores, steps, strict=True)]
        self.truth = truth
        self.steps = steps
        self.shrink = [penalty * step**2 for step in steps]
        self.main_effects = main_effects
        self.rank = 0

    def start(self, rank: int) -> NDArray[np.float64]:
        """Along the steepest forms of the given rank; the intercepts give the class frequencies."""
        share = self.truth.mean(axis=0)
        residual = self.truth - share
        left, right = self.plain
        self.rank = min(rank, left.shape[1], right.shape[1])
        factors: list[list[NDArray[np.float64]]] = [[], []]
        for column in residual.T:
            slope = (left * column[:, None]).T @ right
            u, _, vt = np.linalg.svd(slope, full_matrices=False)
            u, v = u[:, : self.rank], vt[: self.rank].T
            spread = float(np.std(np.einsum("nr,nr->n", left @ u, right @ v)))
            size = np.sqrt(_START / spread) if spread > 0 else 1.0
            for found, factor, step in zip(factors, (u, v), self.steps, strict=True):
                found.append(size * factor / step[:, None])
        parts = [np.stack(found, axis=1).ravel() for found in factors]
        if self.main_effects:
            parts.append(np.zeros((left.shape[1] + right.shape[1]) * self.truth.shape[1]))
        log_share = np.log(share / (1.0 - share)) if len(share) == 1 else np.log(share)
        return np.concatenate([*parts, log_share])

    def unpack(
        self, flat: NDArray[np.float64]
    ) -> tuple[list[NDArray[np.float64]], list[NDArray[np.float64]], NDArray[np.float64]]:
        """Factors ``[m, c, r]`` and main effects ``[m, c]`` of both sides, and the intercepts ``[c]``."""
        n_logits = self.truth.shape[1]
        widths = [side.shape[1] for side in self.sides]
        factors, mains, start = [], [], 0
        for width in widths:
            stop = start + width * n_logits * self.rank
            factors.append(flat[start:stop].reshape(width, n_logits, self.rank))
            start = stop
        for width in widths:
            if not self.main_effects:
                mains.append(np.zeros((width, n_logits)))
                continue
            mains.append(flat[start : start + width * n_logits].reshape(width, n_logits))
            start += width * n_logits
        return factors, mains, flat[start:]

    def loss(self, flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Mean cross entropy plus penalty, and its gradient."""
        factors, mains, intercepts = self.unpack(flat)
        n_rows, n_logits = self.truth.shape
        shape = (n_rows, n_logits, self.rank)
        left, right = (
            (side @ factor.reshape(side.shape[1], -1).astype(side.dtype)).reshape(shape)
            for side, factor in zip(self.sides, factors, strict=True)
        )
        logits = np.einsum("ncr,ncr->nc", left, right).astype(np.float64) + intercepts
        if self.main_effects:
            logits += sum(side @ main for side, main in zip(self.sides, mains, strict=True))
        value, residual = _cross_entropy(logits, self.truth)
        slopes, penalties = [], []
        for side, factor, other, shrink in zip(self.sides, factors, (right, left), self.shrink, strict=True):
            pulled = (residual[:, :, None] * other).reshape(n_rows, -1).astype(side.dtype)
            pull = shrink[:, None, None] * factor
            slopes.append((side.T @ pulled).reshape(factor.shape) + pull)
            penalties.append(float(np.vdot(pull, factor)))
        for side, main, shrink in zip(self.sides, mains, self.shrink, strict=True):
            if self.main_effects:
                pull = shrink[:, None] * main
                slopes.append(side.T @ residual + pull)
                penalties.append(float(np.vdot(pull, main)))
        gradient = np.concatenate([*(slope.ravel() for slope in slopes), residual.sum(axis=0)])
        return value + 0.5 * sum(penalties), gradient


def _cross_entropy(logits: NDArray[np.float64], truth: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
    """Mean cross entropy and its slope ``[n, c]`` in the logits; a single column is the logit of "yes"."""
    if logits.shape[1] == 1:
        total, chance = np.logaddexp(0.0, logits), expit(logits)
    else:
        total, chance = logsumexp(logits, axis=1), softmax(logits, axis=1)
    value = float((total.sum() - np.vdot(truth, logits)) / len(logits))
    return value, (chance - truth) / len(logits)
