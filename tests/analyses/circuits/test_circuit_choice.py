"""Choosing circuits on a graph small enough to choose by hand."""

from __future__ import annotations

import numpy as np
import pytest

from activations.errors import TwinprobeError
from activations.sites import Site
from analyses.circuits.circuit import greedy, prune, random_edges, random_paths, top
from analyses.circuits.graph import Graph, Receiver, Scores, Sender

Edge = tuple[str, str]


def chain(layers: int = 2) -> Graph:
    """One head and one MLP a layer."""
    senders, receivers = [Sender("input", Site("resid_pre", 0))], []
    for layer in range(layers):
        for name, site in ((f"a{layer}", Site("attn_out", layer)), (f"m{layer}", Site("mlp_out", layer))):
            receivers.append(Receiver(name, site, len(senders), (len(senders),)))
            senders.append(Sender(name, site))
    receivers.append(Receiver("logits", None, len(senders), ()))
    return Graph("chain", "attention", False, tuple(senders), tuple(receivers))


GRAPH = chain()


def scored(graph: Graph = GRAPH, **values: float) -> Scores:
    """Scores of edges written SENDER__RECEIVER; all others are tiny."""
    scores = np.where(graph.every, 1e-3, 0.0)
    for name, value in values.items():
        sender, receiver = name.split("__")
        scores[graph.place(sender, receiver)] = value
    return scores


def names(kept: np.ndarray, graph: Graph = GRAPH) -> set[Edge]:
    return set(graph.names(kept))


def test_pruning_keeps_what_lies_on_a_path() -> None:
    path = [("input", "a0"), ("a0", "m1"), ("m1", "logits")]
    loose = [("m0", "m1"), ("input", "a1"), ("a0", "m0")]  # from nowhere, to nowhere, to a dead end
    assert names(prune(GRAPH, GRAPH.circuit([*path, *loose[:2]]))) == set(path)
    assert names(prune(GRAPH, GRAPH.circuit([*path, loose[2]]))) == set(path)
    # Both loose ends of the way through m0 together are a path.
    both = [loose[0], loose[2]]
    assert names(prune(GRAPH, GRAPH.circuit([*path, *both]))) == {*path, *both}
    assert names(prune(GRAPH, GRAPH.every)) == names(GRAPH.every)
    assert not prune(GRAPH, GRAPH.circuit([("input", "a0"), ("m0", "logits")])).any()


def test_top_takes_the_largest_magnitudes() -> None:
    scores = scored(input__a0=-5, a0__logits=4, input__m1=3, m1__logits=-2)
    assert names(top(GRAPH, scores, 2)) == {("input", "a0"), ("a0", "logits")}
    assert names(top(GRAPH, scores, 3)) == {("input", "a0"), ("a0", "logits")}  # the third leads nowhere yet
    assert len(names(top(GRAPH, scores, 4))) == 4
    assert names(top(GRAPH, scores, 99)) == names(GRAPH.every)


def test_greedy_only_takes_edges_into_what_it_has() -> None:
    scores = scored(input__m0=9, m1__logits=3, input__m1=2, a0__logits=1)
    assert names(greedy(GRAPH, scores, 2)) == {("m1", "logits"), ("input", "m1")}
    assert not names(top(GRAPH, scores, 2))
    # m0 is not in the circuit before something reads it.
    assert ("input", "m0") not in names(greedy(GRAPH, scores, 4))
    assert names(greedy(GRAPH, scores, 99)) == names(GRAPH.every)


def test_greedy_meets_every_receiver_that_a_head_is_computed_from() -> None:
    senders = (
        Sender("input", Site("resid_pre", 0)),
        Sender("a0.h0", Site("z", 0, 0)),
        Sender("a0.h1", Site("z", 0, 1)),
    )
    receivers = (
        Receiver("a0.q0", Site("q", 0, 0), 1, (1,)),
        Receiver("a0.q1", Site("q", 0, 1), 1, (2,)),
        Receiver("a0.k0", Site("k", 0, 0), 1, (1, 2)),
        Receiver("logits", None, 3, ()),
    )
    graph = Graph("grouped", "heads", False, senders, receivers)
    scores = np.array([[1.0, 0, 0], [2, 0, 0], [3, 0, 0], [0, 0, 9]])
    assert graph.names(greedy(graph, scores, 2)) == [("input", "a0.k0"), ("a0.h1", "logits")]
    assert names(greedy(graph, scores, 3), graph) == {("input", "a0.k0"), ("input", "a0.q1"), ("a0.h1", "logits")}
    # Shared keys alone make both heads part of a path.
    kept = graph.circuit([("input", "a0.k0"), ("a0.h0", "logits"), ("a0.h1", "logits")])
    assert prune(graph, kept).sum() == 3


@pytest.mark.parametrize("choose", [top, greedy])
def test_a_circuit_has_an_edge(choose: object) -> None:
    with pytest.raises(TwinprobeError, match="a circuit of 0 edges"):
        choose(GRAPH, scored(), 0)  # type: ignore[operator]


def test_random_circuits_have_the_size_asked_for() -> None:
    graph = chain(4)
    for n in (1, 2, 7, 20):
        generator = np.random.default_rng(n)
        anywhere, paths = random_edges(graph, n, generator), random_paths(graph, n, generator)
        assert anywhere.sum() == paths.sum() == n
        assert not (anywhere & ~graph.every).any() and not (paths & ~graph.every).any()
        assert (prune(graph, paths) == paths).all()
    drawn = [random_paths(graph, 7, np.random.default_rng(seed)) for seed in (0, 0, 1)]
    assert (drawn[0] == drawn[1]).all() and (drawn[0] != drawn[2]).any()
    assert names(random_paths(GRAPH, 99, np.random.default_rng(0))) == names(GRAPH.every)
    assert random_edges(GRAPH, 99, np.random.default_rng(0)).sum() == GRAPH.n_edges
