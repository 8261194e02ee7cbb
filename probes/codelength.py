"""Online codelength of labels given rows (Voita & Titov 2020, "Information-Theoretic Probing with MDL").

A sender and a receiver both hold the rows; the sender transmits the labels. The rows come in portions that double in
size. The labels of the first are sent with the uniform code, those of each later one with the code of a probe trained
on everything sent before. The total is short when the labels can be read from the rows with little data, which accuracy
alone does not show; a control label that a probe must memorise costs more bits than one that is written there.

Three choices make it a code that a receiver can really decode:

- **Strength.** Nothing held out decides it. Every portion is coded with a mixture of the probes of all strengths,
  weighted by how well each coded what was sent before, with a share spread evenly at each portion (fixed share, Herbster
  & Warmuth 1998), so that another strength can take over as rows accumulate. With 5 strengths this costs at most 2.4
  bits, and 0.8 for each later portion, more than the best single strength, and needs no fits beyond the paths.
- **Unseen labels.** The receiver knows the set of labels, as in the paper. One that has not been sent yet has the
  probability of Laplace's rule, ``1 / (n + k)`` after ``n`` rows and for ``k`` labels; the probe shares out the rest.
- **Small sets.** Portions that end before there are :data:`FEW` rows per label on average are merged into the first.

Labels of unequal frequency compress even when the rows say nothing; constant rows, such as ``np.zeros((n, 1))``, give
that reference. Compare compressions at equal numbers of rows and labels only: both move the first portion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, log_softmax

from activations.errors import TwinprobeError
from probes.estimators import STRENGTHS, LogisticProbe, check_strengths, fit_path
from probes.metrics import cluster_codes
from probes.result import scalars
from probes.softmax import decompose, one_blas_thread

#: Where portions end, as shares of the rows.
PORTIONS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.0625, 0.125, 0.25, 0.5, 1.0)
#: Rows per label, on average, that the first portion holds at least.
FEW = 4
#: Share of the strengths' weight that is spread evenly when a portion begins.
SHARED = 0.5


@dataclass(frozen=True, eq=False)
class OnlineCode:
    """The code of one order of the rows.

    Attributes:
        seed: seed of the order.
        ends: number of rows sent by the end of each portion, ``[p]``.
        portion_bits: bits of each portion, ``[p]``; the first is uniform code.
        n_unconverged: fits that did not converge, over portions and strengths.
    """

    seed: int
    ends: NDArray[np.int64]
    portion_bits: NDArray[np.float64]
    n_unconverged: int

    @property
    def bits(self) -> float:
        """Bits of all labels."""
        return float(self.portion_bits.sum())


@dataclass(frozen=True, eq=False)
class Codelength:
    """Online codelength over several orders of the same rows.

    Attributes:
        n_rows, n_labels, n_groups: rows sent, labels in the alphabet, groups that were shuffled.
        uniform_bits: bits under the uniform code, ``n_rows * log2(n_labels)``.
        bits, bits_spread: online codelength, mean and standard deviation over the orders (NaN for a single one).
        compression, compression_spread: ``uniform_bits / bits``, mean and standard deviation over the orders.
        ceiling: compression that a code without a bit after the first portion would reach, mean over the orders.
        n_unconverged: fits that did not converge, over orders, portions and strengths.
        runs: the code of every order.
    """

    n_rows: int
    n_labels: int
    n_groups: int
    uniform_bits: float
    bits: float
    bits_spread: float
    compression: float
    compression_spread: float
    ceiling: float
    n_unconverged: int
    runs: tuple[OnlineCode, ...]

    def row(self) -> dict[str, Any]:
        """The scalar fields, as one row of a table."""
        return scalars(self)


def codelength(
    features: NDArray[np.floating[Any]],
    labels: ArrayLike,
    groups: ArrayLike,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seeds: Sequence[int] = (0, 1, 2),
) -> Codelength:
    """Online codelength of the labels of training rows.

    Measured on one core: 2,000 rows x 128 take 0.1 s per seed with 2 labels, 0.2 s with 8.

    Args:
        features: rows ``[n, d]``, of the train split; test rows have no part in this.
        labels: label of every row, ``[n]``; control labels give the control's codelength.
        groups: what is shuffled as a whole, ``[n]``: the item of every row, or a coarser group.
        strengths: inverse regularisation strengths of the mixture.
        seeds: one order of the groups each.

    Raises:
        TwinprobeError: lengths differ, values are not finite, no seeds, fewer than two labels, or too few rows or
            groups for a portion that a probe could code.
    """
    check_strengths(strengths)
    rows, names = np.asarray(features), np.asarray(labels)
    if rows.ndim != 2 or len(rows) != len(names) or not np.isfinite(rows).all():
        raise TwinprobeError(
            f"features of shape {rows.shape} for {len(names)} labels; expected finite rows [n, width], one per label"
        )
    if not len(seeds):
        raise TwinprobeError("no seeds for the order of the rows; expected at least one, such as 0")
    group_codes = cluster_codes(groups, len(rows))
    alphabet, codes = np.unique(names, return_inverse=True)
    if len(alphabet) < 2:
        raise TwinprobeError(f"every row has the label {str(alphabet[0])!r}; a codelength needs at least two labels")
    runs = tuple(_run(rows, codes, group_codes, len(alphabet), strengths, seed) for seed in seeds)
    uniform = len(rows) * float(np.log2(len(alphabet)))
    bits = np.array([run.bits for run in runs])
    return Codelength(
        n_rows=len(rows),
        n_labels=len(alphabet),
        n_groups=int(group_codes.max()) + 1,
        uniform_bits=uniform,
        bits=float(bits.mean()),
        bits_spread=_spread(bits),
        compression=float((uniform / bits).mean()),
        compression_spread=_spread(uniform / bits),
        ceiling=float(np.mean([len(rows) / run.ends[0] for run in runs])),
        n_unconverged=sum(run.n_unconverged for run in runs),
        runs=runs,
    )


def _run(
    rows: NDArray[Any],
    codes: NDArray[np.int64],
    groups: NDArray[np.int64],
    n_labels: int,
    strengths: Sequence[float],
    seed: int,
) -> OnlineCode:
    sizes = np.bincount(groups)
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    place = np.argsort(shuffled)  # group to its place in the order
    order = np.argsort(place[groups], kind="stable")
    ends = portion_ends(sizes[shuffled], n_labels)
    bits, n_unconverged = code_portions(rows[order], codes[order], ends, n_labels, strengths)
    return OnlineCode(seed, ends, bits, n_unconverged)


def portion_ends(sizes: ArrayLike, n_labels: int) -> NDArray[np.int64]:
    """Number of rows sent by the end of each portion, ``[p]``, for groups of ``sizes [g]`` in the order of sending.

    Each share of :data:`PORTIONS` is rounded up to whole groups.

    Raises:
        TwinprobeError: there are too few rows or groups for a second portion.
    """
    boundaries = np.cumsum(np.asarray(sizes, dtype=np.int64))
    n_rows = int(boundaries[-1])
    wanted = np.ceil(np.array(PORTIONS) * n_rows - 1e-6)  # the subtrahend: 0.016 * 2000 must not become 33
    ends = np.unique(boundaries[np.searchsorted(boundaries, wanted)])
    ends = ends[ends >= FEW * n_labels]
    if len(ends) < 2:
        raise TwinprobeError(
            f"{n_rows} rows in {len(boundaries)} groups for {n_labels} labels; an online code needs at least "
            f"{2 * FEW} rows per label, in groups that can be parted: add items or merge rare labels"
        )
    return ends


def code_portions(
    features: NDArray[np.floating[Any]],
    codes: NDArray[np.int64],
    ends: NDArray[np.int64],
    n_labels: int,
    strengths: Sequence[float] = STRENGTHS,
) -> tuple[NDArray[np.float64], int]:
    """Bits of each portion of rows that are in order already.

    Args:
        features: rows ``[n, d]`` in the order of sending.
        codes: label of every row, integers ``[n]`` from 0 to ``n_labels - 1``.
        ends: end of each portion, rising to ``n``.
        n_labels: size of the alphabet.
        strengths: inverse regularisation strengths of the mixture.

    Returns:
        Bits per portion ``[p]``, and how many fits did not converge.
    """
    weights = np.full(len(strengths), 1 / len(strengths))
    bits = [float(ends[0] * np.log2(n_labels))]
    n_unconverged = 0
    with one_blas_thread():
        for start, end in pairwise(ends.tolist()):
            coded, failed = _log2_likelihoods(features[:end], codes[:end], start, n_labels, strengths)
            n_unconverged += failed
            joint = np.log2(weights) + coded
            total = np.logaddexp2.reduce(joint)
            bits.append(-float(total))
            weights = (1 - SHARED) * np.exp2(joint - total) + SHARED / len(strengths)
    return np.array(bits), n_unconverged


def _log2_likelihoods(
    features: NDArray[Any], codes: NDArray[np.int64], start: int, n_labels: int, strengths: Sequence[float]
) -> tuple[NDArray[np.float64], int]:
    """Log2-probability that each strength gives to the labels from ``start`` on, ``[s]``; fits without convergence."""
    past, future = codes[:start], codes[start:]
    seen = np.unique(past)
    known = np.isin(future, seen)
    n_unseen = n_labels - len(seen)
    log_escape = -np.log2(start + n_labels)  # of each unseen label
    log_rest = np.log2(start + n_labels - n_unseen) + log_escape
    shared = known.sum() * log_rest + (~known).sum() * log_escape
    if len(seen) == 1 or not known.any():
        return np.full(len(strengths), shared), 0
    path = fit_path(decompose(features[:start]), past, strengths)
    columns = np.searchsorted(seen, future[known])
    picked = [_log_probabilities(probe, features[start:][known])[np.arange(len(columns)), columns] for probe in path]
    return shared + np.sum(picked, axis=1) / np.log(2), sum(not probe.converged_ for probe in path)


def _log_probabilities(probe: LogisticProbe, features: NDArray[Any]) -> NDArray[np.float64]:
    """Natural log of ``predict_proba``, ``[n, k]``, without the underflow of its small entries."""
    logits = np.asarray(probe.decision_function(features), dtype=np.float64)
    if logits.ndim == 1:
        return np.stack([log_expit(-logits), log_expit(logits)], axis=1)
    return np.asarray(log_softmax(logits, axis=1))


def _spread(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else float("nan")
