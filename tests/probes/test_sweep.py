from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from synthetic import Gaussians, about_rows

from activations.errors import TwinprobeError
from probes.controls import draw_control
from probes.rows import RowLabels
from probes.sweep import best_layer, check_splits, sweep

NAMES = np.array(["one", "three", "two"])


def _planted(n: int = 1600, width: int = 32) -> tuple[dict[str, np.ndarray], RowLabels, Gaussians]:
    """Four layers: noise, weak signal, the planted signal, weak signal."""
    truth = Gaussians(3, width, 2.5, seed=1)
    features, classes = truth.sample(n, seed=2)
    rng = np.random.default_rng(3)
    noise = [rng.normal(size=(n, width)).astype(np.float32) * 5 for _ in range(4)]
    layers = {
        "resid_post.0": noise[0],
        "resid_post.1": 0.3 * features + noise[1],
        "resid_post.2": features,
        "resid_post.3": 0.3 * features + noise[2],
    }
    return layers, about_rows(NAMES[classes], n_keys=60), truth


def test_the_planted_layer_is_found_and_reaches_the_bayes_score() -> None:
    layers, about, truth = _planted(6000, 24)
    seen: list[tuple[int, int]] = []
    results = sweep(layers, about, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert [result.site for result in results] == list(layers)
    best = best_layer(results)
    assert best.site == "resid_post.2"
    test = about.mask("test")
    # On the same rows, so that the sampling error of the test split cancels.
    bayes = np.mean(NAMES[truth.bayes_rule(layers["resid_post.2"][test])] == about.labels[test])
    assert abs(best.score - bayes) < 0.02
    assert best.low < best.score < best.high
    assert best.selectivity_low > 0.2
    assert best.control < 0.5
    assert best.converged
    assert best.n_unconverged == 0
    noise = results[0]
    assert noise.low <= noise.majority + 0.03 <= noise.high + 0.06
    assert noise.selectivity_low <= 0 <= noise.selectivity_high


def test_result_is_a_bundle_that_agrees_with_its_rows() -> None:
    layers, about, _ = _planted()
    [result] = sweep({"resid_post.2": layers["resid_post.2"]}, about)
    assert result.score == pytest.approx(result.correct.mean())
    assert result.control == pytest.approx(result.control_correct.mean())
    assert result.selectivity == pytest.approx(result.score - result.control)
    test = about.split("test")
    assert result.items.tolist() == test.items.tolist()
    assert (result.n_train, result.n_dev, result.n_test) == tuple(
        int((about.splits == name).sum()) for name in ("train", "dev", "test")
    )
    assert result.n_items == len(set(test.items))
    assert result.n_classes == 3
    assert result.control_seen > 0.9
    predicted = result.probe.predict(layers["resid_post.2"][about.mask("test")])
    assert ((predicted == test.labels) == result.correct).all()
    row = result.row()
    assert {"score", "low", "high", "control", "selectivity", "majority", "bag_of_tokens", "position"} <= set(row)
    assert not {"correct", "probe", "items"} & set(row)


def test_shuffled_labels_have_no_selectivity() -> None:
    covered, scores = 0, []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        layers, about, _ = _planted(900, 24)
        shuffled = RowLabels(**{**about.__dict__, "labels": rng.permutation(about.labels)})
        [result] = sweep({"site": layers["resid_post.2"]}, shuffled, seed=seed, n_resamples=500)
        covered += result.selectivity_low <= 0 <= result.selectivity_high
        scores.append(result.score)
    assert covered >= 10
    assert np.mean(scores) == pytest.approx(1 / 3, abs=0.03)


def test_a_control_that_can_be_memorised_lowers_selectivity() -> None:
    """Rows that spell out their key: the control is solved, so the score proves nothing, and selectivity says so."""
    n, n_keys = 900, 12
    rng = np.random.default_rng(0)
    keys = rng.integers(0, n_keys, n)
    about = about_rows(np.array(["a", "b", "c"])[keys % 3])
    about = RowLabels(**{**about.__dict__, "controls": np.char.add("k", keys.astype(str))})
    features = (np.eye(n_keys)[keys] * 3 + rng.normal(0, 0.3, (n, n_keys))).astype(np.float32)
    [result] = sweep({"embed": features}, about)
    assert result.score > 0.98
    assert result.control > 0.98
    assert result.selectivity_low <= 0 <= result.selectivity_high


def test_unseen_control_keys_are_reported() -> None:
    layers, about, _ = _planted(900, 16)
    disjoint = RowLabels(**{**about.__dict__, "controls": np.char.add(about.splits, about.controls)})
    [result] = sweep({"site": layers["resid_post.2"]}, disjoint)
    assert result.control_seen == 0.0


def test_choices_do_not_depend_on_the_test_split() -> None:
    layers, about, _ = _planted(900, 24)
    test = about.mask("test")
    control = draw_control([about], 0)
    spoiled_labels = about.labels.copy()
    spoiled_labels[test] = np.random.default_rng(5).permutation(spoiled_labels[test])
    spoiled = {site: np.where(test[:, None], np.float32(0.1) * rows[::-1], rows) for site, rows in layers.items()}
    before = sweep(layers, about, control=control)
    after = sweep(spoiled, RowLabels(**{**about.__dict__, "labels": spoiled_labels}), control=control)
    assert best_layer(before).score != best_layer(after).score
    assert best_layer(before).site == best_layer(after).site
    for one, other in zip(before, after, strict=True):
        assert (one.strength, one.dev_score) == (other.strength, other.dev_score)
        assert np.array_equal(one.probe.coef_, other.probe.coef_)
        assert one.control_probe.C == other.control_probe.C


def test_best_layer_prefers_dev_over_test() -> None:
    layers, about, _ = _planted(900, 16)
    [result] = sweep({"site": layers["resid_post.2"]}, about, n_resamples=10)
    good_on_dev = dataclasses.replace(result, site="a", dev_score=0.9, score=0.5)
    good_on_test = dataclasses.replace(result, site="b", dev_score=0.8, score=0.99)
    assert best_layer([good_on_test, good_on_dev]).site == "a"
    assert best_layer([dataclasses.replace(good_on_dev, site="first"), good_on_dev]).site == "first"
    with pytest.raises(TwinprobeError, match="no probe results"):
        best_layer([])


def test_the_same_seed_gives_the_same_table() -> None:
    layers, about, _ = _planted(900, 16)
    first, second = (sweep(layers, about, seed=7) for _ in range(2))
    assert [result.row() for result in first] == [result.row() for result in second]
    assert [result.row() for result in sweep(layers, about, seed=8)] != [result.row() for result in first]


def test_sites_are_read_one_at_a_time() -> None:
    layers, about, _ = _planted(900, 16)
    held: list[str] = []

    class Lazy(dict[str, np.ndarray]):
        def __getitem__(self, site: str) -> np.ndarray:
            held.append(site)
            return super().__getitem__(site)

    counts: list[int] = []
    sweep(Lazy(layers), about, progress=lambda done, total: counts.append(len(held)))
    assert counts == [1, 2, 3, 4]


def test_leaks_and_gaps_are_refused() -> None:
    layers, about, _ = _planted(900, 16)
    groups = about.groups.copy()
    groups[:] = "template"
    with pytest.raises(TwinprobeError, match=r"group 'template' is in two splits \(train and dev\)"):
        sweep(layers, RowLabels(**{**about.__dict__, "groups": groups}))
    with pytest.raises(TwinprobeError, match="item 'item0' is in two splits"):
        check_splits(RowLabels(**{**about.__dict__, "items": np.where(about.splits == "test", "item0", about.items)}))
    with pytest.raises(TwinprobeError, match="no rows in split 'dev'"):
        sweep(layers, RowLabels(**{**about.__dict__, "splits": np.where(about.splits == "dev", "train", about.splits)}))
    with pytest.raises(TwinprobeError, match="no sites"):
        sweep({}, about)
    one = RowLabels(**{**about.__dict__, "labels": np.where(about.splits == "train", "one", about.labels)})
    with pytest.raises(TwinprobeError, match="at least two labels in the train split"):
        sweep(layers, one)
    with pytest.raises(TwinprobeError, match="feature rows for"):
        sweep({"site": layers["resid_post.0"][:-1]}, about)
    with pytest.raises(TwinprobeError, match="positive numbers"):
        sweep(layers, about, strengths=(0.0,))
