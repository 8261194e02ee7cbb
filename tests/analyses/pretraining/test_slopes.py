"""Slopes that are known, intervals that cover, tests that hold their level and find what was planted."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.stats import kstest, linregress
from scipy.stats import t as student

from analyses.pretraining.slopes import STATISTICS, distribution, slope_tests, slopes, two_sided

TENTHS = np.arange(10) / 10
QUARTERS = np.arange(4) / 4


def table(values: NDArray[np.float64], shares: NDArray[np.float64]) -> pd.DataFrame:
    """``values [setting, task, seed, share]`` as a table of scores, the settings and tasks numbered."""
    setting, task, seed, share = (axis.ravel() for axis in np.indices(values.shape))
    return pd.DataFrame(
        {"task": task.astype(str), "share": shares[share], "score": values.ravel(), "setting": setting.astype(str),
         "seed": seed.astype(str)}
    )  # fmt: skip


def lines(
    slope: NDArray[np.float64], shares: NDArray[np.float64], noise: float, seed: int, seeds: int = 1
) -> pd.DataFrame:
    """One setting, tasks with known slopes and normal noise."""
    rng = np.random.default_rng(seed)
    values = slope[None, :, None, None] * shares + noise * rng.normal(size=(1, len(slope), seeds, len(shares)))
    return table(values, shares)


def p_values(scores: pd.DataFrame, shuffled: str, trials: int = 10_000) -> dict[str, float]:
    found = slope_tests(scores, trials)
    chosen = found[(found.shuffled == shuffled) & (found.by == "all")]
    return dict(zip(chosen.statistic, chosen.p, strict=True))


def test_slopes_without_noise_are_recovered_whatever_the_level_of_the_seeds() -> None:
    slope = np.array([-0.4, 0.0, 0.25])
    level = np.array([0.5, 0.1, 0.9])  # one per seed
    values = slope[:, None, None] * QUARTERS + level[None, :, None]
    scores = table(np.stack([values, -values]), QUARTERS).drop(index=[1, 5])  # the first two seeds lack a share
    found = slopes(scores)
    assert list(zip(found.setting, found.task, strict=True)) == [(s, t) for s in "01" for t in "012"]
    assert found.slope.to_numpy() == pytest.approx([*slope, *-slope], abs=1e-14)
    assert found.low.to_numpy() == pytest.approx([*slope, *-slope], abs=1e-13)
    assert found.high.to_numpy() == pytest.approx([*slope, *-slope], abs=1e-13)
    assert list(found.points) == [10, 12, 12, 12, 12, 12] and set(found.seeds) == {3}
    assert found.intercept.iloc[1] == pytest.approx(0.5)


def test_a_balanced_design_gives_the_line_of_best_fit_and_the_mean_of_its_seeds() -> None:
    scores = lines(np.array([0.3]), TENTHS, 0.1, 1, seeds=4)
    [found] = slopes(scores).itertuples()
    plain = linregress(scores.share, scores.score)
    assert (found.slope, found.intercept) == pytest.approx((plain.slope, plain.intercept))
    each = [linregress(part.share, part.score).slope for _, part in scores.groupby("seed")]
    half = student.ppf(0.975, 3) * np.std(each, ddof=1) / 2
    assert (found.low, found.high) == pytest.approx((np.mean(each) - half, np.mean(each) + half))


def test_without_several_seeds_there_is_a_slope_and_no_interval() -> None:
    scores = lines(np.array([0.3]), TENTHS, 0.1, 1, seeds=2)
    nested = scores.iloc[:10].assign(seed=[str(number) for number in range(10)])  # a seed for each share
    for given, points in ((scores.drop(columns=["seed", "setting"]), 20), (scores.iloc[:10], 10), (nested, 10)):
        [found] = slopes(given).itertuples()
        assert found.slope == pytest.approx(linregress(given.share, given.score).slope)
        assert np.isnan(found.low) and np.isnan(found.high)
        assert (found.points, found.seeds) == (points, 1)
    lone = pd.concat([scores, scores.tail(1).assign(seed="alone", score=99.0)])
    [found] = slopes(lone).itertuples()
    assert (found.points, found.seeds) == (20, 2) and found.slope < 1, "a seed with one share says nothing of the slope"


def test_intervals_cover_the_slope_as_often_as_they_say() -> None:
    """Three seeds with slopes and levels of their own; where the third lacks two shares they are too wide, not too narrow."""
    rng = np.random.default_rng(3)
    own = 0.3 + 0.1 * rng.normal(size=(800, 1, 3, 1))
    values = own * QUARTERS + rng.normal(size=(800, 1, 3, 1)) + 0.05 * rng.normal(size=(800, 1, 3, 4))
    scores = table(values, QUARTERS)
    assert covered(scores) == pytest.approx(0.95, abs=0.025)
    assert 0.94 < covered(scores[(scores.seed != "2") | (scores.share > 0.3)]) < 0.99


def covered(scores: pd.DataFrame) -> float:
    found = slopes(scores)
    return float(((found.low < 0.3) & (found.high > 0.3)).mean())


@pytest.mark.parametrize(("designs", "seeds"), [(300, 1), (200, 3)])
def test_p_values_are_uniform_where_the_share_changes_nothing(designs: int, seeds: int) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(designs, 8, seeds, 6)) * rng.uniform(0.5, 2, (1, 8, 1, 1))  # tasks differ in their noise
    values += 3 * rng.normal(size=(designs, 8, seeds, 1))  # seeds in their level
    found = slope_tests(table(values, np.arange(6) / 6), trials=199)
    for (shuffled, statistic), part in found.groupby(["shuffled", "statistic"]):
        assert len(part) == designs
        assert kstest(part.p, "uniform").pvalue > 1e-3, (shuffled, statistic)
        assert (part.p <= 0.05).mean() <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / designs), (shuffled, statistic)


def test_models_that_are_good_on_all_tasks_deceive_the_shuffled_tasks_only() -> None:
    rng = np.random.default_rng(4)
    values = rng.normal(size=(200, 8, 2, 6)) + 1.5 * rng.normal(
        size=(200, 1, 2, 6)
    )  # a share of every model, in all tasks
    found = slope_tests(table(values, np.arange(6) / 6), trials=199)
    false = (found.p <= 0.05).groupby([found.shuffled, found.statistic]).mean()
    assert false["tasks", "mean"] > 0.25
    assert max(false["models", statistic] for statistic in STATISTICS) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 200)


@pytest.mark.parametrize("shuffled", ["tasks", "models"])
def test_a_planted_mean_and_a_planted_variance_are_found(shuffled: str) -> None:
    still = np.zeros(30)
    shifted = p_values(lines(still + 0.3, TENTHS, 0.2, 5), shuffled)
    assert shifted["mean"] < 0.001
    assert max(shifted["median"], shifted["lower quartile"], shifted["upper quartile"]) < 0.05
    spread = p_values(lines(np.where(np.arange(30) % 2, 0.5, -0.5), TENTHS, 0.2, 6), shuffled)
    assert spread["variance"] < 0.001
    assert max(spread["lower quartile"], spread["upper quartile"]) < 0.05
    assert spread["mean"] > 0.05
    assert min(p_values(lines(still, TENTHS, 0.2, 7), shuffled).values()) > 0.01


def test_slopes_more_alike_than_by_chance_are_found_too() -> None:
    """A joint wave has slope zero in every task; permuted, it has another one in each."""
    scores = lines(np.zeros(20), TENTHS, 0.001, 8).assign(
        score=lambda s: s.score + np.cos(2 * np.pi * (s.share + 0.05))
    )
    assert p_values(scores, "tasks")["variance"] < 0.001


def test_kinds_are_tested_apart_and_corrected_together() -> None:
    scores = lines(np.repeat([0.5, -0.5], 10), TENTHS, 0.2, 9)
    number = scores.task.astype(int)
    scores = scores.assign(category=np.where(number < 10, "rises", "falls"), group=np.where(number == 19, "one", ""))
    found = slope_tests(scores, 1000)
    tasks = found.drop_duplicates(["by", "name"]).set_index(["by", "name"]).tasks
    assert dict(tasks) == {
        ("all", "all"): 20,
        ("category", "rises"): 10,
        ("category", "falls"): 10,
        ("group", "one"): 1,
    }
    mean = found[(found.statistic == "mean") & (found.shuffled == "models")].set_index("name")
    assert max(mean.p["rises"], mean.p["falls"]) < 0.01 and mean.p["all"] > 0.05
    assert mean.value["rises"] > 0.4 and mean.value["falls"] < -0.4
    one = found[found["name"] == "one"]
    assert one[one.statistic == "variance"].p.isna().all() and one[one.statistic == "variance"].value.isna().all()
    assert one[one.statistic != "variance"].value.nunique() == 1
    assert (found.p_holm.dropna() >= found.p.dropna()).all()
    for _, family in found.groupby(["by", "shuffled"]):
        least, count = family.p.idxmin(), family.p.notna().sum()
        assert family.p_holm[least] == pytest.approx(min(1, count * family.p[least]))


def test_shares_are_permuted_over_models_only_where_models_are_known() -> None:
    scores = lines(np.zeros(3), TENTHS, 0.2, 10, seeds=2)
    assert set(slope_tests(scores, 100).shuffled) == {"tasks", "models"}
    for unknown in (scores.drop(columns="seed"), scores.iloc[1:], scores[(scores.task != "1") | (scores.seed != "1")]):
        assert set(slope_tests(unknown, 100).shuffled) == {"tasks"}


def test_two_sided_is_twice_the_smaller_tail() -> None:
    null = np.arange(99.0)
    assert two_sided(-1.0, null) == two_sided(200.0, null) == pytest.approx(2 / 100)
    assert two_sided(1.0, null) == pytest.approx(2 * 3 / 100), "0, 1 and the observed 1"
    assert two_sided(49.0, null) == two_sided(0.0, np.zeros(50)) == 1.0
    skewed = np.exp(np.random.default_rng(0).normal(size=999))
    assert two_sided(2.5, skewed) == two_sided(2.5**2, skewed**2)


def test_the_distribution_is_described_along_the_last_axis() -> None:
    found = distribution(np.array([[1.0, 2.0, 3.0, 4.0, 10.0], [0.0, 0.0, 0.0, 0.0, 0.0]]))
    assert {name: list(values) for name, values in found.items()} == {
        "mean": [4.0, 0.0], "variance": [12.5, 0.0], "lower quartile": [2.0, 0.0], "median": [3.0, 0.0],
        "upper quartile": [4.0, 0.0],
    }  # fmt: skip


def test_scores_that_never_change_are_no_evidence() -> None:
    flat = table(np.full((1, 3, 2, 10), 0.1), TENTHS)
    assert (slopes(flat).slope == 0).all()
    assert (slope_tests(flat, 100).p == 1).all()


def test_the_seed_decides_and_ten_thousand_trials_of_thirty_tasks_take_a_moment() -> None:
    scores = lines(np.zeros(30), TENTHS, 0.2, 11)
    start = time.process_time()
    first = slope_tests(scores)
    assert time.process_time() - start < 3
    pd.testing.assert_frame_equal(first, slope_tests(scores, seed=0))
    assert not first.p.equals(slope_tests(scores, seed=1).p)
