"""Softmax regressions of unequal numbers of classes as columns of one matrix.

A softmax over ``k`` classes does not see what is added to all logits, and a penalised optimum has weights that sum to
zero over the classes. So ``k`` classes are ``k - 1`` columns here, in an orthonormal basis of the vectors that sum to
zero; the penalty does not see the rotation. Two classes are one column.

Shapes: ``B`` decompositions, ``n`` rows, ``P`` problems, ``K`` columns of all problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import helmert
from torch import Tensor


def class_basis(n_classes: int) -> NDArray[np.float64]:
    """Orthonormal basis ``[k, k - 1]`` of the vectors over ``k`` classes that sum to zero."""
    return np.ascontiguousarray(helmert(n_classes).T)


@dataclass(frozen=True, eq=False)
class Columns:
    """Which columns belong to which problem.

    Attributes:
        owner: problem of every column, ``[K]``.
        shares: 1 where a column belongs to a problem, ``[K, P]``.
        groups: the columns of problems with equally many classes, and their class basis.
    """

    owner: Tensor
    shares: Tensor
    groups: list[tuple[slice, Tensor]]

    @classmethod
    def of(cls, n_classes: Sequence[int], dtype: torch.dtype, device: str) -> Columns:
        """The columns of problems with ``n_classes``, ascending; ``dtype`` is that of the logits."""
        owner = torch.from_numpy(np.repeat(np.arange(len(n_classes)), np.array(n_classes) - 1)).to(device)
        groups, begin = [], 0
        for k, alike in groupby(n_classes):
            end = begin + len(list(alike)) * (k - 1)
            groups.append((slice(begin, end), torch.from_numpy(class_basis(k)).to(device, dtype)))
            begin = end
        return cls(owner, torch.nn.functional.one_hot(owner, len(n_classes)).double(), groups)

    def spread(self, values: Tensor) -> Tensor:
        """A value per problem ``[B, P]`` for each of its columns ``[B, K, 1]``."""
        return values[:, self.owner, None]

    def dot(self, left: Tensor, right: Tensor) -> Tensor:
        """Inner products per problem ``[B, P]`` of two ``[B, K, ...]``, in float64."""
        return (left * right).sum(dim=2).double() @ self.shares

    def largest(self, values: Tensor) -> Tensor:
        """Largest size per problem ``[B, P]`` of the entries of ``[B, K, ...]``."""
        return (values.abs().amax(dim=2)[:, :, None] * self.shares).amax(dim=1)

    def expected(self, logits: Tensor) -> Tensor:
        """What the probabilities are in the basis, ``[B, K, n]``; less the truth it is the gradient by the logits."""
        expected = torch.empty_like(logits)
        for columns, basis in self.groups:
            if len(basis) == 2:
                expected[:, columns] = basis[0, 0] * torch.tanh(basis[0, 0] * logits[:, columns])
            else:
                expected[:, columns] = (basis.T @ _probabilities(logits[:, columns], basis)).flatten(1, 2)
        return expected

    def curvature(self, logits: Tensor) -> Tensor:
        """Second derivative of the loss of every row by the logit of every column, ``[B, K, n]``."""
        curvature = torch.empty_like(logits)
        for columns, basis in self.groups:
            chances = _probabilities(logits[:, columns], basis)
            variance = basis.T.square() @ chances - (basis.T @ chances).square()
            curvature[:, columns] = variance.flatten(1, 2)
        return curvature


def _probabilities(logits: Tensor, basis: Tensor) -> Tensor:
    """``[B, problems, k, n]`` from the columns of problems with ``k`` classes."""
    return torch.softmax(basis @ logits.unflatten(1, (-1, basis.shape[1])), dim=2)
