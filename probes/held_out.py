"""Leave one form out: does what a probe learns from all other forms hold in one that it never saw?

A probe is trained on the train rows of every form but one, with its strength chosen on their dev rows, and scored on the
test rows of the form that was left out. Between two forms this is :func:`probes.transfer.transfer` at one site; with a form
per language it is the leave-one-language-out test. The score stands beside what a probe trained in the form itself reaches
on the same rows, and the control is left out of the same form.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from activations.errors import TwinprobeError, did_you_mean
from probes.baselines import Baselines, majority_label
from probes.estimators import STRENGTHS
from probes.fitting import probe_site
from probes.metrics import Interval
from probes.regression import statistic_interval
from probes.result import ProbeResult, scalars
from probes.rows import RowLabels, Rows
from probes.sweep import check_splits
from probes.transfer import MIN_GAIN, gain_ratio


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A probe of all other forms on the one that was left out.

    Attributes:
        target_form: the form left out.
        source_forms: the others, with commas between.
        n_dropped: test rows of the target left out because no training row of the others has their label.
        result: the probe's scores; ``n_train`` and ``n_dev`` count rows of the other forms, ``n_test`` of the target.
        auroc_low, auroc_high: 95% interval over items of ``result.auroc``; None unless there are two classes.
        in_form: accuracy, on the same rows, of the probe trained on the target form.
        chance: accuracy of the commonest label of the target's train split (among labels that the others know).
        gain: ``in_form - chance``, the denominator of the ratio.
        ratio, ratio_low, ratio_high: ``(score - chance) / gain`` with its interval; None as in
            :class:`probes.transfer.TransferResult`.
    """

    target_form: str
    source_forms: str
    n_dropped: int
    result: ProbeResult
    auroc_low: float | None
    auroc_high: float | None
    in_form: float
    chance: float
    gain: float
    ratio: float | None
    ratio_low: float | None
    ratio_high: float | None

    def row(self) -> dict[str, Any]:
        """The scalar fields, those of ``result`` included, as one row of a table."""
        return scalars(self) | self.result.row()


def held_out_rows(rows: Mapping[str, Rows], target_form: str) -> Rows:
    """The train and dev rows of all forms but one, and the test rows of that one that have a label of theirs.

    Raises:
        TwinprobeError: there is no such form or no other, the widths differ, no label is shared, a split is empty, or a
            group or item of the test rows is in the others' train or dev rows.
    """
    if target_form not in rows:
        raise TwinprobeError(
            f"no form {target_form!r}{did_you_mean(target_form, rows)} to leave out; there are {', '.join(rows)}"
        )
    others = [rows[form] for form in rows if form != target_form]
    widths = {each.features.shape[1] for each in rows.values()}
    if not others or len(widths) > 1:
        found = f"rows of widths {', '.join(map(str, sorted(widths)))}" if others else "one form"
        raise TwinprobeError(f"{found} given; leaving one out needs two forms or more, at the same site of one model")
    learnt = [each.split(name) for each in others for name in ("train", "dev")]
    test = rows[target_form].split("test")
    known = np.isin(test.about.labels, np.concatenate([each.about.split("train").labels for each in others]))
    if not known.any():
        raise TwinprobeError(
            f"form {target_form!r} shares no label with the others; leaving it out needs the same label names in all forms"
        )
    parts = [*learnt, test.take(known)]
    about = _joined([part.about for part in parts])
    check_splits(about)
    return Rows(np.concatenate([part.features for part in parts]), about)


def _joined(parts: Sequence[RowLabels]) -> RowLabels:
    columns: dict[str, Any] = {}
    for name in (field.name for field in fields(RowLabels)):
        values = [getattr(part, name) for part in parts]
        ragged = name in ("texts", "tokens")
        columns[name] = tuple(chain.from_iterable(values)) if ragged else np.concatenate(values)
    return RowLabels(**columns)


def leave_one_out(
    rows: Mapping[str, Rows],
    target_form: str,
    in_form: ProbeResult,
    control: Mapping[str, str],
    surface: Baselines,
    *,
    strengths: Sequence[float] = STRENGTHS,
    min_gain: float = MIN_GAIN,
    seed: int = 0,
    n_resamples: int = 1000,
) -> HeldOut:
    """Train on all forms but one, score on that one.

    Args:
        rows: the rows of every form at the site of ``in_form``.
        target_form: the form to leave out.
        in_form: the reference: the result of the target form's own sweep.
        control: control labels by key, drawn over all forms.
        surface: surface baselines of ``held_out_rows(rows, target_form).about``.
        strengths: inverse regularisation strengths, chosen on the other forms' dev rows.
        min_gain: smallest in-form gain over chance for which a ratio is formed.
        seed: seed of the bootstrap.
        n_resamples: bootstrap resamples.

    Raises:
        TwinprobeError: see :func:`held_out_rows`; ``in_form`` is of other rows, or a control key was not drawn.
    """
    pooled = held_out_rows(rows, target_form)
    target = rows[target_form].about
    if not np.array_equal(target.split("test").items, in_form.items):
        raise TwinprobeError(
            f"the test rows of form {target_form!r} do not match its result at {in_form.site}; pass the rows that gave it"
        )
    result = probe_site(in_form.site, pooled, control, surface, strengths=strengths, seed=seed, n_resamples=n_resamples)
    test, train = pooled.split("test"), target.split("train").labels
    labels = result.probe.classes_
    own = in_form.correct[np.isin(target.split("test").labels, labels)]
    shared = train[np.isin(train, labels)]
    majority = test.about.labels == majority_label(shared if len(shared) else labels)
    ratio = gain_ratio(np.stack([result.correct, own, majority], axis=1), result.items, min_gain, n_resamples, seed)
    area = _area_interval(result, test, n_resamples, seed)
    return HeldOut(
        target_form=target_form,
        source_forms=", ".join(form for form in rows if form != target_form),
        n_dropped=len(in_form.items) - len(test),
        result=result,
        auroc_low=area.low if area else None,
        auroc_high=area.high if area else None,
        in_form=float(own.mean()),
        chance=float(majority.mean()),
        gain=float(own.mean() - majority.mean()),
        ratio=ratio.estimate if ratio else None,
        ratio_low=ratio.low if ratio else None,
        ratio_high=ratio.high if ratio else None,
    )


def _area_interval(result: ProbeResult, test: Rows, n_resamples: int, seed: int) -> Interval | None:
    if result.auroc is None or result.n_classes != 2:
        return None
    scores = result.probe.decision_function(test.features)
    return statistic_interval(
        _area, test.about.labels == result.probe.classes_[1], scores, test.about.items, n_resamples, seed
    )


def _area(truth: NDArray[Any], scores: NDArray[Any]) -> float:
    return float(roc_auc_score(truth, scores)) if len(np.unique(truth)) == 2 else float("nan")
