"""Where the same heads matter: head effects of two models compared, rank by rank and by their largest.

Heads of two models correspond by their index only where the models share an initialisation (one was trained on from the
other, or both from one seed): nothing else keeps head 3 of a layer from doing in one model what head 1 does in the other.
An overlap therefore says something only beside that of a reference pair, two seeds of one model, for which an index
means nothing: what those share comes from the layers alone.

The null permutes the heads of one model and leaves the other as it is. By default only heads of one layer are exchanged: in
any two models some layers matter more than others, and heads dealt out over all layers would make that look like the same
heads. All cells of a head (its roles) stay together. The permutation p is one-sided, for more overlap than by chance, and
never zero (Phipson & Smyth 2010); ranks are correlated as Spearman did, with mean ranks for ties.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from activations.errors import TwinprobeError
from probes.metrics import percentile_interval

HEAD = ["site", "layer", "head"]
TOP = (5, 0.1)
"""Sizes of the sets that are compared: a number of cells, or a share of them."""
COLUMNS = [
    "measure", "top", "estimate", "low", "high", "expected", "p", "null", "cells", "heads", "items_base", "items_code",
    "items_shared", "items_left_out", "reason",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Effects:
    """One model's values ``[item, cell]``; both models' have the same cells in one order."""

    items: pd.Index
    values: NDArray[np.float64]


def overlap(
    base: pd.DataFrame,
    code: pd.DataFrame,
    *,
    value: str = "effect",
    by_role: bool = False,
    top: Sequence[float] = TOP,
    null: Literal["layer", "all"] = "layer",
    n_permutations: int = 1000,
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare the mean effects of all heads (or of all heads at all roles) of two models.

    Args:
        base: one line per item and head with item, site, layer, head (and role), and the value.
        code: the same for the other model.
        value: the column to compare. An item with a missing value is left out of its model and counted.
        by_role: compare heads × roles, instead of heads.
        top: sizes of the sets of largest absolute means: numbers of cells (5), or shares of all of them (0.1), at least one
            cell. Cells that tie with the last one all belong to the set; those with a mean of 0 never do.
        null: exchange heads within their ``layer``, or over ``all`` layers.
        n_permutations: permutations of the null.
        n_resamples: bootstrap resamples of the Spearman's interval. An item that both models have is drawn for both at
            once; those of one model alone are drawn among themselves.
        seed: seed of both.

    Returns:
        One line for ``spearman`` (of signed means, with a 95% interval over items) and one per size for ``jaccard`` (in
        ``top`` the size): estimate, low, high (missing for jaccard), expected (its mean under the null), p, null, cells,
        heads, items_base, items_code, items_shared, items_left_out, and in ``reason`` why there is no estimate.

    Raises:
        TwinprobeError: columns are missing, the models have other heads, a head has several lines for one item, no item
            is complete, or a size is not positive.
    """
    if bad := [size for size in top if size <= 0 or (size > 1 and size != int(size))]:
        raise TwinprobeError(f"top {bad[0]} of the heads; expected a whole number of cells, or a share between 0 and 1")
    cell = [*HEAD, "role"] if by_role else HEAD
    wide = [_wide(frame, cell, value, name) for frame, name in ((base, "base"), (code, "code"))]
    if not wide[0].columns.equals(wide[1].columns):
        other = wide[0].columns.symmetric_difference(wide[1].columns)[0]
        raise TwinprobeError(f"{_named(cell, other)} is in one of the two tables only; expected the same heads in both")
    whole = [frame.dropna() for frame in wide]
    for frame, name in zip(whole, ("base", "code"), strict=True):
        if frame.empty:
            raise TwinprobeError(f"no item of {name} has a value of {value!r} at every head; expected at least one")
    ours, theirs = (_Effects(frame.index, frame.to_numpy(float)) for frame in whole)
    heads = wide[0].columns.to_frame(index=False)[HEAD]
    generator = np.random.default_rng(seed)
    orders = _orders(heads, null, n_permutations, generator)
    means = ours.values.mean(0), theirs.values.mean(0)
    about = {
        "null": null, "cells": len(heads), "heads": len(heads.drop_duplicates()), "items_base": len(ours.items),
        "items_code": len(theirs.items), "items_shared": len(ours.items.intersection(theirs.items)),
        "items_left_out": sum(len(frame) for frame in wide) - len(ours.items) - len(theirs.items),
    }  # fmt: skip
    lines = [{"measure": "spearman", **_spearman(ours, theirs, means, orders, n_resamples, generator), **about}]
    for size in top:
        count = int(size) if size >= 1 and size == int(size) else max(1, round(size * len(heads)))
        lines.append({"measure": "jaccard", "top": count, **_jaccard(means, orders, count), **about})
    return pd.DataFrame(lines).reindex(columns=COLUMNS).astype({"top": "Int64"})


def _wide(frame: pd.DataFrame, cell: list[str], value: str, name: str) -> pd.DataFrame:
    """One line per item and one column per cell."""
    needed = ["item", *cell, value]
    if missing := [column for column in needed if column not in frame]:
        raise TwinprobeError(f"the table of {name} has no column {missing[0]!r}; expected {', '.join(needed)}")
    if frame.empty:
        raise TwinprobeError(f"the table of {name} is empty; expected one line per item and head")
    if frame[cell].isna().to_numpy().any():
        raise TwinprobeError(f"the table of {name} has lines without {' or '.join(cell)}; pass those of heads only")
    if frame.drop_duplicates(cell).groupby(HEAD).size().nunique() > 1:
        raise TwinprobeError(f"some heads of {name} have more roles than others; expected every head at every role")
    if (twice := frame.duplicated(["item", *cell])).any():
        line = frame[twice].iloc[0]
        raise TwinprobeError(
            f"item {line['item']!r} has several lines of {name} for {_named(cell, line[cell].tolist())}; choose one receiver, "
            "donor and direction"
        )
    return frame.pivot(index="item", columns=cell, values=value).sort_index(axis=1)


def _named(cell: Sequence[str], values: Sequence[Any]) -> str:
    return ", ".join(f"{column} {value}" for column, value in zip(cell, values, strict=True))


def _orders(heads: pd.DataFrame, null: str, count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Orders of the cells ``[permutation, cell]`` in which heads have changed places, each with all its cells."""
    by_head = heads.groupby(HEAD, sort=False)
    numbers, within = by_head.ngroup().to_numpy(), by_head.cumcount().to_numpy()
    place = np.empty((numbers.max() + 1, within.max() + 1), dtype=np.int64)
    place[numbers, within] = np.arange(len(heads))
    blocks = by_head.head(1).groupby(["site", "layer"] if null == "layer" else ["site"], sort=False).ngroup().to_numpy()
    moved = np.empty((count, len(blocks)), dtype=np.int64)
    # Sorted by block and at random within it, and put where the block's heads are.
    moved[:, np.argsort(blocks, kind="stable")] = np.argsort(blocks + generator.random(moved.shape), axis=1)
    return place[moved[:, numbers], within]


def _spearman(
    ours: _Effects, theirs: _Effects, means: Sequence[NDArray[np.float64]], orders: NDArray[np.int64], n_resamples: int,
    generator: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    ranks = [rankdata(each) for each in means]
    if len(ranks[0]) < 3:
        return {"estimate": np.nan, "reason": f"{len(ranks[0])} cells; a correlation of ranks needs 3"}
    for each, name in zip(means, ("base", "code"), strict=True):
        if np.ptp(each) == 0:
            return {"estimate": np.nan, "reason": f"all effects of {name} are equal"}
    estimate = float(_correlation(ranks[0][None], ranks[1][None])[0])
    permuted = _correlation(ranks[0][None], ranks[1][orders])
    drawn = [rankdata(each, axis=1) for each in _resampled(ours, theirs, n_resamples, generator)]
    replicates = _correlation(*drawn)
    replicates = replicates[np.isfinite(replicates)]
    line = {"estimate": estimate, **_against(estimate, permuted)}
    if min(len(ours.items), len(theirs.items)) > 1 and len(replicates):
        interval = percentile_interval(estimate, replicates)
        line |= {"low": interval.low, "high": interval.high}
    return line


def _jaccard(means: Sequence[NDArray[np.float64]], orders: NDArray[np.int64], count: int) -> dict[str, Any]:
    ours, theirs = (_largest(each, count) for each in means)
    if not (ours.any() and theirs.any()):
        return {"estimate": np.nan, "reason": f"all effects of {'code' if ours.any() else 'base'} are 0"}
    estimate = float(_shared(ours, theirs[None])[0])
    return {"estimate": estimate, **_against(estimate, _shared(ours, theirs[orders]))}


def _largest(means: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Which cells have the largest absolute means."""
    size = np.abs(means)
    return (size >= np.sort(size)[::-1][min(count, len(size)) - 1]) & (size > 0)


def _shared(ours: NDArray[np.bool_], theirs: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Intersection by union of one set with each of others ``[set, cell]``."""
    return np.asarray((ours & theirs).sum(1) / (ours | theirs).sum(1), dtype=np.float64)


def _correlation(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlations of the rows; NaN where one is constant."""
    centred = [each - each.mean(1, keepdims=True) for each in (ours, theirs)]
    spread = np.sqrt((centred[0] ** 2).sum(1) * (centred[1] ** 2).sum(1))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((centred[0] * centred[1]).sum(1) / spread, dtype=np.float64)


def _against(estimate: float, permuted: NDArray[np.float64]) -> dict[str, float]:
    """What the null expects, and how often it reaches the estimate; rounding makes no difference."""
    hits = int((permuted >= estimate - 1e-9).sum())
    return {"expected": float(permuted.mean()), "p": (1 + hits) / (1 + len(permuted))}


def _resampled(
    ours: _Effects, theirs: _Effects, n_resamples: int, generator: np.random.Generator
) -> list[NDArray[np.float64]]:
    """Both models' means ``[resample, cell]`` over resampled items."""
    shared = ours.items.intersection(theirs.items)
    joint = _draws(len(shared), n_resamples, generator)
    means = []
    for each in (ours, theirs):
        alone = ~each.items.isin(shared)
        weights = np.empty((n_resamples, len(each.items)))
        weights[:, each.items.get_indexer(shared)] = joint
        weights[:, alone] = _draws(int(alone.sum()), n_resamples, generator)
        means.append(weights @ each.values / len(each.items))
    return means


def _draws(count: int, n_resamples: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """How often each of ``count`` items is drawn, ``[resample, item]``."""
    if not count:
        return np.empty((n_resamples, 0), dtype=np.int64)
    return generator.multinomial(count, np.full(count, 1 / count), n_resamples)
