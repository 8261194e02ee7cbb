"""Families of probes, and the choice of a probe's strength on the dev split.

Hewitt & Liang 2019 compare task and control within one family. ``logistic`` is the family of every reported score; the
others draw the curve of capacity around it, and ``bilinear`` reads relations between two rows.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning

from activations.errors import TwinprobeError, did_you_mean
from probes.bilinear import BilinearProbe
from probes.capacity import LowRankProbe, MLPProbe
from probes.difference import DifferenceInMeans
from probes.estimators import STRENGTHS, Choice, check_labels, check_strengths, choose_strength
from probes.softmax import decompose

LOGISTIC, BILINEAR = "logistic", "bilinear"
#: Strengths of the bilinear probe, whose penalty is on two factors and not on their product.
BILINEAR_STRENGTHS = (1.0, 10.0)

Estimators = Callable[[Sequence[float]], list[Any]]

FAMILIES: Mapping[str, tuple[str, Estimators | None]] = {
    LOGISTIC: ("multinomial logistic regression, the linear probe", None),
    "difference": ("difference in means, nothing optimised", lambda _strengths: [DifferenceInMeans()]),
    "rank-1": ("linear, one direction", lambda strengths: [LowRankProbe(1, C) for C in strengths]),
    "rank-2": ("linear, two directions", lambda strengths: [LowRankProbe(2, C) for C in strengths]),
    "mlp": ("one hidden layer of 32 units", lambda strengths: [MLPProbe(C=C) for C in strengths]),
    BILINEAR: ("bilinear form of rank 4 between two rows", lambda _: [BilinearProbe(C=C) for C in BILINEAR_STRENGTHS]),
}
"""What each family is, and its estimators for given strengths; ``logistic`` is fitted along a path instead."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """A fitted probe with the strength that did best on dev, and how many of the fits did not converge."""

    probe: Any
    strength: float | None
    dev_score: float
    n_unconverged: int

    @property
    def converged(self) -> bool:
        """Whether the chosen probe's own fit converged; True where nothing is optimised."""
        return bool(getattr(self.probe, "converged_", True))


def chosen_logistic(choice: Choice) -> Chosen:
    """The choice of a logistic path, as that of any family."""
    return Chosen(choice.probe, choice.probe.C, choice.dev_score, choice.n_unconverged)


def check_family(name: str) -> None:
    """Raise :class:`TwinprobeError` unless there is a family called ``name``."""
    if name not in FAMILIES:
        raise TwinprobeError(
            f"unknown family of probes {name!r}{did_you_mean(name, FAMILIES)}; expected one of {', '.join(FAMILIES)}"
        )


def choose(
    family: str,
    features: NDArray[np.floating[Any]],
    labels: NDArray[Any],
    dev_features: NDArray[np.floating[Any]],
    dev_labels: NDArray[Any],
    strengths: Sequence[float] = STRENGTHS,
) -> Chosen:
    """Fit a family's probes on training rows, keep the one with the highest dev accuracy; ties go to the first.

    Args:
        family: one of :data:`FAMILIES`.
        features: training rows ``[n, d]``; for ``bilinear`` the two rows side by side.
        labels: ``[n]``.
        dev_features, dev_labels: the dev rows.
        strengths: inverse regularisation strengths, tried from strong to weak.

    Raises:
        TwinprobeError: an unknown family, fewer than two training labels, or a strength that is not positive.
    """
    check_family(family)
    check_strengths(strengths)
    check_labels(labels)
    estimators = FAMILIES[family][1]
    if estimators is None:
        return chosen_logistic(choose_strength(decompose(features), labels, dev_features, dev_labels, strengths))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # counted instead
        fitted = [probe.fit(features, labels) for probe in estimators(sorted(strengths))]
    scores = [float(np.mean(probe.predict(dev_features) == dev_labels)) for probe in fitted]
    best = int(np.argmax(scores))
    failed = sum(not getattr(probe, "converged_", True) for probe in fitted)
    return Chosen(fitted[best], getattr(fitted[best], "C", None), scores[best], failed)
