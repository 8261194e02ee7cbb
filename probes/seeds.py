"""One line for several seeds: the mean over draws of the items, with an interval over items and draws.

Each draw has its own items, probes and interval. They are combined as the studies of a random-effects meta-analysis
(DerSimonian & Laird 1986, with equal weights): the variance of the mean is ``(between + within) / draws``, where
``within`` is the mean squared standard error of the draws and ``between`` what their scores vary beyond it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import norm

from probes.metrics import Interval

_Z = float(norm.ppf(0.975))
_COUNTS = ("n_train", "n_dev", "n_test", "n_items", "n_dropped", "n_unconverged")


def pooled_interval(estimates: ArrayLike, lows: ArrayLike, highs: ArrayLike) -> Interval:
    """Mean of estimates ``[s]`` of independent draws, with its 95% interval; a single one keeps its own."""
    values, low, high = (np.asarray(each, dtype=np.float64) for each in (estimates, lows, highs))
    mean = float(values.mean())
    if len(values) == 1:
        return Interval(mean, float(low[0]), float(high[0]))
    within = float(np.mean(((high - low) / (2 * _Z)) ** 2))
    between = max(0.0, float(values.var(ddof=1)) - within)
    reach = _Z * float(np.sqrt((between + within) / len(values)))
    return Interval(mean, mean - reach, mean + reach)


def pool_seeds(
    table: pd.DataFrame, by: Sequence[str], intervals: Sequence[tuple[str, str, str]], seed: str = "seed"
) -> pd.DataFrame:
    """One line per place instead of one per place and draw.

    Args:
        table: tidy lines with a column ``seed``.
        by: columns that name a place.
        intervals: column names of estimates with their bounds.
        seed: the column that tells the draws apart; it is dropped.

    Returns:
        The same columns: means of numbers, sums of rows, items and fits, intervals over items and draws, truth values
        where all draws agree on True, texts of the first draw; and ``seeds`` (draws), ``seed_spread`` (standard
        deviation of the first estimate over draws, None for one). A number that some draw lacks is the mean over the
        others.
    """
    lines = []
    for _, part in table.groupby(list(by), sort=False, dropna=False):
        line = {name: _combined(name, part[name]) for name in table.columns if name != seed}
        for names in intervals:
            known = part.dropna(subset=[names[0]])
            if len(known):
                found = pooled_interval(*(known[name] for name in names))
                line |= dict(zip(names, (found.estimate, found.low, found.high), strict=True))
        spread = part[intervals[0][0]].std(ddof=1) if len(part) > 1 else None
        lines.append({**line, "seeds": len(part), "seed_spread": spread})
    return pd.DataFrame(lines)


def _combined(name: str, column: pd.Series) -> object:
    if column.dtype == bool:
        return bool(column.all())
    if not pd.api.types.is_numeric_dtype(column):
        return column.iloc[0]
    if name in _COUNTS:
        return int(column.sum())
    return column.iloc[0] if column.nunique(dropna=False) == 1 else column.mean()
