"""Calibration: answers with a known calibration, clustered and not, and what closed forms say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from activations.errors import TwinprobeError
from activations.pairs import custom_pair
from analyses.benchmarks.calibration import (
    SCORES,
    Answers,
    SquaredError,
    binned,
    calibration,
    equal_mass,
    placements,
    scored,
)
from analyses.benchmarks.calibration_tables import SQUARED, by_model, by_pair, read_answers
from analyses.statistics import sign_flip_p


def answers(
    seed: int, count: int = 400, over: float = 0.0, per_cluster: int = 1, spread: float = 0.0, widest: float = 0.2
) -> Answers:
    """Confidences around 0.6 that are ``over`` too high; ``spread`` moves the chances of a whole cluster up or down."""
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.6 - widest, 0.6 + widest, count)
    clusters = np.arange(count) // per_cluster
    shift = rng.choice([-spread, spread], size=count)[clusters]
    return Answers.of(confidence, rng.random(count) < confidence - over + shift, clusters)


def squared(one: Answers, bins: int | None = None) -> float:
    places = equal_mass(one.confidence, bins)
    return SquaredError.of(one, places, binned(one, places)).estimate


@pytest.mark.parametrize("over", [0.0, 0.1, 0.3])
def test_the_squared_error_is_not_biased_and_the_plain_ece_is(over: float) -> None:
    found = [squared(answers(seed, over=over)) for seed in range(100)]
    assert np.mean(found) == pytest.approx(over**2, abs=3.5 * np.std(found) / np.sqrt(100))
    assert np.std(found) / np.sqrt(100) < 0.005
    if not over:
        plain = [calibration(answers(seed), n_resamples=20)["ece"] for seed in range(20)]
        assert np.mean(plain) > 0.05, "15 bins of 27 items: the plain ECE of a calibrated model"


def test_calibrated_answers_are_not_called_miscalibrated() -> None:
    found = [calibration(answers(seed), n_resamples=100, seed=seed) for seed in range(60)]
    assert np.mean([line["p_calibrated"] <= 0.05 for line in found]) <= 0.13
    assert np.mean([line["calibration_error_low"] == 0 for line in found]) >= 0.95
    assert np.mean([line["overconfidence_low"] <= 0 <= line["overconfidence_high"] for line in found]) >= 0.88
    assert np.mean([line["ece"] for line in found]) == pytest.approx(
        np.mean([line["ece_calibrated"] for line in found]), rel=0.1
    )


def test_known_overconfidence_is_found() -> None:
    found = [calibration(answers(seed, over=0.2), n_resamples=100, seed=seed) for seed in range(25)]
    assert all(line["p_calibrated"] < 0.05 for line in found)
    assert np.mean([line["overconfidence"] for line in found]) == pytest.approx(0.2, abs=0.02)
    assert np.mean([line["calibration_error"] for line in found]) == pytest.approx(0.2, abs=0.03)
    assert np.mean([line["calibration_error_low"] <= 0.2 <= line["calibration_error_high"] for line in found]) >= 0.85


def test_clusters_hold_the_level_where_items_do_not() -> None:
    """Calibrated over all clusters, each of which is 25 points better or worse."""
    clustered, alone, squares = [], [], []
    for seed in range(60):
        one = answers(seed, per_cluster=20, spread=0.25, widest=0.1)
        apart = Answers.of(one.confidence, one.correct, np.arange(len(one.correct)))
        found = [calibration(each, 2, n_resamples=2, seed=seed)["p_calibrated"] <= 0.05 for each in (one, apart)]
        clustered.append(found[0])
        alone.append(found[1])
        squares.append([squared(one, 2), squared(apart, 2)])
    assert np.mean(clustered) <= 0.15 and np.mean(alone) > 0.3
    own, items = np.mean(squares, axis=0)
    assert abs(own) < 0.3 * items


def test_murphys_parts_add_up_to_the_brier_score() -> None:
    for one in (answers(1), answers(2, over=0.2, per_cluster=5)):
        found = calibration(one, n_resamples=20)
        parts = found["reliability"] - found["resolution"] + found["uncertainty"] + found["within_bins"]
        assert parts == pytest.approx(found["brier"], abs=1e-12)
        assert found["brier"] == pytest.approx(((one.confidence - one.correct) ** 2).mean())


def test_murphys_parts_by_hand() -> None:
    """Two confidences, so two bins and nothing within them: 4 of 5 right at 0.9, 1 of 5 at 0.4."""
    one = Answers.of(np.repeat([0.9, 0.4], 5), [1, 1, 1, 1, 0, 1, 0, 0, 0, 0], range(10))
    found = calibration(one, bins=2, n_resamples=20)
    assert found["bins"] == 2 and found["within_bins"] == pytest.approx(0)
    assert [found[name] for name in ("reliability", "resolution", "uncertainty")] == pytest.approx([0.025, 0.09, 0.25])
    assert found["ece"] == pytest.approx(0.15) and found["overconfidence"] == pytest.approx(0.15)
    # The accuracy of five answers, four or one of them right, strays by 0.8 * 0.2 / 4.
    assert squared(one, 2) == pytest.approx(0.025 - 0.04) and found["calibration_error"] == 0


def test_auroc_and_its_error() -> None:
    rng = np.random.default_rng(3)
    correct = (rng.random(60) < 0.6).astype(float)
    confidence = np.round(np.clip(0.5 + 0.1 * correct + 0.15 * rng.normal(size=60), 0, 1), 1)
    one = Answers.of(confidence, correct, range(60))
    found = calibration(one)
    assert found["auroc"] == pytest.approx(roc_auc_score(correct, confidence))
    pairs = np.sign(confidence[correct == 1][:, None] - confidence[correct == 0]) / 2 + 0.5
    # DeLong's variance: of the means over the one kind, and over the other.
    sides = (pairs.mean(axis=1), pairs.mean(axis=0))
    expected = sum(((side - pairs.mean()) ** 2).sum() / len(side) ** 2 for side in sides)
    values = placements(confidence, correct)
    assert ((values - values.mean()) ** 2).sum() / 60**2 == pytest.approx(expected)
    half = 1.96 * np.sqrt(expected)
    assert (found["auroc_low"], found["auroc_high"]) == pytest.approx(
        (found["auroc"] - half, found["auroc"] + half), abs=0.03
    )


def test_bins() -> None:
    places = equal_mass(np.array([0.3, 0.1, 0.2, 0.4]), 2)
    assert places.tolist() == [1, 0, 0, 1]
    assert len(np.unique(equal_mass(np.linspace(0, 1, 100)))) == 10, "10 items each"
    assert np.bincount(equal_mass(np.linspace(0, 1, 1500))).tolist() == [100] * 15
    assert equal_mass(np.array([0.5] * 9 + [0.1]), 5).tolist() == [1] * 9 + [0], "equal confidences share a bin"


def test_what_can_not_be_had() -> None:
    right = calibration(Answers.of([0.5, 0.6, 0.7], [1, 1, 1], [0, 1, 2]))
    assert np.isnan(right["auroc"]) and right["accuracy"] == 1
    single = calibration(Answers.of([0.5, 0.6, 0.7], [1, 0, 1], [0, 0, 0]))
    assert np.isnan(
        [single[name] for name in ("brier_low", "p_calibrated", "calibration_error", "ece_calibrated")]
    ).all()
    assert single["accuracy"] == pytest.approx(2 / 3)
    for arguments, told in (
        (([0.5], [1, 0], [0, 1]), "one of each per item"), (([1.5], [1], [0]), "not from 0 to 1"),
        (([0.5], [0.5], [0]), "neither right"),
        (([float("nan")], [1], [0]), "not from 0 to 1"),
    ):  # fmt: skip
        with pytest.raises(TwinprobeError, match=told):
            Answers.of(*arguments)


def table(model: str, seed: int, over: float = 0.0, **columns: object) -> pd.DataFrame:
    one = answers(seed, count=120, over=over)
    return pd.DataFrame({
        "model": model, "task": np.repeat(["quiz", "maze"], 60), "item": np.tile(range(60), 2), "score": 0.5, "chance": 0.25,
        "acc": one.correct, "confidence": one.confidence, "group": np.tile(np.repeat(range(20), 3), 2), **columns,
    })  # fmt: skip


def written(folder: Path, frame: pd.DataFrame, name: str = "items.csv") -> Path:
    frame.to_csv(folder / name, index=False)
    return folder / name


def test_models_stand_in_the_order_of_their_size(tmp_path: Path) -> None:
    paths = [
        written(tmp_path, table(f"x/m-{size}", number), f"{size}.csv")
        for number, size in enumerate(("70b", "7b", "300m"))
    ]
    read = read_answers(paths)
    found, bins = by_model(read.answers, {"x/m-70b": 7e10, "x/m-7b": 7e9, "x/m-300m": 3e8})
    assert found.model.tolist() == ["x/m-300m", "x/m-7b", "x/m-70b"] * 2 and found.task.tolist()[:4] == ["quiz"] * 3 + [
        "maze"
    ]
    own = read.answers[(read.answers.model == "x/m-7b") & (read.answers.task == "quiz")]
    line = found.iloc[1]
    assert (line["items"], line.clusters, line.bins) == (60, 20, 6)
    assert line.accuracy == own.score.mean() and line.confidence == pytest.approx(own.confidence.mean())
    part = bins[(bins.model == "x/m-7b") & (bins.task == "quiz")]
    assert part["items"].tolist() == [10] * 6
    assert np.average(part.accuracy, weights=part["items"]) == pytest.approx(line.accuracy)


def test_a_pair_is_compared_on_the_same_items(tmp_path: Path) -> None:
    base, code = table("x/base", 1), table("x/code", 1, over=0.25)
    code = code[code["item"] != 7].sample(frac=1, random_state=0)
    read = read_answers([written(tmp_path, base, "b.csv"), written(tmp_path, code, "c.csv")])
    found = by_pair(read.answers, [custom_pair("x/base", "X/CODE")]).set_index(["task", "measure"])
    assert set(found.index.get_level_values(1)) == {*SCORES, SQUARED}
    line = found.loc["quiz", "overconfidence"]
    assert (line["items"], line.clusters) == (59, 20)
    both = base[base.task == "quiz"].merge(code, on=["task", "item"])
    expected = (both.confidence_y - both.acc_y - both.confidence_x + both.acc_x).mean()
    assert line.difference == pytest.approx(expected) and line.low <= expected <= line.high
    assert line.difference == pytest.approx(line.code - line.base) and line.p <= 0.05
    assert found.loc["quiz", "confidence"].difference == pytest.approx(0) and found.loc["quiz", "confidence"].p == 1
    area = [roc_auc_score(both[f"acc_{side}"], both[f"confidence_{side}"]) for side in "xy"]
    assert found.loc["quiz", "auroc"].difference == pytest.approx(area[1] - area[0])
    every = found.xs("overconfidence", level="measure")
    assert every.p_holm.min() == pytest.approx(min(1, 2 * every.p.min()))
    assert np.isnan(found.loc["quiz", SQUARED].p) and found.loc["quiz", SQUARED].low < found.loc["quiz", SQUARED].high


def test_equal_aurocs_are_rarely_called_different() -> None:
    hits = []
    for seed in range(0, 200, 2):
        first, second = (scored(answers(seed + number, count=150))[:, SCORES.index("auroc")] for number in (0, 1))
        hits.append(sign_flip_p(second - first, np.arange(150), n_flips=400) <= 0.05)
    assert np.mean(hits) <= 0.12


def test_items_without_confidence_are_counted(tmp_path: Path) -> None:
    frame = table("x/a", 1)
    frame["confidence"] = frame.confidence.where(frame["item"] > 4)
    read = read_answers([written(tmp_path, frame)])
    assert read.unsure == 10 and len(read.answers) == 110
    plain = read_answers([written(tmp_path, frame.drop(columns="acc").assign(score=frame.acc, parameters="7b"))])
    assert plain.answers.score.tolist() == read.answers.score.tolist() and plain.parameters == {"x/a": 7e9}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"confidence": None}, "no item has a confidence"),
        ({"confidence": 1.2}, "confidence '1.2' of item '0' of quiz is no number from 0 to 1"),
        ({"confidence": "high"}, "confidence 'high' of item '0'"),
        ({"acc": 0.5}, "is neither right (1) nor wrong (0)"),
        ({"acc": "yes"}, "acc 'yes' of item '0'"),
    ],
)
def test_tables_that_can_not_be_used(tmp_path: Path, change: dict[str, object], told: str) -> None:
    with pytest.raises(TwinprobeError) as raised:
        read_answers([written(tmp_path, table("x/a", 1, **change))])
    assert told in str(raised.value) and "\n" not in str(raised.value)


def test_tables_without_the_column_or_given_twice(tmp_path: Path) -> None:
    path = written(tmp_path, table("x/a", 1))
    with pytest.raises(TwinprobeError, match=r"item '0' of quiz is in two files for x/a"):
        read_answers([path, path])
    with pytest.raises(TwinprobeError, match="lacks the column confidence"):
        read_answers([written(tmp_path, table("x/a", 1).drop(columns="confidence"))])


def test_scores_are_means(tmp_path: Path) -> None:
    one = answers(5)
    means = dict(zip(SCORES, scored(one).mean(axis=0), strict=True))
    found = calibration(one, n_resamples=20)
    assert means == pytest.approx({name: found[name] for name in SCORES})
