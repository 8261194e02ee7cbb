"""pass@k: the chance that one of k samples of a problem is right, without bias (Chen et al. 2021, arXiv 2107.03374, eq. 1)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from activations.errors import TwinprobeError
from probes.metrics import cluster_bootstrap


@dataclass(frozen=True)
class PassAtK:
    """pass@k over problems.

    Attributes:
        k: samples that are looked at.
        estimate: mean over problems.
        low, high: 95% percentile interval over resampled clusters of problems; NaN with one cluster.
        problems: problems that have at least k samples.
        dropped: problems with fewer, which have no unbiased estimate.
    """

    k: int
    estimate: float
    low: float
    high: float
    problems: int
    dropped: int


def pass_at_k(samples: int, right: int, k: int) -> float:
    """Unbiased estimate for one problem, ``1 - C(samples - right, k) / C(samples, k)``.

    Args:
        samples: samples drawn.
        right: how many of them pass.
        k: samples that are looked at.

    Raises:
        TwinprobeError: fewer samples than ``k``, or more right than there are.
    """
    if not 1 <= k <= samples or not 0 <= right <= samples:
        raise TwinprobeError(
            f"pass@{k} of {samples} samples with {right} right; expected 1 <= k <= samples and 0 <= right <= samples"
        )
    # The product of eq. 1's numerically stable form; a factor is zero where every choice of k holds a right one.
    return float(1.0 - np.prod(np.maximum(0.0, 1.0 - k / np.arange(samples - right + 1, samples + 1))))


def pass_at_ks(
    samples: Sequence[int],
    right: Sequence[int],
    ks: Sequence[int],
    clusters: ArrayLike | None = None,
    seed: int = 0,
    n_resamples: int = 1000,
) -> list[PassAtK]:
    """pass@k over problems for several k, those left out for which no problem has enough samples.

    Args:
        samples: samples of every problem, ``[n]``.
        right: how many of them pass, ``[n]``.
        ks: the k asked for.
        clusters: what belongs together (one problem in several languages), ``[n]``; every problem alone if not given.
        seed: seed of the bootstrap.
        n_resamples: bootstrap resamples of the interval.

    Raises:
        TwinprobeError: the lengths differ, a k is below 1, or a problem has more right samples than samples.
    """
    if len(samples) != len(right):
        raise TwinprobeError(
            f"{len(samples)} counts of samples for {len(right)} counts of right ones; expected as many"
        )
    codes = np.arange(len(samples)) if clusters is None else np.asarray(clusters)
    if len(codes) != len(samples):
        raise TwinprobeError(f"{len(codes)} clusters for {len(samples)} problems; expected as many")
    found = []
    for k in ks:
        if k < 1:
            raise TwinprobeError(f"pass@{k} was asked for; expected k of 1 or more")
        kept = [place for place, count in enumerate(samples) if count >= k]
        if not kept:
            continue
        values = [pass_at_k(samples[place], right[place], k) for place in kept]
        interval = cluster_bootstrap(values, codes[kept], n_resamples, seed)
        dropped = len(samples) - len(kept)
        found.append(PassAtK(k, interval.estimate, interval.low, interval.high, len(kept), dropped))
    return found
