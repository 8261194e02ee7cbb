"""Synthetic rows with a known answer, shared by the probe tests."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probes.rows import RowLabels


def about_rows(
    labels: NDArray[np.str_],
    *,
    rows_per_item: int = 2,
    n_keys: int = 40,
    seed: int = 0,
) -> RowLabels:
    """Rows in items of ``rows_per_item``, items split 5 : 1.5 : 2.5, surface tokens and keys that say nothing."""
    n = len(labels)
    rng = np.random.default_rng(seed)
    item = np.arange(n) // rows_per_item
    share = item / (item[-1] + 1)
    splits = np.where(share < 5 / 9, "train", np.where(share < 6.5 / 9, "dev", "test"))
    tokens = rng.integers(0, 30, size=(n, 6))
    return RowLabels(
        labels=labels,
        controls=np.char.add("key", rng.integers(0, n_keys, n).astype(str)),
        items=np.char.add("item", item.astype(str)),
        groups=np.char.add("item", item.astype(str)),
        splits=splits,
        texts=tuple(tuple(row) for row in tokens.tolist()),
        tokens=tuple((row[-1],) for row in tokens.tolist()),
        positions=rng.integers(5, 40, n),
    )


class Gaussians:
    """``k`` equally likely Gaussian classes with one covariance: the Bayes rule is linear and known.

    The covariance is ``mix @ mix.T`` with strongly unequal axes, like that of activations.
    """

    def __init__(self, n_classes: int, width: int, distance: float, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        rotation, _ = np.linalg.qr(rng.normal(size=(width, width)))
        self.mix = rotation * (3.0 / np.arange(1, width + 1) ** 0.5)
        white = rng.normal(size=(n_classes, width))
        self.white_means = distance * white / np.linalg.norm(white, axis=1, keepdims=True)

    def sample(self, n: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        rng = np.random.default_rng(seed)
        classes = rng.integers(len(self.white_means), size=n)
        white = rng.normal(size=(n, self.mix.shape[0])) + self.white_means[classes]
        return (white @ self.mix.T + 5.0).astype(np.float32), classes

    def bayes_score(self, n: int = 200_000) -> float:
        """Accuracy of the Bayes rule (nearest mean after whitening) on ``n`` fresh draws."""
        rng = np.random.default_rng(99)
        classes = rng.integers(len(self.white_means), size=n)
        white = rng.normal(size=(n, self.mix.shape[0])) + self.white_means[classes]
        return float((self._nearest(white) == classes).mean())

    def bayes_rule(self, features: NDArray[np.float32]) -> NDArray[np.int64]:
        """The Bayes rule's class for every row of :meth:`sample`."""
        return self._nearest(np.linalg.solve(self.mix, (features - 5.0).T).T)

    def _nearest(self, white: NDArray[np.float64]) -> NDArray[np.int64]:
        return (white @ self.white_means.T - 0.5 * (self.white_means**2).sum(axis=1)).argmax(axis=1)
