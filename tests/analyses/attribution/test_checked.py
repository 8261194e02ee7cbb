"""Attribution over many prompts: the tables, and a check that can not be left out and tells the truth."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
from contrast_prompts import made_prompts
from linear_models import linearise, spread_attention
from other_models import state
from planted_models import GAIN, lookup
from scipy.stats import spearmanr
from test_nodes import refused

from activations.models import ModelSpec, load_model
from analyses.attribution.checked import COLUMNS, METHODS, Attribution, attribute_prompts
from analyses.attribution.nodes import attribute
from analyses.attribution.star import attribute_star
from analyses.patching.grids import Grid
from analyses.patching.summaries import summarise
from analyses.patching.sweep import COLUMNS as SWEPT
from analyses.patching.sweep import patch_prompts
from analyses.prompts import DIRECTIONS, prompts
from probes.tasks import get_task

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel
    from analyses.prompts import Prompt

NAMES = ("resid_pre", "mlp_out", "z", "k")
ALL = 10**9
SAME_CELL = ["item", "direction", "site", "layer", "head", "position"]


@pytest.fixture(scope="module")
def loaded(tiny: Callable[[str], LoadedModel]) -> LoadedModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def given(loaded: LoadedModel) -> list[Prompt]:
    return made_prompts(loaded, ["right"] * 4)


@pytest.fixture(scope="module")
def found(loaded: LoadedModel, given: list[Prompt]) -> Attribution:
    return attribute_prompts(loaded, given, names=NAMES, check_cells=ALL)


@pytest.mark.parametrize("method", METHODS)
def test_estimates_are_those_of_each_prompt(loaded: LoadedModel, given: list[Prompt], method: str) -> None:
    found = attribute_prompts(loaded, given[:2], names=NAMES, method=method, steps=3, check_cells=1)
    expected = pd.concat(
        attribute_star(loaded, prompt, names=NAMES)
        if method == "atp*"
        else attribute(loaded, prompt, names=NAMES, method=method, steps=3)
        for prompt in given[:2]
    )
    assert list(found.cells) == COLUMNS
    numbers = ["effect", "recovery"]
    assert found.cells[numbers].to_numpy() == pytest.approx(expected[numbers].to_numpy())
    others = [name for name in expected if name not in numbers]
    pd.testing.assert_frame_equal(found.cells[others], expected[others].reset_index(drop=True), check_dtype=False)
    assert found.magnitudes == (method == "atp*")
    assert ((found.cells.effect >= 0).all()) == found.magnitudes
    assert found.agreement.sign.isna().all() == found.magnitudes
    assert found.summary().p_max.isna().all() == found.magnitudes
    assert found.summary().threshold.isna().all() == found.magnitudes
    assert found.summary().recovery.notna().all()


def test_cells_can_be_summarised_and_set_beside_exact_ones(
    loaded: LoadedModel, given: list[Prompt], found: Attribution
) -> None:
    grids = [Grid(name) for name in NAMES]
    exact = patch_prompts(loaded, given, grids=grids, directions=list(DIRECTIONS), max_items=9)
    assert set(COLUMNS) - set(SWEPT) == {"differs"}
    assert found.cells[[name for name in COLUMNS if name in SWEPT]].dtypes.to_dict() == {
        name: dtype for name, dtype in exact.cells.dtypes.items() if name in COLUMNS
    }
    summary, other = found.summary(seed=3), summarise(exact.cells, seed=3)
    order = ["direction", "site", "layer", "head", "role"]
    for table in (summary, other):
        table.sort_values(order, inplace=True, ignore_index=True)
    described = [name for name in summary if name not in ("recovery", "low", "high", "effect", "p_max", "threshold")]
    pd.testing.assert_frame_equal(summary[described], other[described])
    assert np.corrcoef(summary.effect, other.effect)[0, 1] > 0.5
    pd.testing.assert_frame_equal(found.summary(seed=3), summarise(found.cells, seed=3))


def test_the_check_is_exact_and_leaves_out_only_what_has_no_effect(
    loaded: LoadedModel, given: list[Prompt], found: Attribution
) -> None:
    """Every other cell of every checked item, so that the largest are among them."""
    grids = [Grid(name) for name in NAMES]
    swept = patch_prompts(loaded, given, grids=grids, directions=list(DIRECTIONS), max_items=9).cells
    both = swept.merge(found.exact, on=SAME_CELL, how="left")
    assert both.exact.notna().sum() == len(found.exact) > 500
    assert (both.effect[both.exact.isna()] == 0).all()
    checked = both[both.exact.notna()]
    assert checked.exact.to_numpy() == pytest.approx(checked.effect.to_numpy(), abs=1e-5)
    assert (checked.effect == 0).mean() < 0.01, "zeros flatter the agreement"
    estimates = found.cells.merge(found.exact, on=SAME_CELL)
    assert estimates.effect.tolist() == estimates.estimated.tolist()
    left = found.cells.merge(found.exact[[*SAME_CELL, "exact"]], on=SAME_CELL, how="left")
    assert (left.effect[left.exact.isna()] == 0).all()


@pytest.mark.parametrize("method", ["atp", "atp*"])
def test_agreement_is_the_mean_over_maps(loaded: LoadedModel, given: list[Prompt], method: str) -> None:
    top = 6
    found = attribute_prompts(loaded, given[:3], names=NAMES, method=method, check_cells=ALL, top=top)
    assert found.agreement[["direction", "site"]].to_numpy().tolist() == [
        [direction, name] for direction in DIRECTIONS for name in NAMES
    ]
    for line in found.agreement.itertuples():
        spearman, sign, missed, looked = [], [], [], []
        for prompt in given[:3]:
            mine = (found.exact["item"] == prompt.item) & (found.exact.site == line.site)
            part = found.exact[mine & (found.exact.direction == line.direction)]
            exact = part.exact.abs() if method == "atp*" else part.exact
            spearman.append(spearmanr(exact, part.estimated).statistic)
            sign.append((np.sign(exact) == np.sign(part.estimated))[exact != 0].mean())
            count = min(top, len(part) // 2)
            largest, guessed = (
                set(part[column].abs().sort_values(ascending=False).index[:count]) for column in ("exact", "estimated")
            )
            missed.append(len(largest - guessed) / count)
            looked.append(count)
        assert (line.spearman, line.false_negatives, line.top) == pytest.approx(
            (np.mean(spearman), np.mean(missed), np.mean(looked))
        )
        assert line.sign == pytest.approx(np.nan if method == "atp*" else np.mean(sign), nan_ok=True)
        assert (line.maps, line.cells) == (
            3,
            sum(found.exact[found.exact.direction == line.direction].site == line.site),
        )
    assert found.agreement.top.min() < top < found.agreement.cells.min() or found.agreement.top.min() == top
    assert found.agreement.false_negatives.max() > 0


def test_whole_prompts_are_checked_as_far_as_the_budget_goes(loaded: LoadedModel, given: list[Prompt]) -> None:
    def checked(budget: int, seed: int = 0) -> pd.Series[int]:
        exact = attribute_prompts(loaded, given, names=["mlp_out"], check_cells=budget, seed=seed).exact
        counts: pd.Series[int] = exact.groupby("item").size()
        return counts

    sizes = checked(ALL)
    assert set(sizes.index) == {prompt.item for prompt in given}
    [(first, size)] = checked(1).items()  # more than was asked for, but never no check
    assert size == sizes[first] > 1
    two = checked(size + int(sizes.max()))
    assert len(two) == 2
    assert first in two
    assert two.tolist() == sizes[two.index].tolist()
    assert list(checked(int(two.sum()) - 1).index) == [first]
    assert len({checked(1, seed).index[0] for seed in range(4)}) > 1


def test_a_linear_model_is_estimated_without_error(make_model: MakeModel) -> None:
    loaded = spread_attention(linearise(make_model("llama")))
    given = made_prompts(loaded, ["right"] * 2)
    found = attribute_prompts(loaded, given, names=("resid_pre", "attn_out", "z"), check_cells=ALL, top=5)
    assert found.exact.estimated.to_numpy() == pytest.approx(found.exact.exact.to_numpy(), rel=1e-3, abs=1e-3)
    assert found.agreement.spearman.min() > 0.99
    assert found.agreement.sign.min() > 0.98
    assert found.agreement.false_negatives.max() <= 0.2


def test_what_attribution_is_blind_to_shows_in_the_check(make_model: MakeModel) -> None:
    """Above a saturated softmax: AtP misses the head and the query, AtP* finds the query."""
    model = lookup(make_model)
    misses = {}
    for method in ("atp", "atp*"):
        found = attribute_prompts(model.loaded, model.prompts, names=("z", "q"), method=method, check_cells=ALL, top=1)
        cells = found.exact[found.exact.role == "last"].set_index(["site", "layer", "head"]).sort_index()
        head, query, writer = (cells.loc[key] for key in (("z", 0, 2), ("q", 2, 1), ("z", 2, 1)))
        for part in (head, query, writer):
            assert len(part) == 2 * len(model.prompts)
            assert part.exact.abs().to_numpy() == pytest.approx(2 * GAIN, abs=1e-3)
        assert head.estimated.abs().max() < 0.01 * GAIN
        assert query.estimated.abs().to_numpy() == pytest.approx(0 if method == "atp" else 2 * GAIN, abs=0.01 * GAIN)
        misses[method] = found.agreement.set_index(["site", "direction"]).false_negatives
    assert misses["atp*"]["q"].tolist() == [0, 0]
    assert (misses["atp"]["z"] > 0).all()


def test_a_parallel_model_has_no_resid_mid(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("codegen")
    found = attribute_prompts(loaded, made_prompts(loaded, ["right"]), names=("resid_mid", "attn_out"), check_cells=9)
    assert set(found.cells.site) == set(found.agreement.site) == {"attn_out"}


def test_progress_and_no_prompts(loaded: LoadedModel, given: list[Prompt]) -> None:
    steps: list[tuple[int, int]] = []
    attribute_prompts(
        loaded, given, names=["mlp_out"], check_cells=1, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(done, 8) for done in range(1, 9)]
    found = attribute_prompts(loaded, [], check_cells=1)
    assert found.cells.empty and found.exact.empty and found.agreement.empty
    assert list(found.cells) == COLUMNS
    assert found.summary().empty


def test_the_model_is_left_as_it_was(make_model: MakeModel, given: list[Prompt]) -> None:
    model = make_model("llama")
    before = state(model)
    for method in METHODS:
        attribute_prompts(model, given[:1], names=("z",), method=method, steps=2, check_cells=1)
    assert state(model) == before


BAD: dict[str, tuple[str, dict[str, Any], str]] = {
    "method": ("llama", {"method": "ig-input"}, "attribution method 'ig-input' is not known (did you mean 'ig-inputs'"),
    "no check": (
        "llama",
        {"check_cells": 0},
        "a check of 0 cells that looks for the top 10; expected 1 or more of each",
    ),
    "no top": ("llama", {"top": 0}, "a check of 5000 cells that looks for the top 0"),
    "no steps": ("llama", {"method": "ig-inputs", "steps": 0}, "integrated gradients over 0 steps"),
    "fused": ("gpt2", {"names": ("q",)}, "projects queries, keys and values in one"),
    "fused too": ("codegen", {"names": ("z", "k"), "method": "atp*"}, "projects queries, keys and values in one"),
    "site": ("llama", {"names": ("mlp_uot",)}, "mlp_uot"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused(tiny: Callable[[str], LoadedModel], given: list[Prompt], case: str) -> None:
    architecture, options, said = BAD[case]
    assert said in refused(lambda: attribute_prompts(tiny(architecture), given, **options))


def test_agreement_on_a_trained_twin() -> None:
    """Printed (pytest -s), and asserted only loosely: how good the estimates are is a finding, not a promise."""
    loaded = load_model(ModelSpec("embedded:code"))
    made, _ = prompts(loaded, get_task("nesting").generate(12, 0), "code", bos=True)
    short = sorted(made, key=lambda prompt: len(prompt.clean))[:1]
    for method in METHODS:
        found = attribute_prompts(loaded, short, names=["attn_out"], method=method, steps=3, check_cells=1)
        print(method, found.agreement.round(2), sep="\n")
        assert (found.agreement.spearman > 0.4).all()
        assert (found.agreement.false_negatives < 0.6).all()
