"""The rows of a store as features by site, read when asked for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from activations.store import ActivationStore


class SiteFeatures(Mapping[str, npt.NDArray[np.float32]]):
    """``features[site]`` is float32 ``[rows, width]`` of the given rows; one site is in memory at a time.

    ``sites`` are those to go through, all of the store's when it is None.
    """

    def __init__(self, store: ActivationStore, rows: npt.NDArray[np.int64], sites: Sequence[str] | None = None) -> None:
        self.store, self.rows = store, rows
        self.sites = store.sites if sites is None else list(sites)

    def __getitem__(self, site: str) -> npt.NDArray[np.float32]:
        return self.store.read(site, self.rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self.sites)

    def __len__(self) -> int:
        return len(self.sites)
