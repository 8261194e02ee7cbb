"""Probe transfer: does a probe trained on one form read the other form of the same task?

A probe is trained on the ``code`` form, with strength and layer chosen on that form's dev split, and scored on the test
split of the ``prose`` form, or the other way round. The score stands beside what a probe trained on the target form
itself reaches on the same rows, and beside the transfer of the control probe.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from probes.baselines import majority_label
from probes.controls import control_labels
from probes.metrics import Interval, bootstrap_means, mean_intervals, percentile_interval
from probes.result import ProbeResult, scalars
from probes.rows import Rows
from probes.softmax import moments

#: Smallest in-form gain over chance for which a transfer ratio is formed.
MIN_GAIN = 0.05


@dataclass(frozen=True, eq=False)
class TransferResult:
    """A probe of one form scored on another.

    Attributes:
        source_site, target_site: sites of the source probe and of the in-form reference.
        n_test: scored test rows of the target form.
        n_dropped: target test rows left out because no training row of the source has their label.
        n_items: items among the scored rows, the clusters of the intervals.
        score, low, high: accuracy of the source probe on the target form, with its 95% interval.
        recentred: the same probe after the target's rows were shifted and scaled, feature by feature, to the mean and
            deviation of the source's training rows (from the target's training rows, without labels). The difference
            to ``score`` is what a mere offset between the forms costs.
        in_form: accuracy, on the same rows, of the probe trained on the target form.
        chance: accuracy of the commonest label of the target's train split (among labels that the source knows).
        gain: ``in_form - chance``, the denominator of the ratio.
        ratio, ratio_low, ratio_high: ``(score - chance) / gain`` with its interval; None when ``gain`` is below
            ``min_gain`` or its own 95% interval reaches zero (count those, do not average around them).
        control: accuracy of the source's control probe on the target's control labels.
        selectivity, selectivity_low, selectivity_high: ``score - control``, paired by row, with its interval.
        correct, recentred_correct, control_correct, items: per scored row, to pair models item by item.
    """

    source_site: str
    target_site: str
    n_test: int
    n_dropped: int
    n_items: int
    score: float
    low: float
    high: float
    recentred: float
    in_form: float
    chance: float
    gain: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    control: float
    selectivity: float
    selectivity_low: float
    selectivity_high: float
    correct: NDArray[np.bool_]
    recentred_correct: NDArray[np.bool_]
    control_correct: NDArray[np.bool_]
    items: NDArray[np.str_]

    def row(self) -> dict[str, Any]:
        """The scalar fields, as one row of a table."""
        return scalars(self)


def transfer(
    source: ProbeResult,
    target: ProbeResult,
    source_rows: Rows,
    target_rows: Rows,
    control: Mapping[str, str],
    *,
    min_gain: float = MIN_GAIN,
    seed: int = 0,
    n_resamples: int = 1000,
) -> TransferResult:
    """Score a source form's probe on a target form.

    Args:
        source: the probe to transfer, usually ``best_layer`` of the source form's sweep (chosen on *its* dev split).
        target: the in-form reference: the result of the target form's sweep at the same site.
        source_rows: rows of the source form at ``source.site`` (only the training features are used, to re-centre).
        target_rows: rows of the target form at ``source.site``, in the order that gave ``target``.
        control: control labels by key, drawn over both forms and used in both sweeps.
        min_gain: smallest in-form gain over chance for which a ratio is formed.
        seed: seed of the bootstrap.
        n_resamples: bootstrap resamples.

    Raises:
        TwinprobeError: the widths or rows do not match, or source and target share no label.
    """
    about = target_rows.about.split("test")
    features = target_rows.features[target_rows.about.mask("test")]
    _check(source, target, target_rows, about.items)
    known = np.isin(about.labels, source.probe.classes_)
    train_labels = target_rows.about.split("train").labels
    shared = train_labels[np.isin(train_labels, source.probe.classes_)]
    if not known.any() or not len(shared):
        raise TwinprobeError(
            f"the source form's labels ({_some(source.probe.classes_)}) and the target form's ({_some(about.labels)}) "
            "have none in common; transfer needs the same label names in both forms"
        )
    kept, features = about.take(known), features[known]
    correct = source.probe.predict(features) == kept.labels
    recentred_correct = source.probe.predict(_recentre(features, source_rows, target_rows)) == kept.labels
    control_correct = source.control_probe.predict(features) == control_labels(kept, control)
    in_form = target.correct[known]
    majority = kept.labels == majority_label(shared)
    score, gained = mean_intervals(
        np.stack([correct, correct.astype(float) - control_correct], axis=1), kept.items, n_resamples, seed
    )
    ratio = gain_ratio(np.stack([correct, in_form, majority], axis=1), kept.items, min_gain, n_resamples, seed)
    return TransferResult(
        source_site=source.site,
        target_site=target.site,
        n_test=len(kept),
        n_dropped=int((~known).sum()),
        n_items=len(np.unique(kept.items)),
        score=score.estimate,
        low=score.low,
        high=score.high,
        recentred=float(recentred_correct.mean()),
        in_form=float(in_form.mean()),
        chance=float(majority.mean()),
        gain=float(in_form.mean() - majority.mean()),
        ratio=ratio.estimate if ratio else None,
        ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None,
        control=float(control_correct.mean()),
        selectivity=gained.estimate,
        selectivity_low=gained.low,
        selectivity_high=gained.high,
        correct=correct,
        recentred_correct=recentred_correct,
        control_correct=control_correct,
        items=kept.items,
    )


def _check(source: ProbeResult, target: ProbeResult, target_rows: Rows, items: NDArray[np.str_]) -> None:
    width, expected = target_rows.features.shape[1], source.probe.n_features_in_
    if width != expected:
        raise TwinprobeError(
            f"the target rows are {width} wide but the probe of {source.site} was trained on {expected}; "
            "pass the target form's rows at the same site of the same model"
        )
    if not np.array_equal(items, target.items):
        raise TwinprobeError(
            f"the test rows of the target do not match its result at {target.site}; pass the rows that gave the result"
        )


def _recentre(features: NDArray[Any], source_rows: Rows, target_rows: Rows) -> NDArray[np.float64]:
    """Map target rows to the source's training mean and deviation, feature by feature."""
    (to_mean, to_scale), (mean, scale) = (
        moments(rows.features[rows.about.mask("train")]) for rows in (source_rows, target_rows)
    )
    return np.asarray((features - mean) / scale * to_scale + to_mean, dtype=np.float64)


def gain_ratio(
    table: NDArray[Any], clusters: NDArray[np.str_], min_gain: float, n_resamples: int, seed: int
) -> Interval | None:
    """``(transfer - chance) / (in form - chance)`` of three such columns; None where it means nothing."""
    moved, reference, chance = (float(value) for value in table.mean(axis=0))
    if reference - chance < min_gain:
        return None
    estimate = (moved - chance) / (reference - chance)
    if len(np.unique(clusters)) == 1:
        return Interval(estimate, float("nan"), float("nan"))
    replicates = bootstrap_means(table, clusters, n_resamples, seed)
    gains = replicates[:, 1] - replicates[:, 2]
    if np.percentile(gains, 2.5) <= 0:
        return None
    positive = gains > 0  # at most 2.5% of the resamples are left out here: their ratio has no meaning
    return percentile_interval(estimate, (replicates[positive, 0] - replicates[positive, 2]) / gains[positive])


def _some(labels: NDArray[Any]) -> str:
    found = sorted({str(label) for label in labels})
    return ", ".join(found[:4]) + (", ..." if len(found) > 4 else "")
