"""Cross-model patching of a task's items, both ways: which items, which tables, which means.

An item is patched where at least one of the two models answers both its texts right, and the same items serve both ways
and every control. How many each model gets right is part of the outcome: where one knows nothing that the other could
lack, there is nothing to bring.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.texts import Text
from analyses.across.compatibility import same_prompts, shared_prompts
from analyses.across.cross_patching import CELL, CrossPatching, cross_patch
from analyses.across.mapped_donor import fit_donor, mapped_patch
from analyses.answers import answers
from analyses.patching.grids import Grid
from analyses.patching.recording import STREAM
from analyses.prompts import Prompt
from probes.metrics import mean_intervals
from probes.tasks.items import Item

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRIDS = (Grid("resid_post", "role"), Grid("resid_post", "all"), Grid("z", "all"))
"""The residual stream at every layer, at each role and at all positions, and every head at all positions."""
SETTING = ["receiver", "donor_model", "donor", *CELL[:-1]]
"""The columns of a setting that means are taken in: positions alone are averaged over their role, item by item first."""


def cross_patch_task(
    base: LoadedModel,
    code: LoadedModel,
    items: Sequence[Item],
    form: str,
    *,
    bos: bool,
    grids: Sequence[Grid] = GRIDS,
    controls: Mapping[str, LoadedModel] | None = None,
    neutral: Sequence[Text] = (),
    max_prompts: int | None = None,
    max_items: int = 6,
    random_items: int | None = 3,
    check_exact: int = 3,
    clusters: Literal["item", "group"] = "item",
    seed: int = 0,
    n_resamples: int = 1000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, pd.DataFrame]:
    """Patch items of one form across a pair: the code model's activations into the base model, and the other way round.

    Args:
        base: a decoder.
        code: its counterpart of the same shape and vocabulary.
        items: the items to choose from.
        form: the form in which both models read them.
        bos: whether texts begin with BOS.
        grids: which cells.
        controls: further models by name that also give to ``base``, such as another seed of it.
        neutral: texts to fit maps on. Where there are any, activations come across through orthogonal maps
            (:mod:`analyses.across.mapped_donor`), at sites of the residual stream, and the models may differ in shape.
        max_prompts: prompts that both models answer, the first ones; all where it is None.
        max_items: items that are patched, the first ones of those that either model gets right.
        random_items: how many of them also get the random donor, the first ones; all where it is None.
        check_exact: cells to check against plain forward passes, in each direction.
        clusters: what intervals resample.
        seed: seed of the controls, the checked cells and the intervals.
        n_resamples: bootstrap resamples.
        progress: called with steps done and steps in all.

    Returns:
        ``cross_retention``: one line with the counts of prompts, of those right in both texts in base, code, both, either
        and none, of patched ones, of items without a prompt and why; ``checked`` and ``max_error``. Where there are
        prompts, ``cross_behaviour``: see :func:`behaviour`. Where any is patched, ``cross_cells`` (see
        :class:`analyses.across.cross_patching.CrossPatching`) and ``cross`` (see :func:`summary`).

    Raises:
        TwinprobeError: two models can not exchange activations, or do not read the texts as the same tokens.
    """
    prompts, dropped = (same_prompts if neutral else shared_prompts)(base, code, items, form, bos)
    reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(dropped.items()))
    about = {"not_aligned": sum(dropped.values()), "why_not_aligned": reasons}
    prompts = prompts[:max_prompts]
    if not prompts:
        return {"cross_retention": pd.DataFrame([{"prompts": 0, **about}])}
    told = behaviour(base, code, prompts, max_items)
    chosen = [prompt for prompt, status in zip(prompts, told.status, strict=True) if status == "patched"]
    ways = [(base, code, ("base", "code")), (code, base, ("code", "base"))]
    ways += [(base, model, ("base", name)) for name, model in (controls or {}).items()]
    found: list[CrossPatching] = []
    for number, (receiver, donor, names) in enumerate(ways if chosen else []):

        def advance(done: int, total: int, before: int = number) -> None:
            progress(before * total + done, len(ways) * total)

        patch = cross_patch
        if neutral:
            patch = partial(mapped_patch, maps=fit_donor(receiver, donor, neutral, _names(grids), bos=bos, seed=seed))
        found.append(
            patch(
                receiver, donor, chosen, grids, names=names, random_items=random_items, check_exact=check_exact, seed=seed,
                progress=advance,
            )
        )  # fmt: skip
    counts = {
        "prompts": len(told), "base_right": told.base_right.sum(), "code_right": told.code_right.sum(),
        "both_right": (told.base_right & told.code_right).sum(), "either_right": (told.base_right | told.code_right).sum(),
        "none_right": (~told.base_right & ~told.code_right).sum(), "patched": len(chosen),
    }  # fmt: skip
    exact = {
        "checked": sum(one.checked for one in found),
        "max_error": max((one.max_error for one in found), default=0.0),
    }
    tables = {"cross_retention": pd.DataFrame([{**counts, **about, **exact}]), "cross_behaviour": told}
    if found:
        cells = pd.concat([one.cells for one in found], ignore_index=True)
        means = summary(cells, clusters=clusters, seed=seed, n_resamples=n_resamples)
        tables |= {"cross_cells": cells, "cross": means}
    return tables


def _names(grids: Sequence[Grid]) -> list[str]:
    """The sites of the grids.

    Raises:
        TwinprobeError: one is not the residual stream between layers, and has no map.
    """
    names = list(dict.fromkeys(grid.site for grid in grids))
    if other := [name for name in names if name not in STREAM]:
        raise TwinprobeError(f"{other[0]} can not come across through a map; expected {' or '.join(STREAM)}")
    return names


def behaviour(base: LoadedModel, code: LoadedModel, prompts: Sequence[Prompt], max_items: int) -> pd.DataFrame:
    """How both models answer, and which prompts are patched.

    Returns:
        One line per prompt: item, group, difficulty; whether each model is right in both texts (base_right, code_right);
        its logit difference in favour of the text's own answer, mean of the two texts (base, code); status: ``patched``,
        ``right, not patched`` (there were enough before it) or ``answered wrongly``.
    """
    ours, theirs = answers(base, prompts), answers(code, prompts)
    right = (ours.right | theirs.right).to_numpy(bool)
    status = np.where(right & (right.cumsum() <= max_items), "patched", "right, not patched")
    return ours[["item", "group", "difficulty"]].assign(
        base_right=ours.right, code_right=theirs.right, base=ours.logit_difference, code=theirs.logit_difference,
        status=np.where(right, status, "answered wrongly"),
    )  # fmt: skip


def summary(
    cells: pd.DataFrame,
    *,
    clusters: Literal["item", "group"] = "item",
    n_resamples: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """Means over the items of each receiver, donor and kind of cell, with 95% intervals that resample clusters.

    Returns:
        :data:`SETTING`; items; effect and recovery with ``_low`` and ``_high``, recovery over the items whose gap is
        large enough; dropped, the number of the others; gap; accuracy_before and accuracy_after (right in both texts).
    """
    about = cells[["item", "group"]].drop_duplicates("item")
    rows = pd.Index(about["item"]).get_indexer(cells["item"])
    settings = cells.groupby(SETTING, dropna=False, sort=False)
    columns = settings.ngroup().to_numpy()
    shape = len(about), int(columns.max()) + 1
    count = np.zeros(shape)
    np.add.at(count, (rows, columns), 1)
    tables = {}
    for name in ("effect", "recovery", "gap", "right_before", "right_after"):
        total = np.zeros(shape)
        np.add.at(total, (rows, columns), cells[name].astype(float))
        tables[name] = total / np.where(count, count, np.nan)  # single positions of one role are averaged
    found = settings.head(1)[SETTING].reset_index(drop=True).assign(items=(count > 0).sum(0))
    for name in ("effect", "recovery"):
        intervals = _intervals(tables[name], about[clusters].to_numpy(), n_resamples, seed)
        for end, values in zip(("", "_low", "_high"), intervals.T, strict=True):
            found[name + end] = values
    return found.assign(
        dropped=found["items"] - np.isfinite(tables["recovery"]).sum(0), gap=np.nanmean(tables["gap"], 0),
        accuracy_before=np.nanmean(tables["right_before"], 0), accuracy_after=np.nanmean(tables["right_after"], 0),
    )  # fmt: skip


def _intervals(table: NDArray[np.float64], clusters: NDArray[Any], n_resamples: int, seed: int) -> NDArray[np.float64]:
    """Estimate, low and high of each column ``[column, 3]``, over the rows that it has; NaN where it has none."""
    found = np.full((table.shape[1], 3), np.nan)
    patterns, which = np.unique(np.isfinite(table), axis=1, return_inverse=True)
    for number, kept in enumerate(patterns.T):
        same = np.flatnonzero(which.ravel() == number)
        if kept.any():  # columns of the same rows are resampled together
            intervals = mean_intervals(table[kept][:, same], clusters[kept], n_resamples, seed)
            found[same] = [(each.estimate, each.low, each.high) for each in intervals]
    return found
