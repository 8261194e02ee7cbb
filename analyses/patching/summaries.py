"""Mean recovery per cell over items, with intervals, and the threshold that a whole map has to pass.

Items are resampled as a whole, with the same resamples for all cells of a map. A map has many cells, so that its largest
would often look clear by chance: under the null hypothesis that effects are symmetric around zero, an item's whole map
can have its sign turned, and the largest absolute mean effect over all cells is what an observed one is compared with
(the single-threshold maximum statistic of Nichols & Holmes 2002, "Nonparametric permutation tests for functional
neuroimaging").
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.patching.metrics import MIN_GAPS
from analyses.statistics import EXACT_CLUSTERS

MAP = ("direction", "donor", "site", "by", "window")
"""Columns that tell one map from another."""
CELL = ("layer", "head", "neurons", "role")
"""Columns that tell the cells of a map apart."""
N_FLIPS = 2000
Array = NDArray[np.float64]


def summarise(cells: pd.DataFrame, seed: int = 0, n_resamples: int = 1000) -> pd.DataFrame:
    """Means over items of every cell of every map; positions of one role are first averaged within the item.

    Args:
        cells: as :class:`analyses.patching.sweep.Patching` has them.
        seed: seed of resamples and sign flips.
        n_resamples: bootstrap resamples of items.

    Returns:
        direction, donor, site, by, window, layer, head, neurons, role; recovery with low and high (95% item bootstrap;
        NaN with one item), effect (logits), items; p_max (two-sided, over the largest effect of the map) and threshold
        (the mean effect that the largest of a map's cells passes in 5% of sign flips).
    """
    if cells.empty:
        return pd.DataFrame(columns=[*MAP, *CELL, "recovery", "low", "high", "effect", "items", "p_max", "threshold"])
    frames: list[pd.DataFrame] = []
    about: Any
    for about, part in cells.groupby(list(MAP), sort=False):
        per_item = part.groupby(["item", *CELL], as_index=False, dropna=False, sort=False)[
            ["effect", "recovery"]
        ].mean()
        keys = per_item[list(CELL)].drop_duplicates().sort_values(list(CELL), ignore_index=True)
        numbers = keys.assign(cell=range(len(keys)))
        placed = per_item.merge(numbers, on=list(CELL))
        effects, recoveries = (_by_item(placed, name, len(keys)) for name in ("effect", "recovery"))
        low, high = _bootstrap(recoveries, n_resamples, seed)
        p, threshold = max_statistic(effects, seed)
        frames.append(
            keys.assign(
                **dict(zip(MAP, about, strict=True)), recovery=_mean(recoveries), low=low, high=high,
                effect=_mean(effects), items=(~np.isnan(effects)).sum(0), p_max=p, threshold=threshold,
            )
        )  # fmt: skip
    found = pd.concat(frames, ignore_index=True)
    return found[[*MAP, *CELL, *(column for column in found if column not in (*MAP, *CELL))]]


def max_statistic(effects: Array, seed: int = 0, n_flips: int = N_FLIPS) -> tuple[Array, float]:
    """Two-sided p of every cell's mean effect, corrected for the number of cells, and the 5% threshold.

    Args:
        effects: ``[item, cell]``, NaN where an item lacks a cell.
        seed: seed of the random signs.
        n_flips: random sign patterns, where there are too many items to try them all. The observed one counts among them.

    Returns:
        p ``[cell]``, and the threshold in the effects' unit. With 5 items or fewer no p can be below 0.05.
    """
    known = ~np.isnan(effects)
    filled, counts = np.where(known, effects, 0.0), known.sum(0)
    n_items = len(effects)
    if n_items <= EXACT_CLUSTERS:
        patterns = np.arange(2**n_items)[:, None] >> np.arange(n_items) & 1
    else:
        patterns = np.random.default_rng(seed).integers(2, size=(n_flips, n_items))
        patterns[0] = 1
    largest = np.abs((2.0 * patterns - 1.0) @ filled / counts).max(1)
    observed = np.abs(filled.sum(0) / counts)
    # Patterns that tie with the observed one count as hits, whatever the order of their sums.
    hits = largest[:, None] >= observed * (1 - 1e-9)
    return hits.mean(0), float(np.quantile(largest, 0.95, method="higher"))


def recoveries(cells: pd.DataFrame, retention: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Effect and recovery in another metric than the logit difference.

    Returns:
        ``cells`` with effect (in the metric's unit) and recovery of ``metric``; recovery is missing where the gap between
        clean and corrupted run is below :data:`analyses.patching.metrics.MIN_GAPS`.
    """
    if metric == "logit_difference":
        return cells
    runs = retention.set_index("item")
    clean, corrupted = (cells["item"].map(runs[f"{metric}_{text}"]) for text in ("clean", "corrupted"))
    effect = cells[metric] - corrupted.where(cells.direction == "denoising", clean)
    gap = clean - corrupted
    return cells.assign(effect=effect, recovery=(effect / gap).where(gap.abs() >= MIN_GAPS[metric]))


def top_cells(summary: pd.DataFrame, count: int) -> pd.DataFrame:
    """The cells of largest absolute mean effect of each map, the largest first."""
    order = summary.effect.abs().sort_values(ascending=False, kind="stable").index
    return summary.loc[order].groupby(list(MAP), sort=False).head(count).reset_index(drop=True)


def _by_item(placed: pd.DataFrame, column: str, n_cells: int) -> Array:
    """``[item, cell]``, NaN where an item lacks a cell."""
    items, _ = pd.factorize(placed["item"])
    table = np.full((items.max() + 1, n_cells), np.nan)
    table[items, placed.cell] = placed[column]
    return table


def _mean(values: Array) -> Array:
    """Means of the columns without what is missing; NaN where all is."""
    known = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        means: Array = np.where(known, values, 0.0).sum(0) / known.sum(0)
    return means


def _bootstrap(values: Array, n_resamples: int, seed: int) -> tuple[Array, Array]:
    """Percentile bounds of the columns' means over resampled rows, without the entries that are missing."""
    n_items, n_cells = values.shape
    low, high = np.full(n_cells, np.nan), np.full(n_cells, np.nan)
    known = ~np.isnan(values)
    several = known.sum(0) > 1
    if several.any():
        drawn = np.random.default_rng(seed).multinomial(n_items, np.full(n_items, 1 / n_items), n_resamples)
        with np.errstate(invalid="ignore"):  # a resample may lack every item that has a cell
            means = (drawn @ np.where(known, values, 0.0)[:, several]) / (drawn @ known[:, several])
        low[several], high[several] = np.nanpercentile(means, [2.5, 97.5], axis=0)
    return low, high


def describe(line: Any, columns: Sequence[str] = CELL) -> str:
    """A cell in words, such as ``layer 3, head 5, last``."""
    parts = [
        f"{name} {getattr(line, name)}" if name != "role" else str(line.role)
        for name in columns
        if pd.notna(getattr(line, name))
    ]
    return ", ".join(parts)
