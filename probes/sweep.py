"""Probe every site of one model, task and form, with the controls that make a score readable.

Strengths and layers are chosen on dev; test rows are only ever predicted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from probes.baselines import Baselines, baselines
from probes.controls import control_labels, draw_control
from probes.estimators import STRENGTHS, LogisticProbe, check_strengths, choose_strength
from probes.metrics import macro_f1, mean_intervals
from probes.rows import SPLITS, RowLabels, Rows
from probes.softmax import decompose, one_blas_thread


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What is reported of one probe: never an accuracy alone.

    Attributes:
        site: where the rows were captured.
        n_train, n_dev, n_test: rows per split.
        n_items: test items, the clusters of the intervals.
        n_classes: labels in the train split.
        strength: inverse regularisation strength, chosen on dev.
        dev_score: dev accuracy at that strength; the number by which layers are chosen.
        score, low, high: test accuracy with its 95% interval over items.
        macro_f1: test F1 averaged over classes.
        control: test accuracy on the control labels, of a probe with its own strength, chosen on dev.
        control_seen: share of test rows whose control key occurs in training. A control can only be solved there: when
            this is near 0, the control is at chance by construction and selectivity says no more than the score does.
        selectivity, selectivity_low, selectivity_high: ``score - control``, paired by row, with its interval.
        majority, bag_of_tokens, token, position: test accuracies of the surface baselines.
        converged: whether the two probes reported here (task, control) converged.
        n_unconverged: how many of all fits at this site, over strengths and both label sets, did not.
        correct, control_correct: per test row, whether the probe and the control probe were right, ``[n_test]``.
        items: item id of every test row, ``[n_test]``; pairs and clusters comparisons between models.
        probe, control_probe: the fitted estimators.
    """

    site: str
    n_train: int
    n_dev: int
    n_test: int
    n_items: int
    n_classes: int
    strength: float
    dev_score: float
    score: float
    low: float
    high: float
    macro_f1: float
    control: float
    control_seen: float
    selectivity: float
    selectivity_low: float
    selectivity_high: float
    majority: float
    bag_of_tokens: float
    token: float
    position: float
    converged: bool
    n_unconverged: int
    correct: NDArray[np.bool_]
    control_correct: NDArray[np.bool_]
    items: NDArray[np.str_]
    probe: LogisticProbe
    control_probe: LogisticProbe

    def row(self) -> dict[str, Any]:
        """The scalar fields, as one row of a table."""
        return scalars(self)


def scalars(result: Any) -> dict[str, Any]:
    """The fields of a result that fit a table cell: text, numbers, truth values and None."""
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in values.items() if value is None or isinstance(value, str | int | float)}


def probe_site(
    site: str,
    rows: Rows,
    control: Mapping[str, str],
    surface: Baselines,
    *,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    n_resamples: int = 1000,
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
        strengths: inverse regularisation strengths to choose from.
        seed: seed of the bootstrap.
        n_resamples: bootstrap resamples.

    Raises:
        TwinprobeError: a split is empty, train has fewer than two (control) labels, or a control key was not drawn.
    """
    about = rows.about
    train, dev, test = (about.mask(name) for name in SPLITS)
    data = decompose(rows.features[train])
    dev_features, test_features = rows.features[dev], rows.features[test]
    controls = control_labels(about, control)
    task, memory = (
        choose_strength(data, labels[train], dev_features, labels[dev], strengths)
        for labels in (about.labels, controls)
    )
    predicted = task.probe.predict(test_features)
    correct = predicted == about.labels[test]
    control_correct = memory.probe.predict(test_features) == controls[test]
    items = about.items[test]
    paired = np.stack([correct, control_correct, correct.astype(float) - control_correct], axis=1)
    score, control_score, gain = mean_intervals(paired, items, n_resamples, seed)
    return ProbeResult(
        site=site,
        n_train=int(train.sum()),
        n_dev=int(dev.sum()),
        n_test=int(test.sum()),
        n_items=len(np.unique(items)),
        n_classes=len(task.probe.classes_),
        strength=task.probe.C,
        dev_score=task.dev_score,
        score=score.estimate,
        low=score.low,
        high=score.high,
        macro_f1=macro_f1(about.labels[test], predicted),
        control=control_score.estimate,
        control_seen=float(np.isin(about.controls[test], about.controls[train]).mean()),
        selectivity=gain.estimate,
        selectivity_low=gain.low,
        selectivity_high=gain.high,
        majority=surface.majority,
        bag_of_tokens=surface.bag_of_tokens,
        token=surface.token,
        position=surface.position,
        converged=task.probe.converged_ and memory.probe.converged_,
        n_unconverged=task.n_unconverged + memory.n_unconverged,
        correct=correct,
        control_correct=control_correct,
        items=items,
        probe=task.probe,
        control_probe=memory.probe,
    )


def sweep(
    features: Mapping[str, NDArray[np.floating[Any]]],
    about: RowLabels,
    *,
    control: Mapping[str, str] | None = None,
    surface: Baselines | None = None,
    strengths: Sequence[float] = STRENGTHS,
    seed: int = 0,
    n_resamples: int = 1000,
    progress: Callable[[int, int], None] | None = None,
) -> list[ProbeResult]:
    """Probe every site in ``features``, in its order.

    Args:
        features: site name to rows ``[n, d]``. One site is read at a time, so a mapping that loads on access
            keeps memory bounded.
        about: what is known about the rows, the same at every site.
        control: control labels by key; drawn from ``about`` when absent. Pass one drawn over all forms for transfer.
        surface: surface baselines, if already computed for these rows (say, for another model with the same tokenizer).
        strengths: inverse regularisation strengths, chosen on dev per site.
        seed: seed of the control draw and of the bootstrap.
        n_resamples: bootstrap resamples per interval.
        progress: called with ``(sites done, sites in all)`` after each site.

    Raises:
        TwinprobeError: no sites, an empty split, a group in two splits, or rows that can not be probed.
    """
    if not features:
        raise TwinprobeError("no sites to probe; expected at least one site with captured rows")
    check_strengths(strengths)
    check_splits(about)
    control = draw_control([about], seed) if control is None else control
    results = []
    with one_blas_thread():
        surface = baselines(about, strengths) if surface is None else surface
        for done, site in enumerate(features, start=1):
            rows = Rows(features[site], about)
            results.append(
                probe_site(site, rows, control, surface, strengths=strengths, seed=seed, n_resamples=n_resamples)
            )
            if progress is not None:
                progress(done, len(features))
    return results


def check_splits(about: RowLabels) -> None:
    """Raise :class:`TwinprobeError` when a split is empty, or a group or item lies in more than one split."""
    for name in SPLITS:
        about.mask(name)
    for kind, ids in (("group", about.groups), ("item", about.items)):
        home: dict[str, str] = {}
        for name, split in zip(ids.tolist(), about.splits.tolist(), strict=True):
            if home.setdefault(name, split) != split:
                raise TwinprobeError(
                    f"{kind} {name!r} is in two splits ({home[name]} and {split}); split whole {kind}s, or scores leak"
                )


def best_layer(results: Sequence[ProbeResult]) -> ProbeResult:
    """The result with the highest dev score; of equal ones the first. Test scores play no part.

    Raises:
        TwinprobeError: there are no results.
    """
    if not results:
        raise TwinprobeError("no probe results to choose a layer from; expected at least one")
    return max(results, key=lambda result: result.dev_score)
