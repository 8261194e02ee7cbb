"""Probe transfer between spaces: does a probe of one model read another, once the two are turned to match?

Two models, or two layers, write in coordinates of their own. An orthogonal map between them
(:mod:`probes.procrustes`) is fitted on *neutral* rows: the same tokens in both spaces, from texts that no probe sees, and
without labels. A probe of space A that works on rows of B through such a map has found the label in the same place. Its
score stands beside that of the target's own probe, of maps that know nothing, and of the control probe through the map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from probes.baselines import majority_label
from probes.controls import control_labels
from probes.estimators import LogisticProbe
from probes.metrics import mean_intervals
from probes.procrustes import Maps, OrthogonalMap, moved_probe
from probes.result import ProbeResult, scalars
from probes.rows import RowLabels, Rows
from probes.transfer import MIN_GAIN, gain_ratio


@dataclass(frozen=True, eq=False)
class MappedTransfer:
    """A probe of one space on rows of another, through an orthogonal map.

    Attributes:
        source_site, target_site: sites of the probe and of the rows it reads.
        n_test, n_dropped, n_items: as in :class:`probes.transfer.TransferResult`.
        n_neutral, rank, explained: rows the map was fitted on, its rank, and its share of explained variance on them.
        score, low, high: accuracy through the map, with its 95% interval over items.
        own: accuracy, on the same rows, of the probe that was trained in the target space.
        chance: accuracy of the commonest label of the target's train split.
        random: accuracy through random orthogonal maps with the same means, spread and rank, mean over draws.
        shuffled: accuracy through maps fitted on neutral rows whose pairing was shuffled, mean over draws.
        controls_high: highest accuracy of any single draw of the two controls. The interval of the ratio resamples items,
            not maps: a ratio means nothing unless ``score`` is above this too.
        unmapped: accuracy with means and spread matched but nothing turned; None when the widths differ. What related
            models (one trained on from the other) share without any map.
        floor: the best of ``chance``, ``random`` and ``shuffled``: what the ratio counts as nothing. Its name in
            ``floor_kind``.
        gain: ``own - floor``, the denominator of the ratio.
        ratio, ratio_low, ratio_high: ``(score - floor) / gain`` with its interval; None when ``gain`` is below
            ``min_gain`` or its own 95% interval reaches zero (count those, do not average around them).
        control: accuracy of the source's control probe through the map, on the control labels of the target's rows.
        selectivity, selectivity_low, selectivity_high: ``score - control``, paired by row, with its interval.
        correct, control_correct, items: per scored row, to pair results item by item.
    """

    source_site: str
    target_site: str
    n_test: int
    n_dropped: int
    n_items: int
    n_neutral: int
    rank: int
    explained: float
    score: float
    low: float
    high: float
    own: float
    chance: float
    random: float
    shuffled: float
    controls_high: float
    unmapped: float | None
    floor: float
    floor_kind: str
    gain: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    control: float
    selectivity: float
    selectivity_low: float
    selectivity_high: float
    correct: NDArray[np.bool_]
    control_correct: NDArray[np.bool_]
    items: NDArray[np.str_]

    def row(self) -> dict[str, Any]:
        """The scalar fields, as one row of a table."""
        return scalars(self)


def mapped_transfer(
    source: ProbeResult,
    target: ProbeResult,
    source_about: RowLabels,
    target_rows: Rows,
    control: Mapping[str, str],
    maps: Maps,
    *,
    min_gain: float = MIN_GAIN,
    seed: int = 0,
    n_resamples: int = 1000,
) -> MappedTransfer:
    """Score the probe of one space on the test rows of another, through a map fitted on neutral rows.

    Args:
        source: the logistic probe to transfer, with strength and layer chosen on its own dev split.
        target: the reference: the result of the probe trained in the target space, on ``target_rows``.
        source_about: what is known about the rows that gave ``source``.
        target_rows: the rows that gave ``target``.
        control: control labels by key, drawn over the rows of both and used in both results.
        maps: from :func:`probes.procrustes.fit_maps`, on neutral rows of the two sites from texts that are in neither.
        min_gain: smallest gain over the floor for which a ratio is formed.
        seed: seed of the bootstrap.
        n_resamples: bootstrap resamples.

    Raises:
        TwinprobeError: neutral rows belong to a probed item or group, the probe is no logistic one, shapes or rows do
            not match, or the two label sets have nothing in common.
    """
    about = target_rows.about.split("test")
    _check(source, target, (source_about, target_rows.about), target_rows, maps)
    known = np.isin(about.labels, source.probe.classes_)
    train_labels = target_rows.about.split("train").labels
    shared = train_labels[np.isin(train_labels, source.probe.classes_)]
    if not known.any() or not len(shared):
        raise TwinprobeError("the two probes have no label in common; transfer needs the same label names in both")
    kept, features = about.take(known), target_rows.features[target_rows.about.mask("test")][known]

    def right(through: OrthogonalMap) -> NDArray[np.bool_]:
        return np.asarray(moved_probe(source.probe, through).predict(features) == kept.labels)

    correct, own = right(maps.fitted), target.correct[known]
    random, shuffled = (np.stack([right(drawn) for drawn in kind]) for kind in (maps.random, maps.shuffled))
    floors = {
        "chance": (kept.labels == majority_label(shared)).astype(np.float64),
        "random": random.mean(axis=0),
        "shuffled": shuffled.mean(axis=0),
    }
    floor_kind = max(floors, key=lambda kind: floors[kind].mean())
    moved_control = moved_probe(source.control_probe, maps.fitted)
    control_correct = np.asarray(moved_control.predict(features) == control_labels(kept, control))
    score, gained = mean_intervals(
        np.stack([correct, correct.astype(float) - control_correct], axis=1), kept.items, n_resamples, seed
    )
    ratio = gain_ratio(np.stack([correct, own, floors[floor_kind]], axis=1), kept.items, min_gain, n_resamples, seed)
    return MappedTransfer(
        source_site=source.site,
        target_site=target.site,
        n_test=len(kept),
        n_dropped=int((~known).sum()),
        n_items=len(np.unique(kept.items)),
        n_neutral=len(maps.ids),
        rank=maps.fitted.rank,
        explained=maps.fitted.explained,
        score=score.estimate,
        low=score.low,
        high=score.high,
        own=float(own.mean()),
        chance=float(floors["chance"].mean()),
        random=float(floors["random"].mean()),
        shuffled=float(floors["shuffled"].mean()),
        controls_high=float(max(drawn.mean(axis=1).max() for drawn in (random, shuffled))),
        unmapped=float(right(maps.unturned).mean()) if maps.unturned else None,
        floor=float(floors[floor_kind].mean()),
        floor_kind=floor_kind,
        gain=float(own.mean() - floors[floor_kind].mean()),
        ratio=ratio.estimate if ratio else None,
        ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None,
        control=float(control_correct.mean()),
        selectivity=gained.estimate,
        selectivity_low=gained.low,
        selectivity_high=gained.high,
        correct=correct,
        control_correct=control_correct,
        items=kept.items,
    )


def _check(
    source: ProbeResult, target: ProbeResult, abouts: Sequence[RowLabels], target_rows: Rows, maps: Maps
) -> None:
    if not isinstance(source.probe, LogisticProbe):
        raise TwinprobeError(
            f"a {type(source.probe).__name__} can not be moved through a map; expected a logistic probe"
        )
    probed = np.concatenate([names for about in abouts for names in (about.items, about.groups)])
    ids = np.unique(maps.ids)
    owners = np.array([name.rpartition("/")[0] for name in ids.tolist()], dtype=np.str_)  # a store's "item/form"
    overlap = ids[np.isin(ids, probed) | np.isin(owners, probed)]
    if len(overlap):
        raise TwinprobeError(
            f"{len(overlap)} of the texts to fit the map on are probed too (first: {str(overlap[0])!r}); "
            "fit it on rows of other texts, or the transfer is not one"
        )
    for space, mapped, width in (
        ("source", len(maps.fitted.to_mean), source.probe.n_features_in_),
        ("target", len(maps.fitted.from_mean), target_rows.features.shape[1]),
    ):
        if mapped != width:
            raise TwinprobeError(
                f"neutral rows of the {space} are {mapped} wide; expected {width}, as the probed rows of the same site"
            )
    if not np.array_equal(target_rows.about.split("test").items, target.items):
        raise TwinprobeError(
            f"the test rows of the target do not match its result at {target.site}; pass the rows that gave the result"
        )
