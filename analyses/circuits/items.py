"""Which items a circuit is found on: those a model gets right, in two halves that share no group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError
from activations.models import LoadedModel
from analyses.answers import MIN_GAP, RETAINED, retention
from analyses.prompts import Prompt

CHOOSING, HELD_OUT = "choosing", "held out"


@dataclass(frozen=True)
class Items:
    """Prompts that choose the circuit, prompts it is measured on, and what became of every one.

    ``table``: see :class:`analyses.circuits.finding.CircuitResult`.
    """

    choosing: tuple[Prompt, ...]
    held_out: tuple[Prompt, ...]
    table: pd.DataFrame


def choose_items(loaded: LoadedModel, prompts: Sequence[Prompt], max_items: int, seed: int) -> Items:
    """Keep what the model gets right in both texts with a gap of at least ``MIN_GAP``, and split it into halves.

    Whole groups go to one half, as long as there are two or more. Of more than ``max_items`` prompts the first are kept.

    Raises:
        TwinprobeError: fewer than two are left.
    """
    table = retention(loaded, prompts)
    right = table.index[table.status == RETAINED].tolist()
    table.loc[right[max_items:], "status"] = "retained, not used"
    used = right[:max_items]
    if len(used) < 2:
        raise TwinprobeError(
            f"{loaded.spec.name} gets {len(used)} of {len(prompts)} prompts right in both texts with a gap of {MIN_GAP} or "
            "more; a circuit needs 2 or more: give more prompts, or a task that the model can do"
        )
    groups = [prompts[number].group for number in used]
    if len(set(groups)) == 1:
        groups = [prompts[number].item for number in used]
    order = np.random.default_rng(seed).permutation(sorted(set(groups))).tolist()
    choosing: set[int] = set()
    for group in order[:-1]:
        if len(choosing) >= len(used) / 2:
            break
        choosing |= {number for number, its in zip(used, groups, strict=True) if its == group}
    table.loc[used, "status"] = [CHOOSING if number in choosing else HELD_OUT for number in used]
    return Items(
        tuple(prompts[number] for number in used if number in choosing),
        tuple(prompts[number] for number in used if number not in choosing),
        table,
    )
