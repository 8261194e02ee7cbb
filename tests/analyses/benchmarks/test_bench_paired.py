"""Paired tests of two models' items: by hand, by scipy, by bootstrap, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from activations.errors import TwinprobeError
from analyses.benchmarks.paired import join, mcnemar, paired_tests
from analyses.statistics import holm
from probes.metrics import bootstrap_means

FEW = {"n_resamples": 2, "n_flips": 400}


def _table(model: str, scores: object, groups: object = None, task: str = "t", **further: object) -> pd.DataFrame:
    values = list(scores)  # type: ignore[call-overload]
    names = [str(i) for i in range(len(values))]
    return pd.DataFrame(
        {"model": model, "task": task, "item": names, "score": values, "group": names if groups is None else groups}
    ).assign(**further)


def _answers(
    rng: np.random.Generator, n_groups: int, size: int, gain: float
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Right or wrong of two models on groups of questions; each model has its own luck per group, the code model a gain."""
    groups = np.repeat(np.arange(n_groups), size)
    difficulty = rng.normal(0, 1, n_groups)
    found = []
    for shift in (0.0, gain):
        ability = (difficulty + rng.normal(0, 1, n_groups) + shift)[groups]
        found.append((rng.random(len(groups)) < 1 / (1 + np.exp(-ability))).astype(float))
    return found[0], found[1], [str(group) for group in groups]


def test_mcnemar_is_the_binomial_test_of_discordant_items() -> None:
    rng = np.random.default_rng(0)
    for _ in range(30):
        base, code = rng.integers(0, 2, (2, int(rng.integers(1, 60)))).astype(float)
        only_base, only_code = int((base > code).sum()), int((code > base).sum())
        expected = binomtest(only_base, only_base + only_code).pvalue if only_base + only_code else 1.0
        assert mcnemar(base, code) == (only_base, only_code, pytest.approx(expected))
    # By hand: 1 of 8 discordant items, 2 * (1 + 8) / 2**8.
    assert mcnemar([1, *[0] * 7, 1, 0], [0, *[1] * 7, 1, 0]) == (1, 7, pytest.approx(18 / 256))
    assert mcnemar([1, 0], [1, 0]) == (0, 0, 1.0)
    with pytest.raises(TwinprobeError, match="scores of 0 and 1"):
        mcnemar([0.5, 1], [1, 1])


def test_every_figure_of_a_small_table_by_hand() -> None:
    base, code = [1, 0, 0, 1, 0, 0], [1, 1, 1, 0, 0, 1]
    groups = list("aabbcc")
    joined = join(_table("base", base, groups), _table("code", code, groups))
    [line] = paired_tests(joined.items).to_dict("records")
    difference = np.subtract(code, base)
    residuals = [sum(difference[i] - difference.mean() for i in pair) for pair in ((0, 1), (2, 3), (4, 5))]
    error = math.sqrt(sum(r**2 for r in residuals) * 3 / 2) / 6
    assert line["standard_error"] == pytest.approx(error)
    assert line["minimum_detectable_effect"] == pytest.approx((1.959964 + 0.841621) * error, rel=1e-6)
    assert (line["items"], line["clusters"], line["only_base"], line["only_code"]) == (6, 3, 1, 3)
    assert (line["base"], line["code"], line["difference"]) == pytest.approx((1 / 3, 2 / 3, 1 / 3))
    # Sums of the groups are 1, 0 and 1: of the four sign patterns, two have a sum of 2 or -2.
    assert line["p_permutation"] == line["p_permutation_holm"] == 0.5
    assert line["p_mcnemar"] == pytest.approx(2 * 5 / 16)
    assert line["correlation"] == pytest.approx(np.corrcoef(base, code)[0, 1])
    assert line["low"] <= line["difference"] <= line["high"]


def test_the_clustered_error_is_that_of_the_bootstrap() -> None:
    base, code, groups = _answers(np.random.default_rng(1), 150, 5, 0.3)
    joined = join(_table("base", base, groups), _table("code", code, groups))
    [line] = paired_tests(joined.items).to_dict("records")
    [replicates] = bootstrap_means((code - base)[:, None], groups, 4000, 1).T
    assert line["standard_error"] == pytest.approx(replicates.std(), rel=0.04)
    naive = (code - base).std(ddof=1) / math.sqrt(len(base))
    assert line["standard_error"] > 1.2 * naive, "questions of one group hang together"
    assert line["high"] - line["low"] == pytest.approx(2 * 1.96 * line["standard_error"], rel=0.08)


def test_level_and_power_by_simulation() -> None:
    """Clustered tests keep their level; McNemar's, which takes items as independent, keeps it only on single items."""
    rng = np.random.default_rng(2)
    rejected = {"clustered": 0, "mcnemar": 0, "single": 0, "power": 0}
    draws, powered = 200, 40
    for seed in range(draws):
        for size, gain in ((5, 0.0), (1, 0.0), (5, 1.5))[: 3 if seed < powered else 2]:
            base, code, groups = _answers(rng, 60 if size == 5 else 150, size, gain)
            names = {"task": "t", "subject": "t", "item": [str(i) for i in range(len(base))], "group": groups}
            items = pd.DataFrame({**names, "base": base, "code": code})
            [line] = paired_tests(items, seed=seed, **FEW).to_dict("records")
            if gain:
                rejected["power"] += line["p_permutation"] < 0.05
            elif size == 5:
                rejected["clustered"] += line["p_permutation"] < 0.05
                rejected["mcnemar"] += line["p_mcnemar"] < 0.05
            else:
                rejected["single"] += line["p_mcnemar"] < 0.05
    assert 0.02 <= rejected["clustered"] / draws <= 0.09
    assert rejected["mcnemar"] / draws > 0.09
    assert rejected["single"] / draws <= 0.07, "an exact test of discrete counts is a little conservative"
    assert rejected["power"] / powered > 0.9


def test_tasks_and_subjects_have_lines_of_their_own_and_holm_goes_over_them() -> None:
    rng = np.random.default_rng(3)
    tables: dict[str, list[pd.DataFrame]] = {"base": [], "code": []}
    for task in ("a", "b", "c"):
        base, code, groups = _answers(rng, 20, 2, 0.8)
        for model, scores in (("base", base), ("code", code)):
            tables[model].append(_table(model, scores, groups, task, subject=[f"{task}{i % 2}" for i in range(40)]))
    joined = join(pd.concat(tables["base"]), pd.concat(tables["code"]))
    tests = paired_tests(joined.items)
    assert tests.task.tolist() == ["a", "b", "c"] and set(tests["items"]) == {40}
    # The same group in two subjects is two clusters: names are unique within a subject alone.
    assert set(tests.clusters) == {40}
    np.testing.assert_allclose(tests.p_permutation_holm, holm(tests.p_permutation))
    np.testing.assert_allclose(tests.p_mcnemar_holm, holm(tests.p_mcnemar))
    by_subject = paired_tests(joined.items, "subject")
    assert by_subject.subject.tolist() == ["a0", "a1", "b0", "b1", "c0", "c1"] and set(by_subject["items"]) == {20}
    assert by_subject.difference.mean() == pytest.approx(tests.difference.mean())


def test_a_single_cluster_has_no_test_and_its_items_have_one_by_subject() -> None:
    base, code = _table("base", [0, 0, 1, 0], "s"), _table("code", [1, 1, 1, 0], "s")
    items = join(base, code).items
    [line] = paired_tests(items).to_dict("records")
    assert line["clusters"] == 1 and all(
        math.isnan(line[name]) for name in ("p_permutation", "p_permutation_holm", "standard_error", "low")
    )
    assert line["p_mcnemar"] == 0.5
    [line] = paired_tests(items, "subject").to_dict("records")
    assert line["clusters"] == 4 and line["p_permutation"] == 0.5


def test_real_scores_have_no_mcnemar_and_constant_ones_no_correlation() -> None:
    joined = join(_table("base", [0.2, 0.4, 0.9]), _table("code", [1.0, 1.0, 1.0]))
    [line] = paired_tests(joined.items).to_dict("records")
    assert math.isnan(line["p_mcnemar"]) and math.isnan(line["only_base"]) and math.isnan(line["correlation"])
    assert line["difference"] == pytest.approx(0.5)


def test_items_are_joined_by_name_and_missing_ones_named() -> None:
    base = _table("base", [1, 0, 1, 0]).iloc[[3, 0, 1]]
    code = _table("code", [0, 0, 1, 1]).iloc[[1, 2, 3]]
    joined = join(base, code)
    assert joined.models == ("base", "code")
    assert joined.items[["item", "base", "code"]].to_numpy().tolist() == [["3", 0.0, 1.0], ["1", 0.0, 0.0]]
    assert dict(zip(joined.missing["item"], joined.missing.missing, strict=True)) == {"0": "code", "2": "base"}


@pytest.mark.parametrize(
    ("base", "code", "expected"),
    [
        (_table("m", [1]), _table("m", [1]), "both tables are of model 'm'"),
        (pd.concat([_table("m", [1]), _table("n", [1])]), _table("o", [1]), "has 2 models (m, n)"),
        (_table("m", [1], task="a"), _table("n", [1], task="b"), "share no item"),
        (_table("m", [1, 1], "a"), _table("n", [1, 1], ["a", "b"]), "1 of 2 items have other clusters"),
        (_table("m", [1, 1], doc_hash="x"), _table("n", [1, 1], doc_hash="y"), "2 of 2 items have other texts"),
    ],
    ids=["same", "several", "disjoint", "groups", "texts"],
)
def test_tables_that_can_not_be_compared_are_refused(base: pd.DataFrame, code: pd.DataFrame, expected: str) -> None:
    with pytest.raises(TwinprobeError) as raised:
        join(base, code)
    assert expected in str(raised.value) and "\n" not in str(raised.value)
