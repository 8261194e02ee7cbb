"""One probe at one site: fitted, chosen on dev, scored on test, with everything that makes the score readable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from activations.errors import TwinprobeError
from probes.baselines import Baselines
from probes.codelength import codelength
from probes.controls import control_labels
from probes.estimators import STRENGTHS, LogisticProbe, best_on_dev
from probes.families import BILINEAR, LOGISTIC, choose, chosen_logistic
from probes.metrics import macro_f1, mean_intervals
from probes.regression import numbers, ridge_scores
from probes.result import ProbeResult
from probes.rows import SPLITS, Rows
from probes.softmax import Decomposition, decompose


@dataclass(frozen=True, eq=False)
class Fitted:
    """Decomposed training rows with the logistic paths of the labels and of the control labels, strong penalty first."""

    data: Decomposition
    task: Sequence[LogisticProbe]
    control: Sequence[LogisticProbe]


def probe_site(
    site: str,
    rows: Rows,
    control: Mapping[str, str],
    surface: Baselines,
    *,
    family: str = LOGISTIC,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    n_resamples: int = 1000,
    code_orders: int = 0,
    fitted: Fitted | None = None,
) -> ProbeResult:
    """Fit, choose and score the probe of one site.

    The control probe gets the same strengths and its own choice on dev. Hewitt & Liang compare task and control for one
    family of probes; letting the control choose gives it its best chance, so selectivity is never flattered by a
    strength that happens to suit the task and starve the control.

    Args:
        site: name of the site, for the result.
        rows: the rows of all splits at this site.
        control: control label of every control key, from :func:`probes.controls.draw_control`.
        surface: the surface baselines of these rows.
        family: family of probes, see :mod:`probes.families`.
        strengths: inverse regularisation strengths to choose from.
        seed: seed of the bootstrap and of the codelength's orders.
        n_resamples: bootstrap resamples.
        code_orders: orders of the rows that the online codelength averages over; 0 leaves it out.
        fitted: the logistic paths, when they are there already.

    Raises:
        TwinprobeError: a split is empty, train has fewer than two (control) labels, or a control key was not drawn.
    """
    about = rows.about
    train, dev, test = (about.mask(name) for name in SPLITS)
    features, dev_features, test_features = (rows.features[mask] for mask in (train, dev, test))
    relation = family == BILINEAR
    controls = control_labels(about, control)
    if fitted is None:
        task, memory = (
            choose(family, features, labels[train], dev_features, labels[dev], strengths)
            for labels in (about.labels, controls)
        )
    else:
        task, memory = (
            chosen_logistic(best_on_dev(path, dev_features, labels[dev]))
            for path, labels in ((fitted.task, about.labels), (fitted.control, controls))
        )
    predicted = task.probe.predict(test_features)
    correct = predicted == about.labels[test]
    control_correct = memory.probe.predict(test_features) == controls[test]
    items = about.items[test]
    paired = np.stack([correct, control_correct, correct.astype(float) - control_correct], axis=1)
    score, control_score, gain = mean_intervals(paired, items, n_resamples, seed)
    coded = code_orders > 0 and not relation
    lengths = [
        _compression(features, labels[train], about.items[train], strengths, range(seed, seed + code_orders))
        if coded
        else (None, None)
        for labels in (about.labels, controls)
    ]
    values = numbers(about.labels)
    ridge = None
    if values is not None and not relation:
        data = fitted.data if fitted else decompose(features)
        parts = (dev_features, values[dev], test_features, values[test])
        ridge = ridge_scores(data, values[train], *parts, items, strengths, n_resamples, seed)
    return ProbeResult(
        site=site,
        family=family,
        n_train=int(train.sum()),
        n_dev=int(dev.sum()),
        n_test=int(test.sum()),
        n_items=len(np.unique(items)),
        n_classes=len(task.probe.classes_),
        strength=task.strength,
        dev_score=task.dev_score,
        score=score.estimate,
        low=score.low,
        high=score.high,
        macro_f1=macro_f1(about.labels[test], predicted),
        auroc=_auroc(task.probe, test_features, about.labels[test]),
        r2=ridge.r2.estimate if ridge else None,
        r2_low=ridge.r2.low if ridge else None,
        r2_high=ridge.r2.high if ridge else None,
        spearman=ridge.spearman if ridge else None,
        control=control_score.estimate,
        control_seen=float(np.isin(about.controls[test], about.controls[train]).mean()),
        selectivity=gain.estimate,
        selectivity_low=gain.low,
        selectivity_high=gain.high,
        codelength=lengths[0][0],
        compression=lengths[0][1],
        control_compression=lengths[1][1],
        majority=surface.majority,
        bag_of_tokens=surface.bag_of_tokens,
        token=surface.token,
        position=surface.position,
        converged=task.converged and memory.converged,
        n_unconverged=task.n_unconverged + memory.n_unconverged,
        correct=correct,
        control_correct=control_correct,
        items=items,
        probe=task.probe,
        control_probe=memory.probe,
    )


def _compression(
    features: NDArray[Any],
    labels: NDArray[np.str_],
    items: NDArray[np.str_],
    strengths: Sequence[float],
    seeds: Sequence[int],
) -> tuple[float | None, float | None]:
    """Bits and compression of the online code; None where the rows are too few for one."""
    try:
        found = codelength(features, labels, items, strengths=strengths, seeds=seeds)
    except TwinprobeError:
        return None, None
    return found.bits, found.compression


def _auroc(probe: Any, features: NDArray[Any], labels: NDArray[np.str_]) -> float | None:
    if not hasattr(probe, "predict_proba") or set(labels.tolist()) != set(probe.classes_.tolist()):
        return None
    chances = probe.predict_proba(features)
    if len(probe.classes_) == 2:
        return float(roc_auc_score(labels == probe.classes_[1], chances[:, 1]))
    return float(roc_auc_score(labels, chances, labels=probe.classes_, multi_class="ovr"))
