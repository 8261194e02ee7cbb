"""pass@k against its definition: all ways to draw k of the samples."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from analyses.benchmarks.code_generation.pass_at_k import pass_at_k, pass_at_ks


@st.composite
def counts(draw: st.DrawFn, most: int) -> tuple[int, int, int]:
    samples = draw(st.integers(1, most))
    return samples, draw(st.integers(0, samples)), draw(st.integers(1, samples))


@settings(max_examples=100, deadline=None)
@given(counts(9))
def test_it_is_the_share_of_draws_that_hold_a_right_sample(drawn: tuple[int, int, int]) -> None:
    samples, right, k = drawn
    outcomes = [place < right for place in range(samples)]
    share = np.mean([any(subset) for subset in combinations(outcomes, k)])
    assert pass_at_k(samples, right, k) == pytest.approx(share, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(counts(300))
def test_it_equals_the_closed_form(drawn: tuple[int, int, int]) -> None:
    samples, right, k = drawn
    assert pass_at_k(samples, right, k) == pytest.approx(1 - comb(samples - right, k) / comb(samples, k), abs=1e-9)


def test_it_is_unbiased_where_the_plug_in_estimate_is_not() -> None:
    rng = np.random.default_rng(0)
    p, n, k = 0.2, 10, 5
    right = rng.binomial(n, p, size=20_000)
    truth = 1 - (1 - p) ** k
    table = [pass_at_k(n, count, k) for count in range(n + 1)]
    assert np.mean(np.asarray(table)[right]) == pytest.approx(truth, abs=0.006)
    assert np.mean(1 - (1 - right / n) ** k) < truth - 0.02


def test_over_problems_with_an_interval_and_what_was_dropped() -> None:
    one, three, nine = pass_at_ks([10, 10, 10, 2], [0, 10, 5, 1], [1, 3, 9], seed=1)
    assert one.estimate == pytest.approx((0 + 1 + 0.5 + 0.5) / 4)
    assert (one.k, one.problems, one.dropped) == (1, 4, 0)
    assert one.low < one.estimate < one.high
    assert three.estimate == pytest.approx((0 + 1 + 1 - comb(5, 3) / comb(10, 3)) / 3)
    assert (three.problems, three.dropped, nine.k) == (3, 1, 9)
    assert pass_at_ks([2, 2], [1, 1], [5]) == []


def test_the_interval_resamples_clusters_of_problems() -> None:
    right = [0, 0, 0, 0, 1, 1, 1, 1] * 4
    [apart] = pass_at_ks([1] * 32, right, [1])
    [together] = pass_at_ks([1] * 32, right, [1], clusters=[place // 4 for place in range(32)])
    assert together.high - together.low > 1.5 * (apart.high - apart.low)


@pytest.mark.parametrize(("samples", "right", "k"), [(3, 1, 4), (3, 4, 1), (3, -1, 1), (3, 1, 0)])
def test_impossible_counts_are_refused(samples: int, right: int, k: int) -> None:
    with pytest.raises(TwinprobeError, match=f"pass@{k} of {samples} samples with {right} right"):
        pass_at_k(samples, right, k)


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(TwinprobeError, match="2 counts of samples for 1"):
        pass_at_ks([1, 1], [1], [1])
    with pytest.raises(TwinprobeError, match="1 clusters for 2"):
        pass_at_ks([1, 1], [1, 1], [1], clusters=[0])
    with pytest.raises(TwinprobeError, match="pass@0"):
        pass_at_ks([1, 1], [1, 1], [0])
