"""Schedules: exact counts in every phase, the share held at every point, and the ratios of the paper."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from analyses.pretraining.mixing_schedules import Schedule, check_ratios, code_share, expected_code, kinds, phases

INCREASE, DECREASE = ["7:3", "7:3", "6:4", "5:5"], ["5:5", "6:4", "7:3", "7:3"]
RATIO = st.tuples(st.integers(0, 12), st.integers(0, 12)).filter(any)
COUNT = st.integers(1, 120)


def codes(schedule: Schedule, ratios: list[str], count: int) -> list[int]:
    """Code examples of each phase."""
    order = kinds(schedule, ratios, count)
    assert len(order) == count
    return [sum(order[place] == "code" for place in places) for _, places in phases(schedule, ratios, count)]


def test_the_papers_three_schedules_see_equally_much_code() -> None:
    """Table 5 of Ma et al. 2024, of 400 examples: 30%, 30%, 40% and 50% of 100, against 37.5% throughout."""
    assert codes("increase", INCREASE, 400) == [30, 30, 40, 50]
    assert codes("decrease", DECREASE, 400) == [50, 40, 30, 30]
    assert codes("uniform", ["5:3"], 400) == [150]
    for count in (401, 402, 403, 1237):
        totals = {sum(codes("increase", INCREASE, count)), sum(codes("decrease", DECREASE, count))}
        assert totals == {sum(codes("uniform", ["5:3"], count))} == {3 * count // 8}


def test_a_cosine_is_slow_at_both_ends_and_fast_in_between() -> None:
    """By quarters from no code to all code: the integral of (1 - cos) / 2, worked out by hand."""
    order = kinds("cosine", ["1:0", "0:1"], 400)
    quarters = [sum(kind == "code" for kind in order[start : start + 100]) for start in range(0, 400, 100)]
    quarter = 50 - 200 / math.pi * math.sin(math.pi / 4)  # 4.98…
    expected = np.diff(np.floor([0, quarter, 100 - 200 / math.pi, 150 - 200 / math.pi * math.sin(math.pi / 4), 200]))
    assert quarters == expected.tolist() == [4, 32, 68, 96]
    falling = kinds("cosine", ["0:1", "1:0"], 400)
    assert falling.count("code") == order.count("code") == 200
    assert falling[:5] == ["prose", "code", "code", "code", "code"]
    assert order[-4:] == ["code"] * 4


@given(RATIO, RATIO, COUNT)
def test_a_cosine_follows_its_formula(first: tuple[int, int], last: tuple[int, int], count: int) -> None:
    """Against the midpoint rule, and the number of code examples within one at every place."""
    ratios = [f"{prose}:{code}" for prose, code in (first, last)]
    shares = [code_share(ratio) for ratio in ratios]
    begin, end = map(float, shares)
    order = kinds("cosine", ratios, count)
    for place in (count, max(1, count // 3), max(1, count // 2)):
        middles = (np.arange(1000) + 0.5) / 1000 * place
        total = place * np.mean(begin + (end - begin) * (1 - np.cos(math.pi * middles / count)) / 2)
        assert float(expected_code("cosine", shares, count, place)) == pytest.approx(total, abs=1e-4 * count)
        assert order[:place].count("code") == math.floor(expected_code("cosine", shares, count, place))
    assert order.count("code") == math.floor(sum(shares) / 2 * count)


@given(st.lists(RATIO, min_size=1, max_size=6), COUNT)
def test_phases_hold_their_share_at_every_place(pairs: list[tuple[int, int]], count: int) -> None:
    """Against a sum over single examples, in integers: how much of each example's length lies in which phase."""
    ratios = sorted((f"{prose}:{code}" for prose, code in pairs), key=code_share)
    schedule: Schedule = "uniform" if len(ratios) == 1 else "increase"
    order = kinds(schedule, ratios, count)
    total = Fraction(0)
    for place in range(count):
        for index, ratio in enumerate(ratios):
            start = max(Fraction(place), Fraction(index * count, len(ratios)))
            end = min(Fraction(place + 1), Fraction((index + 1) * count, len(ratios)))
            total += code_share(ratio) * max(Fraction(0), end - start)
        assert order[: place + 1].count("code") == math.floor(total)
    assert sum(codes(schedule, ratios, count)) == math.floor(sum(map(code_share, ratios)) * count / len(ratios))
    places = [place for _, part in phases(schedule, ratios, count) for place in part]
    assert places == list(range(count))
    if count % len(ratios) == 0:
        length = count // len(ratios)
        ends = [math.floor(sum(map(code_share, ratios[:index])) * length) for index in range(len(ratios) + 1)]
        assert codes(schedule, ratios, count) == np.diff(ends).tolist()


def test_pure_phases_are_pure() -> None:
    assert kinds("uniform", ["1:0"], 50) == ["prose"] * 50
    assert kinds("uniform", ["0:3"], 50) == ["code"] * 50
    assert kinds("increase", ["1:0", "0:1"], 10) == ["prose"] * 5 + ["code"] * 5


def test_a_ratio_is_prose_to_code() -> None:
    assert code_share("7:3") == Fraction(3, 10)
    assert code_share("5:3") == Fraction(3, 8)
    assert code_share("1:0") == 0


@pytest.mark.parametrize(
    "ratio", ["7-3", "7:", ":3", "0:0", "7:3:1", "0.5:0.5", "-1:2", "", "7:3 ", "٧:3", "1:99999999999"]
)
def test_a_bad_ratio_gets_one_line(ratio: str) -> None:
    with pytest.raises(TwinprobeError) as caught:
        code_share(ratio)
    assert str(caught.value) == (
        f"ratio {ratio!r} is not prose:code in whole numbers; write 7:3 for 70% prose and 30% code"
    )


@pytest.mark.parametrize(
    ("schedule", "ratios", "expected"),
    [
        ("uniform", ["5:3", "7:3"], "a uniform schedule has exactly one ratio; got 5:3, 7:3"),
        ("uniform", [], "a uniform schedule has exactly one ratio; got none"),
        ("increase", ["7:3"], "schedule 'increase' needs ratios that differ, or it would be uniform; got 7:3"),
        ("decrease", ["7:3", "14:6"], "schedule 'decrease' needs ratios that differ, or it would be uniform; got"),
        ("increase", ["7:3", "5:5", "6:4"], "the share of code falls somewhere in 7:3, 5:5, 6:4, but the schedule is"),
        (
            "decrease",
            INCREASE,
            "the share of code rises somewhere in 7:3, 7:3, 6:4, 5:5, but the schedule is 'decrease'",
        ),
        ("cosine", INCREASE, "a cosine schedule goes from a first ratio to a last; expected two, got 7:3, 7:3, 6:4"),
        ("cosine", ["1:1", "2:2"], "schedule 'cosine' needs ratios that differ"),
    ],
)
def test_ratios_that_do_not_make_the_schedule_are_refused(schedule: Schedule, ratios: list[str], expected: str) -> None:
    with pytest.raises(TwinprobeError) as caught:
        check_ratios(schedule, ratios)
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)


def test_the_papers_ratios_are_accepted() -> None:
    check_ratios("uniform", ["5:3"])
    check_ratios("increase", INCREASE)
    check_ratios("decrease", DECREASE)
    check_ratios("cosine", ["7:3", "5:5"])
