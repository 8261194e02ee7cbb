"""Structural probes: is a tree written into the geometry of a sentence's rows?

The distance probe finds a linear map ``B`` under which squared distances of rows are distances in the tree; the depth
probe one under which squared norms are depths (Hewitt & Manning 2019, "A Structural Probe for Finding Syntax in Word
Representations"). On the leaves of a program's abstract syntax tree the same probes measure what AST-Probe does
(Hernández López et al. 2022, "AST-Probe: Recovering abstract syntax trees from hidden representations of pre-trained
language models"); :mod:`probes.ast_trees` makes such trees of Python sources.

The probes are estimators in scikit-learn's manner (parameters, ``fit``, ``predict``, ``score``, ``clone``), but a
sample is a sentence: X is a sequence of matrices of different lengths, which scikit-learn's own checks do not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from activations.errors import TwinprobeError
from probes.softmax import decompose
from probes.trees import root_accuracy, uuas

if TYPE_CHECKING:
    import torch

#: Principal axes are scaled to unit variance after this share of the mean variance is added to theirs.
DAMPING = 1e-2

Matrix = NDArray[np.floating[Any]]
Batch = tuple["torch.Tensor", "torch.Tensor", "torch.Tensor"]


class StructuralProbe(BaseEstimator):
    """What the two probes share; use :class:`DistanceProbe` or :class:`DepthProbe`.

    ``B`` is fitted by Adam in torch, in the principal axes of the standardised training rows at unit variance. That
    changes no optimum, but the way there: a tree in axes 20 times quieter than the loudest is found as if all were equal
    (UUAS 0.96 in a simulation, where Adam on standardised features stays at 0.20).

    Args:
        rank: rows of ``B``: the dimension of the space that holds the tree; None for as many as there are features.
        epochs: passes over the sentences. The step size falls linearly to 0, and there is no other stopping rule,
            so that fits of different layers are alike.
        learning_rate: Adam's step size at the start, times the number of principal axes: a step changes every weight of
            a row of ``B`` by about as much, so that what it does to a projection grows with their number.
        batch_size: sentences per step; a batch holds sentences of similar length.
        random_state: seed of the initial ``B`` and of the order of the batches.
        device: where torch computes.

    Attributes:
        projection_: ``B [rank, d]`` in the units of the raw features.
        offset_: ``[rank]``; a row x is mapped to ``B x + offset``. Distances do not depend on it.
        losses_: mean training loss of every epoch, in the paper's terms.
        dev_losses_: the same on dev, empty without dev sentences.
        n_features_in_: width ``d`` seen in fit.
    """

    def __init__(
        self,
        rank: int | None = 64,
        epochs: int = 60,
        learning_rate: float = 1.5,
        batch_size: int = 16,
        random_state: int = 0,
        device: str = "cpu",
    ) -> None:
        self.rank = rank
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.random_state = random_state
        self.device = device

    def fit(
        self,
        X: Sequence[ArrayLike],
        y: Sequence[ArrayLike],
        X_dev: Sequence[ArrayLike] = (),
        y_dev: Sequence[ArrayLike] = (),
    ) -> Self:
        """Fit to sentences ``X``, each ``[n_i, d]``, and their gold distances ``[n_i, n_i]`` or depths ``[n_i]``.

        With dev sentences the ``B`` of the epoch with the lowest dev loss is kept, as in the paper.

        Raises:
            TwinprobeError: no sentences, shapes that do not fit each other, values that are not finite, or a
                parameter out of range.
        """
        import torch

        sentences, golds = self._checked(X, y)
        dev = self._checked(X_dev, y_dev, sentences[0].shape[1]) if len(X_dev) or len(y_dev) else ([], [])
        self._check_parameters()
        mean, whiten = _whitening(np.concatenate(sentences))
        self.n_features_in_ = len(mean)
        batches = self._batches(sentences, golds, mean, whiten)
        dev_batches = self._batches(*dev, mean, whiten) if dev[0] else []

        generator = torch.Generator().manual_seed(self.random_state)
        width = whiten.shape[1]
        rank = width if self.rank is None else min(self.rank, width)
        # Scaled so that the distances start near 1, as those of a tree do, whatever the width.
        start = torch.randn(rank, width, generator=generator) / (2.0 * rank * width) ** 0.5
        weights = start.to(self.device).requires_grad_()
        offset = torch.zeros(rank, device=self.device, requires_grad=True)
        optimiser = torch.optim.Adam([weights, offset], lr=self.learning_rate / width)
        n_steps = self.epochs * len(batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1.0 - step / n_steps)
        self.losses_: list[float] = []
        self.dev_losses_: list[float] = []
        best = (weights, offset)
        for _ in range(self.epochs):
            total = 0.0
            for index in torch.randperm(len(batches), generator=generator).tolist():
                optimiser.zero_grad()
                loss = self._loss(batches[index], weights, offset)
                (loss / len(batches[index][2])).backward()
                optimiser.step()
                schedule.step()
                total += loss.item()
            self.losses_.append(total / len(sentences))
            if dev_batches:
                with torch.no_grad():
                    dev_total = sum(self._loss(batch, weights, offset).item() for batch in dev_batches)
                self.dev_losses_.append(dev_total / len(dev[0]))
                if self.dev_losses_[-1] == min(self.dev_losses_):
                    best = (weights.detach().clone(), offset.detach().clone())
        found, shift = (tensor.detach().cpu().numpy().astype(np.float64) for tensor in best)
        self.projection_: NDArray[np.float64] = found @ whiten.T
        self.offset_: NDArray[np.float64] = shift - self.projection_ @ mean
        return self

    def transform(self, X: Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
        """Every sentence in the probe's space, ``[n_i, rank]``."""
        check_is_fitted(self, "projection_")
        sentences = [_matrix(sentence, index, self.n_features_in_) for index, sentence in enumerate(X)]
        return [sentence @ self.projection_.T + self.offset_ for sentence in sentences]

    def _check_parameters(self) -> None:
        for name in ("rank", "epochs", "batch_size"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TwinprobeError(f"{name} is {value}; expected a whole number of at least 1")
        if not self.learning_rate > 0:
            raise TwinprobeError(f"learning_rate is {self.learning_rate}; expected a positive number, such as 1.5")

    def _checked(
        self, X: Sequence[ArrayLike], y: Sequence[ArrayLike], width: int | None = None
    ) -> tuple[list[Matrix], list[NDArray[np.float64]]]:
        if len(X) != len(y) or not len(X):
            raise TwinprobeError(f"{len(X)} sentences with {len(y)} trees; expected as many, and at least one")
        sentences: list[Matrix] = []
        for index, sentence in enumerate(X):
            sentences.append(_matrix(sentence, index, width))
            width = sentences[0].shape[1]
        golds = [np.asarray(gold, dtype=np.float64) for gold in y]
        for index, (sentence, gold) in enumerate(zip(sentences, golds, strict=True)):
            expected = self._gold_shape(len(sentence))
            if gold.shape != expected or not np.isfinite(gold).all():
                raise TwinprobeError(
                    f"the gold values of sentence {index} have shape {gold.shape}; expected finite ones of shape "
                    f"{expected}, as it has {len(sentence)} rows: see probes.trees"
                )
        return sentences, golds

    def _batches(
        self,
        sentences: list[Matrix],
        golds: list[NDArray[np.float64]],
        mean: NDArray[np.float64],
        whiten: NDArray[np.float64],
    ) -> list[Batch]:
        """Padded rows ``[s, t, d]``, gold values and their weights ``[s, t(, t)]``: 0 at padding, else 1 / count."""
        import torch

        order = sorted(range(len(sentences)), key=lambda index: len(sentences[index]))
        batches = []
        for first in range(0, len(order), self.batch_size):
            chosen = order[first : first + self.batch_size]
            longest = len(sentences[chosen[-1]])
            rows = np.zeros((len(chosen), longest, whiten.shape[1]), dtype=np.float32)
            gold = np.zeros((len(chosen), *self._gold_shape(longest)), dtype=np.float32)
            weight = np.zeros_like(gold)
            for place, index in enumerate(chosen):
                n = len(sentences[index])
                rows[place, :n] = (sentences[index] - mean) @ whiten
                cells = np.ix_([place], *[range(n)] * golds[index].ndim)
                gold[cells] = golds[index]
                weight[cells] = 1.0 / golds[index].size  # the length squared for distances, the length for depths
            padded, values, weights = (torch.from_numpy(array).to(self.device) for array in (rows, gold, weight))
            batches.append((padded, values, weights))
        return batches

    def _loss(self, batch: Batch, weights: torch.Tensor, offset: torch.Tensor) -> torch.Tensor:
        """Sum over the batch's sentences of the mean absolute error (the paper's L1 loss)."""
        rows, gold, weight = batch
        return ((self._values(rows @ weights.T + offset) - gold).abs() * weight).sum()

    def _gold_shape(self, n: int) -> tuple[int, ...]:
        raise NotImplementedError

    def _values(self, projected: Any) -> Any:
        raise NotImplementedError


class DistanceProbe(StructuralProbe):
    """Distance probe: ``|B (x_i - x_j)|^2`` is the distance of nodes i and j in the sentence's tree.

    The loss is the mean over sentences of the absolute errors of all pairs, divided by the length squared. Parameters
    and attributes are those of :class:`StructuralProbe`.
    """

    def predict(self, X: Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
        """Distances between the rows of every sentence, ``[n_i, n_i]``, symmetric, 0 on the diagonal."""
        found = []
        for projected in self.transform(X):
            distances = np.maximum(self._values(projected), 0.0)
            np.fill_diagonal(distances, 0.0)
            found.append((distances + distances.T) / 2.0)
        return found

    def score(self, X: Sequence[ArrayLike], y: Sequence[ArrayLike]) -> float:
        """Undirected unlabelled attachment score (UUAS) against gold distances."""
        return uuas(y, self.predict(X))

    def _gold_shape(self, n: int) -> tuple[int, ...]:
        return (n, n)

    def _values(self, projected: Any) -> Any:
        norms = (projected**2).sum(-1)
        return norms[..., :, None] + norms[..., None, :] - 2.0 * (projected @ projected.swapaxes(-1, -2))


class DepthProbe(StructuralProbe):
    """Depth probe: ``|B x_i + offset|^2`` is the depth of node i in the sentence's tree.

    The loss is the mean over sentences of the absolute errors of all nodes, divided by the length. The offset is there
    because the features are centred; the paper's probe is the case that puts the origin back. Parameters and attributes
    are those of :class:`StructuralProbe`.
    """

    def predict(self, X: Sequence[ArrayLike]) -> list[NDArray[np.float64]]:
        """Depths of the rows of every sentence, ``[n_i]``."""
        return [np.asarray(self._values(projected)) for projected in self.transform(X)]

    def score(self, X: Sequence[ArrayLike], y: Sequence[ArrayLike]) -> float:
        """Root accuracy: share of sentences whose root has the smallest predicted depth."""
        return root_accuracy(y, self.predict(X))

    def _gold_shape(self, n: int) -> tuple[int, ...]:
        return (n,)

    def _values(self, projected: Any) -> Any:
        return (projected**2).sum(-1)


def _matrix(sentence: ArrayLike, index: int, width: int | None) -> Matrix:
    """A sentence's rows as ``[n, d]``; raises :class:`TwinprobeError` unless they are finite and ``width`` wide."""
    rows = np.asarray(sentence)
    if rows.dtype != np.float32:  # float32 stays: it is what a store holds
        rows = rows.astype(np.float64)
    if rows.ndim != 2 or not len(rows) or (width is not None and rows.shape[1] != width) or not np.isfinite(rows).all():
        raise TwinprobeError(
            f"sentence {index} has shape {rows.shape}; expected finite rows [n, {'d' if width is None else width}], n > 0"
        )
    return rows


def _whitening(rows: Matrix) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Feature means ``[d]``, and the map ``[d, m]`` of centred rows to their principal axes at unit variance.

    Axes far below the mean variance stay small, as there they are mostly noise.
    """
    data = decompose(rows)
    damped = np.sqrt(data.variances + DAMPING * data.variances.mean())
    return data.mean, data.axes / damped / data.scale[:, None]
