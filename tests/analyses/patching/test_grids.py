"""Every kind of grid: its cells are those that it should have, and each equals a plain forward pass with hooks."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from contrast_prompts import EDITED, LENGTH, ROLES, activation, made_prompts, spliced_logits

from activations.engines.places import served
from activations.sites import KV_HEADS, WITH_HEADS, Site
from analyses.patching.cells import SITES
from analyses.patching.grids import Grid, check_grid, default_grid, sites_of, wheres
from analyses.patching.sweep import Patching, patch_prompts
from analyses.prompts import DIRECTIONS

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel
    from analyses.prompts import Prompt

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "grouped keys": ("llama", {}),
    "one key head": ("llama", {"num_key_value_heads": 1}),
    "learned positions, fused": ("gpt2", {}),
    "parallel": ("codegen", {}),
    "norms after, windows": ("gemma2", {"sliding_window": 4}),
}
GROUP = 10
"""Neurons of a group; divides neither 24 nor 64, so that the last group is smaller."""
MAP = ["direction", "site", "by", "window", "groups"]


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, make_model: MakeModel) -> LoadedModel:
    architecture, changes = FAMILIES[request.param]
    return make_model(architecture, **changes)


def every_kind(loaded: LoadedModel) -> list[Grid]:
    sites = dict.fromkeys(site.name for site in served(loaded) if site.name in SITES)
    grids = [Grid(site, by) for site in sites for by in ("position", "role", "all")]
    grids += [Grid("mlp_post", by, neurons=GROUP) for by in ("position", "role", "all")]
    grids += [Grid(site, by, window) for site in sites for by, window in (("position", 2), ("role", 3), ("all", 2))]
    return [*grids, Grid("mlp_post", "role", 2, GROUP)]


@pytest.fixture(scope="module")
def prompt(loaded: LoadedModel) -> Prompt:
    [made] = made_prompts(loaded, ["right"])
    return made


@pytest.fixture(scope="module")
def found(loaded: LoadedModel, prompt: Prompt) -> Patching:
    return patch_prompts(
        loaded, [prompt], grids=every_kind(loaded), directions=list(DIRECTIONS), max_items=1, check_exact=20
    )


def expected(loaded: LoadedModel, prompt: Prompt, lines: pd.DataFrame) -> list[float]:
    """The logit differences of the lines' patched runs, from what the lines say alone."""
    read = functools.cache(lambda ids, site: activation(loaded, ids, site))
    differences = []
    for line in lines.itertuples():
        patched, donor = ((prompt.clean, prompt.corrupted)[run] for run in DIRECTIONS[line.direction])
        positions = {
            "position": [line.position],
            "role": [position for position, role in enumerate(ROLES) if role == line.role],
            "all": list(range(LENGTH)),
        }[line.by]
        puts = []
        for layer in range(line.layer, line.layer + line.window):
            site = Site(line.site, layer, None if pd.isna(line.head) else int(line.head))
            values = read(donor, site)[positions]
            if pd.notna(line.neurons):
                assert line.window == 1, "the other neurons of a higher layer are those of the changed run"
                group, values = slice(line.neurons, line.neurons + GROUP), read(patched, site)[positions]
                values[:, group] = read(donor, site)[positions][:, group]
            puts.append((site, positions, values))
        differences.append(float(prompt.logit_difference(spliced_logits(loaded, patched, puts))))
    return differences


def test_every_cell_of_every_grid_is_a_plain_forward_pass(loaded: LoadedModel, prompt: Prompt, found: Patching) -> None:
    """One that does something of every map, and some of those that do nothing."""
    grids = every_kind(loaded)
    assert {grid.site for grid in grids} >= {"resid_pre", "resid_post", "attn_out", "mlp_out", "z", "mlp_post"}
    assert found.max_error < 1e-4
    assert found.checked == 40
    cells = found.cells.assign(groups=found.cells.neurons.notna())
    assert len(cells.groupby(MAP)) == 2 * len(grids)
    moved = cells[cells.effect.abs() > 1e-3].groupby(MAP).sample(1, random_state=0)
    assert len(moved) == 2 * len(grids), "a grid whose cells do nothing"
    still = cells[cells.effect == 0]
    drawn = pd.concat([moved, still.sample(30, random_state=0)])
    drawn = drawn[~(drawn.groups & (drawn.window > 1))]
    assert drawn.logit_difference.to_numpy() == pytest.approx(expected(loaded, prompt, drawn), abs=2e-5)


def test_a_grid_has_every_unit_at_every_place_once(loaded: LoadedModel, found: Patching) -> None:
    table = found.cells[found.cells.direction == "noising"]
    for grid in every_kind(loaded):
        same = (table.site == grid.site) & (table.by == grid.by) & (table.window == grid.window)
        cells = table[same & (table.neurons.notna() == (grid.neurons is not None))]
        layers = loaded.n_layers - grid.window + 1
        heads = loaded.n_kv_heads if grid.site in KV_HEADS else loaded.n_heads
        width = 24 if loaded.model.config.model_type in ("llama", "gemma2") else 64
        units = heads if grid.site in WITH_HEADS else 1 if grid.neurons is None else -(-width // GROUP)
        places = {"position": LENGTH, "role": len(set(ROLES)), "all": 1}[grid.by]
        assert len(cells) == layers * units * places
        assert not cells.duplicated(["layer", "head", "neurons", "role", "position"]).any()
        assert set(cells.layer) == set(range(layers))
        assert set(cells["head"].dropna()) == (set(range(heads)) if grid.site in WITH_HEADS else set())
        assert set(cells.neurons.dropna()) == (set() if grid.neurons is None else set(range(0, width, GROUP)))
        assert cells.position.notna().all() == (grid.by == "position")
        assert cells.token.notna().all() == (grid.by == "position")
        assert set(cells.role) == ({"all"} if grid.by == "all" else set(ROLES))


def test_groups_of_neurons_in_a_window_are_cut_out_of_each_layer(loaded: LoadedModel, prompt: Prompt) -> None:
    """Groups as wide as the layer are the layer; a group in a window is felt in each of its layers."""

    def cells(*grids: Grid) -> pd.DataFrame:
        return patch_prompts(loaded, [prompt], grids=grids, max_items=1, check_exact=0).cells

    whole, one = cells(Grid("mlp_post", "role", 2)), cells(Grid("mlp_post", "role", 2, neurons=64))
    assert one.effect.to_numpy() == pytest.approx(whole.effect.to_numpy(), abs=1e-6)
    assert one.neurons.eq(0).all()
    double, lower = cells(Grid("mlp_post", "all", 2, GROUP)), cells(Grid("mlp_post", "all", 1, GROUP))
    both = double.merge(lower, on=["layer", "neurons"])
    assert len(both) == len(double)
    assert ((both.effect_x - both.effect_y).abs() > 1e-3).any()


def test_places_of_a_prompt(make_model: MakeModel) -> None:
    [prompt] = made_prompts(make_model("llama"), ["right"])
    by_role = {where.role: where.positions for where in wheres(prompt, "role")}
    assert by_role == {"other": (0, 1, 3), "definition": EDITED, "query": (5,), "last": (6,)}
    assert list(by_role) == ["other", "definition", "query", "last"]
    assert [(where.role, where.position, where.positions) for where in wheres(prompt, "position")] == [
        (role, position, (position,)) for position, role in enumerate(ROLES)
    ]
    assert [(where.role, where.position, where.positions) for where in wheres(prompt, "all")] == [
        ("all", None, tuple(range(LENGTH)))
    ]


def test_the_usual_grids_are_fine_and_runs_are_recorded_once_per_site() -> None:
    for site in SITES:
        check_grid(default_grid(site))
        assert (default_grid(site).by == "position") != (site in WITH_HEADS)
    found = sites_of([Grid("z"), Grid("z", "role"), Grid("mlp_out", window=2)], 3)
    assert found == [Site(name, layer) for name in ("z", "mlp_out") for layer in range(3)]
