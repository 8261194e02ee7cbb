from __future__ import annotations

import ast

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse.csgraph import shortest_path
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

from activations.errors import TwinprobeError
from probes.ast_trees import python_tree
from probes.structural import DepthProbe, DistanceProbe
from probes.trees import (
    ancestry,
    depth_spearman,
    distance_spearman,
    edge_hits,
    root_accuracy,
    spanning_edges,
    tree_depths,
    tree_distances,
    uuas,
)

TREE_DIMENSIONS, WIDTH = 14, 48


def random_tree(n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Parents of a random tree whose rows are in random order."""
    order = rng.permutation(n)
    parents = np.full(n, -1)
    for place in range(1, n):
        parents[order[place]] = order[rng.integers(place)]
    return parents


def planted(
    n_sentences: int, seed: int, embedded: bool = True, noise: float = 2.0
) -> tuple[list[NDArray[np.float32]], list[NDArray[np.int64]]]:
    """Sentences whose rows hold their tree: each edge is a step along an axis of its own, so that squared distances are
    tree distances; the other axes are loud noise, and all are turned by one rotation and moved off the origin.
    """
    turn = np.linalg.qr(np.random.default_rng(7).normal(size=(WIDTH, WIDTH)))[0]
    rng = np.random.default_rng(seed)
    sentences, trees = [], []
    for _ in range(n_sentences):
        n = int(rng.integers(5, TREE_DIMENSIONS + 2))
        parents = random_tree(n, rng)
        places = np.zeros((n, WIDTH))
        if embedded:
            places[:, rng.permutation(TREE_DIMENSIONS)[: n - 1]] = ancestry(parents)[:, parents >= 0]
        places[:, :TREE_DIMENSIONS] += 0.1 * rng.normal(size=(n, TREE_DIMENSIONS))
        places[:, TREE_DIMENSIONS:] = noise * rng.normal(size=(n, WIDTH - TREE_DIMENSIONS))
        sentences.append((places @ turn + 3.0).astype(np.float32))
        trees.append(parents)
    return sentences, trees


def distances(trees: list[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
    return [tree_distances(tree) for tree in trees]


def depths(trees: list[NDArray[np.int64]]) -> list[NDArray[np.float64]]:
    return [tree_depths(tree) for tree in trees]


def test_the_distance_probe_recovers_planted_trees() -> None:
    train, trees = planted(300, seed=1)
    test, test_trees = planted(100, seed=2)
    probe = DistanceProbe(rank=TREE_DIMENSIONS).fit(train, distances(trees))
    gold, found = distances(test_trees), probe.predict(test)
    assert probe.score(test, gold) == uuas(gold, found) > 0.95
    assert distance_spearman(gold, found) > 0.9
    assert np.mean([np.abs(truth - guess).mean() for truth, guess in zip(gold, found, strict=True)]) < 0.5
    raw = [((rows[:, None] - rows[None]) ** 2).sum(axis=2) for rows in test]
    assert uuas(gold, raw) < 0.6  # the tree does not show without the probe


def test_trees_in_the_quiet_axes_of_unequal_activations_are_recovered() -> None:
    train, trees = planted(300, seed=1, noise=20.0)
    test, test_trees = planted(100, seed=2, noise=20.0)
    assert DistanceProbe(rank=32).fit(train, distances(trees)).score(test, distances(test_trees)) > 0.95
    assert DepthProbe(rank=32).fit(train, depths(trees)).score(test, depths(test_trees)) > 0.95


def test_the_depth_probe_recovers_planted_depths() -> None:
    train, trees = planted(300, seed=1)
    test, test_trees = planted(100, seed=2)
    probe = DepthProbe(rank=TREE_DIMENSIONS).fit(train, depths(trees))
    gold, found = depths(test_trees), probe.predict(test)
    assert probe.score(test, gold) == root_accuracy(gold, found) > 0.95
    assert depth_spearman(gold, found) > 0.9


def test_trees_that_are_not_there_are_not_found() -> None:
    train, trees = planted(200, seed=1, embedded=False)
    test, test_trees = planted(100, seed=2, embedded=False)
    assert DistanceProbe(rank=8, epochs=30).fit(train, distances(trees)).score(test, distances(test_trees)) < 0.35
    assert DepthProbe(rank=8, epochs=30).fit(train, depths(trees)).score(test, depths(test_trees)) < 0.35


def test_too_small_a_rank_does_worse() -> None:
    train, trees = planted(200, seed=1)
    test, gold = planted(60, seed=2)[0], distances(planted(60, seed=2)[1])
    scores = [DistanceProbe(rank=rank, epochs=30).fit(train, distances(trees)).score(test, gold) for rank in (2, 14)]
    assert scores[0] < scores[1] - 0.2


def test_predictions_are_distances_in_raw_units_whatever_the_scale() -> None:
    train, trees = planted(60, seed=1)
    probe = DistanceProbe(rank=6, epochs=5).fit(train, distances(trees))
    [found] = probe.predict(train[:1])
    projected = train[0] @ probe.projection_.T
    by_hand = ((projected[:, None] - projected[None]) ** 2).sum(axis=2)
    assert np.abs(found - by_hand).max() < 1e-3
    assert (found == found.T).all() and (np.diag(found) == 0).all()
    scaled = [1000.0 * rows for rows in train]
    [again] = DistanceProbe(rank=6, epochs=5).fit(scaled, distances(trees)).predict(scaled[:1])
    assert np.abs(found - again).max() < 0.05


def test_padding_leaves_no_trace() -> None:
    """A long sentence in the same batch pads the short ones; the loss must be that of the paper, sentence by sentence."""
    train, trees = planted(9, seed=1)
    gold = distances(trees)
    probe = DistanceProbe(rank=4, epochs=1, batch_size=9, learning_rate=1e-12).fit(train, gold)
    found = probe.predict(train)
    by_hand = np.mean([np.abs(truth - guess).sum() / len(truth) ** 2 for truth, guess in zip(gold, found, strict=True)])
    assert probe.losses_ == [pytest.approx(by_hand, rel=1e-4)]
    depth_probe = DepthProbe(rank=4, epochs=1, batch_size=9, learning_rate=1e-12).fit(train, depths(trees))
    guesses = depth_probe.predict(train)
    by_hand = np.mean([np.abs(t - g).sum() / len(t) for t, g in zip(depths(trees), guesses, strict=True)])
    assert depth_probe.losses_ == [pytest.approx(by_hand, rel=1e-4)]


def test_the_best_epoch_on_dev_is_kept() -> None:
    train, trees = planted(12, seed=1)  # so few that the fit overshoots
    dev, dev_trees = planted(40, seed=2)
    gold = distances(dev_trees)
    probe = DistanceProbe(rank=8, epochs=40).fit(train, distances(trees), dev, gold)
    assert len(probe.dev_losses_) == len(probe.losses_) == 40
    found = probe.predict(dev)
    loss = np.mean([np.abs(truth - guess).mean() for truth, guess in zip(gold, found, strict=True)])
    assert loss == pytest.approx(min(probe.dev_losses_), rel=1e-3)
    assert min(probe.dev_losses_) < probe.dev_losses_[-1]


def test_fits_repeat_and_leave_the_random_state_of_torch_alone() -> None:
    import torch

    train, trees = planted(20, seed=1)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    first, again, other = (
        DistanceProbe(rank=4, epochs=3, random_state=seed).fit(train, distances(trees)) for seed in (0, 0, 1)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert np.array_equal(first.projection_, again.projection_)
    assert not np.array_equal(first.projection_, other.projection_)


def test_is_an_estimator_in_the_manner_of_scikit_learn() -> None:
    train, trees = planted(8, seed=1)
    for probe, gold in (
        (DistanceProbe(rank=3, epochs=2), distances(trees)),
        (DepthProbe(rank=3, epochs=2), depths(trees)),
    ):
        twin = clone(probe)
        assert twin.get_params() == probe.get_params()
        with pytest.raises(NotFittedError):
            twin.predict(train)
        assert twin.fit(train, gold) is twin
        assert twin.n_features_in_ == WIDTH
        assert 0.0 <= twin.score(train, gold) <= 1.0
        assert not hasattr(probe, "projection_")


def test_bad_input_is_refused() -> None:
    train, trees = planted(4, seed=1)
    gold = distances(trees)
    for X, y, message in (
        (train, gold[:3], "4 sentences with 3 trees"),
        ([], [], "at least one"),
        (train, depths(trees), "the gold values of sentence 0"),
        ([train[0], train[1][:, :5]], gold[:2], "sentence 1 has shape"),
        ([train[0] * np.nan], gold[:1], "sentence 0 has shape"),
    ):
        with pytest.raises(TwinprobeError, match=message):
            DistanceProbe(epochs=1).fit(X, y)
    with pytest.raises(TwinprobeError, match="sentence 0 has shape"):
        DistanceProbe(epochs=1).fit(train, gold).predict([train[0][:, :5]])
    with pytest.raises(TwinprobeError, match="4 sentences with 1 trees"):
        DistanceProbe(epochs=1).fit(train, gold, train, gold[:1])
    for parameters in ({"rank": 0}, {"epochs": 0}, {"batch_size": -1}, {"learning_rate": 0.0}):
        with pytest.raises(TwinprobeError, match=next(iter(parameters))):
            DistanceProbe(**parameters).fit(train, gold)


def test_distances_and_depths_are_those_of_the_tree() -> None:
    rng = np.random.default_rng(0)
    for n in (1, 2, 7, 30):
        parents = random_tree(n, rng)
        graph = np.zeros((n, n))
        graph[np.flatnonzero(parents >= 0), parents[parents >= 0]] = 1
        known = shortest_path(graph, directed=False, unweighted=True)
        assert np.array_equal(tree_distances(parents), known)
        assert np.array_equal(tree_depths(parents), known[np.flatnonzero(parents == -1)[0]])


@pytest.mark.parametrize("parents", [[], [0], [-1, -1], [-1, 2], [-1, 0.5], [-2, 0], [[-1, 0]], [-1, 2, 1]])
def test_parents_that_are_no_tree_are_refused(parents: list) -> None:
    with pytest.raises(TwinprobeError, match="parents"):
        tree_distances(parents)


def test_scores_against_hand_made_predictions() -> None:
    chain = tree_distances([-1, 0, 1, 2])
    star = tree_distances([-1, 0, 0, 0])
    assert spanning_edges(chain) == {(0, 1), (1, 2), (2, 3)}
    assert edge_hits(chain, star).tolist() == [True, False, False]
    assert uuas([chain, star], [chain, star]) == 1.0
    assert uuas([chain, star], [star, star]) == pytest.approx(4 / 6)  # pooled over edges
    assert spanning_edges(np.zeros((3, 3))) >= set() and len(spanning_edges(np.zeros((3, 3)))) == 2  # 0 is a distance
    assert spanning_edges(chain - 5.0) == spanning_edges(chain)
    assert np.isnan(uuas([], [])) and np.isnan(root_accuracy([], []))
    assert root_accuracy([[0, 1], [1, 0]], [[0.2, 0.9], [0.2, 0.9]]) == 0.5


def test_correlations_are_averaged_over_words_then_lengths() -> None:
    rng = np.random.default_rng(0)
    gold = [tree_distances(random_tree(n, rng)) for n in (4, 6, 6, 6, 9, 51)]
    found = [truth + rng.normal(size=truth.shape) for truth in gold]
    by_length = {
        n: np.mean(
            [
                spearmanr(a, b).statistic
                for truth, guess in zip(gold, found, strict=True)
                if len(truth) == n
                for a, b in zip(truth, guess, strict=True)
            ]
        )
        for n in (6, 9)
    }
    assert distance_spearman(gold, found) == pytest.approx(np.mean(list(by_length.values())))
    assert np.isnan(distance_spearman(gold[:1], found[:1]))
    assert not np.isnan(distance_spearman(gold[:1], found[:1], lengths=(2, 4)))
    assert depth_spearman([[0, 1, 2, 3, 3.5]], [[1, 2, 4, 3, 5]]) == pytest.approx(0.9)
    assert depth_spearman([[0, 1, 2, 3, 3.5]], [[1, 1, 1, 1, 1]]) == 0.0


SOURCE = "def f(a, b=1):\n    x = {'k': a + b}\n    return x['k'] if a else g(b, *a)\n"


def test_a_source_becomes_a_tree_of_spans() -> None:
    tree = python_tree(SOURCE)
    names = [SOURCE[start:end] for start, end in tree.spans]
    assert tree.types[0] == "Module" and tree.parents[0] == -1
    assert [names[leaf] for leaf in tree.leaves] == [
        "a",
        "b",
        "1",
        "x",
        "'k'",
        "a",
        "b",
        "x",
        "'k'",
        "a",
        "g",
        "b",
        "a",
    ]
    assert all(child > parent for child, parent in enumerate(tree.parents.tolist()))
    at = {name: index for index, name in enumerate(names)}
    assert tree.types[at["a + b"]] == "BinOp"
    assert tree.parents[at["a + b"]] == at["{'k': a + b}"]
    distances = tree.leaf_distances()
    assert distances[5, 6] == 2  # a - BinOp - b
    assert distances[4, 5] == 3  # 'k' - Dict - BinOp - a
    assert distances[0, -1] == 6  # a - FunctionDef - Return - IfExp - Call - Starred - a


def test_spans_count_characters_not_bytes() -> None:
    source = "ä = 'ö'\r\nß = f'{ä}ü' + ä"
    tree = python_tree(source)
    assert [source[slice(*tree.spans[leaf])] for leaf in tree.leaves] == ["ä", "'ö'", "ß", "f'{ä}ü'", "ä"]


def test_a_statement_that_is_an_expression_is_one_node() -> None:
    tree = python_tree("f(x)\n")
    assert tree.types == ("Module", "Call", "Name", "Name")
    assert sorted(tree.parents.tolist()) == [-1, 0, 1, 1]


def test_every_node_lies_within_its_parent() -> None:
    with open(ast.__file__, encoding="utf-8") as file:
        source = file.read()
    tree = python_tree(source)
    assert len(tree.leaves) > 1000
    starts, ends = np.array(tree.spans).T
    inside = tree.parents >= 0
    known = np.array([kind not in ("FunctionDef", "ClassDef") for kind in np.array(tree.types)[tree.parents]])
    check = inside & known  # the span of a definition leaves out its decorators
    assert (starts[check] >= starts[tree.parents[check]]).all()
    assert (ends[check] <= ends[tree.parents[check]]).all()


def test_a_source_that_does_not_parse_is_refused() -> None:
    with pytest.raises(TwinprobeError, match="does not parse"):
        python_tree("def f(:")
