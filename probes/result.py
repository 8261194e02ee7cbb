"""What is reported of one probe: never an accuracy alone."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """One probe at one site, with the controls that make its score readable.

    Attributes:
        site: where the rows were captured.
        family: the probe's family, see :mod:`probes.families`.
        n_train, n_dev, n_test: rows per split.
        n_items: test items, the clusters of the intervals.
        n_classes: labels in the train split.
        strength: inverse regularisation strength, chosen on dev; None where the family has none.
        dev_score: dev accuracy at that strength; the number by which layers are chosen.
        score, low, high: test accuracy with its 95% interval over items.
        macro_f1: test F1 averaged over classes.
        auroc: area under the ROC curve on test, of one class against the rest averaged over classes; None when the
            family gives no probabilities or the test rows lack a class.
        r2, r2_low, r2_high, spearman: of a ridge probe with a strength of its own, where labels are numbers of three
            or more values; None elsewhere. The interval is over items.
        control: test accuracy on the control labels, of a probe with its own strength, chosen on dev.
        control_seen: share of test rows whose control key occurs in training. A control can only be solved there: when
            this is near 0, the control is at chance by construction and selectivity says no more than the score does.
        selectivity, selectivity_low, selectivity_high: ``score - control``, paired by row, with its interval.
        codelength: bits of the online code of the training labels (:mod:`probes.codelength`), mean over orders.
        compression, control_compression: bits of the uniform code over those of the online code, of the labels and of
            the control labels; None, with ``codelength``, where it was not asked for or there are too few rows.
        majority, bag_of_tokens, token, position: test accuracies of the surface baselines.
        converged: whether the two probes reported here (task, control) converged.
        n_unconverged: how many of all fits at this site, over strengths and both label sets, did not.
        correct, control_correct: per test row, whether the probe and the control probe were right, ``[n_test]``.
        items: item id of every test row, ``[n_test]``; pairs and clusters comparisons between models.
        probe, control_probe: the fitted estimators.
    """

    site: str
    family: str
    n_train: int
    n_dev: int
    n_test: int
    n_items: int
    n_classes: int
    strength: float | None
    dev_score: float
    score: float
    low: float
    high: float
    macro_f1: float
    auroc: float | None
    r2: float | None
    r2_low: float | None
    r2_high: float | None
    spearman: float | None
    control: float
    control_seen: float
    selectivity: float
    selectivity_low: float
    selectivity_high: float
    codelength: float | None
    compression: float | None
    control_compression: float | None
    majority: float
    bag_of_tokens: float
    token: float
    position: float
    converged: bool
    n_unconverged: int
    correct: NDArray[np.bool_]
    control_correct: NDArray[np.bool_]
    items: NDArray[np.str_]
    probe: Any
    control_probe: Any

    def row(self) -> dict[str, Any]:
        """The scalar fields, as one row of a table."""
        return scalars(self)


def scalars(result: Any) -> dict[str, Any]:
    """The fields of a result that fit a table cell: text, numbers, truth values and None."""
    values = {field.name: getattr(result, field.name) for field in fields(result)}
    return {name: value for name, value in values.items() if value is None or isinstance(value, str | int | float)}
