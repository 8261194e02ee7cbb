"""Probes as scikit-learn estimators, and the choice of their strength on the dev split."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from activations.errors import TwinprobeError
from probes.softmax import Decomposition, Solution, decompose, likeliest, one_blas_thread, probabilities, solve_path

#: Inverse regularisation strengths tried on dev, from strong to weak.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)


class LogisticProbe(ClassifierMixin, BaseEstimator):
    """Linear probe: features standardised on the training rows, then multinomial L2 logistic regression.

    The optimum is that of ``make_pipeline(StandardScaler(), LogisticRegression(C=C))``; the intercept is not penalised.

    Args:
        C: inverse regularisation strength of ``C * sum(cross entropy) + |W|^2 / 2``, W in standardised units.
        tol: stop when no entry of the (preconditioned) gradient of the mean loss exceeds this.
        max_iter: most L-BFGS steps; a fit that needs more warns and sets ``converged_`` to False.

    Attributes:
        classes_: sorted labels ``[k]``.
        coef_: weights in the units of the raw features, ``[k, d]``, or ``[1, d]`` for two classes.
        intercept_: ``[k]``, or ``[1]`` for two classes.
        n_iter_: L-BFGS steps taken.
        converged_: whether the optimiser reached its tolerance.
        n_features_in_: width ``d`` seen in fit.
    """

    def __init__(self, C: float = 1.0, tol: float = 1e-4, max_iter: int = 1000) -> None:
        self.C = C
        self.tol = tol
        self.max_iter = max_iter

    def fit(self, X: ArrayLike, y: ArrayLike) -> LogisticProbe:
        """Fit to rows ``X [n, d]`` and labels ``y [n]``.

        Raises:
            ValueError: X is not a finite two-dimensional array, y has fewer than two classes, or C is not positive.
        """
        rows, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        if not self.C > 0:
            raise ValueError(f"C is {self.C!r}; expected a positive number")
        classes, targets = np.unique(labels, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(f"LogisticProbe needs samples of at least 2 classes, got one class: {classes[0]!r}")
        [solution] = solve_path(decompose(rows), targets, len(classes), [self.C], self.tol, self.max_iter)
        self._adopt(solution, classes)
        if not self.converged_:
            warnings.warn(
                f"LogisticProbe(C={self.C:g}) stopped after {self.n_iter_} steps short of tol={self.tol:g}; "
                "raise max_iter, or loosen tol",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _adopt(self, solution: Solution, classes: NDArray[Any]) -> None:
        weights, intercepts = solution.weights, solution.intercepts
        if len(classes) == 2:
            weights, intercepts = weights[1:] - weights[:1], intercepts[1:] - intercepts[:1]
        self.classes_ = classes
        self.coef_ = weights
        self.intercept_ = intercepts
        self.n_iter_ = max(solution.n_iter, 1)
        self.converged_ = solution.converged
        self.n_features_in_ = weights.shape[1]

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Logits ``[n, k]``, or the logit of the second class ``[n]`` when there are two."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        with one_blas_thread():
            logits = rows @ self.coef_.T + self.intercept_
        return logits.ravel() if len(self.classes_) == 2 else logits

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The likeliest label of every row, ``[n]``."""
        return likeliest(self.decision_function(X), self.classes_)

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Probability of every class, ``[n, k]``."""
        return probabilities(self.decision_function(X))


def fit_path(
    data: Decomposition,
    labels: NDArray[Any],
    strengths: Sequence[float] = STRENGTHS,
    tol: float = 1e-4,
    max_iter: int = 1000,
) -> list[LogisticProbe]:
    """Fit one probe per strength on rows that are decomposed already, from strong to weak regularisation.

    Unlike :meth:`LogisticProbe.fit` this does not warn: ``converged_`` of every probe says whether it converged.
    """
    classes, targets = np.unique(labels, return_inverse=True)
    path = solve_path(data, targets, len(classes), strengths, tol, max_iter)
    return [fitted_probe(found, classes, C, tol, max_iter) for C, found in zip(strengths, path, strict=True)]


def fitted_probe(solution: Solution, classes: NDArray[Any], C: float, tol: float, max_iter: int) -> LogisticProbe:
    """The estimator that ``solution`` is the fit of."""
    probe = LogisticProbe(C=C, tol=tol, max_iter=max_iter)
    probe._adopt(solution, classes)
    return probe


@dataclass(frozen=True, eq=False)
class Choice:
    """A probe with the strength that did best on dev, and how many fits of the path did not converge."""

    probe: LogisticProbe
    dev_score: float
    n_unconverged: int


def choose_strength(
    data: Decomposition,
    labels: NDArray[Any],
    dev_features: NDArray[np.floating[Any]],
    dev_labels: NDArray[Any],
    strengths: Sequence[float] = STRENGTHS,
) -> Choice:
    """Fit the path on the training rows, keep the probe with the highest dev accuracy; ties go to the stronger penalty.

    Raises:
        TwinprobeError: fewer than two different training labels, or a strength that is not positive.
    """
    check_strengths(strengths)
    check_labels(labels)
    return best_on_dev(fit_path(data, labels, sorted(strengths)), dev_features, dev_labels)


def best_on_dev(
    path: Sequence[LogisticProbe], dev_features: NDArray[np.floating[Any]], dev_labels: NDArray[Any]
) -> Choice:
    """Keep the probe with the highest dev accuracy of a path from strong to weak penalties; ties go to the stronger."""
    scores = [float(np.mean(probe.predict(dev_features) == dev_labels)) for probe in path]
    best = int(np.argmax(scores))
    return Choice(path[best], scores[best], sum(not probe.converged_ for probe in path))


def check_labels(labels: NDArray[Any]) -> None:
    """Raise :class:`TwinprobeError` unless there are two different training labels."""
    if len(np.unique(labels)) < 2:
        raise TwinprobeError(
            f"every training row has the label {str(labels[0])!r}; a probe needs at least two labels in the train split"
        )


def check_strengths(strengths: Sequence[float]) -> None:
    """Raise :class:`TwinprobeError` unless ``strengths`` holds positive finite numbers."""
    bad = [value for value in strengths if not (np.isfinite(value) and value > 0)]
    if bad or not len(strengths):
        raise TwinprobeError(f"strengths are {list(strengths)}; expected one or more positive numbers, such as 0.01")
