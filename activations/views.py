"""A site of a store as a torch tensor, a pandas table, or a torch data set."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from activations.errors import TwinprobeError
from activations.reading import Rows, row_numbers
from activations.sites import Site
from activations.store import ActivationStore
from activations.tables import check_column

if TYPE_CHECKING:
    import torch


def tensor(store: ActivationStore, site: str | Site, rows: Rows | None = None) -> torch.Tensor:
    """Activations ``[rows, width]`` in the storage type itself, bit for bit."""
    import torch

    raw = store.raw(site, rows)
    return torch.from_numpy(raw).view(torch.bfloat16) if store.dtype == "bfloat16" else torch.from_numpy(raw)


def frame(store: ActivationStore, site: str | Site, rows: Rows | None = None) -> pd.DataFrame:
    """One line per row: the columns of ``store.rows``, then float32 columns ``"0"`` to ``"width - 1"``.

    The index are the row numbers.
    """
    numbers = row_numbers(rows, store.n_rows, str(store.path))
    values = store.read(site, numbers)
    about = store.rows.iloc[numbers]
    names = [str(dimension) for dimension in range(values.shape[1])]
    return pd.concat([about, pd.DataFrame(values, index=about.index, columns=names)], axis=1)


def dataset(store: ActivationStore, site: str | Site, target: str = "label", rows: Rows | None = None) -> SiteDataset:
    """A map-style torch ``Dataset`` whose items are (float32 vector ``[width]``, class number).

    Args:
        store: a finished store.
        site: one of its sites.
        target: the column of ``store.rows`` that is to be predicted; ``classes`` are its values, sorted.
        rows: which rows, in this order; where ``None``, all that have a target.

    Raises:
        TwinprobeError: no such site, column or row, or one of the given rows has no target.
    """
    check_column(target)
    store.width(site)
    values = store.rows[target]
    numbers = row_numbers(values.notna() if rows is None else rows, store.n_rows, str(store.path))
    wanted = values.iloc[numbers]
    if (without := wanted.isna().to_numpy()).any():
        raise TwinprobeError(f"{store.path}: row {numbers[without][0]} has no {target}; choose rows that have one")
    classes, targets = np.unique(wanted.to_numpy(), return_inverse=True)
    return _with_torch()(store.path, str(site), numbers, targets, classes.tolist())


class SiteDataset:
    """What :func:`dataset` returns: rows of one site with their classes.

    It can be sent to other processes; each opens the store when it reads its first row.
    """

    def __init__(
        self,
        path: Path,
        site: str,
        rows: npt.NDArray[np.int64],
        targets: npt.NDArray[np.int64],
        classes: list[Any],
    ) -> None:
        self.path, self.site, self.rows, self.targets, self.classes = path, site, rows, targets, classes

    @cached_property
    def _store(self) -> ActivationStore:
        return ActivationStore(self.path)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[torch.Tensor, int]]:
        """Several items by one read; a ``DataLoader`` asks for its batches so."""
        import torch

        chosen = np.asarray(indices, dtype=np.int64)
        vectors = torch.from_numpy(self._store.read(self.site, self.rows[chosen]))
        return list(zip(vectors, self.targets[chosen].tolist(), strict=True))

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self.path, self.site, self.rows, self.targets, self.classes)


@cache
def _with_torch() -> type[SiteDataset]:
    """:class:`SiteDataset` as a subclass of torch's; here, as this floor loads torch only where it is used."""
    from torch.utils.data import Dataset

    return type("SiteDataset", (SiteDataset, Dataset), {"__doc__": SiteDataset.__doc__})


def _restore(*parts: Any) -> SiteDataset:
    return _with_torch()(*parts)
