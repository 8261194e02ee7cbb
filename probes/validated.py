"""The checks that the probes for classes share, in scikit-learn's manner: ``ValueError`` for data that can't be fitted."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import validate_data

from probes.softmax import FloatArray


def rows_and_classes(
    probe: BaseEstimator, X: ArrayLike, y: ArrayLike, min_width: int = 1
) -> tuple[FloatArray, NDArray[Any], NDArray[np.int64]]:
    """The rows ``[n, d]`` as floats, the sorted labels ``[k]``, and the index of every row's label ``[n]``.

    Sets ``n_features_in_`` of the probe.

    Raises:
        ValueError: X is not finite, two-dimensional and ``min_width`` wide, or y has fewer than two classes.
    """
    rows, labels = validate_data(probe, X, y, dtype=[np.float64, np.float32], ensure_min_features=min_width)
    check_classification_targets(labels)
    classes, targets = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        name = type(probe).__name__
        raise ValueError(f"{name} needs samples of at least 2 classes, got one class: {classes[0]!r}")
    return rows, classes, targets


def check_positive(C: float) -> None:
    """Raise ValueError unless the inverse strength is positive."""
    if not C > 0:
        raise ValueError(f"C is {C!r}; expected a positive number")


def check_count(name: str, value: int) -> None:
    """Raise ValueError unless ``value`` is a whole number of at least 1."""
    if not value >= 1 or value != int(value):
        raise ValueError(f"{name} is {value!r}; expected a whole number of at least 1")
