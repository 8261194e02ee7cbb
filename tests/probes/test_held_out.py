"""Leaving one form out: planted directions that are shared or not, and rows that must never be seen."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from synthetic import Gaussians, about_rows

from activations.errors import TwinprobeError
from probes.baselines import Baselines, baselines
from probes.controls import draw_control
from probes.held_out import HeldOut, held_out_rows, leave_one_out
from probes.rows import RowLabels, Rows
from probes.sweep import sweep

FORMS = ("c", "java", "python")
NAMES = np.array(["safe", "vulnerable"])
NO_SURFACE = Baselines(0.5, 0.5, 0.5, 0.5)


def planted(directions: NDArray[np.float64], n: int = 900, names: NDArray[np.str_] = NAMES) -> dict[str, Rows]:
    """A form per direction, in which the label shifts the rows along it; items and groups are the form's own."""
    rows = {}
    for number, (form, direction) in enumerate(zip(FORMS, directions, strict=True)):
        rng = np.random.default_rng(number)
        classes = rng.integers(0, len(names), n)
        features = rng.normal(size=(n, directions.shape[1])) + np.outer(2 * classes - 1, direction)
        about = about_rows(names[classes], seed=number)
        own = {name: np.char.add(f"{form}/", getattr(about, name)) for name in ("items", "groups")}
        rows[form] = Rows(features.astype(np.float32), RowLabels(**{**about.__dict__, **own}))
    return rows


def left_out(rows: dict[str, Rows], form: str = "java", **options: int) -> HeldOut:
    control = draw_control([each.about for each in rows.values()], 0)
    [own] = sweep({"resid_post.1": rows[form].features}, rows[form].about, control=control, n_resamples=200)
    return leave_one_out(rows, form, own, control, NO_SURFACE, n_resamples=200, **options)


def one(index: int, size: float = 1.5) -> NDArray[np.float64]:
    return np.eye(20)[index] * size


def test_a_shared_direction_transfers_fully() -> None:
    found = left_out(planted(np.stack([one(0)] * 3)))
    assert found.result.score > 0.9
    assert found.ratio == pytest.approx(1.0, abs=0.05)
    assert found.ratio_low is not None and found.ratio_high is not None
    assert found.ratio_low < 1.0 <= found.ratio_high
    assert found.result.auroc is not None and found.auroc_low is not None and found.auroc_high is not None
    assert 0.95 < found.auroc_low < found.result.auroc < found.auroc_high <= 1.0
    assert (found.target_form, found.source_forms, found.n_dropped) == ("java", "c, python", 0)


def test_directions_of_each_forms_own_fall_to_chance() -> None:
    found = left_out(planted(np.stack([one(0), one(1), one(2)])))
    assert found.in_form > 0.9
    assert found.result.low < 0.5 < found.result.high
    assert found.auroc_low is not None and found.auroc_high is not None
    assert found.auroc_low < 0.5 < found.auroc_high
    assert found.ratio is not None and abs(found.ratio) < 0.2
    assert abs(found.result.selectivity) < 0.15


def test_a_direction_turned_round_falls_below_chance() -> None:
    found = left_out(planted(np.stack([one(0), -one(0), one(0)])))
    assert found.result.score < 0.1
    assert found.ratio is not None and found.ratio < -0.6


def test_without_anything_to_read_in_the_form_there_is_no_ratio() -> None:
    found = left_out(planted(np.stack([one(0), one(1, 0.0), one(2)])))
    assert (found.ratio, found.ratio_low, found.ratio_high) == (None, None, None)
    assert abs(found.gain) < 0.1


def changed(rows: dict[str, Rows], change: Callable[[str, RowLabels], NDArray[np.bool_]]) -> dict[str, Rows]:
    """Some rows of every form replaced by noise of their own size."""
    rng = np.random.default_rng(7)
    found = {}
    for form, each in rows.items():
        noise = rng.normal(size=each.features.shape).astype(np.float32)
        found[form] = Rows(np.where(change(form, each.about)[:, None], noise, each.features), each.about)
    return found


def test_no_test_row_of_any_form_is_learnt_from_nor_any_row_of_the_form_left_out() -> None:
    rows = planted(np.stack([one(0)] * 3))

    def unseen(form: str, about: RowLabels) -> NDArray[np.bool_]:
        return (about.splits == "test") | (form == "java")

    def learnt(form: str, about: RowLabels) -> NDArray[np.bool_]:
        return (about.splits == "train") & (form == "python")

    plain, other, third = (left_out(each).result.probe for each in (rows, changed(rows, unseen), changed(rows, learnt)))
    np.testing.assert_array_equal(plain.coef_, other.coef_)
    assert not np.array_equal(plain.coef_, third.coef_)
    pooled = held_out_rows(rows, "java")
    assert {tuple(sorted({name[0] for name in pooled.about.split(split).items})) for split in ("train", "dev")} == {
        ("c", "p")
    }
    assert pooled.about.split("test").items.tolist() == rows["java"].about.split("test").items.tolist()
    assert len(pooled) == sum((rows[form].about.splits != "test").sum() for form in ("c", "python")) + len(
        rows["java"].split("test")
    )


def test_the_surface_of_the_pooled_rows_can_be_scored() -> None:
    surface = baselines(held_out_rows(planted(np.stack([one(0)] * 3)), "c").about)
    assert max(surface.bag_of_tokens, surface.token, surface.position) < 0.62


def test_labels_that_the_others_lack_are_dropped_and_counted() -> None:
    truth = Gaussians(3, 24, 3.0, seed=1)
    rows = {}
    for number, form in enumerate(FORMS):
        features, classes = truth.sample(1400, number)
        about = about_rows(np.array(["one", "three", "two"])[classes], seed=number)
        own = {name: np.char.add(f"{form}/", getattr(about, name)) for name in ("items", "groups")}
        rows[form] = Rows(features, RowLabels(**{**about.__dict__, **own}))
    for form in ("c", "python"):
        rows[form] = rows[form].take(rows[form].about.labels != "three")
    found = left_out(rows)
    test = rows["java"].about.split("test")
    assert found.n_dropped == (test.labels == "three").sum() > 0
    assert found.result.n_test == len(test) - found.n_dropped
    assert found.result.score > 0.8


def test_a_row_of_a_table_holds_the_probe_and_the_comparison() -> None:
    row = left_out(planted(np.stack([one(0)] * 3))).row()
    assert {
        "target_form",
        "source_forms",
        "score",
        "macro_f1",
        "auroc",
        "auroc_low",
        "control",
        "ratio",
        "chance",
    } <= set(row)
    assert "result" not in row


def test_mistakes_are_refused_in_one_line() -> None:
    rows = planted(np.stack([one(0)] * 3), n=180)
    with pytest.raises(TwinprobeError, match=r"no form 'jawa' \(did you mean 'java'"):
        held_out_rows(rows, "jawa")
    with pytest.raises(TwinprobeError, match=r"^one form given; leaving one out needs two"):
        held_out_rows({"c": rows["c"]}, "c")
    narrow = Rows(rows["c"].features[:, :5], rows["c"].about)
    with pytest.raises(TwinprobeError, match=r"^rows of widths 5, 20 given"):
        held_out_rows({**rows, "c": narrow}, "java")
    renamed = RowLabels(**{**rows["java"].about.__dict__, "labels": np.char.add("un", rows["java"].about.labels)})
    with pytest.raises(TwinprobeError, match=r"form 'java' shares no label with the others"):
        held_out_rows({**rows, "java": Rows(rows["java"].features, renamed)}, "java")
    control = draw_control([each.about for each in rows.values()], 0)
    [of_c] = sweep({"s": rows["c"].features}, rows["c"].about, control=control, n_resamples=20)
    with pytest.raises(TwinprobeError, match=r"form 'java' do not match its result at s"):
        leave_one_out(rows, "java", of_c, control, NO_SURFACE)


def test_a_group_that_is_tested_in_one_form_and_learnt_in_another_is_refused() -> None:
    rows = planted(np.stack([one(0)] * 3), n=180)
    about = rows["c"].about
    groups = np.where(about.splits == "train", rows["java"].about.split("test").groups[0], about.groups)
    leaking = RowLabels(**{**about.__dict__, "groups": groups})
    with pytest.raises(TwinprobeError, match=r"group 'java/item\d+' is in two splits \(train and test\)"):
        held_out_rows({**rows, "c": Rows(rows["c"].features, leaking)}, "java")
