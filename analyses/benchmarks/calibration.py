"""Does a model know what it knows? Confidence against correctness, with errors clustered as the items are.

Confidence is the picked choice's share of the probability of all choices (column ``confidence`` of ``twinprobe bench run``),
the answer is right or wrong (``acc`` where the table has it, else ``score``).

**Bins** hold about equally many items (equal mass), which biases less than equal widths (Roelofs et al. 2022, "Mitigating Bias
in Calibration Error Estimation"). Equal confidences share a bin.

**Calibration error.** The usual ECE, the mean distance of confidence and accuracy over bins, is above 0 for a perfectly
calibrated model: a bin's accuracy strays. It stands here beside what straying alone would make it (``ece_calibrated``, for
normal errors) and a test, which gives random signs to whole clusters' residuals. ``calibration_error`` is the root of the mean
squared distance with the expected square of that straying taken off, bin by bin (Broecker 2012; Ferro & Fricker 2012; Kumar,
Liang & Ma 2019); the straying is the clustered standard error, so items of one cluster count for what they are worth. The
square is not biased; where it comes out negative the root is 0. Bootstrap replicates stray once more, so their squares are
lowered by twice the straying; near 0 the interval is too wide.

**Brier score** and its parts (Murphy 1973): ``brier = reliability - resolution + uncertainty + within_bins``, the last because
confidences differ within bins (Stephenson, Coelho & Jolliffe 2008); it adds up exactly.

**AUROC** of confidence for correctness; replicates and tests take the placement values (DeLong et al. 1988; clustered:
Obuchowski 1997) as scores of the items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from activations.errors import TwinprobeError
from analyses.statistics import clustered_standard_error
from probes.metrics import bootstrap_means, cluster_codes, percentile_interval

Floats = NDArray[np.float64]

BINS = 15
"""Bins at most."""
PER_BIN = 10
"""Items of a bin at least, unless a user says how many bins."""
FLIPS = 2000
"""Random signs of the clusters' residuals."""
_BLOCK = 4_000_000


@dataclass(frozen=True, eq=False)
class Answers:
    """One model's answers to a task, all ``[item]``: ``confidence`` from 0 to 1, ``correct`` 0 or 1, ``clusters`` numbered."""

    confidence: Floats
    correct: Floats
    clusters: NDArray[np.int64]

    @classmethod
    def of(cls, confidence: ArrayLike, correct: ArrayLike, clusters: ArrayLike) -> Answers:
        """Check and number; raises TwinprobeError where lengths differ or a value can not be."""
        shares, right = (np.asarray(values, dtype=np.float64) for values in (confidence, correct))
        if shares.shape != right.shape or shares.ndim != 1:
            raise TwinprobeError(f"{shares.shape} confidences and {right.shape} answers; expected one of each per item")
        if not ((shares >= 0) & (shares <= 1)).all():
            raise TwinprobeError("a confidence is not from 0 to 1; give the picked choice's share of the probability")
        if not np.isin(right, (0.0, 1.0)).all():
            raise TwinprobeError("an answer is neither right (1) nor wrong (0); calibration needs one or the other")
        return cls(shares, right, cluster_codes(clusters, len(shares)))


@dataclass(frozen=True, eq=False)
class Bins:
    """Items by confidence; all ``[bin]``: items, mean confidence, accuracy, and the standard error of their difference."""

    items: Floats
    confidence: Floats
    accuracy: Floats
    error: Floats


def equal_mass(confidence: Floats, bins: int | None = None) -> NDArray[np.int64]:
    """The bin of every item, numbered from 0 without gaps; ``bins`` of about equally many items, fewer where many are equal."""
    count = len(confidence)
    wanted = bins or max(1, min(BINS, count // PER_BIN))
    # Equal confidences all stand in the middle of the places that they take up.
    places = (rankdata(confidence) - 0.5) * wanted // count
    return np.unique(places, return_inverse=True)[1].ravel().astype(np.int64)


def binned(answers: Answers, places: NDArray[np.int64]) -> Bins:
    """What the items of each bin have in common. A bin of a single cluster has no error (NaN)."""
    items = np.bincount(places).astype(np.float64)
    confidence, accuracy = (np.bincount(places, values) / items for values in (answers.confidence, answers.correct))
    residual = answers.confidence - answers.correct
    errors = [
        clustered_standard_error(residual[places == number], answers.clusters[places == number])
        for number in range(len(items))
    ]
    return Bins(items, confidence, accuracy, np.array(errors))


SCORES = ("accuracy", "confidence", "overconfidence", "brier", "auroc")
"""What is a mean over items."""


def scored(answers: Answers) -> Floats:
    """Scores ``[item, 5]`` whose means are :data:`SCORES`; AUROC's are NaN where all answers are right or all wrong."""
    confidence, correct = answers.confidence, answers.correct
    return np.column_stack(
        [correct, confidence, confidence - correct, (confidence - correct) ** 2, placements(confidence, correct)]
    )


def placements(confidence: Floats, correct: Floats) -> Floats:
    """Scores ``[item]`` with the AUROC as their mean and its first-order change with every item as their spread.

    An item's placement value is the share of items answered the other way that lie on the right side of it, ties half. The
    score is the AUROC plus what that value is above it, divided by the share of items answered like this one.
    """
    right = correct == 1
    wrong = ~right
    if right.all() or wrong.all():
        return np.full(len(right), np.nan)
    below = rankdata(confidence)  # less the rank among its own kind: those of the other kind below
    below[right] -= rankdata(confidence[right])
    below[wrong] -= rankdata(confidence[wrong])
    placed = np.where(right, below / wrong.sum(), 1 - below / right.sum())
    area = placed[right].mean()
    return np.asarray(area + (placed - area) / np.where(right, right.mean(), wrong.mean()), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class SquaredError:
    """The mean squared distance of confidence and accuracy over bins, with the straying taken off.

    ``columns [item, 2 bin]``: resampled, their means give the replicates (:meth:`replicates`).
    """

    estimate: float
    straying: float
    columns: Floats

    @classmethod
    def of(cls, answers: Answers, places: NDArray[np.int64], table: Bins) -> SquaredError:
        """Of the items in their bins."""
        inside = np.eye(len(table.items))[places]
        columns = np.hstack([inside, inside * (answers.confidence - answers.correct)[:, None]])
        straying = float(table.items @ table.error**2) / len(places)
        return cls(float(_squares(columns.mean(axis=0)[None])[0]) - straying, straying, columns)

    def replicates(self, means: Floats) -> Floats:
        """Replicates around the estimate ``[m]`` from resampled means of the columns ``[m, 2 bin]``."""
        return _squares(means) - 2 * self.straying


def calibration(
    answers: Answers, bins: int | None = None, *, n_resamples: int = 2000, seed: int = 0
) -> dict[str, float]:
    """All figures of one model on one task.

    Args:
        answers: of the model.
        bins: how many; without, :data:`BINS` or as many as leave :data:`PER_BIN` items each.
        n_resamples: bootstrap resamples of clusters.
        seed: of bootstrap and signs.

    Returns:
        items, clusters, bins; each of :data:`SCORES` (overconfidence: confidence minus accuracy) and calibration_error with
        _low and _high (95% percentile interval, NaN with one cluster); ece, ece_calibrated, p_calibrated; reliability,
        resolution, uncertainty, within_bins. What can not be had is NaN.
    """
    places = equal_mass(answers.confidence, bins)
    table = binned(answers, places)
    share, gap = table.items / len(places), table.confidence - table.accuracy
    base, clusters = float(answers.correct.mean()), int(answers.clusters.max()) + 1
    squared = SquaredError.of(answers, places, table)
    parts = {
        "reliability": float(share @ gap**2), "resolution": float(share @ (table.accuracy - base) ** 2),
        "uncertainty": base * (1 - base),
    }  # fmt: skip
    scores = scored(answers)
    brier = float(scores[:, SCORES.index("brier")].mean())
    parts["within_bins"] = brier - parts["reliability"] + parts["resolution"] - parts["uncertainty"]
    columns = np.hstack([scores, squared.columns])
    replicates = bootstrap_means(columns, answers.clusters, n_resamples, seed) if clusters > 1 else None
    found: dict[str, float] = {"items": len(places), "clusters": clusters, "bins": len(share)}
    for place, name in enumerate(SCORES):
        found |= _with_interval(
            name, float(scores[:, place].mean()), None if replicates is None else replicates[:, place]
        )
    for name in ("auroc_low", "auroc_high"):
        found[name] = float(np.clip(found[name], 0, 1))
    squares = None if replicates is None else squared.replicates(replicates[:, len(SCORES) :])
    root = _with_interval("calibration_error", squared.estimate, squares)
    return found | {name: float(np.sqrt(max(value, 0))) if value == value else value for name, value in root.items()} | {
        "ece": float(share @ np.abs(gap)), "ece_calibrated": float(np.sqrt(2 / np.pi) * (share @ table.error)),
        "p_calibrated": _p_calibrated(squared, answers.clusters, seed) if clusters > 1 else float("nan"), **parts,
    }  # fmt: skip


def _with_interval(name: str, estimate: float, replicates: Floats | None) -> dict[str, float]:
    low = high = float("nan")
    if replicates is not None and np.isfinite(replicates).all():
        found = percentile_interval(estimate, replicates)
        low, high = found.low, found.high
    return {name: estimate, f"{name}_low": low, f"{name}_high": high}


def _squares(means: Floats) -> Floats:
    """``[m]`` from shares of items in bins and residuals summed in bins over all items, ``[m, 2 bin]``."""
    shares, residuals = np.hsplit(means, 2)
    return np.asarray(np.divide(residuals**2, shares, out=np.zeros_like(shares), where=shares > 0).sum(axis=1))


def _p_calibrated(squared: SquaredError, clusters: NDArray[np.int64], seed: int) -> float:
    """Share of random signs of the clusters' residuals that lead as far from the diagonal, the observed signs among them."""
    shares, residuals = np.hsplit(squared.columns, 2)
    width = residuals.shape[1]
    sums = np.zeros((int(clusters.max()) + 1, width))
    np.add.at(sums, clusters, residuals)
    weights = shares.sum(axis=0)
    observed = float((sums.sum(axis=0) ** 2 / weights).sum())
    rng = np.random.default_rng(seed)
    hits, block = 1, max(1, _BLOCK // len(sums))
    for start in range(0, FLIPS - 1, block):
        shape = (min(block, FLIPS - 1 - start), len(sums))
        signs = 2.0 * rng.integers(2, size=shape, dtype=np.int8) - 1.0
        hits += int((((signs @ sums) ** 2 / weights).sum(axis=1) >= observed * (1 - 1e-9)).sum())
    return hits / FLIPS
