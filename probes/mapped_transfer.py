"""Probe transfer between spaces: does a probe of one model read another, once the two are turned to match?

Two models, or two layers, write in coordinates of their own. An orthogonal map between them
(:mod:`probes.procrustes`) is fitted on *neutral* rows: the same tokens in both spaces, from texts that no probe sees, and
without labels. A probe of space A that works on rows of B through such a map has found the label in the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from probes.baselines import majority_label
from probes.metrics import cluster_bootstrap
from probes.procrustes import OrthogonalMap, fit_map, moved_probe, random_map, unturned_map
from probes.rows import RowLabels, Rows
from probes.sweep import ProbeResult, scalars
from probes.transfer import MIN_GAIN, gain_ratio


@dataclass(frozen=True, eq=False)
class Neutral:
    """Rows to fit a map on: the same tokens in two spaces.

    Attributes:
        source: rows in the space of the probe, ``[n, a]``.
        target: rows in the space it is to read, ``[n, b]``.
        ids: the text of every row, strings ``[n]``, named as the probed rows name their items or groups, with or
            without a store's ``/form`` at the end; by these, and nothing else, an overlap is found.
    """

    source: NDArray[np.floating[Any]]
    target: NDArray[np.floating[Any]]
    ids: NDArray[np.str_]


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
        correct, items: per scored row, to pair results item by item.
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
    correct: NDArray[np.bool_]
    items: NDArray[np.str_]

    def row(self) -> dict[str, Any]:
        """The scalar fields, as one row of a table."""
        return scalars(self)


def mapped_transfer(
    source: ProbeResult,
    target: ProbeResult,
    source_about: RowLabels,
    target_rows: Rows,
    neutral: Neutral,
    *,
    scale: bool = True,
    n_draws: int = 10,
    min_gain: float = MIN_GAIN,
    seed: int = 0,
    n_resamples: int = 1000,
) -> MappedTransfer:
    """Score the probe of one space on the test rows of another, through a map fitted on neutral rows.

    Args:
        source: the probe to transfer, with strength and layer chosen on its own dev split.
        target: the reference: the result of the probe trained in the target space, on ``target_rows``.
        source_about: what is known about the rows that gave ``source``.
        target_rows: the rows that gave ``target``.
        neutral: rows in both spaces, of texts that are in neither of the two.
        scale: see :func:`fit_map`.
        n_draws: random maps, and shuffled fits, that the controls average over.
        min_gain: smallest gain over the floor for which a ratio is formed.
        seed: seed of the controls and of the bootstrap.
        n_resamples: bootstrap resamples.

    Raises:
        TwinprobeError: neutral rows belong to a probed item or group, shapes or rows do not match, the two label sets
            have nothing in common, or ``n_draws`` is below 1.
    """
    about = target_rows.about.split("test")
    _check(source, target, (source_about, target_rows.about), target_rows, neutral, n_draws)
    known = np.isin(about.labels, source.probe.classes_)
    train_labels = target_rows.about.split("train").labels
    shared = train_labels[np.isin(train_labels, source.probe.classes_)]
    if not known.any() or not len(shared):
        raise TwinprobeError("the two probes have no label in common; transfer needs the same label names in both")
    kept, features = about.take(known), target_rows.features[target_rows.about.mask("test")][known]

    def right(through: OrthogonalMap) -> NDArray[np.bool_]:
        return np.asarray(moved_probe(source.probe, through).predict(features) == kept.labels)

    to, of = neutral.source, neutral.target  # the map leads from the target's rows into the probe's space
    fitted = fit_map(of, to, scale=scale)
    correct, own = right(fitted), target.correct[known]
    rngs = [np.random.default_rng([seed, draw]) for draw in range(n_draws)]
    shuffled = np.stack([right(fit_map(of, to[rng.permutation(len(to))], scale=scale)) for rng in rngs])
    seeds = [int(rng.integers(2**32)) for rng in rngs]
    random = np.stack([right(random_map(of, to, fitted.rank, drawn, scale=scale)) for drawn in seeds])
    floors = {
        "chance": (kept.labels == majority_label(shared)).astype(np.float64),
        "random": random.mean(axis=0),
        "shuffled": shuffled.mean(axis=0),
    }
    floor_kind = max(floors, key=lambda kind: floors[kind].mean())
    unmapped = None
    if of.shape[1] == to.shape[1]:
        still = unturned_map(of, to, scale=scale)
        unmapped = float(right(still).mean())
    score = cluster_bootstrap(correct, kept.items, n_resamples, seed)
    ratio = gain_ratio(np.stack([correct, own, floors[floor_kind]], axis=1), kept.items, min_gain, n_resamples, seed)
    return MappedTransfer(
        source_site=source.site,
        target_site=target.site,
        n_test=len(kept),
        n_dropped=int((~known).sum()),
        n_items=len(np.unique(kept.items)),
        n_neutral=len(of),
        rank=fitted.rank,
        explained=fitted.explained,
        score=score.estimate,
        low=score.low,
        high=score.high,
        own=float(own.mean()),
        chance=float(floors["chance"].mean()),
        random=float(floors["random"].mean()),
        shuffled=float(floors["shuffled"].mean()),
        controls_high=float(max(drawn.mean(axis=1).max() for drawn in (random, shuffled))),
        unmapped=unmapped,
        floor=float(floors[floor_kind].mean()),
        floor_kind=floor_kind,
        gain=float(own.mean() - floors[floor_kind].mean()),
        ratio=ratio.estimate if ratio else None,
        ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None,
        correct=correct,
        items=kept.items,
    )


def _check(
    source: ProbeResult,
    target: ProbeResult,
    abouts: Sequence[RowLabels],
    target_rows: Rows,
    neutral: Neutral,
    n_draws: int,
) -> None:
    ids = np.asarray(neutral.ids, dtype=np.str_)
    if not len(neutral.source) == len(neutral.target) == len(ids):
        raise TwinprobeError(
            f"{len(neutral.source)} and {len(neutral.target)} neutral rows for {len(ids)} ids; expected one each"
        )
    probed = np.concatenate([names for about in abouts for names in (about.items, about.groups)])
    owners = np.array([name.rpartition("/")[0] for name in ids.tolist()], dtype=np.str_)  # a store's "item/form"
    overlap = np.unique(ids[np.isin(ids, probed) | np.isin(owners, probed)])
    if len(overlap):
        raise TwinprobeError(
            f"{len(overlap)} of the texts to fit the map on are probed too (first: {str(overlap[0])!r}); "
            "fit it on rows of other texts, or the transfer is not one"
        )
    for space, rows, width in (
        ("source", neutral.source, source.probe.n_features_in_),
        ("target", neutral.target, target_rows.features.shape[1]),
    ):
        if rows.ndim != 2 or rows.shape[1] != width:
            raise TwinprobeError(
                f"neutral rows of the {space} have shape {rows.shape}; expected [n, {width}], of the same site as the "
                "probed rows"
            )
    if not np.array_equal(target_rows.about.split("test").items, target.items):
        raise TwinprobeError(
            f"the test rows of the target do not match its result at {target.site}; pass the rows that gave the result"
        )
    if n_draws < 1:
        raise TwinprobeError(f"n_draws is {n_draws}; expected at least 1 draw of each control")
