"""Which items a probe can be tested on by intervening: text and contrast each have a label, and a way leads between them.

A model answers in words, a probe reads labels. What cannot be matched is dropped with a reason, and the reasons are
counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from activations.models import LoadedModel
from analyses.prompts import Prompt, prompts
from probes.directions import contrast_direction
from probes.estimators import LogisticProbe
from probes.tasks.items import Form, Item

Vector = NDArray[np.float64]
"""A point or a direction ``[d]`` in the space of the rows."""


@dataclass(frozen=True, eq=False)
class Means:
    """Means of a probe's training rows: of all of them (``centre``), and of each label's."""

    centre: Vector
    labels: Mapping[str, Vector]


@dataclass(frozen=True, eq=False)
class Case:
    """A prompt with the labels of its text and of its contrast, and the way from the one to the other.

    ``direction`` is the unit vector along which the probe's logit of ``contrast`` rises fastest against that of
    ``label``; ``distance`` how far the means of the two labels' training rows lie apart along it.
    """

    prompt: Prompt
    label: str
    contrast: str
    direction: Vector
    distance: float


def answer_labels(items: Sequence[Item], form: str, target: str) -> dict[str, str] | str:
    """The label of ``target`` that goes with each answer of ``form``, or why there is no telling.

    A model's answer says which label it acted on only where answers and labels go together one to one.
    """
    forms = [item.forms[form] for item in items if form in item.forms]
    found = {(each.answer, last_label(each, target)) for each in forms}
    pairs = sorted((answer, label) for answer, label in found if answer is not None and label is not None)
    if not pairs:
        return f"no text has both an answer and a label of {target} at its end"
    for place, name in enumerate(("answer", "label")):
        value, times = Counter(pair[place] for pair in pairs).most_common(1)[0]
        if times > 1:
            others = ", ".join(repr(pair[1 - place]) for pair in pairs if pair[place] == value)
            return f"answers do not settle the label of {target}: {name} {value!r} goes with {others}"
    return dict(pairs)


def last_label(form: Form, target: str) -> str | None:
    """The label of the ``target`` span that ends at the text's last character, if there is one."""
    found = (span.label for span in form.spans if span.name == target and span.end == len(form.text))
    return next((label for label in found if label is not None), None)


def cases(
    loaded: LoadedModel, items: Sequence[Item], form: str, target: str, probe: LogisticProbe, means: Means, bos: bool
) -> tuple[list[Case], Counter[str]]:
    """The test items on which ``probe`` can be tested, and how many cannot, by reason.

    Answers and labels are matched over the items of all splits.

    Raises:
        TwinprobeError: the model is no decoder, or a text is too long for it.
    """
    test = [item for item in items if item.split == "test"]
    labels = answer_labels(items, form, target)
    if isinstance(labels, str):
        return [], Counter({labels: len(test)})
    usable, dropped = prompts(loaded, test, form, bos)
    forms = {item.id: item.forms[form] for item in test if form in item.forms}
    ways: dict[tuple[str, str], tuple[Vector, float] | str] = {}
    kept = []
    for prompt in usable:
        given = forms[prompt.item]
        assert given.contrast is not None  # it has a prompt
        label, contrast = last_label(given, target), labels.get(given.contrast.answer)
        if label is None or contrast is None:
            dropped["no label at the text's end" if label is None else "the contrast's answer has no label"] += 1
            continue
        if (label, contrast) not in ways:
            ways[label, contrast] = _way(probe, means, label, contrast)
        way = ways[label, contrast]
        if isinstance(way, str):
            dropped[way] += 1
        else:
            kept.append(Case(prompt, label, contrast, *way))
    return kept, dropped


def _way(probe: LogisticProbe, means: Means, label: str, contrast: str) -> tuple[Vector, float] | str:
    """Direction and distance from ``label`` to ``contrast``, or why there is no such way."""
    try:
        direction = contrast_direction(probe, towards=contrast, away=label)
    except TwinprobeError as error:
        return str(error)
    distance = float((means.labels[contrast] - means.labels[label]) @ direction)
    return (direction, distance) if distance > 0 else "along its direction the means of the two labels are not apart"
