"""Means over items by hand, intervals, and the threshold for a whole map: exact, honest under the null, and not blind."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from analyses.patching.summaries import CELL, MAP, describe, max_statistic, summarise, top_cells
from probes.metrics import cluster_bootstrap

ABOUT = {"direction": "denoising", "donor": "contrast", "site": "resid_pre", "by": "position", "window": 1}
WHOLE = {"layer": "Int64", "head": "Int64", "neurons": "Int64"}


def table(lines: list[dict[str, object]]) -> pd.DataFrame:
    """Lines of a table of cells; recovery is a tenth of the effect unless said otherwise."""
    empty = {**ABOUT, "layer": 0, "head": None, "neurons": None, "role": "last"}
    frame = pd.DataFrame([{**empty, **line} for line in lines]).astype(WHOLE)
    if "recovery" not in frame:
        frame["recovery"] = frame.effect / 10
    return frame


def test_positions_are_averaged_within_the_item_first() -> None:
    found = summarise(
        table([{"item": "a", "effect": 1.0, "recovery": 0.0}] * 3 + [{"item": "b", "effect": 5.0, "recovery": 1.0}])
    )
    assert found[["recovery", "effect", "items"]].to_numpy().tolist() == [[0.5, 3.0, 2]]


def test_a_summary_by_hand() -> None:
    """Three items, of which one lacks a role and one has a head more; two maps."""
    lines: list[dict[str, object]] = [
        {"item": "a", "role": "x", "effect": 2.0}, {"item": "a", "role": "x", "effect": 4.0},
        {"item": "a", "role": "y", "effect": -1.0}, {"item": "b", "role": "x", "effect": 6.0},
        {"item": "c", "role": "x", "effect": 0.0}, {"item": "c", "role": "y", "effect": -4.0},
        {"item": "c", "role": "y", "head": 3, "effect": 8.0}, {"item": "c", "role": "y", "layer": 2, "effect": 1.0},
        {"item": "b", "role": "y", "direction": "noising", "effect": 7.0},
    ]  # fmt: skip
    found = summarise(table(lines), seed=4, n_resamples=300)
    assert list(found)[: len(MAP) + len(CELL)] == [*MAP, *CELL]
    read = found.set_index(["direction", "layer", "head", "role"])[["effect", "recovery", "items"]]
    expected = {
        ("denoising", 0, 3, "y"): (8.0, 0.8, 1), ("denoising", 0, None, "x"): (3.0, 0.3, 3),
        ("denoising", 0, None, "y"): (-2.5, -0.25, 2), ("denoising", 2, None, "y"): (1.0, 0.1, 1),
        ("noising", 0, None, "y"): (7.0, 0.7, 1),
    }  # fmt: skip
    assert len(read) == len(expected)
    for line in read.reset_index().itertuples():
        key = (line.direction, line.layer, None if pd.isna(line.head) else line.head, line.role)
        assert (line.effect, line.recovery, line.items) == pytest.approx(expected[key])
    one = found["items"] == 1
    assert found.loc[one, ["low", "high"]].isna().all(axis=None)
    assert found.loc[~one, ["low", "high"]].notna().all(axis=None)


def test_intervals_are_those_of_a_bootstrap_of_items() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(0.3, 1, (40, 2))
    lines: list[dict[str, object]] = [
        {"item": f"i{item}", "layer": layer, "effect": float(values[item, layer])}
        for item in range(40)
        for layer in range(2)
    ]
    found = summarise(table(lines), seed=2, n_resamples=4000)
    for layer, line in enumerate(found.itertuples()):
        other = cluster_bootstrap(values[:, layer] / 10, range(40), 4000, 7)
        assert line.recovery == pytest.approx(other.estimate)
        assert (line.low, line.high) == pytest.approx((other.low, other.high), abs=0.006)
    pd.testing.assert_frame_equal(found, summarise(table(lines), seed=2, n_resamples=4000))
    again = summarise(table(lines), seed=3, n_resamples=4000)
    assert (again.low != found.low).all()
    assert again.recovery.tolist() == found.recovery.tolist()


def test_recoveries_that_are_missing_are_left_out() -> None:
    """Where a metric's gap is too small; the effect counts all the same."""
    lines: list[dict[str, object]] = [
        {"item": "a", "effect": 1.0, "recovery": 0.2}, {"item": "b", "effect": 3.0, "recovery": None},
        {"item": "c", "effect": 5.0, "recovery": 0.4},
    ]  # fmt: skip
    [line] = summarise(table(lines).astype({"recovery": float})).itertuples()
    assert (line.effect, line.recovery, line.items) == pytest.approx((3.0, 0.3, 3))
    assert 0.2 <= line.low < line.high <= 0.4 + 1e-9
    assert line.p_max == 2 / 8


def test_the_order_of_lines_does_not_matter() -> None:
    rng = np.random.default_rng(0)
    frame = table(
        [{"item": f"i{i}", "layer": layer, "head": head, "effect": float(rng.normal())}
         for i in range(6) for layer in range(2) for head in (None, 0, 1)]
    )  # fmt: skip
    shuffled = frame.sample(frac=1, random_state=0)
    found, other = summarise(frame), summarise(shuffled)
    exact = ["recovery", "effect", "items", "p_max", "threshold", *CELL]
    pd.testing.assert_frame_equal(found[exact], other[exact])


def brute_force(effects: np.ndarray) -> tuple[list[float], float]:
    """Every pattern of signs, one after the other."""
    observed = np.abs(np.nanmean(effects, 0))
    largest = [
        np.abs(np.nanmean(effects * np.array(signs)[:, None], 0)).max()
        for signs in itertools.product((1, -1), repeat=len(effects))
    ]
    p = [float(np.mean(np.array(largest) >= value * (1 - 1e-9))) for value in observed]
    return p, sorted(largest)[int(np.ceil(0.95 * (len(largest) - 1)))]


@pytest.mark.parametrize("lacking", [False, True])
def test_all_patterns_of_signs_are_tried(lacking: bool) -> None:
    rng = np.random.default_rng(5)
    for n_items in (2, 5, 8):
        effects = rng.normal(0.6, 1, (n_items, 4))
        if lacking:
            effects[1, 2] = np.nan
        p, threshold = max_statistic(effects)
        expected, largest = brute_force(effects)
        assert p == pytest.approx(expected)
        assert threshold == pytest.approx(largest)


def test_drawn_patterns_come_near_to_all() -> None:
    rng = np.random.default_rng(3)
    effects = rng.normal(0.35, 1, (13, 5))
    effects[:, 4] += 0.5
    p, threshold = max_statistic(effects, n_flips=20_000)
    expected, largest = brute_force(effects)
    assert 0.02 < min(expected) < 0.5
    assert p == pytest.approx(expected, abs=0.015)
    assert threshold == pytest.approx(largest, rel=0.05)
    assert max_statistic(effects, seed=1, n_flips=500)[0] != pytest.approx(p)
    assert max_statistic(effects, seed=1)[0].tolist() == max_statistic(effects, seed=1)[0].tolist()


@pytest.mark.parametrize("n_items", [1, 2, 5])
def test_few_items_are_never_enough(n_items: int) -> None:
    p, threshold = max_statistic(np.full((n_items, 3), [5.0, 0.1, 0.0]) + np.arange(n_items)[:, None] * 1e-3)
    assert p.min() == 2 / 2**n_items > 0.05
    assert threshold >= 5.0
    p, _ = max_statistic(np.full((6, 3), [5.0, 0.1, 0.0]))
    assert p[0] == 2 / 2**6 < 0.05


def test_no_effect_is_never_clear() -> None:
    p, threshold = max_statistic(np.zeros((20, 4)))
    assert (p == 1).all()
    assert threshold == 0


def test_under_the_null_one_map_in_twenty_has_a_clear_cell() -> None:
    """Cells of very different sizes that go together within an item, with long tails."""
    rng = np.random.default_rng(0)
    scale = np.exp(rng.normal(size=30))
    false, beyond = 0, 0
    for number in range(200):
        shared = rng.laplace(size=(20, 1))
        effects = scale * (shared + rng.laplace(size=(20, 30)))
        p, threshold = max_statistic(effects, seed=number, n_flips=400)
        false += p.min() < 0.05
        beyond += np.abs(effects.mean(0)).max() > threshold
    assert 0.02 <= false / 200 <= 0.09
    assert 0.02 <= beyond / 200 <= 0.09


def test_a_planted_cell_is_found_alone() -> None:
    rng = np.random.default_rng(2)
    effects = rng.normal(size=(20, 30))
    effects[:, 17] += 2.0
    p, threshold = max_statistic(effects)
    assert np.flatnonzero(p < 0.05).tolist() == [17]
    assert np.flatnonzero(np.abs(effects.mean(0)) > threshold).tolist() == [17]
    effects[:, 4] = -effects[:, 17]
    assert np.flatnonzero(max_statistic(effects)[0] < 0.05).tolist() == [4, 17]


def test_no_p_is_below_what_the_drawn_patterns_can_tell() -> None:
    """The observed signs count as one of them, so that none is 0."""
    p, _ = max_statistic(np.full((30, 2), [5.0, 0.0]), n_flips=50)
    assert p.tolist() == [1 / 50, 1]


def test_every_map_has_a_threshold_of_its_own() -> None:
    """A strong map does not hide a weak one."""
    rng = np.random.default_rng(2)
    lines: list[dict[str, object]] = [
        {"item": f"i{item}", "site": site, "layer": layer,
         "effect": float(scale * ((layer == 1) * 2 + rng.normal(scale=0.5)))}
        for item in range(10) for site, scale in (("z", 100.0), ("mlp_out", 1.0)) for layer in range(3)
    ]  # fmt: skip
    found = summarise(table(lines)).set_index(["site", "layer"])
    assert (found.p_max < 0.05).tolist() == [False, True, False] * 2
    assert found.threshold["z", 0] == found.threshold["z", 2] > 20 * found.threshold["mlp_out", 0]


def test_the_largest_cells_of_each_map() -> None:
    lines: list[dict[str, object]] = [
        {"item": "a", "site": site, "layer": layer, "effect": effect}
        for site, effects in (("z", (1.0, -5.0, 3.0)), ("q", (0.1, 0.3, -0.2)))
        for layer, effect in enumerate(effects)
    ]
    found = top_cells(summarise(table(lines)), 2)
    assert found[["site", "layer"]].to_numpy().tolist() == [["z", 1], ["z", 2], ["q", 1], ["q", 2]]


def test_a_cell_in_words() -> None:
    line = SimpleNamespace(layer=3, head=5, neurons=pd.NA, role="last", position=None)
    assert describe(line) == "layer 3, head 5, last"
    assert describe(line, ("role", "layer")) == "last, layer 3"
