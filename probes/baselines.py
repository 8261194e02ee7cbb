"""Surface baselines: what a probe's labels betray without any model.

Each baseline is the same logistic probe, with dev-chosen strength, on features that a reader of the token ids has.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.estimators import STRENGTHS, choose_strength
from probes.rows import RowLabels
from probes.softmax import decompose

#: A bag keeps this many token types, the ones that occur in most training rows.
MAX_TYPES = 1000
#: Positions are binned at this many quantiles of the training positions.
POSITION_BINS = 16


@dataclass(frozen=True)
class Baselines:
    """Test accuracies of the surface baselines; the same for every site, as none of them looks at activations."""

    majority: float
    bag_of_tokens: float
    token: float
    position: float


def baselines(about: RowLabels, strengths: Sequence[float] = STRENGTHS) -> Baselines:
    """Test accuracy of the majority label, a bag of the prefix's tokens, the span's own tokens, and the position."""
    train = about.mask("train")
    return Baselines(
        majority=float(np.mean(about.labels[about.mask("test")] == majority_label(about.labels[train]))),
        bag_of_tokens=_score(token_counts(about.texts, train), about, strengths),
        token=_score(token_counts(about.tokens, train), about, strengths),
        position=_score(position_bins(about.positions, train), about, strengths),
    )


def majority_label(labels: NDArray[np.str_]) -> str:
    """The commonest label; of equally common ones the first in alphabetical order."""
    found, counts = np.unique(labels, return_counts=True)
    return str(found[np.argmax(counts)])


def token_counts(sequences: Sequence[Sequence[int]], train: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Counts of the :data:`MAX_TYPES` token ids that occur in most training rows, ``[n, types]``."""
    seen = Counter(token for i in np.flatnonzero(train).tolist() for token in set(sequences[i]))
    # Ties are broken by token id, so that the features do not depend on the order of the rows.
    kept = sorted(seen, key=lambda token: (-seen[token], token))[:MAX_TYPES]
    column = {token: index for index, token in enumerate(kept)}
    counts = np.zeros((len(sequences), max(len(kept), 1)), dtype=np.float32)
    for row, sequence in enumerate(sequences):
        for token in sequence:
            if token in column:
                counts[row, column[token]] += 1.0
    return counts


def position_bins(positions: NDArray[np.int64], train: NDArray[np.bool_]) -> NDArray[np.float32]:
    """The position and an indicator of its quantile bin, ``[n, bins + 1]``: labels may depend on it in any shape."""
    edges = np.unique(np.quantile(positions[train], np.linspace(0, 1, POSITION_BINS + 1)[1:-1]))
    bins = np.searchsorted(edges, positions, side="right")
    indicators = np.eye(len(edges) + 1, dtype=np.float32)[bins]
    return np.concatenate([positions[:, None].astype(np.float32), indicators], axis=1)


def _score(features: NDArray[np.float32], about: RowLabels, strengths: Sequence[float]) -> float:
    train, dev, test = (about.mask(name) for name in ("train", "dev", "test"))
    choice = choose_strength(
        decompose(features[train]), about.labels[train], features[dev], about.labels[dev], strengths
    )
    return float(np.mean(choice.probe.predict(features[test]) == about.labels[test]))
