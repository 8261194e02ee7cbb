"""Paired tests of corpus scores: exact where they can be, at their level under the null, and next to sacrebleu's."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from activations.errors import TwinprobeError
from analyses.benchmarks.explanation.paired import compare_scores, mean_score, resampled_differences
from analyses.benchmarks.explanation.scores import averaged, bleu_from_statistics
from analyses.statistics import sign_flip_p


def _bleu_counts(generator: np.random.Generator, count: int, hit: float) -> np.ndarray:
    """Statistics of texts of 6 to 14 words, whose n-grams match with a chance of ``hit`` to the n."""
    lengths = generator.integers(6, 15, size=count)
    grams = np.stack([lengths - n for n in range(4)], axis=1)
    matched = generator.binomial(grams, [hit ** (n + 1) for n in range(4)])
    return np.column_stack([lengths, generator.integers(6, 15, size=count), matched, grams]).astype(float)


def test_few_groups_are_tried_in_all_ways() -> None:
    """By brute force for BLEU, and as the sign flips of statistics.py for a mean."""
    generator = np.random.default_rng(0)
    a, b = _bleu_counts(generator, 7, 0.5), _bleu_counts(generator, 7, 0.7)
    found = compare_scores(a, b, bleu_from_statistics, range(7), n_resamples=100)
    differences = []
    for swap in product((False, True), repeat=7):
        first = np.where(np.array(swap)[:, None], b, a).sum(0, keepdims=True)
        second = np.where(np.array(swap)[:, None], a, b).sum(0, keepdims=True)
        differences.append(float(bleu_from_statistics(second)[0] - bleu_from_statistics(first)[0]))
    assert found.difference == pytest.approx(differences[0])
    expected = np.mean(np.abs(differences) >= abs(differences[0]) - 1e-12)
    assert found.p_randomisation == pytest.approx(expected) and 0 < expected < 1

    values, groups = generator.random((2, 30)), np.arange(30) // 3
    first, second = (averaged("m", one).statistics for one in values)
    found = compare_scores(first, second, mean_score, groups, n_resamples=100)
    assert found.groups == 10 and found.p_randomisation == pytest.approx(sign_flip_p(values[1] - values[0], groups))


def test_the_bootstrap_of_a_mean_has_its_standard_error() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.random((2, 200))
    statistics = [averaged("m", one).statistics for one in (a, b)]
    drawn = resampled_differences(*statistics, mean_score, 0, 4000)
    assert drawn.mean() == pytest.approx((b - a).mean(), abs=0.002)
    assert drawn.std() == pytest.approx((b - a).std() / math.sqrt(200), rel=0.05)


def test_equal_systems_differ_in_nothing() -> None:
    a = _bleu_counts(np.random.default_rng(2), 20, 0.6)
    found = compare_scores(a, a, bleu_from_statistics, range(20), n_resamples=200)
    assert (found.difference, found.p_bootstrap, found.p_randomisation, found.better) == (0, 1, 1, 0.5)


def test_clear_differences_are_found_and_signed() -> None:
    generator = np.random.default_rng(3)
    a, b = _bleu_counts(generator, 150, 0.5), _bleu_counts(generator, 150, 0.7)
    found, mirrored = (
        compare_scores(*both, bleu_from_statistics, range(150), n_resamples=1000, n_shuffles=1000)
        for both in ((a, b), (b, a))
    )
    assert found.difference > 0 and found.low > 0 and found.better > 0.99
    assert found.p_bootstrap == found.p_randomisation == 1 / 1001
    assert mirrored.difference == -found.difference and mirrored.p_randomisation == found.p_randomisation


def test_both_tests_keep_their_level() -> None:
    """300 draws of two equal systems; 5% of tests may find a difference. Rows of a group are alike: without it far more do."""
    generator = np.random.default_rng(4)
    p_values, naive = [], []
    for draw in range(300):
        # One difficulty per group and system makes rows of a group go together.
        counts = [
            np.concatenate([_bleu_counts(generator, 4, hit) for hit in generator.uniform(0.3, 0.8, 30)])
            for _ in range(2)
        ]
        for groups, into in ((np.arange(120) // 4, p_values), (np.arange(120), naive)):
            if into is p_values or draw < 100:
                found = compare_scores(*counts, bleu_from_statistics, groups, n_resamples=100, n_shuffles=100)
                into.append((found.p_bootstrap, found.p_randomisation))
    rates, ignoring = ((np.array(some) < 0.05).mean(0) for some in (p_values, naive))
    # Over 1500 draws they are 7.4% (a bootstrap of 30 groups) and 5.5%; here within three standard errors of 300 draws.
    assert 0.03 < rates[0] < 0.12 and 0.012 < rates[1] < 0.088, rates
    assert (ignoring > 0.15).all(), ignoring


def test_sacrebleu_gives_the_same() -> None:
    """Approximate randomisation as it is; of the bootstrap the resampled differences, as its p is another (docs)."""
    reason = "sacrebleu is not installed (extra bench): the paired tests are checked against brute force only"
    significance = pytest.importorskip("sacrebleu.significance", reason=reason)
    bleu = pytest.importorskip("sacrebleu.metrics", reason=reason).BLEU
    generator = np.random.default_rng(5)
    vocabulary = list("abcdefghijklmnop")
    references = [" ".join(generator.choice(vocabulary, 9)) for _ in range(120)]

    def spoiled(share: float) -> list[str]:
        return [
            " ".join(generator.choice(vocabulary) if generator.random() < share else word for word in text.split())
            for text in references
        ]

    systems = {"a": spoiled(0.36), "b": spoiled(0.30)}
    counts = []
    for texts in systems.values():
        scores = [bleu().sentence_score(text, [own]) for text, own in zip(texts, references, strict=True)]
        counts.append(np.array([[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in scores], dtype=float))
    ours = compare_scores(*counts, bleu_from_statistics, range(120), n_resamples=4000, n_shuffles=4000)
    drawn = np.abs(resampled_differences(*counts, bleu_from_statistics, 0, 4000))
    moved = (1 + (drawn - drawn.mean() > abs(ours.difference)).sum()) / 4001
    for kind, own in (("ar", ours.p_randomisation), ("bs", moved)):
        test = significance.PairedTest(
            [*systems.items()], {"BLEU": bleu()}, [references], test_type=kind, n_samples=4000
        )
        result = test()[1]["BLEU"]
        assert [one.score / 100 for one in result] == pytest.approx([ours.first, ours.second], abs=1e-12)
        p = float(result[1].p_value)
        assert own == pytest.approx(p, abs=4 * math.sqrt(2 * p * (1 - p) / 4000)), kind
        assert 0.001 < p < 0.5, "neither bound tells"


def test_wrong_shapes_are_refused() -> None:
    with pytest.raises(TwinprobeError, match=r"shapes \(3, 2\) and \(4, 2\)"):
        compare_scores(np.ones((3, 2)), np.ones((4, 2)), mean_score, range(3))
    with pytest.raises(TwinprobeError, match="3 values for 2 cluster ids"):
        compare_scores(np.ones((3, 2)), np.ones((3, 2)), mean_score, range(2))
