from __future__ import annotations

import pytest
from tiny_benchmarks import TASKS, benchmarks

from analyses.report.words_benchmarks import bits, by_task, like_big_bench, over_chance, read

ROLES = ("base", "code", "second_seed", "random")


def test_the_reading_counts_what_the_intervals_and_tests_say() -> None:
    assert read(benchmarks(ROLES)) == [
        "base is above chance with its whole interval in 0 of 2 tasks and below it in 0 (by luck alone in about 0.1 each).",
        "code is above chance with its whole interval in 1 of 2 tasks and below it in 0 (by luck alone in about 0.1 each).",
        "code and base differ at p < 0.05 in 1 of 3 tasks (about 0.2 would by chance), and in 1 after Holm’s correction over "
        "the tasks (code higher in 1, base higher in 0); 1 of these is larger than between two seeds of base.",
        "With so many items a single test finds a true difference of 0.22 in 80% of cases; smaller ones are more easily "
        "missed, so no difference found does not mean that there is none. In 1 task both models got the same items right, "
        "and no detectable difference can be stated.",
        "second seed of base and base differ at p < 0.05 in 0 of 3 tasks (about 0.2 would by chance), and in 0 after Holm’s "
        "correction over the tasks.",
    ]  # fmt: skip


def test_another_table_reads_otherwise() -> None:
    lines = benchmarks(("base", "code"))
    for line in lines:
        if line["model"] == "code":
            line |= {"minimum_detectable_effect": 0.125 if line["task"] == "written" else 0.5, "difference": -0.25}
            line |= {"p_permutation": 0.01, "p_permutation_holm": 0.03, "high": 0.1}
    _, code, differ, missed = read(lines)
    assert "in 1 of 2 tasks and below it in 2" in code
    assert differ.endswith("in 3 after Holm’s correction over the tasks (code higher in 0, base higher in 3).")
    assert "a true difference of 0.12 to 0.50 (depending on the task) in 80% of cases" in missed
    assert "same items" not in missed


def test_models_that_agree_on_everything_leave_nothing_to_detect() -> None:
    lines = [line | {"minimum_detectable_effect": 0.0} for line in benchmarks(("base", "code"))]
    assert (
        read(lines)[-1]
        == "In all tasks both models got the same items right, and no detectable difference can be stated."
    )
    assert read([]) == []


def test_generated_tasks_are_not_called_big_bench() -> None:
    assert "not BIG-bench’s" in like_big_bench(benchmarks(ROLES))
    assert like_big_bench([line for line in benchmarks(ROLES) if line["task"] == "written"]) == ""


def test_scores_above_chance_are_shares_of_what_is_left() -> None:
    own = dict(by_task(benchmarks(ROLES)))
    assert list(own) == list(TASKS)
    assert over_chance(own["generated_arithmetic"]["code"]) == pytest.approx(2 / 3)
    assert over_chance(own["generated_navigate"]["base"]) == 0
    assert over_chance(own["written"]["code"]) == 0.3125
    assert over_chance({"score": 0.0, "chance": 0.25}) == pytest.approx(-1 / 3)


def test_bits_per_byte_stand_beside() -> None:
    line = {"model": "base", "form": "code", "bits_per_byte": 2.5}
    said = bits([line, line | {"model": "second_seed"}, line | {"model": "code", "bits_per_byte": 2.25}])
    assert said.endswith("(lower is better): base 2.500 on code text, code 2.250 on code text.")
    assert bits([]) == ""
