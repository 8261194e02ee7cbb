from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from synthetic import about_rows

from activations.errors import TwinprobeError
from probes.controls import control_labels, draw_control
from probes.rows import RowLabels


def _about(keys: list[str], labels: list[str]) -> RowLabels:
    about = about_rows(np.array(labels))
    return RowLabels(**{**about.__dict__, "controls": np.array(keys)})


def test_a_key_has_one_label_in_every_split_and_form() -> None:
    labels = ["a", "b", "c"] * 60
    code, prose = about_rows(np.array(labels), seed=1), about_rows(np.array(labels), seed=2)
    control = draw_control([code, prose], seed=3)
    assert set(control) == set(code.controls) | set(prose.controls)
    for about in (code, prose):
        drawn = control_labels(about, control)
        assert {key: set(drawn[about.controls == key]) for key in about.controls} == {
            key: {control[key]} for key in about.controls
        }


def test_the_draw_is_seeded_and_does_not_depend_on_row_order() -> None:
    about = about_rows(np.array(["a", "b", "c"] * 60))
    order = np.random.default_rng(0).permutation(len(about))
    assert draw_control([about], 1) == draw_control([about.take(order)], 1)
    draws = [draw_control([about], seed) for seed in range(6)]
    assert all(draws[0] != other for other in draws[1:])


def test_labels_follow_the_empirical_distribution() -> None:
    labels = ["a"] * 360 + ["b"] * 180 + ["c"] * 60
    rng = np.random.default_rng(0)
    about = _about([f"k{i}" for i in range(600)], rng.permutation(labels).tolist())
    counts = Counter(draw_control([about], 5).values())
    assert counts["a"] == pytest.approx(360, abs=1)
    assert counts["b"] == pytest.approx(180, abs=1)
    assert counts["c"] == pytest.approx(60, abs=1)


def test_labels_are_independent_of_the_task() -> None:
    rng = np.random.default_rng(1)
    keys = [f"k{i}" for i in range(400)]
    about = _about(keys, rng.permutation(["a", "b"] * 200).tolist())
    agree = [np.mean(control_labels(about, draw_control([about], seed)) == about.labels) for seed in range(20)]
    assert np.mean(agree) == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("n_keys", [2, 3, 4])
def test_few_keys_do_not_share_one_label(n_keys: int) -> None:
    labels = np.random.default_rng(0).permutation(["a"] * 80 + ["b"] * 10).tolist()
    about = _about([f"k{i % n_keys}" for i in range(90)], labels)
    for seed in range(30):
        assert set(draw_control([about], seed).values()) == {"a", "b"}


def test_balanced_labels_and_as_many_keys_use_every_label() -> None:
    about = _about([f"k{i % 3}" for i in range(90)], ["a", "b", "c"] * 30)
    for seed in range(30):
        assert sorted(draw_control([about], seed).values()) == ["a", "b", "c"]


def test_training_keys_differ_even_when_test_has_other_keys() -> None:
    labels = np.random.default_rng(0).permutation(["a"] * 70 + ["b"] * 20).tolist()
    about = about_rows(np.array(labels))
    rng = np.random.default_rng(2)
    keys = [f"{split}{rng.integers(2 if split == 'train' else 20)}" for split in about.splits]
    about = RowLabels(**{**about.__dict__, "controls": np.array(keys)})
    for seed in range(30):
        drawn = control_labels(about, draw_control([about], seed))
        assert len(set(drawn[about.mask("train")])) == 2


def test_a_control_that_can_not_be_drawn_is_refused() -> None:
    with pytest.raises(TwinprobeError, match="at least two labels"):
        draw_control([about_rows(np.array(["a"] * 30))])
    with pytest.raises(TwinprobeError, match="one control key"):
        draw_control([_about(["k"] * 30, ["a", "b"] * 15)])
    about = about_rows(np.array(["a", "b"] * 30))
    with pytest.raises(TwinprobeError, match="has no control label"):
        control_labels(about, {"key0": "a"})
