from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from other_models import CLEAN, CORRUPTED, FIRST_DIFFERENCE

from analyses.patching.effort import effort
from analyses.patching.grids import Grid
from analyses.prompts import Prompt

if TYPE_CHECKING:
    from activations.models import LoadedModel

Tiny = Callable[[str], LoadedModel] if TYPE_CHECKING else Any

LENGTH = len(CLEAN)
FIRST = FIRST_DIFFERENCE
ROLES = tuple("last" if at == LENGTH - 1 else "early" if at < FIRST else "late" for at in range(LENGTH))
PROMPT = Prompt("i", "g", 0, CLEAN, CORRUPTED, 1, 2, (1, 2), ("t",) * LENGTH, ROLES)
HEIGHTS = (1 + 2 / 3 + 1 / 3) / 3
"""Mean share of three layers that lie at or above one of them."""


def suffix(first: int) -> float:
    return (LENGTH - first) / LENGTH


def test_a_contrast_costs_nothing_before_the_texts_differ(tiny: Tiny) -> None:
    found = effort(tiny("llama"), PROMPT, [Grid("resid_pre")], ["denoising"], "contrast")
    assert found.cells == 3 * LENGTH
    assert found.passes == pytest.approx(3 * HEIGHTS * sum(suffix(at) for at in range(FIRST, LENGTH)))
    everywhere = effort(tiny("llama"), PROMPT, [Grid("resid_pre")], ["denoising"], "mean")
    assert everywhere.passes == pytest.approx(3 * HEIGHTS * sum(suffix(at) for at in range(LENGTH)))
    assert effort(tiny("llama"), PROMPT, [Grid("resid_pre")], ["denoising"], "identity").passes == 0


def test_grids_and_directions_add_up(tiny: Tiny) -> None:
    grids = [Grid("z", "role"), Grid("resid_pre", "all", window=2)]
    found = effort(tiny("llama"), PROMPT, grids, ["denoising", "noising"], "contrast")
    assert found.cells == 2 * (3 * 4 * 3 + 2)
    heads = 3 * 4 * HEIGHTS * (suffix(FIRST) + suffix(LENGTH - 1))
    assert found.passes == pytest.approx(2 * (heads + (1 + 2 / 3) * suffix(FIRST)))
