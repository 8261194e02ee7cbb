"""What is put in: the other text, a mean per role, another item, or the run's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from contrast_prompts import LENGTH, ROLES, activation, made_prompts, spliced_logits
from hypothesis import given as drawn
from hypothesis import strategies as st

from activations.sites import Site
from analyses.patching.donors import from_means, matched, role_means
from analyses.patching.grids import Grid
from analyses.patching.metrics import MIN_GAPS
from analyses.patching.summaries import recoveries
from analyses.patching.sweep import patch_prompts
from analyses.prompts import DIRECTIONS

if TYPE_CHECKING:
    import pandas as pd

    from activations.models import LoadedModel
    from analyses.prompts import Prompt

GRIDS = (
    Grid("resid_pre"), Grid("resid_post", "role"), Grid("attn_out", "all", 2), Grid("z", "role"), Grid("mlp_out"),
    Grid("mlp_post", "role", neurons=10),
)  # fmt: skip
BOTH = tuple(DIRECTIONS)


@pytest.fixture(scope="module")
def loaded(tiny: Callable[[str], LoadedModel]) -> LoadedModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def given(loaded: LoadedModel) -> list[Prompt]:
    return made_prompts(loaded, ["right"] * 4)


def patched(
    loaded: LoadedModel, given: list[Prompt], donor: str, *grids: Grid, max_items: int = 4, seed: int = 0
) -> pd.DataFrame:
    return patch_prompts(
        loaded, given, grids=grids, directions=BOTH, donor=donor, max_items=max_items, check_exact=4, seed=seed
    ).cells


@pytest.mark.parametrize("architecture", ["llama", "codegen", "gemma2"])
def test_a_run_s_own_activations_change_exactly_nothing(tiny: Callable[[str], LoadedModel], architecture: str) -> None:
    loaded = tiny(architecture)
    cells = patched(loaded, made_prompts(loaded, ["right"] * 2), "identity", *GRIDS)
    assert len(cells) > 500
    assert (cells.effect == 0).all()
    assert (cells.recovery == 0).all()
    assert (cells.donor == "identity").all()


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_whole_stream_of_the_other_text_is_the_other_text(
    tiny: Callable[[str], LoadedModel], architecture: str
) -> None:
    """In every metric; of what a KL divergence from the clean run recovers, all as well."""
    loaded = tiny(architecture)
    given = made_prompts(loaded, ["right"] * 3)
    found = patch_prompts(
        loaded, given, grids=[Grid("resid_pre", "all"), Grid("resid_post", "all")], directions=BOTH, max_items=3
    )
    assert len(found.cells) == 2 * 2 * 3 * loaded.n_layers
    whole = found.cells.direction.map({"denoising": 1.0, "noising": -1.0}).to_numpy()
    for metric in MIN_GAPS:
        scored = recoveries(found.cells, found.retention, metric)
        known = scored.recovery.notna().to_numpy()
        assert known.any() or metric == "probability", "no gap to recover"  # each of 397 tokens has little of it
        assert scored.recovery.to_numpy()[known] == pytest.approx(whole[known], abs=1e-3)


def test_the_mean_is_over_both_texts_of_all_patched_items_and_the_positions_of_a_role(
    loaded: LoadedModel, given: list[Prompt]
) -> None:
    """Only of those that are patched: the fourth item is retained, but beyond the limit."""
    for site, grid in ((Site("resid_pre", 1), Grid("resid_pre", "role")), (Site("z", 1, 2), Grid("z", "role"))):
        rows = {
            role: np.concatenate(
                [
                    activation(loaded, ids, site).numpy()[[at for at, other in enumerate(ROLES) if other == role]]
                    for prompt in given[:3]
                    for ids in (prompt.clean, prompt.corrupted)
                ]
            )
            for role in set(ROLES)
        }
        assert len(rows["other"]) == 3 * 6
        cells = patched(loaded, given, "mean", grid, max_items=3)
        cells = cells[(cells.layer == 1) & ((cells["head"] == 2) | (site.head is None))]
        assert len(cells) == 2 * 3 * 4
        by_name = {prompt.item: prompt for prompt in given}
        for line in cells.itertuples():
            prompt = by_name[line.item]
            ids = (prompt.clean, prompt.corrupted)[DIRECTIONS[line.direction][0]]
            at = [position for position, role in enumerate(ROLES) if role == line.role]
            mean = torch.tensor(rows[line.role].mean(0)).expand(len(at), -1)
            logits = spliced_logits(loaded, ids, [(site, at, mean)])
            assert line.logit_difference == pytest.approx(float(prompt.logit_difference(logits)), abs=1e-5)


def test_means_are_laid_out_by_role(loaded: LoadedModel, given: list[Prompt]) -> None:
    site = Site("attn_out", 2)
    means = role_means(loaded, given, [site])
    laid = from_means(means, ("last", "other", "last"))(site)
    assert laid.shape == (3, loaded.d_model)
    assert torch.equal(laid[0], laid[2])
    assert torch.equal(laid[1], means[site, "other"])


def test_a_random_donor_is_another_item_s_run_at_the_same_places(loaded: LoadedModel, given: list[Prompt]) -> None:
    """Of two items each gives to the other: the clean run where the clean one gives, and the other way round."""
    pair = given[:2]
    for site, grid in ((Site("resid_pre", 1), Grid("resid_pre")), (Site("z", 2, 1), Grid("z", "all"))):
        cells = patched(loaded, pair, "random", grid)
        cells = cells[(cells.layer == site.layer) & ((cells["head"] == site.head) | (site.head is None))]
        assert len(cells) == 4 * (LENGTH if site.head is None else 1)
        for line in cells.itertuples():
            mine, other = pair if line.item == pair[0].item else pair[::-1]
            run, giving = DIRECTIONS[line.direction]
            donor = activation(loaded, (other.clean, other.corrupted)[giving], site)
            at = [line.position] if grid.by == "position" else list(range(LENGTH))
            logits = spliced_logits(loaded, (mine.clean, mine.corrupted)[run], [(site, at, donor[at])])
            assert line.logit_difference == pytest.approx(float(mine.logit_difference(logits)), abs=1e-5)


def test_no_item_is_its_own_random_donor(loaded: LoadedModel, given: list[Prompt]) -> None:
    """The two texts of an item are equal at the second token; those of different items are not."""
    effects = []
    for items, seed in ((2, 0), (2, 1), (2, 2), (2, 3), (4, 0), (4, 1), (4, 2)):
        cells = patched(loaded, given[:items], "random", Grid("resid_pre"), seed=seed)
        second = cells[(cells.position == 1) & (cells.layer == 0)]
        assert len(second) == 2 * items
        assert (second.effect != 0).all()
        effects.append(tuple(second.effect))
    assert len(set(effects[-3:])) > 1, "the seed does not matter"


roles = st.lists(st.sampled_from("abcd"), min_size=1, max_size=9)


@drawn(roles, roles)
def test_a_match_has_the_same_role_wherever_the_donor_has_it(donor: list[str], mine: list[str]) -> None:
    rows = matched(donor, mine)
    assert len(rows) == len(mine)
    assert all(0 <= row < len(donor) for row in rows)
    for position, (row, role) in enumerate(zip(rows, mine, strict=True)):
        if role not in donor:
            assert row == max(0, len(donor) - len(mine) + position)
            continue
        assert donor[row] == role
        occurrence, available = mine[:position].count(role), donor.count(role)
        assert donor[:row].count(role) == occurrence % available


@drawn(roles)
def test_a_run_of_the_same_roles_is_matched_position_by_position(mine: list[str]) -> None:
    assert matched(mine, mine) == list(range(len(mine)))
