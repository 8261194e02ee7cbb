"""Families of probes: each is chosen on dev, and they differ in what they can learn as they should."""

from __future__ import annotations

import numpy as np
import pytest
from synthetic import Gaussians, about_rows

from activations.errors import TwinprobeError
from probes.families import FAMILIES, choose
from probes.sweep import sweep

SPANS = (slice(0, 500), slice(500, 700), slice(700, 1000))


def _rows(n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    features, classes = Gaussians(n_classes, 12, 3.0, seed=1).sample(1000, seed=2)
    return features, classes.astype(str)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "bilinear"])
def test_every_family_learns_what_is_there(family: str) -> None:
    features, labels = _rows()
    train, dev, test = SPANS
    chosen = choose(family, features[train], labels[train], features[dev], labels[dev], (0.01, 1.0))
    accuracy = np.mean(chosen.probe.predict(features[test]) == labels[test])
    assert accuracy > 0.45, "three classes: chance is 1/3"
    assert chosen.dev_score == pytest.approx(np.mean(chosen.probe.predict(features[dev]) == labels[dev]))
    assert chosen.strength in (None, 0.01, 1.0)
    assert chosen.n_unconverged <= 1, "the hidden layer is still learning at the weakest penalty"


def test_an_exclusive_or_needs_a_hidden_layer() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (1600, 2))
    features = (2.0 * bits - 1 + rng.normal(0, 0.2, bits.shape)).astype(np.float32)
    about = about_rows((bits[:, 0] ^ bits[:, 1]).astype(str))
    scores = {family: sweep({"s": features}, about, family=family)[0].score for family in ("logistic", "mlp")}
    assert scores["logistic"] < 0.8, "a line parts one corner of four from the rest"
    assert scores["mlp"] > 0.95


def test_five_classes_in_a_plane_need_two_directions() -> None:
    """On a circle, one direction can not part them; two can."""
    rng = np.random.default_rng(1)
    classes = rng.integers(0, 5, 1600)
    angles = 2 * np.pi * classes / 5
    features = np.stack([np.cos(angles), np.sin(angles)], axis=1) * 4 + rng.normal(0, 1.0, (1600, 2))
    about = about_rows(classes.astype(str))
    at = {"s": features.astype(np.float32)}
    scores = [sweep(at, about, family=family)[0].score for family in ("rank-1", "rank-2", "logistic")]
    assert scores[0] < 0.85
    assert min(scores[1:]) > 0.95


def test_a_relation_is_read_by_the_bilinear_family_only() -> None:
    rng = np.random.default_rng(2)
    sides = rng.choice([-1.0, 1.0], (1600, 2))
    features = (sides + rng.normal(0, 0.2, sides.shape)).astype(np.float32)
    about = about_rows(np.where(sides.prod(axis=1) > 0, "same", "different"))
    scores = {family: sweep({"s": features}, about, family=family)[0].score for family in ("logistic", "bilinear")}
    assert scores["logistic"] < 0.65
    assert scores["bilinear"] > 0.95


def test_an_unknown_family_is_one_line() -> None:
    features, labels = _rows()
    with pytest.raises(TwinprobeError, match="unknown family of probes 'rank1' .did you mean 'rank-1'"):
        choose("rank1", features, labels, features, labels)
    with pytest.raises(TwinprobeError, match="at least two labels"):
        choose("mlp", features, np.full(len(labels), "a"), features, labels)
