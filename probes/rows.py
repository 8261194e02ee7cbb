"""Rows for probes: captured vectors at one site, beside everything known about them.

What is known about the rows (labels, splits, clusters, surface tokens) is the same at every site of one model, task and
form. It lives in :class:`RowLabels` and is shared, not copied, by the :class:`Rows` of all sites.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError

SPLITS = ("train", "dev", "test")


@dataclass(frozen=True, eq=False)
class RowLabels:
    """What is known about ``n`` rows besides their vectors.

    Attributes:
        labels: what the probe predicts, strings ``[n]``.
        controls: key of the Hewitt & Liang control task, strings ``[n]``.
        items: id of the item that a row belongs to, strings ``[n]``; the cluster of every interval.
        groups: what must not be split between train and test (template, document), strings ``[n]``.
        splits: ``train``, ``dev`` or ``test``, strings ``[n]``.
        texts: ids of the tokens up to and including the row's span, ``n`` sequences; for the bag-of-tokens baseline.
        tokens: ids of the span's own tokens, ``n`` sequences; for the token baseline.
        positions: index of the row's token in its text, integers ``[n]``; for the position baseline.
        difficulties: difficulty of the row's item (operations, depth, hops), integers ``[n]``; all 0 when not given.

    Raises:
        TwinprobeError: the lengths differ, there are no rows, or a split is not one of :data:`SPLITS`.
    """

    labels: NDArray[np.str_]
    controls: NDArray[np.str_]
    items: NDArray[np.str_]
    groups: NDArray[np.str_]
    splits: NDArray[np.str_]
    texts: Sequence[Sequence[int]]
    tokens: Sequence[Sequence[int]]
    positions: NDArray[np.int64]
    difficulties: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, dtype=np.int64))

    def __post_init__(self) -> None:
        for name in ("labels", "controls", "items", "groups", "splits"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.str_))
        object.__setattr__(self, "positions", np.asarray(self.positions, dtype=np.int64))
        difficulties = self.difficulties if len(self.difficulties) else np.zeros(len(self.labels))
        object.__setattr__(self, "difficulties", np.asarray(difficulties, dtype=np.int64))
        lengths = {name: len(getattr(self, name)) for name in self.__dataclass_fields__}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise TwinprobeError(f"row labels have different lengths ({found}); expected one entry per row in each")
        if not len(self.labels):
            raise TwinprobeError("no rows: expected at least one labelled row; check that spans carry labels")
        unknown = sorted(set(self.splits.tolist()) - set(SPLITS))
        if unknown:
            raise TwinprobeError(f"unknown split {unknown[0]!r}; expected one of {', '.join(SPLITS)}")

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.labels)

    def take(self, mask: NDArray[Any]) -> RowLabels:
        """The rows that a boolean mask ``[n]`` or an array of indices selects."""
        index = _indices(mask, len(self))
        return RowLabels(
            labels=self.labels[index],
            controls=self.controls[index],
            items=self.items[index],
            groups=self.groups[index],
            splits=self.splits[index],
            texts=tuple(self.texts[i] for i in index),
            tokens=tuple(self.tokens[i] for i in index),
            positions=self.positions[index],
            difficulties=self.difficulties[index],
        )

    def split(self, name: str) -> RowLabels:
        """The rows of one split; raises :class:`TwinprobeError` when it has none."""
        return self.take(self.mask(name))

    def mask(self, name: str) -> NDArray[np.bool_]:
        """Which rows belong to the split ``name``; raises :class:`TwinprobeError` when none does."""
        mask = self.splits == name
        if not mask.any():
            counts = ", ".join(f"{split} {int((self.splits == split).sum())}" for split in SPLITS)
            raise TwinprobeError(f"no rows in split {name!r} (rows per split: {counts}); add items or split them anew")
        return mask


@dataclass(frozen=True, eq=False)
class Rows:
    """Vectors captured at one site, ``features [n, d]``, with what is known about them.

    Raises:
        TwinprobeError: ``features`` is not a two-dimensional floating array, its length differs from ``about``'s, or it
            holds NaN or infinity.
    """

    features: NDArray[np.floating[Any]]
    about: RowLabels

    def __post_init__(self) -> None:
        features = np.asarray(self.features)
        object.__setattr__(self, "features", features)
        if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
            raise TwinprobeError(
                f"features have shape {features.shape} and dtype {features.dtype}; expected a floating [n, width] array"
            )
        if len(features) != len(self.about):
            raise TwinprobeError(
                f"{len(features)} feature rows for {len(self.about)} row labels; expected one each, in the same order"
            )
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            raise TwinprobeError(
                f"{len(bad)} of {len(features)} feature rows hold NaN or infinity (first: row {bad[0]}); "
                "capture in a wider dtype or drop those rows"
            )

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.about)

    def take(self, mask: NDArray[Any]) -> Rows:
        """The rows that a boolean mask ``[n]`` or an array of indices selects (features are copied)."""
        index = _indices(mask, len(self))
        return Rows(self.features[index], self.about.take(index))

    def split(self, name: str) -> Rows:
        """The rows of one split; raises :class:`TwinprobeError` when it has none."""
        return self.take(self.about.mask(name))


def _indices(mask: NDArray[Any], n_rows: int) -> NDArray[np.int64]:
    mask = np.asarray(mask)
    if mask.dtype == np.bool_:
        if mask.shape != (n_rows,):
            raise TwinprobeError(f"the mask has shape {mask.shape}; expected ({n_rows},), one entry per row")
        return np.flatnonzero(mask)
    return mask.astype(np.int64)
