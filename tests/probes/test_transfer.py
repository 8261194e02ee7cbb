from __future__ import annotations

import numpy as np
import pytest
from synthetic import Gaussians, about_rows

from activations.errors import TwinprobeError
from probes.controls import draw_control
from probes.rows import RowLabels, Rows
from probes.sweep import ProbeResult, best_layer, sweep
from probes.transfer import TransferResult, transfer

NAMES = np.array(["one", "three", "two"])


def _form(truth: Gaussians, seed: int, n: int = 1400, names: np.ndarray = NAMES) -> Rows:
    features, classes = truth.sample(n, seed)
    return Rows(features, about_rows(names[classes], n_keys=40, seed=seed))


def _noise_like(rows: Rows, seed: int) -> Rows:
    noise = np.random.default_rng(seed).normal(size=rows.features.shape).astype(np.float32)
    return Rows(noise, rows.about)


def _run(source: Rows, target: Rows, **options: float) -> TransferResult:
    control = draw_control([source.about, target.about], 0)
    results: list[ProbeResult] = []
    for rows in (source, target):
        results += sweep({"resid_post.1": rows.features}, rows.about, control=control, n_resamples=200)
    return transfer(*results, source, target, control, **options)


def test_a_shared_direction_transfers_fully() -> None:
    truth = Gaussians(3, 24, 2.5, seed=1)
    result = _run(_form(truth, 2), _form(truth, 3))
    assert result.ratio is not None
    assert result.ratio == pytest.approx(1.0, abs=0.08)
    assert result.ratio_low < 1.0 < result.ratio_high
    assert result.score > 0.8
    assert result.selectivity_low > 0.3
    assert result.n_dropped == 0
    assert result.gain == pytest.approx(result.in_form - result.chance)
    assert result.score == pytest.approx(result.correct.mean())
    assert len(result.items) == result.n_test
    assert "ratio" in result.row()
    assert "correct" not in result.row()


def test_unrelated_directions_do_not_transfer() -> None:
    result = _run(_form(Gaussians(3, 40, 3.5, seed=1), 2), _form(Gaussians(3, 40, 3.5, seed=50), 3))
    assert result.in_form > 0.85
    assert result.ratio is not None
    assert abs(result.ratio) < 0.35
    assert result.ratio_high < 0.6


def test_an_offset_between_forms_shows_in_the_recentred_score_only() -> None:
    truth = Gaussians(3, 24, 3.0, seed=1)
    source, plain = _form(truth, 2), _form(truth, 3)
    rng = np.random.default_rng(0)
    shift = truth.mix @ (truth.white_means[0] - truth.white_means[1]) * 6.0
    target = Rows((plain.features * 1.0 + shift + rng.normal(size=24) * 0.1).astype(np.float32), plain.about)
    result = _run(source, target)
    assert result.score < 0.6
    assert result.recentred > result.score + 0.25
    assert result.recentred == pytest.approx(result.in_form, abs=0.05)
    same = _run(source, source)
    assert np.array_equal(same.correct, same.recentred_correct)


def test_no_ratio_without_an_in_form_gain() -> None:
    truth = Gaussians(3, 24, 2.5, seed=1)
    result = _run(_form(truth, 2), _noise_like(_form(truth, 3), 4))
    assert result.ratio is None
    assert result.ratio_low is None
    assert result.row()["ratio"] is None
    high_bar = _run(_form(truth, 2), _form(truth, 3), min_gain=0.9)
    assert high_bar.gain < 0.9
    assert high_bar.ratio is None


def test_source_labels_that_the_target_lacks_count_as_errors() -> None:
    truth = Gaussians(3, 24, 3.0, seed=1)
    target = _form(truth, 3)
    two = target.take(target.about.labels != "three")
    result = _run(_form(truth, 2), two)
    assert result.n_dropped == 0
    assert result.score > 0.8
    labels = two.about.split("test").labels
    assert result.chance in (np.mean(labels == "one"), np.mean(labels == "two"))


def test_target_labels_that_the_source_lacks_are_dropped_and_counted() -> None:
    truth = Gaussians(3, 24, 3.0, seed=1)
    source, target = _form(truth, 2), _form(truth, 3)
    result = _run(source.take(source.about.labels != "three"), target)
    test = target.about.split("test")
    assert result.n_dropped == int((test.labels == "three").sum())
    assert result.n_test == len(test) - result.n_dropped
    assert result.score > 0.8
    assert result.items.tolist() == test.items[test.labels != "three"].tolist()


def test_the_control_transfers_only_when_keys_are_readable() -> None:
    rng = np.random.default_rng(0)
    forms = []
    for seed in (1, 2):
        about = about_rows(np.array(["a", "b", "c"])[rng.integers(0, 3, 900)], n_keys=9, seed=seed)
        code = np.eye(9)[[int(key[3:]) for key in about.controls]] * 3
        label = np.eye(3)[np.searchsorted(["a", "b", "c"], about.labels)] * 3
        features = np.concatenate([code, label], axis=1) + rng.normal(0, 0.3, (900, 12))
        forms.append(Rows(features.astype(np.float32), about))
    result = _run(*forms)
    assert result.control > 0.95
    assert result.score > 0.95
    assert result.selectivity_low <= 0 <= result.selectivity_high


def test_layer_and_strength_come_from_the_source_dev_split() -> None:
    """The source prefers layer 1; the target's own best layer is 2: transfer must read layer 1."""
    truth = Gaussians(3, 24, 2.5, seed=1)
    source, target = _form(truth, 2), _form(truth, 3)
    control = draw_control([source.about, target.about], 0)
    noise = [_noise_like(rows, 7).features for rows in (source, target)]
    source_sites = {"resid_post.1": source.features, "resid_post.2": noise[0]}
    target_sites = {"resid_post.1": noise[1], "resid_post.2": target.features}
    best = best_layer(sweep(source_sites, source.about, control=control, n_resamples=50))
    reference = {r.site: r for r in sweep(target_sites, target.about, control=control, n_resamples=50)}[best.site]
    result = transfer(
        best,
        reference,
        Rows(source_sites[best.site], source.about),
        Rows(target_sites[best.site], target.about),
        control,
    )
    assert result.source_site == result.target_site == "resid_post.1"
    assert result.score < 0.45
    assert result.ratio is None


def test_mismatches_are_refused() -> None:
    truth = Gaussians(3, 24, 2.5, seed=1)
    source, target = _form(truth, 2), _form(truth, 3)
    with pytest.raises(TwinprobeError, match="have none in common"):
        _run(source, _form(truth, 3, names=np.array(["x", "y", "z"])))
    control = draw_control([source.about, target.about], 0)
    [of_source] = sweep({"s": source.features}, source.about, control=control, n_resamples=20)
    [of_target] = sweep({"s": target.features}, target.about, control=control, n_resamples=20)
    with pytest.raises(TwinprobeError, match="20 wide but the probe of s was trained on 24"):
        transfer(of_source, of_target, source, Rows(target.features[:, :20], target.about), control)
    fewer = target.take(np.flatnonzero(target.about.labels != "one"))
    with pytest.raises(TwinprobeError, match="do not match its result"):
        transfer(of_source, of_target, source, fewer, control)
    renamed = RowLabels(**{**target.about.__dict__, "controls": np.char.add("other", target.about.controls)})
    with pytest.raises(TwinprobeError, match="has no control label"):
        transfer(of_source, of_target, source, Rows(target.features, renamed), control)
