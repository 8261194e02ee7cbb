"""The difference-in-means probe: a direction that is measured, not optimised."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.softmax import likeliest, moments, one_blas_thread
from probes.validated import rows_and_classes


class DifferenceInMeans(ClassifierMixin, BaseEstimator):
    """Classify by the nearest class mean; of two classes, by the side of the mean difference's midpoint.

    The direction is the difference of the class means (Marks & Tegmark 2023, "The Geometry of Truth", who call it the
    mass-mean probe and found it to sway a model's outputs more than the directions of other linear probes). Nothing is
    optimised, and there is no strength to choose. Every class counts the same, however many rows it has. The variant
    that corrects for the covariance is scikit-learn's
    ``LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto")``.

    Args:
        standardise: measure nearness in features standardised on the training rows, so that the few huge dimensions
            of a residual stream do not decide alone; False for raw distances, as in the paper.

    Attributes:
        classes_: sorted labels ``[k]``.
        means_: class means in the units of the raw features, ``[k, d]``.
        directions_: directions to steer along, in raw units: each class mean minus the average of the other class
            means ``[k, d]``, or the second class mean minus the first ``[1, d]`` for two classes.
        coef_: weights of the linear rule in raw units, ``[k, d]``, or ``[1, d]`` for two classes.
        intercept_: ``[k]``, or ``[1]`` for two classes.
        n_features_in_: width ``d`` seen in fit.
    """

    def __init__(self, standardise: bool = True) -> None:
        self.standardise = standardise

    def fit(self, X: ArrayLike, y: ArrayLike) -> DifferenceInMeans:
        """Fit to rows ``X [n, d]`` and labels ``y [n]``.

        Raises:
            ValueError: X is not a finite two-dimensional array, or y has fewer than two classes.
        """
        rows, classes, targets = rows_and_classes(self, X, y)
        n_classes = len(classes)
        centre, scale = moments(rows)
        if not self.standardise:
            scale = np.ones_like(scale)
        means = np.stack([rows[targets == i].mean(axis=0, dtype=np.float64) for i in range(n_classes)])
        # |z - m|^2 = |z|^2 - 2 (z m - |m|^2 / 2): the nearest mean is the largest of the terms in brackets.
        standard = (means - centre) / scale
        weights = standard / scale
        intercepts = -0.5 * np.sum(standard**2, axis=1) - weights @ centre
        directions = (n_classes * means - means.sum(axis=0)) / (n_classes - 1)
        if n_classes == 2:
            weights, intercepts = weights[1:] - weights[:1], intercepts[1:] - intercepts[:1]
            directions = means[1:] - means[:1]
        self.classes_ = classes
        self.means_ = means
        self.directions_ = directions
        self.coef_ = weights
        self.intercept_ = intercepts
        return self

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:
        """Scores ``[n, k]`` whose differences are half those of squared distances; ``[n]`` when there are two classes.

        They are not calibrated as logits, so there is no ``predict_proba``.
        """
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=[np.float64, np.float32], reset=False)
        with one_blas_thread():
            scores = np.asarray(rows @ self.coef_.T + self.intercept_)
        return scores.ravel() if len(self.classes_) == 2 else scores

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The label of the nearest class mean, ``[n]``."""
        return likeliest(self.decision_function(X), self.classes_)
