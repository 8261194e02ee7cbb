from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes
from synthetic import Gaussians, about_rows

from activations.errors import TwinprobeError
from probes.controls import draw_control
from probes.estimators import LogisticProbe
from probes.mapped_transfer import MappedTransfer, mapped_transfer
from probes.procrustes import Neutral, fit_map, fit_maps, moved_probe, random_map
from probes.result import ProbeResult
from probes.rows import Rows
from probes.sweep import sweep

NAMES = np.array(["one", "three", "two"])
WIDTH = 24


def _turn(width: int, seed: int) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def _result(rows: Rows, family: str = "logistic") -> ProbeResult:
    control = draw_control([rows.about], 0)
    [result] = sweep({"resid_post.1": rows.features}, rows.about, control=control, family=family, n_resamples=20)
    return result


def _run(source: Rows, target: Rows, neutral: Neutral, seed: int = 0, **options: Any) -> MappedTransfer:
    maps = fit_maps(neutral, seed=seed, n_draws=options.pop("n_draws", 10))
    control = draw_control([source.about, target.about], 0)
    return mapped_transfer(
        _result(source), _result(target), source.about, target, control, maps, seed=seed, n_resamples=200, **options
    )


def _rows(features: np.ndarray, classes: np.ndarray) -> Rows:
    return Rows(features.astype(np.float32), about_rows(NAMES[classes]))


def _ids(n: int) -> np.ndarray:
    return np.char.add("neutral", np.arange(n).astype(str))


def _related(truth: Gaussians, turn: np.ndarray, noise: float = 0.1) -> tuple[Rows, Rows, Neutral]:
    """Rows of one space, the same rows turned into another, and neutral rows of both."""
    features, classes = truth.sample(1400, seed=2)
    neutral, _ = truth.sample(600, seed=3)
    rng = np.random.default_rng(4)

    def other(rows: np.ndarray) -> np.ndarray:
        moved = 2.0 * rows @ turn - 1.0
        return (moved + noise * rng.normal(size=moved.shape)).astype(np.float32)

    return (
        _rows(features, classes),
        _rows(other(features), classes),
        Neutral(neutral, other(neutral), _ids(len(neutral))),
    )


def test_a_planted_rotation_is_recovered_exactly() -> None:
    rng = np.random.default_rng(0)
    rows, turn = rng.normal(size=(60, 12)) * np.arange(1, 13), _turn(12, 1)
    moved = 3.0 * (rows - 2.0) @ turn + rng.normal(size=12)
    found = fit_map(rows, moved)
    assert found.rotation == pytest.approx(turn, abs=1e-10)
    assert found.scale == pytest.approx(3.0)
    assert found.rank == 12
    assert found.explained == pytest.approx(1.0)
    assert found.apply(rows) == pytest.approx(moved)
    back = fit_map(moved, rows)
    assert back.rotation == pytest.approx(turn.T, abs=1e-10)
    unscaled = fit_map(rows, moved, scale=False)
    assert unscaled.scale == 1.0
    assert unscaled.rotation == pytest.approx(turn, abs=1e-10)


def test_the_rotation_is_the_best_one_under_noise() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(80, 9))
    moved = rows @ _turn(9, 1) + rng.normal(size=(80, 9))
    centred, wanted = rows - rows.mean(axis=0), moved - moved.mean(axis=0)
    assert fit_map(rows, moved).rotation == pytest.approx(orthogonal_procrustes(centred, wanted)[0])
    padded = np.pad(wanted[:, :6], ((0, 0), (0, 3)))  # a narrower space counts as padded with zeros
    assert fit_map(rows, moved[:, :6]).rotation == pytest.approx(orthogonal_procrustes(centred, padded)[0][:, :6])


def test_a_narrow_space_is_embedded_in_a_wide_one_and_found_there_again() -> None:
    rng = np.random.default_rng(0)
    narrow, frame = rng.normal(size=(100, 7)), _turn(15, 1)[:7]
    wide = narrow @ frame + 4.0
    there, back = fit_map(narrow, wide), fit_map(wide, narrow)
    assert there.rank == back.rank == 7
    assert there.rotation == pytest.approx(frame)
    assert there.apply(narrow) == pytest.approx(wide)
    assert back.apply(wide) == pytest.approx(narrow)
    assert there.rotation @ there.rotation.T == pytest.approx(np.eye(7))


def test_directions_that_the_rows_do_not_span_are_mapped_to_nothing() -> None:
    rng = np.random.default_rng(0)
    rows, turn = rng.normal(size=(5, 12)), _turn(12, 1)
    found = fit_map(rows, rows @ turn)
    assert found.rank == 4  # five centred rows
    assert found.apply(rows) == pytest.approx(rows @ turn)
    spanned = np.linalg.svd(rows - rows.mean(axis=0))[2][:4]
    outside = rng.normal(size=(3, 12))
    outside -= outside @ spanned.T @ spanned
    assert found.apply(outside + rows.mean(axis=0)) == pytest.approx(np.tile(found.to_mean, (3, 1)))


def test_a_random_map_has_the_rank_means_and_spread_of_the_fitted_one() -> None:
    rng = np.random.default_rng(0)
    rows, moved = rng.normal(size=(50, 9)) * 2 + 1, rng.normal(size=(50, 6)) * 5
    drawn = random_map(rows, moved, 6, seed=1)
    assert drawn.rotation.T @ drawn.rotation == pytest.approx(np.eye(6))
    mapped = drawn.apply(rows)
    assert mapped.mean(axis=0) == pytest.approx(moved.mean(axis=0))
    assert mapped.var(axis=0).sum() == pytest.approx(moved.var(axis=0).sum())
    assert not np.allclose(drawn.rotation, random_map(rows, moved, 6, seed=2).rotation)
    assert np.array_equal(drawn.rotation, random_map(rows, moved, 6, seed=1).rotation)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("width", [16, 24, 30])
def test_moving_the_probe_equals_mapping_the_rows(n_classes: int, width: int) -> None:
    features, classes = Gaussians(n_classes, 24, 2.0).sample(300, seed=1)
    others = np.random.default_rng(2).normal(size=(300, width)) + 3.0
    probe = LogisticProbe(C=0.1).fit(features.astype(np.float64), classes)
    found = fit_map(others, features)
    moved = moved_probe(probe, found)
    assert moved.decision_function(others) == pytest.approx(probe.decision_function(found.apply(others)))
    assert moved.predict(others).tolist() == probe.predict(found.apply(others)).tolist()
    assert moved.get_params() == probe.get_params()
    assert probe.n_features_in_ == 24  # the original is as it was


def test_a_probe_transfers_fully_under_a_planted_rotation_with_noise() -> None:
    source, target, neutral = _related(Gaussians(3, WIDTH, 3.0, seed=1), _turn(WIDTH, 5))
    result = _run(source, target, neutral)
    assert result.ratio == pytest.approx(1.0, abs=0.06)
    assert result.ratio_low is not None and result.ratio_low <= 1.02
    assert result.ratio_high is not None and result.ratio_high >= 0.98
    assert result.score > 0.85
    assert result.explained > 0.98
    assert result.floor == max(result.chance, result.random, result.shuffled) < 0.6
    assert result.floor == getattr(result, result.floor_kind)
    assert result.gain == pytest.approx(result.own - result.floor)
    assert max(result.random, result.shuffled) <= result.controls_high < result.score
    assert result.unmapped is not None and result.unmapped < 0.7
    assert result.score == pytest.approx(result.correct.mean())
    assert result.n_test == len(result.items) == len(target.about.split("test"))
    assert result.n_neutral == 600
    assert "ratio" in result.row() and "correct" not in result.row()
    # The keys say nothing about the rows, so the control probe knows nothing, here or there.
    assert result.control == pytest.approx(result.control_correct.mean())
    assert result.control < 0.5
    assert result.selectivity == pytest.approx(result.score - result.control)
    assert result.selectivity_low < result.selectivity < result.selectivity_high


def test_a_control_that_is_memorised_in_both_spaces_moves_along() -> None:
    """Rows that are their control key: the control probe knows as much after the map as before."""
    rng = np.random.default_rng(0)
    keys = rng.integers(0, 8, 1400)
    about = replace(about_rows(NAMES[rng.integers(0, 3, 1400)]), controls=np.char.add("key", keys.astype(str)))
    turn, rows = _turn(WIDTH, 1), 4 * np.eye(WIDTH)[keys] + 0.1 * rng.normal(size=(1400, WIDTH))
    neutral = rng.normal(size=(600, WIDTH))
    source, target = (Rows(each.astype(np.float32), about) for each in (rows, rows @ turn))
    result = _run(source, target, Neutral(neutral, neutral @ turn, _ids(600)))
    assert result.control > 0.99
    assert result.selectivity < -0.5
    assert result.ratio is None


def test_the_maps_of_a_pair_of_spaces_are_those_fitted_one_by_one() -> None:
    _, _, neutral = _related(Gaussians(3, WIDTH, 3.0, seed=1), _turn(WIDTH, 5))
    maps, of, to = fit_maps(neutral, n_draws=3, seed=4), neutral.target, neutral.source
    alone = fit_map(of, to)
    assert maps.fitted.rotation == pytest.approx(alone.rotation)
    assert (maps.fitted.scale, maps.fitted.explained) == pytest.approx((alone.scale, alone.explained))
    moved = alone.apply(of)
    assert alone.explained == pytest.approx(1 - ((moved - to) ** 2).sum() / ((to - to.mean(axis=0)) ** 2).sum())
    assert maps.unturned is not None
    spread = np.sqrt(to.var(axis=0, dtype=float).sum() / of.var(axis=0, dtype=float).sum())
    still = spread * (of - of.mean(axis=0, dtype=float)) + to.mean(axis=0, dtype=float)
    assert maps.unturned.apply(of) == pytest.approx(still)
    assert len(maps.shuffled) == len(maps.random) == 3
    for drawn in (*maps.shuffled, *maps.random):
        assert drawn.rank == WIDTH
        assert drawn.explained < 0.5 < maps.fitted.explained
        assert drawn.apply(of).var(axis=0).sum() == pytest.approx(to.var(axis=0, dtype=float).sum())
    assert not np.allclose(maps.shuffled[0].rotation, maps.shuffled[1].rotation)
    assert fit_maps(Neutral(to[:, 1:], of, neutral.ids), n_draws=1).unturned is None


def test_a_probe_transfers_between_widths() -> None:
    source, target, neutral = _related(Gaussians(3, WIDTH, 3.0, seed=1), _turn(40, 5)[:WIDTH])
    there, back = (
        _run(source, target, neutral),
        _run(target, source, Neutral(neutral.target, neutral.source, neutral.ids)),
    )
    for result in (there, back):
        assert result.rank == WIDTH
        assert result.ratio == pytest.approx(1.0, abs=0.06)
        assert result.unmapped is None


def test_unrelated_spaces_do_not_transfer() -> None:
    """One map between unrelated spaces can fall out either way by luck, which the controls' spread shows; several not."""
    ratios = []
    for seed in range(100, 500, 50):
        one, other = Gaussians(3, WIDTH, 3.5, seed=seed), Gaussians(3, WIDTH, 3.5, seed=seed + 1)
        features, classes = one.sample(1000, seed=seed + 2)
        rows, rows_classes = other.sample(1000, seed=seed + 3)
        neutral = Neutral(one.sample(300, seed=seed + 4)[0], other.sample(300, seed=seed + 5)[0], _ids(300))
        result = _run(_rows(features, classes), _rows(rows, rows_classes), neutral)
        assert result.own > 0.85
        assert result.score < result.controls_high + 0.1
        assert result.ratio is not None
        ratios.append(result.ratio)
    assert abs(np.mean(ratios)) < 0.2
    assert max(ratios) < 0.6


def test_a_label_written_elsewhere_does_not_transfer_through_a_perfect_map() -> None:
    """The spaces match row by row, but each writes the label along a direction of its own."""
    rng = np.random.default_rng(0)
    turn, classes = _turn(WIDTH, 1), rng.integers(0, 3, 1400)
    shared, neutral = rng.normal(size=(1400, WIDTH)), rng.normal(size=(600, WIDTH))
    written = 4 * np.eye(WIDTH)
    source, target = shared + written[classes], (shared + written[10 + classes]) @ turn
    result = _run(_rows(source, classes), _rows(target, classes), Neutral(neutral, neutral @ turn, _ids(600)))
    assert result.explained > 0.99
    assert result.own > 0.95
    assert result.ratio is not None and abs(result.ratio) < 0.2


def test_models_that_share_their_coordinates_need_no_map() -> None:
    source, target, neutral = _related(Gaussians(3, WIDTH, 3.0, seed=1), np.eye(WIDTH))
    result = _run(source, target, neutral)
    assert result.unmapped == pytest.approx(result.score, abs=0.03)
    assert result.random < result.score - 0.3


def test_no_ratio_without_a_gain_of_the_targets_own_probe() -> None:
    source, target, neutral = _related(Gaussians(3, WIDTH, 3.0, seed=1), _turn(WIDTH, 5))
    noise = Rows(np.random.default_rng(0).normal(size=target.features.shape).astype(np.float32), target.about)
    assert _run(source, noise, neutral).ratio is None
    assert _run(source, target, neutral, min_gain=0.9).row()["ratio"] is None


def test_equal_arguments_give_equal_transfers_and_seeds_only_change_the_controls() -> None:
    source, target, neutral = _related(Gaussians(3, WIDTH, 3.0, seed=1), _turn(WIDTH, 5))
    first, second, other = (_run(source, target, neutral, seed=seed, n_draws=2) for seed in (1, 1, 2))
    assert first.row() == second.row()
    assert other.score == first.score
    assert (other.random, other.shuffled) != (first.random, first.shuffled)


def test_fitting_the_map_on_probed_texts_is_refused() -> None:
    source, target, neutral = _related(Gaussians(3, WIDTH, 3.0, seed=1), _turn(WIDTH, 5))
    ids = neutral.ids.astype("U20")
    ids[17] = target.about.items[0]  # a training item: no less probed than a test item
    with pytest.raises(TwinprobeError, match="1 of the texts to fit the map on are probed too \\(first: 'item0'\\)"):
        _run(source, target, replace(neutral, ids=ids))
    ids[17] = "item5/code"  # as a store names the texts of an item
    with pytest.raises(TwinprobeError, match="first: 'item5/code'"):
        _run(source, target, replace(neutral, ids=ids))
    ids[17] = "template9"
    grouped = Rows(target.features, replace(target.about, groups=np.char.add("template", target.about.items)))
    with pytest.raises(TwinprobeError, match="probed too"):
        _run(source, grouped, replace(neutral, ids=np.where(ids == "template9", "templateitem9", ids)))
    elsewhere = Rows(source.features, replace(source.about, items=np.char.add("neutral", source.about.items)))
    ids[17] = "neutralitem3"
    with pytest.raises(TwinprobeError, match="probed too"):
        _run(elsewhere, target, replace(neutral, ids=ids))


def test_shapes_that_do_not_fit_are_refused() -> None:
    source, target, neutral = _related(Gaussians(3, WIDTH, 3.0, seed=1), _turn(WIDTH, 5))
    with pytest.raises(TwinprobeError, match="599 ids"):
        _run(source, target, replace(neutral, ids=neutral.ids[1:]))
    with pytest.raises(TwinprobeError, match="neutral rows of the target are 23 wide; expected 24"):
        _run(source, target, replace(neutral, target=neutral.target[:, 1:]))
    with pytest.raises(TwinprobeError, match="do not match its result"):
        fewer = target.take(np.flatnonzero(target.about.labels != "one"))
        maps, control = fit_maps(neutral, n_draws=1), draw_control([source.about], 0)
        mapped_transfer(_result(source), _result(target), source.about, fewer, control, maps)
    with pytest.raises(TwinprobeError, match="n_draws is 0"):
        _run(source, target, neutral, n_draws=0)
    with pytest.raises(TwinprobeError, match="a DifferenceInMeans can not be moved"):
        other, maps, control = (
            _result(source, "difference"),
            fit_maps(neutral, n_draws=1),
            draw_control([source.about], 0),
        )
        mapped_transfer(other, _result(target), source.about, target, control, maps)
    with pytest.raises(TwinprobeError, match="no label in common"):
        _run(
            source, Rows(target.features, replace(target.about, labels=np.char.add("x", target.about.labels))), neutral
        )
    with pytest.raises(TwinprobeError, match="the same tokens in both"):
        fit_map(neutral.source, neutral.target[1:])
    with pytest.raises(TwinprobeError, match="do not vary together"):
        fit_map(np.ones((9, 3)), np.ones((9, 3)))
    with pytest.raises(TwinprobeError, match="finite rows"):
        fit_map(np.full((9, 3), np.nan), np.ones((9, 3)))
    found = fit_map(neutral.target, neutral.source[:, 1:])
    with pytest.raises(TwinprobeError, match="the map takes rows \\[n, 24\\]"):
        found.apply(neutral.target[:, 1:])
    with pytest.raises(TwinprobeError, match="ends in a space of width 23"):
        moved_probe(_result(source).probe, found)
