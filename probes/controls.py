"""Control tasks (Hewitt & Liang 2019, "Designing and Interpreting Probes with Control Tasks").

A control task keeps the rows and replaces each label by a random one that depends on the row's *control key* only (a
word type, in the paper). A probe can solve it by memorising keys and in no other way, so the task's score minus the
control's score, the *selectivity*, says how much of the score memorisation can not explain.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from probes.rows import RowLabels


def draw_control(forms: Sequence[RowLabels], seed: int = 0) -> dict[str, str]:
    """Draw one random label for every control key in ``forms``.

    Pass all forms that will share the control (``[code, prose]`` for a transfer): a key then has the same label in each
    of them, and in train, dev and test.

    Labels follow the empirical label distribution of all the rows, drawn without replacement: of the keys seen in
    training each label gets its share, rounded up or down (systematic sampling over the keys in the order of a SHA-256
    of seed and key, from a start that depends on the seed), and so with the other keys. A handful of keys therefore
    does not share one label by chance. If rounding or rare labels still leave the training keys of a form with a single
    one, its last key gets the commonest other label.

    Args:
        forms: what is known about the rows of each form.
        seed: seed of the draw.

    Returns:
        Control key to control label.

    Raises:
        TwinprobeError: the rows carry fewer than two labels, or the training rows of a form fewer than two keys.
    """
    labels, counts = np.unique(np.concatenate([about.labels for about in forms]), return_counts=True)
    if len(labels) < 2:
        raise TwinprobeError(f"all rows have the label {str(labels[0])!r}; a control task needs at least two labels")
    train_keys = [_ordered(about.controls[about.mask("train")], seed) for about in forms]
    in_training = _ordered(np.concatenate(train_keys), seed)
    others = _ordered(set(np.concatenate([about.controls for about in forms]).tolist()) - set(in_training), seed)
    edges = np.cumsum(counts) / counts.sum()
    start = int(_digest(f"{seed}")[:13], 16) / 16**13
    control: dict[str, str] = {}
    for keys in (in_training, others):
        quantiles = (np.arange(len(keys)) + start) / max(len(keys), 1)
        # The last edge is 1 up to rounding, and a quantile is below 1: clip for the rounding.
        chosen = np.minimum(np.searchsorted(edges, quantiles, side="right"), len(labels) - 1)
        control.update(zip(keys, labels[chosen].tolist(), strict=True))
    by_frequency = [str(label) for label in labels[np.argsort(-counts, kind="stable")]]
    for keys in train_keys:
        if len(keys) < 2:
            raise TwinprobeError(
                f"the training rows have one control key ({keys[0]!r}); expected two or more, for labels that differ"
            )
        if len({control[key] for key in keys}) == 1:
            control[keys[-1]] = next(label for label in by_frequency if label != control[keys[-1]])
    return control


def control_labels(about: RowLabels, control: Mapping[str, str]) -> NDArray[np.str_]:
    """The control label of every row, ``[n]``; raises :class:`TwinprobeError` when a key was not drawn."""
    try:
        return np.array([control[key] for key in about.controls.tolist()], dtype=np.str_)
    except KeyError as error:
        raise TwinprobeError(
            f"control key {error.args[0]!r} has no control label; draw the control over every form that uses it"
        ) from None


def _ordered(keys: Iterable[str], seed: int) -> list[str]:
    return sorted({str(key) for key in keys}, key=lambda key: _digest(f"{seed}:{key}"))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8")).hexdigest()
