"""What the models score on every benchmark, and the paired tests of code, and of the second seed, against base."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from analyses.benchmarks.local.grading import summary
from analyses.benchmarks.local.tasks import Setting
from analyses.benchmarks.paired import join, paired_tests

TESTS = (
    "difference", "low", "high", "p_permutation", "p_permutation_holm", "only_base", "only_code", "p_mcnemar",
    "p_mcnemar_holm", "minimum_detectable_effect",
)  # fmt: skip
NAMES = {"low": "difference_low", "high": "difference_high", "only_code": "only_other"}


def benchmarks(
    per_role: Mapping[str, pd.DataFrame], settings: Sequence[Setting], *, seed: int, n_resamples: int, n_flips: int
) -> pd.DataFrame:
    """Scores with their errors, and what the tests say.

    Args:
        per_role: the items of each model by its role, as :func:`analyses.benchmarks.local.run.scored` gives them.
        settings: how each task was asked.
        seed: seed of bootstrap and sign flips.
        n_resamples: bootstrap resamples of clusters.
        n_flips: random sign patterns.

    Returns:
        One line per task and model: task, model (its role), shots, metric, then what
        :func:`analyses.benchmarks.local.grading.summary` says of its score; and, against base on the same items:
        difference (minus base) with difference_low and difference_high (95%, paired bootstrap over clusters),
        p_permutation, only_base and only_other (items that one alone gets right), p_mcnemar,
        minimum_detectable_effect, and both p after Holm's correction over the tasks; on the lines of code,
        null_difference (the second seed's difference from base). What does not apply is missing.
    """
    asked = {setting.task: {"shots": setting.shots, "metric": setting.metric} for setting in settings}
    lines = pd.DataFrame(
        [
            {"task": task, "model": role, **about, **summary(items[items.task == task])}
            for task, about in asked.items()
            for role, items in per_role.items()
        ]
    )
    named = {role: items.assign(model=role) for role, items in per_role.items()}
    tested = []
    for role in [role for role in named if role != "base"]:
        both = join(named["base"], named[role]).items
        found = paired_tests(both, seed=seed, n_resamples=n_resamples, n_flips=n_flips)
        tested.append(found[["task", *TESTS]].rename(columns=NAMES).assign(model=role))
    lines = lines.merge(pd.concat(tested, ignore_index=True), on=["task", "model"], how="left")
    null = lines[lines.model == "second_seed"].set_index("task").difference
    return lines.assign(null_difference=lines.task.map(null).astype(float).where(lines.model == "code"))
