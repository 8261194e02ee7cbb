"""Overlap of two models' heads: 1 where the same heads matter, nothing where others do, and p values that are uniform."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import kstest, spearmanr

from activations.errors import TwinprobeError
from analyses.across.overlap import COLUMNS, overlap

LAYERS, HEADS, ITEMS = 4, 6, 5
ALL_ITEMS = range(ITEMS)
N_DRAWS = 60
ROLES = ("last", "name")


def table(means: Any, seed: int, *, items: Any = ALL_ITEMS, noise: float = 0.1, roles: Any = ("all",)) -> pd.DataFrame:
    """Effects of every head (in layers of ``HEADS``) of items that scatter around ``means``."""
    rng = np.random.default_rng(seed)
    cells = [(layer, head, role) for layer in range(LAYERS) for head in range(HEADS) for role in roles]
    lines = [
        {"item": f"i{item}", "site": "z", "layer": layer, "head": head, "role": role, "effect": mean + noise * rng.normal()}
        for item in items
        for (layer, head, role), mean in zip(cells, np.asarray(means).ravel(), strict=True)
    ]  # fmt: skip
    return pd.DataFrame(lines).astype({"head": "Int64"})


def drawn(seed: int, roles: int = 1) -> Any:
    return np.random.default_rng(seed).normal(size=(LAYERS * HEADS * roles))


def by_measure(found: pd.DataFrame) -> dict[tuple[str, int], pd.Series]:
    assert list(found.columns) == COLUMNS
    return {(line.measure, 0 if pd.isna(line.top) else line.top): line for _, line in found.iterrows()}


@pytest.mark.parametrize("null", ["layer", "all"])
def test_equal_circuits_overlap_in_full(null: Any) -> None:
    means = drawn(0)
    found = overlap(table(means, 1, noise=0), table(means, 2, noise=0), null=null, n_permutations=400)
    assert found.estimate.to_numpy() == pytest.approx(1)
    assert found.p[0] == 1 / 401 and (found.p < 0.05).all()
    assert (found.expected < 0.5).all()
    assert list(found.top.fillna(0)) == [0, 5, 2]
    assert (found["heads"] == LAYERS * HEADS).all() and (found.items_shared == ITEMS).all()


def test_disjoint_circuits_share_nothing() -> None:
    ours, theirs = np.full(LAYERS * HEADS, 1e-3), np.full(LAYERS * HEADS, 1e-3)
    ours[:5], theirs[-5:] = 1, -1
    found = by_measure(overlap(table(ours, 1, noise=1e-5), table(theirs, 2, noise=1e-5), null="all"))
    assert found["jaccard", 5].estimate == 0 and found["jaccard", 5].p == 1
    assert found["spearman", 0].estimate < 0.3
    half = theirs.copy()
    half[[0, 1]], half[-2:] = 1, 1e-3
    assert by_measure(overlap(table(ours, 1), table(half, 2), n_permutations=50))["jaccard", 5].estimate == 2 / 8


def test_estimates_are_those_of_the_mean_effects() -> None:
    base, code = table(drawn(0), 1, noise=1), table(drawn(0) + drawn(5), 2, noise=1)
    found = by_measure(overlap(base, code))
    means = [frame.groupby(["layer", "head"]).effect.mean() for frame in (base, code)]
    line = found["spearman", 0]
    assert line.estimate == pytest.approx(spearmanr(*means).statistic)
    assert line.low < line.estimate < line.high
    top = [set(each.abs().nlargest(5).index) for each in means]
    assert found["jaccard", 5].estimate == len(top[0] & top[1]) / len(top[0] | top[1])


def test_layers_alone_are_no_overlap_of_heads() -> None:
    """Some layers matter in both models, their heads in neither order: only the null over all layers is impressed."""
    layers = np.repeat([0.0, 1.0, 2.0, 4.0], HEADS)
    ours, theirs = (layers + 0.2 * drawn(seed) for seed in (3, 4))
    tables = table(ours, 1, noise=0), table(theirs, 2, noise=0)
    assert by_measure(overlap(*tables, null="all"))["spearman", 0].p < 0.01
    line = by_measure(overlap(*tables, null="layer"))["spearman", 0]
    assert line.p > 0.05 and line.expected == pytest.approx(line.estimate, abs=0.15)


@pytest.mark.parametrize("null", ["layer", "all"])
def test_p_is_uniform_where_nothing_is_shared(null: Any) -> None:
    p = [
        overlap(table(drawn(2 * k), 0, items=[0]), table(drawn(2 * k + 1), 1, items=[0]), null=null, n_permutations=99,
                n_resamples=1, seed=k).set_index("top").p.to_numpy()
        for k in range(N_DRAWS)
    ]  # fmt: skip
    spearman, *jaccards = np.array(p).T
    assert kstest(spearman, "uniform").pvalue > 0.01
    for jaccard in jaccards:  # of few values, so that p is too large rather than too small
        for level in (0.05, 0.1, 0.3):
            assert (jaccard <= level).mean() <= level + 2.5 * np.sqrt(level * (1 - level) / N_DRAWS)


def test_roles_move_with_their_heads() -> None:
    """Where all heads have one profile over roles, that profile is no overlap: no exchange of heads changes it."""
    profile = np.tile([3.0, 0.0], LAYERS * HEADS)
    ours, theirs = profile + 0.1 * drawn(1, 2), profile + 0.1 * drawn(2, 2)
    tables = table(ours, 1, noise=0, roles=ROLES), table(theirs, 2, noise=0, roles=ROLES)
    line = by_measure(overlap(*tables, by_role=True))["spearman", 0]
    assert line.estimate > 0.7 and line.p > 0.05
    assert (line["cells"], line["heads"]) == (2 * LAYERS * HEADS, LAYERS * HEADS)
    same = by_measure(overlap(tables[0], tables[0], by_role=True))["spearman", 0]
    assert same.estimate == pytest.approx(1) and same.p < 0.01


def test_items_of_both_models_are_drawn_together() -> None:
    """Items that move all effects of both models alike: their draws agree where the items are shared, else not."""
    means, moved = drawn(0), np.random.default_rng(1).normal(size=(40, LAYERS * HEADS))

    def of(first: int) -> pd.DataFrame:
        parts = [table(means * 0.1 + moved[item], 0, items=[first + item], noise=0) for item in range(40)]
        return pd.concat(parts)

    together, apart = (overlap(of(0), of(first)).iloc[0] for first in (0, 100))
    assert together.estimate == apart.estimate == pytest.approx(1)
    assert together.low == pytest.approx(1) and apart.low < 0.9
    assert (together.items_shared, apart.items_shared) == (40, 0)


def test_ties_constants_and_gaps() -> None:
    means = np.zeros(LAYERS * HEADS)
    means[3] = 1
    single = table(means, 1, noise=0)
    assert by_measure(overlap(single, single))["jaccard", 5].estimate == 1, "heads without effect are none of the top"
    flat = table(np.zeros(LAYERS * HEADS), 1, noise=0)
    found = by_measure(overlap(single, flat))
    assert np.isnan(found["spearman", 0].estimate) and found["spearman", 0].reason == "all effects of code are equal"
    assert np.isnan(found["jaccard", 5].estimate) and found["jaccard", 5].reason == "all effects of code are 0"
    assert overlap(flat, single).reason[1] == "all effects of base are 0"
    equal = table(np.ones(LAYERS * HEADS), 1, noise=0)
    assert by_measure(overlap(single, equal))["jaccard", 5].estimate == 1 / (LAYERS * HEADS), (
        "all tie with the last one"
    )
    holes = single.assign(effect=single.effect.where(single["item"] != "i2"))
    line = overlap(single, holes).iloc[0]
    assert (line.items_code, line.items_left_out, line.estimate) == (ITEMS - 1, 1, pytest.approx(1))


def test_an_interval_needs_items() -> None:
    one = table(drawn(0), 1, items=[0])
    line = overlap(one, one).iloc[0]
    assert line.estimate == pytest.approx(1) and np.isnan(line.low)


def test_tables_that_do_not_fit_are_refused() -> None:
    good = table(drawn(0), 1)
    cases = [
        (good.drop(columns="head"), {}, "has no column 'head'"),
        (good[good["layer"] > 0], {}, "site z, layer 0, head 0 is in one of the two tables only"),
        (pd.concat([good, good]), {}, "has several lines of code for site z, layer 0, head 0"),
        (good.assign(head=good["head"].where(good["head"] > 0)), {}, "lines without site or layer or head"),
        (good.iloc[:0], {}, "the table of code is empty"),
        (good.assign(effect=np.nan), {}, "no item of code has a value of 'effect'"),
        (good, {"top": [0]}, "top 0 of the heads"),
        (good, {"top": [2.5]}, "top 2.5 of the heads"),
    ]
    for other, options, said in cases:
        with pytest.raises(TwinprobeError) as caught:
            overlap(good, other, **options)
        assert said in str(caught.value) and "\n" not in str(caught.value)
