"""Patching across two models: a planted head is found both ways, the controls give nothing, and values are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from other_models import CLEAN, CORRUPTED, state
from planted_models import GAIN, LAST, Planted, copying_pair

from activations.errors import TwinprobeError
from activations.sites import Site
from analyses.across.cross_patching import COLUMNS, CrossPatching, cross_patch
from analyses.patching.cells import Patch
from analyses.patching.exactness import full_logits
from analyses.patching.grids import Grid
from analyses.patching.recording import record
from analyses.prompts import Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conftest import MakeModel

    from activations.models import LoadedModel

CLOSE = 1e-3
LAYER, HEAD = 1, 3
GRIDS = [Grid("z", "role"), Grid("z", "all"), Grid("resid_post", "role"), Grid("resid_post", "all")]
NAMES = ("receiver", "giver")
ROLES = ("other", "other", "other", "name", "other", "place", "place", "other", "last")
RANDOM_PAIR = [
    Prompt("one", "g", 0, CLEAN, CORRUPTED, 300, 310, (300, 310, 320), ("x",) * 9, ROLES),
    Prompt("two", "h", 0, (0, *CLEAN[2:], 9), (0, *CORRUPTED[2:], 9), 315, 310, (310, 315), ("x",) * 9, ROLES),
]


@pytest.fixture(scope="module")
def pair(make_model: MakeModel) -> tuple[LoadedModel, Planted]:
    return copying_pair(make_model, LAYER)


@pytest.fixture(scope="module")
def both_ways(pair: tuple[LoadedModel, Planted]) -> dict[str, pd.DataFrame]:
    base, code = pair
    ways = {"base": (base, code.loaded), "code": (code.loaded, base)}
    return {
        name: cross_patch(*models, code.prompts, GRIDS, names=(name, "given")).cells for name, models in ways.items()
    }


@pytest.fixture(scope="module")
def strangers(make_model: MakeModel) -> tuple[LoadedModel, LoadedModel]:
    """Two random models of one shape."""
    return make_model("llama"), make_model("llama", seed=1)


def patched(strangers: tuple[LoadedModel, LoadedModel], grids: Sequence[Grid], **options: int) -> CrossPatching:
    return cross_patch(*strangers, RANDOM_PAIR, grids, names=NAMES, **options)


@pytest.mark.parametrize(("receiver", "effect"), [("base", GAIN), ("code", -GAIN)])
def test_the_head_that_one_model_has_is_found_both_ways(
    both_ways: dict[str, pd.DataFrame], receiver: str, effect: float
) -> None:
    """The base model is given the answer by that head alone, and the model that has it loses the answer there alone."""
    given = both_ways[receiver].query("donor == 'other'")
    mine = (given["layer"] == LAYER) & (given["head"] == HEAD) & given.role.isin([LAST, "all"])
    beyond = (given.site == "resid_post") & (given["layer"] >= LAYER) & given.role.isin([LAST, "all"])
    assert mine.sum() == 2 * given["item"].nunique() and beyond.sum() == 4 * given["item"].nunique()
    found, others = given[mine | beyond], given[~(mine | beyond)]
    assert found.effect.to_numpy() == pytest.approx(effect, abs=CLOSE)
    assert found.gap.to_numpy() == pytest.approx(effect, abs=CLOSE)
    assert found.recovery.to_numpy() == pytest.approx(1, abs=CLOSE)
    assert found.right_after.all() or receiver == "code"
    assert set(others.role) == {"other", "name", LAST, "all"}
    assert others.effect.abs().max() < CLOSE
    below = others[(others.site == "resid_post") & (others["layer"] < LAYER)]
    assert (below.effect == 0).all() and len(below)


def test_controls_give_no_answer(both_ways: dict[str, pd.DataFrame]) -> None:
    for name, cells in both_ways.items():
        assert (cells[cells.donor == "identity"].effect == 0).all()
        foreign = cells[cells.donor == "random"]
        assert len(foreign) == len(cells) / 3
        mine = foreign.query("layer == @LAYER and head == @HEAD and role == @LAST")
        if name == "base":
            assert not mine.right_after.any(), "a letter of another prompt is right in one text at most"
            assert foreign.effect.abs().max() < CLOSE
        else:
            assert mine.right_before.all() and not mine.right_after.all()
            assert mine.effect.to_numpy() == pytest.approx(-GAIN, abs=CLOSE)


def test_a_model_can_give_itself_nothing(pair: tuple[LoadedModel, Planted]) -> None:
    code = pair[1]
    cells = cross_patch(code.loaded, code.loaded, code.prompts, GRIDS, names=NAMES).cells
    assert (cells[cells.donor != "random"].effect == 0).all()
    assert (cells.gap == 0).all() and cells.recovery.isna().all()


def test_an_effect_is_the_mean_of_two_plain_passes(strangers: tuple[LoadedModel, LoadedModel]) -> None:
    """Each text counts for its own answer; checked cell by cell with hooks."""
    receiver, donor = strangers
    found = patched(strangers, [Grid("resid_post", "role"), Grid("z", "all")], check_exact=5)
    assert list(found.cells.columns) == COLUMNS
    assert found.checked == 5 and 0 < found.max_error < 1e-4
    others = found.cells.query("donor == 'other'")
    for prompt in RANDOM_PAIR:
        for where, site in (("place", Site("resid_post", 1)), ("all", Site("z", 0, 2))):
            at = [i for i, role in enumerate(prompt.roles) if where in ("all", role)]
            effects, gaps, right = [], [], []
            for ids, wanted, unwanted in (
                (prompt.clean, prompt.answer, prompt.contrast),
                (prompt.corrupted, prompt.contrast, prompt.answer),
            ):
                given = record(donor, ids, [Site("z", 0)], suffixes=False)
                values = given.at(Site(site.name, site.layer))[at]
                values = values if site.head is None else values[:, 8:12]
                before = record(receiver, ids, suffixes=False).logits
                after = full_logits(receiver, ids, (Patch(site, tuple(at), values),))
                theirs = given.logits
                effects.append(float((after - before)[wanted] - (after - before)[unwanted]))
                gaps.append(float((theirs - before)[wanted] - (theirs - before)[unwanted]))
                right.append(max(prompt.candidates, key=lambda token: float(after[token])) == wanted)
            [line] = others[
                (others["item"] == prompt.item) & (others.site == site.name) & (others["layer"] == site.layer)
                & (others.role == where) & (others["head"].fillna(-1) == (-1 if site.head is None else site.head))
            ].to_dict("records")  # fmt: skip
            assert line["effect"] == pytest.approx(np.mean(effects), abs=1e-5)
            assert line["gap"] == pytest.approx(np.mean(gaps), abs=1e-5)
            share = np.mean(effects) / np.mean(gaps) if abs(np.mean(gaps)) >= 0.1 else np.nan
            assert line["recovery"] == pytest.approx(share, rel=1e-3, nan_ok=True)
            assert line["right_after"] == all(right)


def test_the_random_donor_is_another_item_and_one_text_for_both(strangers: tuple[LoadedModel, LoadedModel]) -> None:
    """What replaces everything is the same in both texts, so that they answer alike and gain what they lose."""
    cells = patched(strangers, [Grid("resid_post", "all")]).cells
    last = cells[cells["layer"] == 2].set_index(["item", "donor"])
    for prompt in RANDOM_PAIR:
        own = [
            float(prompt.logit_difference(record(strangers[0], ids, suffixes=False).logits))
            for ids in (prompt.clean, prompt.corrupted)
        ]
        assert last.effect[prompt.item, "random"] == pytest.approx(-(own[0] - own[1]) / 2, abs=1e-4)
        assert last.effect[prompt.item, "other"] != pytest.approx(last.effect[prompt.item, "random"], abs=1e-2)
    few = patched(strangers, [Grid("resid_post", "all")], random_items=1).cells
    assert set(few[few.donor == "random"]["item"]) == {"one"}
    alone = cross_patch(*strangers, RANDOM_PAIR[:1], [Grid("resid_post", "all")], names=NAMES).cells
    assert set(alone.donor) == {"other", "identity"}


def test_the_random_donor_is_matched_by_role(strangers: tuple[LoadedModel, LoadedModel]) -> None:
    receiver, donor = strangers
    cells = patched(strangers, [Grid("resid_post", "role")]).cells
    line = cells.query("item == 'one' and donor == 'random' and layer == 1 and role == 'place'")
    one, two = RANDOM_PAIR
    site, at = Site("resid_post", 1), [5, 6]
    possible = []
    for text in (two.clean, two.corrupted):
        put = (Patch(site, tuple(at), record(donor, text, suffixes=False).at(site)[at]),)
        changes = [
            full_logits(receiver, ids, put) - full_logits(receiver, ids, ()) for ids in (one.clean, one.corrupted)
        ]
        possible.append(float(one.logit_difference(changes[0]) - one.logit_difference(changes[1])) / 2)
    assert any(line.effect.item() == pytest.approx(effect, abs=1e-5) for effect in possible)
    assert abs(line.effect.item()) > 1e-3


def test_cells_begin_at_the_first_position_asked_for(strangers: tuple[LoadedModel, LoadedModel]) -> None:
    cells = patched(strangers, [Grid("resid_post", "position")], first=7).cells
    assert set(cells.position) == {7, 8} and set(cells.role) == {"other", "last"}
    whole = patched(strangers, [Grid("resid_post", "position")]).cells
    same = whole[whole.position >= 7].reset_index(drop=True)
    columns = ["item", "donor", "layer", "position", "effect"]
    pd.testing.assert_frame_equal(cells[columns], same[columns], atol=1e-5)


def test_models_are_left_as_they_were(make_model: MakeModel) -> None:
    models = make_model("gpt2"), make_model("gpt2", seed=1)
    before = [state(each) for each in models]
    patched(models, [Grid("z", "all")])
    with pytest.raises(TwinprobeError, match="can not be patched"):
        patched(models, [Grid("pattern", "all")])
    assert [state(each) for each in models] == before


def test_what_can_not_be_exchanged_is_refused(
    make_model: MakeModel, strangers: tuple[LoadedModel, LoadedModel]
) -> None:
    with pytest.raises(TwinprobeError, match="the width is 16 and 32"):
        patched((strangers[0], make_model("llama", hidden_size=32)), GRIDS)
    with pytest.raises(TwinprobeError, match="no prompts to patch"):
        cross_patch(*strangers, [], GRIDS, names=NAMES)
