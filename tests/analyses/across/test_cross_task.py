"""A task's items patched across the embedded twins: who is patched, what is counted, and means that can be recomputed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from activations.models import load_model
from analyses.across.cross_patching import COLUMNS
from analyses.across.cross_task import SETTING, cross_patch_task, summary
from analyses.patching.grids import Grid
from probes.metrics import cluster_bootstrap
from probes.tasks import get_task

if TYPE_CHECKING:
    from activations.models import LoadedModel
    from probes.tasks.items import Item

MAX_ITEMS = 2
GRIDS = [Grid("resid_post", "all"), Grid("z", "all")]
Tables = dict[str, pd.DataFrame]


@pytest.fixture(scope="module")
def twins() -> tuple[LoadedModel, LoadedModel]:
    base, code = (load_model(f"embedded:{name}", check=False) for name in ("text", "code"))
    return base, code


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return [item for item in get_task("nesting").generate(200, 0) if item.split == "test"]


@pytest.fixture(scope="module")
def steps() -> list[tuple[int, int]]:
    return []


@pytest.fixture(scope="module")
def tables(twins: tuple[LoadedModel, LoadedModel], items: list[Item], steps: list[tuple[int, int]]) -> Tables:
    return cross_patch_task(
        *twins, items, "code", bos=True, grids=GRIDS, controls={"copy": twins[0]}, max_prompts=30, max_items=MAX_ITEMS,
        random_items=1, n_resamples=200, progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip


def test_what_either_model_gets_right_is_patched_both_ways(tables: Tables, steps: list[tuple[int, int]]) -> None:
    told, cells = tables["cross_behaviour"], tables["cross_cells"]
    right = told.base_right | told.code_right
    assert right.sum() > MAX_ITEMS and not right.all()
    assert list(told["item"][told.status == "patched"]) == list(told["item"][right][:MAX_ITEMS])
    assert (told.status == "right, not patched").sum() == right.sum() - MAX_ITEMS
    assert (told.status[~right] == "answered wrongly").all()
    ways = cells.groupby(["receiver", "donor_model"])["item"].agg(lambda item: tuple(dict.fromkeys(item)))
    assert set(ways.index) == {("base", "code"), ("code", "base"), ("base", "copy")}
    assert set(ways) == {tuple(told["item"][right][:MAX_ITEMS])}
    assert cells[cells.donor == "random"]["item"].nunique() == 1
    assert steps == [(number, 3 * MAX_ITEMS) for number in range(1, 3 * MAX_ITEMS + 1)]


def test_counts_are_those_of_the_prompts(tables: Tables) -> None:
    [line] = tables["cross_retention"].to_dict("records")
    told = tables["cross_behaviour"]
    assert line["prompts"] == len(told) == 30
    assert line["base_right"] == told.base_right.sum() and line["code_right"] == told.code_right.sum()
    assert line["base_right"] + line["code_right"] == line["both_right"] + line["either_right"]
    assert line["none_right"] == 30 - line["either_right"]
    assert line["patched"] == MAX_ITEMS
    assert line["checked"] == 9 and 0 < line["max_error"] < 1e-3


def test_gaps_are_those_of_the_behaviour_and_mirror_each_other(tables: Tables) -> None:
    cells, told = tables["cross_cells"], tables["cross_behaviour"].set_index("item")
    assert list(cells.columns) == COLUMNS
    per_way = cells.groupby(["receiver", "donor_model", "item"]).gap.agg(["min", "max"])
    assert (per_way["min"] == per_way["max"]).all()
    for name in dict.fromkeys(cells["item"]):
        gap = told.code[name] - told.base[name]
        assert per_way["max"]["base", "code", name] == pytest.approx(gap, abs=1e-4)
        assert per_way["max"]["code", "base", name] == pytest.approx(-gap, abs=1e-4)
    copied = cells[cells.donor_model == "copy"]
    assert (copied[copied.donor != "random"].effect == 0).all() and copied.recovery.isna().all()


def test_means_are_recomputed_from_the_cells(tables: Tables) -> None:
    cells, means = tables["cross_cells"], tables["cross"]
    assert len(means) == len(cells[SETTING].drop_duplicates())
    place: dict[str, Any] = {
        "receiver": "base",
        "donor_model": "code",
        "donor": "other",
        "site": "z",
        "layer": 4,
        "head": 2,
    }
    own, line = (frame.loc[(frame[list(place)] == pd.Series(place)).all(axis=1)] for frame in (cells, means))
    assert len(own) == MAX_ITEMS and len(line) == 1
    for name in ("effect", "recovery"):
        expected = cluster_bootstrap(own[name], own["item"], 200, 0)
        found = [line[name + end].item() for end in ("", "_low", "_high")]
        assert found == pytest.approx([expected.estimate, expected.low, expected.high])
    assert line.accuracy_before.item() == own.right_before.mean()
    assert line.accuracy_after.item() == own.right_after.mean()
    assert line["items"].item() == MAX_ITEMS and line.dropped.item() == 0
    copied = means[(means.donor_model == "copy") & (means.donor == "other")]
    assert (copied.dropped == MAX_ITEMS).all() and copied.recovery.isna().all()


def test_positions_of_a_role_are_averaged_and_small_gaps_left_out() -> None:
    """Item by item first, so that one with many positions counts once."""
    lines = [("a", 1.0, 0), ("a", 3.0, 1), ("b", 6.0, 0), ("c", 7.0, 0)]
    cells = pd.DataFrame(
        {
            "item": [item for item, _, _ in lines], "group": "g", "receiver": "base", "donor_model": "code",
            "donor": "other", "site": "resid_post", "by": "position", "window": 1, "layer": 0,
            "head": pd.array([pd.NA] * 4, dtype="Int64"), "neurons": pd.array([pd.NA] * 4, dtype="Int64"), "role": "r",
            "position": [at for _, _, at in lines], "effect": [effect for _, effect, _ in lines],
            "gap": [2.0, 2.0, 0.01, 2.0], "recovery": [0.5, 1.5, np.nan, 3.5], "right_before": False,
            "right_after": [True, True, False, True],
        }
    )  # fmt: skip
    [line] = summary(cells).to_dict("records")
    assert (line["items"], line["dropped"]) == (3, 1)
    assert line["effect"] == pytest.approx(5) and line["recovery"] == pytest.approx(2.25)
    assert line["gap"] == pytest.approx(4.01 / 3)
    assert (line["accuracy_before"], line["accuracy_after"]) == (0, pytest.approx(2 / 3))
    assert 2 <= line["effect_low"] < 5 < line["effect_high"] <= 7
    clustered = summary(cells, clusters="group").iloc[0]
    assert clustered.effect == pytest.approx(5) and np.isnan(clustered.effect_low), "a single cluster has no interval"


def test_nothing_to_patch_is_said_and_no_error(twins: tuple[LoadedModel, LoadedModel], items: list[Item]) -> None:
    told = cross_patch_task(*twins, items[:2], "code", bos=True, max_items=0)
    assert set(told) == {"cross_retention", "cross_behaviour"}
    assert told["cross_retention"].patched.item() == 0
    none = cross_patch_task(*twins, items[:2], "no such form", bos=True)
    assert none["cross_retention"].to_dict("records") == [
        {"prompts": 0, "not_aligned": 2, "why_not_aligned": "no contrast (2)"}
    ]
