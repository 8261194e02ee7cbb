from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from synthetic import Gaussians

from activations.errors import TwinprobeError
from probes.codelength import FEW, SHARED, code_portions, codelength, portion_ends
from probes.estimators import STRENGTHS, choose_strength
from probes.softmax import decompose


def _items(n: int, rows_per_item: int = 1) -> np.ndarray:
    return np.char.add("item", (np.arange(n) // rows_per_item).astype(str))


def test_rows_that_say_nothing_cost_what_the_label_counts_say() -> None:
    """Each group holds a, a, b: every probe gives 2/3 and 1/3 in whatever order, so the bits can be counted by hand."""
    result = codelength(np.zeros((300, 1)), ["a", "a", "b"] * 100, _items(300, 3))
    per_group = 2 * np.log2(3 / 2) + np.log2(3)
    assert result.uniform_bits == 300
    for run in result.runs:
        assert run.ends.tolist() == [12, 21, 39, 75, 150, 300]
        assert run.portion_bits == pytest.approx([12, *(np.array([9, 18, 36, 75, 150]) / 3 * per_group)], abs=1e-9)
    assert result.bits == pytest.approx(12 + 96 * per_group, abs=1e-9)
    assert result.compression == pytest.approx(300 / (12 + 96 * per_group))
    assert result.bits_spread == pytest.approx(0, abs=1e-9)
    assert result.ceiling == 25


def test_a_label_not_sent_before_costs_what_laplace_says() -> None:
    nothing = np.zeros((7, 2))
    bits, _ = code_portions(nothing, np.array([0, 0, 1, 1, 0, 2, 1]), np.array([4, 7]), 3)
    assert bits == pytest.approx([4 * np.log2(3), -np.log2(3 / 7 * 1 / 7 * 3 / 7)])
    bits, _ = code_portions(nothing[:6], np.array([0, 0, 0, 0, 1, 2]), np.array([3, 6]), 3)
    assert bits == pytest.approx([3 * np.log2(3), -np.log2(4 / 6 * 1 / 6 * 1 / 6)])
    bits, _ = code_portions(nothing[:5], np.array([0, 1, 0, 2, 2]), np.array([3, 5]), 3)
    assert bits[1] == pytest.approx(2 * np.log2(6))


def test_the_probabilities_of_all_messages_sum_to_one() -> None:
    """Kraft's equality over every way to go on after the first portion: what makes the lengths those of a code."""
    features, past = Gaussians(2, 3, 1.0).sample(11, seed=1)
    ends = np.array([8, 9, 11])
    total = 0.0
    for rest in product(range(3), repeat=3):
        codes = np.concatenate([past[:8], rest])
        bits, _ = code_portions(features.astype(np.float64), codes, ends, 3, (1e-3, 1e-1, 10.0))
        total += 2.0 ** -bits[1:].sum()
    assert set(past[:8].tolist()) == {0, 1}  # label 2 is coded by the escape
    assert total == pytest.approx(1.0, abs=1e-9)


def test_what_comes_later_does_not_change_the_bits_of_a_portion() -> None:
    features, codes = Gaussians(3, 10, 2.0).sample(200, seed=1)
    ends = np.array([25, 50, 100, 200])
    bits, _ = code_portions(features, codes, ends, 3)
    changed, other = features.copy(), codes.copy()
    changed[100:], other[100:] = 7.0, 0
    later, _ = code_portions(changed, other, ends, 3)
    assert later[:3].tolist() == bits[:3].tolist()
    assert later[3] != bits[3]


def test_an_easy_label_is_shorter_than_a_hard_one_and_that_than_a_random_one() -> None:
    found = [
        codelength(*Gaussians(2, 32, distance, seed=3).sample(800, seed=4), _items(800)).compression
        for distance in (6.0, 2.0, 0.0)
    ]
    assert found[0] > 4 > found[1] + 1 > 2.2
    assert found[1] > found[2] + 0.2


def test_a_memorised_control_costs_more_bits_at_equal_accuracy() -> None:
    """Of two labels that a probe ends up reading equally well, the one to be learnt key by key has the longer code."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 100, 3000)
    written = rng.integers(0, 2, 3000)
    memorised = rng.integers(0, 2, 100)[keys]
    features = np.concatenate([np.eye(100)[keys] * 3, np.repeat((written * 2.0 - 1)[:, None], 20, 1)], axis=1)
    features = (features + rng.normal(0, 0.05, features.shape)).astype(np.float32)
    data = decompose(features[:2000])
    scores = [
        choose_strength(data, labels[:2000], features[2000:], labels[2000:]).dev_score
        for labels in (written, memorised)
    ]
    assert min(scores) > 0.99
    easy, hard = (
        codelength(features[:2000], labels[:2000], _items(2000), seeds=[0]) for labels in (written, memorised)
    )
    assert hard.bits > 3 * easy.bits


@pytest.mark.parametrize(("n", "n_labels"), [(2000, 2), (1000, 6), (200, 2), (100, 4)])
def test_a_random_label_does_not_compress(n: int, n_labels: int) -> None:
    features, _ = Gaussians(2, 128, 1.0).sample(n, seed=1)
    labels = np.random.default_rng(2).permutation(np.arange(n) % n_labels)
    result = codelength(features, labels, _items(n, 2), seeds=[0])
    assert 0.8 <= result.compression <= 1.05


def test_the_mixture_stays_near_the_best_single_strength() -> None:
    features, labels = Gaussians(3, 40, 2.5).sample(400, seed=1)
    ends = portion_ends(np.ones(400), 3)
    mixed, _ = code_portions(features, labels, ends, 3)
    parts = np.array([code_portions(features, labels, ends, 3, [strength])[0] for strength in STRENGTHS])
    weights, wanted = np.full(5, 0.2), [parts[0, 0]]
    for column in parts.T[1:]:  # the mixture by hand
        wanted.append(-np.log2(weights @ 2.0**-column))
        weights = SHARED / 5 + (1 - SHARED) * weights * 2.0**-column / (weights @ 2.0**-column)
    assert mixed == pytest.approx(wanted, abs=0.1)
    alone = parts.sum(axis=1)
    kept = -np.log2(1 - SHARED + SHARED / len(STRENGTHS))
    assert mixed.sum() <= min(alone) + np.log2(len(STRENGTHS)) + kept * (len(ends) - 2)
    assert max(alone) > mixed.sum() + 20  # a strength fixed in advance can cost much more


def test_portions_double_and_small_ones_are_merged_into_the_first() -> None:
    assert portion_ends(np.ones(2000), 2).tolist() == [8, 16, 32, 64, 125, 250, 500, 1000, 2000]
    assert portion_ends(np.ones(100_000), 2)[:3].tolist() == [100, 200, 400]
    assert portion_ends(np.ones(2000), 20)[:2].tolist() == [125, 250]
    assert portion_ends(np.full(400, 5), 2).tolist() == [10, 20, 35, 65, 125, 250, 500, 1000, 2000]
    assert portion_ends([3, 90, 2, 5], 2).tolist() == [93, 100]
    assert portion_ends(np.ones(4 * FEW), 2).tolist() == [8, 16]


def test_groups_stay_together_and_the_seed_decides_their_order() -> None:
    """A label that is constant per group of 40 can only be learnt from the group itself, so splitting would leak it."""
    rng = np.random.default_rng(0)
    group = np.repeat(np.arange(40), 40)
    features = (np.eye(40)[group] * 3 + rng.normal(0, 0.3, (1600, 40))).astype(np.float32)
    labels = rng.permutation(np.arange(40) % 2)[group]
    mixed = rng.permutation(1600)  # rows of a group need not lie together
    whole = codelength(features[mixed], labels[mixed], group[mixed])
    single = codelength(features[mixed], labels[mixed], np.arange(1600))
    assert all((run.ends % 40 == 0).all() for run in whole.runs)
    assert whole.compression < 1.1
    assert single.compression > 3
    assert len({run.bits for run in single.runs}) == 3
    assert single.bits_spread == pytest.approx(np.std([run.bits for run in single.runs], ddof=1))


def test_equal_arguments_give_equal_results() -> None:
    features, labels = Gaussians(3, 20, 2.0).sample(300, seed=1)
    first, second = (codelength(features, labels, _items(300, 3), seeds=[4, 5]) for _ in range(2))
    assert first.row() == second.row()
    assert set(first.row()) >= {"bits", "uniform_bits", "compression", "compression_spread", "ceiling"}
    for one, other in zip(first.runs, second.runs, strict=True):
        assert one.portion_bits.tolist() == other.portion_bits.tolist()
    alone = codelength(features, labels, _items(300, 3), seeds=[5])
    assert alone.bits == first.runs[1].bits
    assert np.isnan(alone.bits_spread)


def test_rows_that_can_not_be_coded_are_refused() -> None:
    features, labels = Gaussians(2, 4, 1.0).sample(100, seed=1)
    items = _items(100)
    with pytest.raises(TwinprobeError, match="needs at least two labels"):
        codelength(features, np.zeros(100), items)
    with pytest.raises(TwinprobeError, match="at least 8 rows per label"):
        codelength(features[:12], labels[:12], items[:12])
    with pytest.raises(TwinprobeError, match="100 rows in 1 groups"):
        codelength(features, labels, ["one"] * 100)
    with pytest.raises(TwinprobeError, match="finite rows"):
        codelength(np.where(features > 5, np.nan, features), labels, items)
    with pytest.raises(TwinprobeError, match="one per label"):
        codelength(features, labels[:99], items)
    with pytest.raises(TwinprobeError, match="99 cluster ids"):
        codelength(features, labels, items[:99])
    with pytest.raises(TwinprobeError, match="no seeds"):
        codelength(features, labels, items, seeds=[])
    with pytest.raises(TwinprobeError, match="positive numbers"):
        codelength(features, labels, items, strengths=[0.0])
