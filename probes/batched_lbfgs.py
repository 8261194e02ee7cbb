"""L-BFGS on many softmax regressions at once; the optimiser behind :func:`probes.batched.fit_many`.

What keeps the number of passes over the rows small:

- L-BFGS (Nocedal & Wright 2006, algorithm 7.4) starts from the inverse curvature along the principal axes, taken anew
  for every strength where the path stands.
- Every problem has its own steps, history and strength. One that has converged goes on to its next strength while
  others still work, and leaves the batch after its last one.
- Logits are linear in the step, so the line search needs no pass over the rows. It needs no loss either: along a line
  the loss is convex, and its slope says where the minimum is.

Shapes: ``S`` strengths, ``B`` decompositions, ``n`` rows, ``r`` axes (the last is the constant one, for the intercept),
``P`` problems, ``K`` columns of all problems (:mod:`probes.columns`). Products are in the dtype of the rows, what is
kept per problem in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from probes.columns import Columns, class_basis
from probes.softmax import Decomposition, FloatArray

#: Pairs of steps and gradient changes that L-BFGS keeps per problem.
HISTORY = 6
#: The line search stops where the slope has fallen to this share, or after so many trials.
FLATTER, MOST_TRIALS = 0.3, 20
#: Rows that are fitted almost perfectly leave no curvature; at least this much per unit of variance is assumed.
LEAST_CURVATURE = 1e-4
#: Decompositions that have finished all problems are taken out of the batch when no more than this share still works.
SHRINK_AT = 0.75


@dataclass(frozen=True, eq=False)
class Paths:
    """Solutions of a batch: ``columns [S, B, K, r]`` in the order of ``owners [K]``; the others are ``[S, B, P]``."""

    columns: NDArray[np.float64]
    owners: NDArray[np.int64]
    n_iter: NDArray[np.int64]
    converged: NDArray[np.bool_]


class PathSolver:
    """The state of one batch; :meth:`run` solves it.

    Args:
        batch: decompositions; shorter or narrower ones are filled up with zeros, which no product sees.
        targets: ``[B][P]`` class index of every row.
        n_classes: of every problem, ascending; the same for all decompositions.
        strengths: ascending.
        tol: largest preconditioned gradient of a solution.
        max_iter: most steps per strength.
        device: torch device.
    """

    def __init__(
        self,
        batch: Sequence[Decomposition],
        targets: Sequence[Sequence[NDArray[np.int64]]],
        n_classes: Sequence[int],
        strengths: Sequence[float],
        tol: float,
        max_iter: int,
        device: str,
    ) -> None:
        self.tol, self.max_iter, self.device = tol, max_iter, device
        self.strengths = self._tensor(np.array(strengths, dtype=np.float64))
        rows, variances = _filled(batch)
        self.rows, self.variances = self._tensor(rows), self._tensor(variances)
        self.n_rows = self._tensor(np.array([float(len(data.scores)) for data in batch])[:, None, None])
        self.penalised = self._tensor(np.arange(rows.shape[2]) < rows.shape[2] - 1).double()
        self._lay_out(list(n_classes))
        self.owners = self.of.owner.cpu().numpy()
        truth, start = _begin(targets, n_classes, self.owners, rows)
        self.truth, self.weights = self._tensor(truth), self._tensor(start)
        shape = len(batch), len(n_classes)
        self.members, self.problems, self.columns = (
            self._tensor(np.arange(count)) for count in (*shape, len(self.owners))
        )
        self.solved = self._tensor(np.zeros((len(strengths), *start.shape)))
        self.n_iter = self._tensor(np.zeros((len(strengths), *shape), dtype=np.int64))
        self.converged = self.n_iter.bool()
        self.level, self.steps = self.n_iter[0].clone(), self.n_iter[0].clone()
        self.pairs: list[tuple[Tensor, Tensor, Tensor]] = []
        self.logits = self._forward(self.weights)
        self.residual = self._residual(self.logits)
        self.penalty, self.scale = torch.zeros_like(self.weights), torch.ones_like(self.weights)
        self.gradient = self._backward()
        self._take_strength(torch.ones_like(self.level, dtype=torch.bool))

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def run(self) -> Paths:
        """Solve all problems at all strengths."""
        while self._settle():
            self._walk(self._direction())
        solved, n_iter, converged = (part.cpu().numpy() for part in (self.solved, self.n_iter, self.converged))
        return Paths(solved, self.owners, n_iter, converged)

    def _lay_out(self, n_classes: list[int]) -> None:
        """Give the problems that are left their columns and penalties."""
        self.n_classes = n_classes
        self.of = Columns.of(n_classes, self.rows.dtype, self.device)
        # Two classes are (-w/2, w/2): doubling their penalty gives the |w|^2 / 2 of one logistic unit.
        symmetric = self._tensor(np.where(np.array(n_classes) == 2, 2.0, 1.0))
        self.penalties = symmetric / (self.strengths[:, None, None] * self.n_rows[:, :, 0])  # [S, B, P]

    def _forward(self, weights: Tensor) -> Tensor:
        return torch.bmm(weights.to(self.rows.dtype), self.rows.mT)

    def _backward(self) -> Tensor:
        return torch.bmm(self.residual, self.rows).double() / self.n_rows + self.penalty * self.weights

    def _residual(self, logits: Tensor) -> Tensor:
        return self.of.expected(logits).sub_(self.truth)

    def _take_strength(self, which: Tensor) -> None:
        """Give the problems in ``which [B, P]`` the penalty of their level and the curvature of where they are."""
        level = self.level.clamp_max(len(self.strengths) - 1)
        penalty = self.of.spread(self.penalties.gather(0, level[None])[0]) * self.penalised
        curvature = torch.bmm(self.of.curvature(self.logits), self.rows[:, :, -1:]).double() / self.n_rows
        scale = (curvature.clamp_min(LEAST_CURVATURE) * self.variances + penalty).rsqrt()
        self.gradient += (penalty - self.penalty) * self.weights
        self.penalty = penalty
        self.scale = torch.where(self.of.spread(which), scale, self.scale)

    def _settle(self) -> bool:
        """Note what has converged and send it on to its next strength; False when nothing is left to do."""
        while True:
            active = self.level < len(self.strengths)
            converged = self.of.largest(self.scale * self.gradient) <= self.tol
            done = active & (converged | (self.steps >= self.max_iter))
            if not done.any():
                return bool(active.any())
            member, problem = done.nonzero(as_tuple=True)
            place = self.level[member, problem], self.members[member], self.problems[problem]
            self.n_iter[place] = self.steps[member, problem]
            self.converged[place] = converged[member, problem]
            member, column = done[:, self.of.owner].nonzero(as_tuple=True)
            level = self.level[member, self.of.owner[column]]
            self.solved[level, self.members[member], self.columns[column]] = self.weights[member, column]
            self.level += done
            self.steps[done] = 0
            for _, _, inverse in self.pairs:
                inverse[done] = 0.0  # a pair of weight 0 is no pair
            active = self.level < len(self.strengths)
            if not active.any():
                return False
            done = self._shed(active, done)
            self._take_strength(done)

    def _shed(self, active: Tensor, done: Tensor) -> Tensor:
        """Take finished problems and decompositions out of the batch; returns what is left of ``done``."""
        members, problems = active.any(dim=1), active.any(dim=0)
        if members.double().mean() > SHRINK_AT:
            members = torch.ones_like(members)
        if members.all() and problems.all():
            return done
        columns = problems[self.of.owner]

        def kept(values: Tensor, second: Tensor) -> Tensor:
            return values[members][:, second]

        for name in ("weights", "gradient", "logits", "residual", "truth", "penalty", "scale"):
            setattr(self, name, kept(getattr(self, name), columns))
        self.pairs = [(kept(s, columns), kept(y, columns), kept(rho, problems)) for s, y, rho in self.pairs]
        self.level, self.steps = kept(self.level, problems), kept(self.steps, problems)
        if not members.all():
            for name in ("rows", "variances", "n_rows", "members"):
                setattr(self, name, getattr(self, name)[members])
        self.problems, self.columns = self.problems[problems], self.columns[columns]
        self._lay_out([k for k, keep in zip(self.n_classes, problems.tolist(), strict=True) if keep])
        return kept(done, problems)

    def _direction(self) -> Tensor:
        """The two-loop recursion of L-BFGS, ``[B, K, r]``."""
        direction = -self.gradient
        shares = []
        for step, change, inverse in reversed(self.pairs):
            share = inverse * self.of.dot(step, direction)
            shares.append(share)
            direction -= self.of.spread(share) * change
        start = self.scale.square()
        if self.pairs:
            _, change, inverse = self.pairs[-1]
            size = inverse * self.of.dot(change * start, change)
            start = start * self.of.spread(torch.where(size > 0, 1 / size, 1.0))
        direction *= start
        for (step, change, inverse), share in zip(self.pairs, reversed(shares), strict=True):
            direction += self.of.spread(share - inverse * self.of.dot(change, direction)) * step
        return direction

    def _walk(self, direction: Tensor) -> None:
        """Go along ``direction`` to where the loss is nearly lowest, and keep what that teaches about the curvature."""
        active = self.level < len(self.strengths)
        turn = self._forward(direction)
        size, self.logits, self.residual = self._search(direction, turn, active)
        step = self.of.spread(size) * direction
        self.weights = self.weights + step
        before, self.gradient = self.gradient, self._backward()
        change = self.gradient - before
        bend = self.of.dot(step, change)
        self.pairs = [*self.pairs, (step, change, torch.where(bend > 0, 1 / bend, 0.0))][-HISTORY:]
        self.steps += active

    def _search(self, direction: Tensor, turn: Tensor, active: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where the slope along ``direction`` is flat enough: step sizes ``[B, P]``, logits and residual there.

        ``turn`` is what a whole step adds to the logits.
        """
        first = self.of.dot(direction, self.gradient)
        shrink = self.penalty * direction
        at_zero, growth = self.of.dot(shrink, self.weights), self.of.dot(shrink, direction)
        size = active.double()
        low, high = torch.zeros_like(size), torch.full_like(size, torch.inf)
        for trial in range(MOST_TRIALS):
            logits = torch.addcmul(self.logits, self.of.spread(size).to(turn.dtype), turn)
            residual = self._residual(logits)
            slope = self.of.dot(residual, turn) / self.n_rows[:, :, 0] + at_zero + size * growth
            good = ~active | (slope.abs() <= FLATTER * first.abs())
            if trial == MOST_TRIALS - 1 or good.all():
                break
            low, high = torch.where(slope < 0, size, low), torch.where(slope < 0, high, size)
            secant = torch.where(slope > first, size * first / (first - slope), torch.inf)
            secant = secant.clamp(0.1 * size, 4.0 * size)
            middle = torch.where(high.isinf(), 2.0 * size, 0.5 * (low + high))
            size = torch.where(good, size, torch.where((secant > low) & (secant < high), secant, middle))
        return size, logits, residual


def _filled(batch: Sequence[Decomposition]) -> tuple[FloatArray, NDArray[np.float64]]:
    """Rows ``[B, n, r]`` and variances ``[B, 1, r]`` with the constant axis; what is absent is 0."""
    n_rows, n_axes = (max(sizes) for sizes in zip(*(data.scores.shape for data in batch), strict=True))
    rows = np.zeros((len(batch), n_rows, n_axes + 1), dtype=batch[0].scores.dtype)
    variances = np.zeros((len(batch), 1, n_axes + 1))
    for index, data in enumerate(batch):
        n, r = data.scores.shape
        rows[index, :n, :r], rows[index, :n, -1] = data.scores, 1.0
        variances[index, 0, :r], variances[index, 0, -1] = data.variances, 1.0
    return rows, variances


def _begin(
    targets: Sequence[Sequence[NDArray[np.int64]]],
    n_classes: Sequence[int],
    owners: NDArray[np.int64],
    rows: FloatArray,
) -> tuple[FloatArray, NDArray[np.float64]]:
    """The truth ``[B, K, n]``, and the first weights ``[B, K, r]``: the shares of the classes."""
    truth = np.zeros((len(rows), len(owners), rows.shape[1]), dtype=rows.dtype)
    start = np.zeros((len(rows), len(owners), rows.shape[2]))
    for member, sets in enumerate(targets):
        for problem, (codes, k) in enumerate(zip(sets, n_classes, strict=True)):
            basis, mine = class_basis(k), owners == problem
            truth[member, mine, : len(codes)] = basis.T[:, codes]
            start[member, mine, -1] = basis.T @ np.log(np.bincount(codes, minlength=k) / len(codes))
    return truth, start
