from __future__ import annotations

import numpy as np
import pytest
from synthetic import about_rows

import probes.baselines as module
from probes.baselines import baselines, majority_label, position_bins, token_counts
from probes.rows import RowLabels


def _with(about: RowLabels, **changes: object) -> RowLabels:
    return RowLabels(**{**about.__dict__, **changes})


@pytest.fixture
def neutral() -> RowLabels:
    return about_rows(np.random.default_rng(0).permutation(np.array(["a"] * 300 + ["b"] * 300)))


def test_each_baseline_finds_its_own_signal_only(neutral: RowLabels) -> None:
    is_a = neutral.labels == "a"
    plain = baselines(neutral)
    assert max(plain.bag_of_tokens, plain.token, plain.position) < 0.62
    betrayed_by_text = _with(
        neutral, texts=tuple((*text, 77) if a else text for text, a in zip(neutral.texts, is_a, strict=True))
    )
    found = baselines(betrayed_by_text)
    assert found.bag_of_tokens > 0.98
    assert found.token == plain.token
    betrayed_by_span = _with(neutral, tokens=tuple((50,) if a else (51, 52) for a in is_a))
    found = baselines(betrayed_by_span)
    assert found.token > 0.98
    assert found.position == plain.position


def test_position_need_not_be_linear(neutral: RowLabels) -> None:
    rng = np.random.default_rng(1)
    inside = np.where(
        neutral.labels == "a", rng.integers(40, 60, 600), rng.choice([*range(0, 30), *range(70, 100)], 600)
    )
    assert baselines(_with(neutral, positions=inside)).position > 0.9  # a bin across an edge costs a little


def test_majority_is_that_of_the_training_rows() -> None:
    labels = np.array(["a"] * 60 + ["b"] * 48)
    about = about_rows(labels)
    assert set(about.labels[about.mask("test")]) == {"b"}
    assert majority_label(about.labels[about.mask("train")]) == "a"
    tied = about_rows(np.array(["b", "a"] * 54))
    assert baselines(tied).majority == pytest.approx(np.mean(tied.labels[tied.mask("test")] == "a"))


def test_counts_know_only_training_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    train = np.array([True, True, False])
    counts = token_counts([(5, 5, 9), (9,), (9, 100, 5)], train)
    assert counts.tolist() == [[1, 2], [1, 0], [1, 1]]  # 9 is in two training rows, 5 in one, 100 in none
    monkeypatch.setattr(module, "MAX_TYPES", 1)
    assert token_counts([(5, 5, 9), (9,), (9, 100, 5)], train).tolist() == [[1], [1], [1]]
    assert token_counts([(), (), ()], train).shape == (3, 1)


def test_position_bins_are_those_of_the_training_rows() -> None:
    positions = np.array([*range(32), 500])
    train = np.arange(33) < 32
    bins = position_bins(positions, train)
    assert bins.shape == (33, 17)
    assert (bins[:, 1:].sum(axis=1) == 1).all()
    assert bins[32, -1] == 1  # beyond the last training position: the last bin
    assert position_bins(np.full(4, 3), np.ones(4, bool)).shape[0] == 4
