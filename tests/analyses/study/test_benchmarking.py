"""The table of benchmark scores: planted scores and differences come out, on the lines that they belong to."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from analyses.benchmarks.local.grading import summary
from analyses.benchmarks.local.tasks import Setting
from analyses.benchmarks.paired import mcnemar
from analyses.statistics import holm
from analyses.study.benchmarking import benchmarks

SETTINGS = [Setting(task="a", shots=2, metric="acc"), Setting(task="b", shots=0, metric="acc_norm")]
EFFORT = {"seed": 0, "n_resamples": 300, "n_flips": 2000}


def items(model: str, a: np.ndarray, b: np.ndarray) -> pd.DataFrame:
    """Task a has items of their own, task b two subjects with items of the same names."""
    common = {"model": model, "chance": 0.25, "cut": 0}
    one = pd.DataFrame(
        {"task": "a", "subject": "a", "item": range(len(a)), "group": range(len(a)), "score": a, **common}
    )
    subjects = np.repeat(["x", "y"], len(b) // 2)
    two = {"task": "b", "subject": subjects, "item": [*range(len(b) // 2)] * 2, "group": subjects, "score": b, **common}
    return pd.concat([one, pd.DataFrame(two)], ignore_index=True)


@pytest.fixture(scope="module")
def roles() -> dict[str, pd.DataFrame]:
    """Code is right on 30 more items of a. The models' own names are the same."""
    rng = np.random.default_rng(0)
    a, b = (rng.random(80) < 0.4).astype(float), (rng.random(40) < 0.5).astype(float)
    better, other = a.copy(), a.copy()
    better[np.flatnonzero(a == 0)[:30]] = 1
    other[np.flatnonzero(a == 0)[:2]] = 1
    return {
        "base": items("same", a, b),
        "code": items("same", better, b).sample(frac=1, random_state=0),
        "second_seed": items("same", other, b),
    }


@pytest.fixture(scope="module")
def found(roles: dict[str, pd.DataFrame]) -> pd.DataFrame:
    return benchmarks(roles, SETTINGS, **EFFORT)


def test_scores_are_those_of_each_model(roles: dict[str, pd.DataFrame], found: pd.DataFrame) -> None:
    assert found[["task", "model", "shots", "metric"]].to_numpy().tolist() == [
        [setting.task, role, setting.shots, setting.metric] for setting in SETTINGS for role in roles
    ]
    for line in found.to_dict("records"):
        own = roles[line["model"]]
        for name, value in summary(own[own.task == line["task"]]).items():
            assert line[name] == pytest.approx(value, nan_ok=True), name
    assert found.clusters.tolist() == [80] * 3 + [2] * 3


def test_differences_are_from_base_on_the_same_items(roles: dict[str, pd.DataFrame], found: pd.DataFrame) -> None:
    lines = found.set_index(["model", "task"])
    code = lines.loc[("code", "a")]
    assert code.difference == pytest.approx(30 / 80)
    assert 0 < code.difference_low < code.difference < code.difference_high
    assert (code.only_base, code.only_other) == (0, 30)
    base = roles["base"].query("task == 'a'").score
    other = roles["code"].query("task == 'a'").sort_values("item").score
    assert code.p_mcnemar == mcnemar(base, other)[2] < 1e-6
    assert lines.loc[("code", "b")].difference == 0
    assert lines.loc[("code", "b")].minimum_detectable_effect == 0
    for role in ("code", "second_seed"):
        own = lines.loc[role]
        assert own.p_permutation_holm.tolist() == pytest.approx(holm(own.p_permutation).tolist()), (
            "over tasks, per pair"
        )
    assert lines.loc["base"].difference.isna().all()


def test_the_null_pair_stands_beside_code(roles: dict[str, pd.DataFrame], found: pd.DataFrame) -> None:
    lines = found.set_index(["model", "task"]).null_difference
    assert lines["code"].tolist() == [pytest.approx(2 / 80), 0]
    assert lines[["base", "second_seed"]].isna().all()
    alone = benchmarks({role: roles[role] for role in ("base", "code")}, SETTINGS, **EFFORT)
    assert alone.null_difference.isna().all()
    columns = ["score", "difference", "difference_low", "p_permutation"]
    code = found[found.model == "code"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone[alone.model == "code"][columns].reset_index(drop=True), code[columns])
