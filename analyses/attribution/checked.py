"""Attribution over many prompts, never without its check against exact patching.

Estimates are made for every prompt. The check is exact patching of whole prompts, drawn by chance: every cell that can have
an effect at all, not a sample of cells, since a missed cell (a false negative, Kramár et al. 2024) is one that is among
the largest of all. Left out are cells where the two runs do not differ, and those that the last position can not read:
estimate and effect are both 0 there, which would flatter the agreement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError, did_you_mean
from activations.models import LoadedModel
from analyses.attribution import nodes
from analyses.attribution.agreement import agreement, exact_effects
from analyses.attribution.nodes import NODES, attribute
from analyses.attribution.star import attribute_star
from analyses.patching.cells import READ_LATER
from analyses.patching.exactness import has_suffixes
from analyses.patching.summaries import summarise
from analyses.prompts import Prompt

STAR = "atp*"
METHODS = (*nodes.METHODS, STAR)
COLUMNS = [
    "item", "group", "direction", "donor", "site", "by", "window", "layer", "head", "neurons", "role", "position", "token",
    "differs", "effect", "recovery",
]  # fmt: skip
"""Of the table of cells."""
EXACT_COLUMNS = [
    "item", "group", "direction", "site", "layer", "head", "role", "position", "token", "estimated", "exact",
]  # fmt: skip
AGREEMENT_COLUMNS = ["direction", "site", "maps", "cells", "spearman", "sign", "false_negatives", "top"]
WHOLE_NUMBERS = ("layer", "window", "head", "neurons", "position")


@dataclass(frozen=True)
class Attribution:
    """Estimates and how far they can be trusted, for one model, task and form.

    ``cells``: one line per item, direction and cell, with the columns of :class:`analyses.patching.sweep.Patching` but
    its other metrics, and differs (whether the two runs differ there); effect (logits) and recovery are estimates.
    ``exact``: the cells of the checked items that can have an effect, with estimated and exact effect (logits).
    ``agreement``: one line per direction and site: maps (checked items with 2 such cells or more), cells (in all of them),
    and the means over maps of what :class:`analyses.attribution.agreement.Agreement` describes. ``top`` is the mean
    number of cells that were looked for: as many as asked for, but no more than half of a map. ``magnitudes``: the
    estimates have no sign.
    """

    cells: pd.DataFrame
    exact: pd.DataFrame
    agreement: pd.DataFrame
    magnitudes: bool

    def summary(self, seed: int = 0, n_resamples: int = 1000) -> pd.DataFrame:
        """The estimates as :func:`analyses.patching.summaries.summarise` has exact effects.

        Magnitudes have no p_max and threshold: they are not symmetric around 0 where there is no effect.
        """
        found = summarise(self.cells, seed, n_resamples)
        return found.assign(p_max=np.nan, threshold=np.nan) if self.magnitudes else found


def attribute_prompts(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    names: Sequence[str] = NODES,
    method: str = "atp",
    steps: int = 10,
    check_cells: int = 5000,
    top: int = 10,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Attribution:
    """Estimate the effects of all cells in both directions, and compute those of some prompts exactly.

    Args:
        loaded: a decoder; it is left as it was found, also after an error.
        prompts: those that the model answers rightly (see :func:`analyses.patching.sweep.patch_prompts`).
        names: sites, of which every layer is taken. Models with parallel blocks have no ``resid_mid``; it is left out.
        method: one of :data:`METHODS`. ``atp*`` has both corrections of Kramár et al. 2024, and gives magnitudes.
        steps: gradients averaged by the integrated methods.
        check_cells: cells to compute exactly. Prompts are checked whole, in random order, as long as the next one's cells
            do not exceed this number; the first one always is.
        top: how many of the largest cells of a site, direction and item are looked for among the largest estimates.
        seed: seed of the prompts' order.
        progress: called with steps done and steps in all: every prompt is estimated, then checked or passed over.

    Raises:
        TwinprobeError: an unknown method; steps, check_cells or top below 1; the model is quantised, is no decoder, lacks
            a site (one that projects queries, keys and values together has no ``q``, ``k`` and ``v``) or, for ``atp*``,
            has a single layer.
    """
    _check(method, check_cells, top)
    total = 2 * len(prompts)
    tables = []
    for done, prompt in enumerate(prompts, 1):
        tables.append(
            attribute_star(loaded, prompt, names=names)
            if method == STAR
            else attribute(loaded, prompt, names=names, method=method, steps=steps)
        )
        progress(done, total)
    suffixes = bool(prompts) and has_suffixes(loaded, max((prompt.clean for prompt in prompts), key=len))
    parts = [table[_can_matter(table, prompt, loaded.n_layers)] for table, prompt in zip(tables, prompts, strict=True)]
    checked = _drawn([len(part) for part in parts], check_cells, seed)
    compared: list[pd.DataFrame] = []
    for number, (prompt, part) in enumerate(zip(prompts, parts, strict=True)):
        if number in checked:
            exact = exact_effects(loaded, prompt, part, suffixes)
            compared.append(part.rename(columns={"effect": "estimated"}).assign(exact=exact))
        progress(len(prompts) + number + 1, total)
    cells = _joined(tables, [name for name in COLUMNS if name not in FIXED]).assign(**FIXED)
    cells = cells.astype(dict.fromkeys(WHOLE_NUMBERS, "Int64"))[COLUMNS]
    exact_cells = _joined(compared, EXACT_COLUMNS)
    return Attribution(cells, exact_cells, _agreement(exact_cells, method == STAR, top), method == STAR)


FIXED: dict[str, Any] = {"donor": "contrast", "by": "position", "window": 1, "neurons": None}
"""What is the same for all cells."""


def _check(method: str, check_cells: int, top: int) -> None:
    if method not in METHODS:
        raise TwinprobeError(
            f"attribution method {method!r} is not known{did_you_mean(method, METHODS)}; known: {', '.join(METHODS)}"
        )
    if check_cells < 1 or top < 1:
        raise TwinprobeError(
            f"a check of {check_cells} cells that looks for the top {top}; expected 1 or more of each: estimates are not "
            "reported without their agreement with exact patching"
        )


def _drawn(sizes: Sequence[int], budget: int, seed: int) -> set[int]:
    """The first of a random order, and those that follow it as long as their sizes add up to no more than the budget."""
    order = np.random.default_rng(seed).permutation(len(sizes))
    count = np.searchsorted(np.cumsum(np.array(sizes, dtype=int)[order]), budget, side="right")
    return set(order[: max(1, int(count))].tolist())


def _can_matter(cells: pd.DataFrame, prompt: Prompt, n_layers: int) -> pd.Series[bool]:
    """Where the runs differ and the last position reads it, itself or in a layer above."""
    read = (cells.layer < n_layers - 1) | (cells.position == len(prompt.clean) - 1) | cells.site.isin(READ_LATER)
    return cells.differs & read


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    if not tables:
        return pd.DataFrame(columns=list(columns))
    return pd.concat(tables, ignore_index=True)[list(columns)]


def _agreement(exact: pd.DataFrame, magnitudes: bool, top: int) -> pd.DataFrame:
    """Means over the maps of one direction and site of all checked items."""
    maps = []
    for (direction, site, _), part in exact.groupby(["direction", "site", "item"], sort=False):
        if len(part) > 1:
            true = part.exact.abs() if magnitudes else part.exact
            found = agreement(true, part.estimated, min(top, len(part) // 2))
            maps.append({"direction": direction, "site": site, "maps": 1, **vars(found)})
    if not maps:
        return pd.DataFrame(columns=AGREEMENT_COLUMNS)
    table = pd.DataFrame(maps)
    if magnitudes:
        table["sign"] = np.nan
    grouped = table.groupby(["direction", "site"], sort=False)
    means = grouped[["spearman", "sign", "false_negatives", "top"]].mean()
    return means.join(grouped[["maps", "cells"]].sum()).reset_index()[AGREEMENT_COLUMNS]
