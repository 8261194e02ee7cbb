"""Circuits of models whose mechanism is known, edge by edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from planted_models import GAIN, MODELS, Planted

from analyses.circuits.circuit import greedy, prune
from analyses.circuits.edges import Runs, edge_scores, runs_of
from analyses.circuits.faithfulness import complement, faithfulness, random_circuits, without_each
from analyses.circuits.graph import Graph
from analyses.circuits.outputs import graph_of
from analyses.circuits.paths import exact_edges

if TYPE_CHECKING:
    from conftest import MakeModel

Edge = tuple[str, str]
SWITCHES = [("input", "a0.v0"), ("input", "a1.v1"), ("a0.h0", "m1"), ("a1.h3", "m1"), ("m1", "logits")]
MECHANISMS: dict[str, list[Edge]] = {
    "induction": [("input", "a0.v0"), ("a0.h1", "a1.k1"), ("a1.h2", "logits")],
    "copying": [("input", "a1.v1"), ("a1.h3", "logits")],
    "both": SWITCHES,
    "either": SWITCHES,
    "lookup": [("input", "a0.v1"), ("a0.h2", "a2.q1"), ("a2.h1", "logits")],
    "cancelling": [("input", "a0.v0"), ("a0.h0", "m1"), ("a0.h0", "logits"), ("m1", "logits")],
}
"""Heads 0 and 1, and 2 and 3, share keys and values."""
ALL = 2 * GAIN
"""The gap of every planted prompt."""
CLOSE = 1e-3


class Case:
    """A planted model, its graph, and the runs of its prompts."""

    def __init__(self, name: str, make_model: MakeModel) -> None:
        self.planted: Planted = MODELS[name](make_model)
        self.loaded, self.prompts = self.planted.loaded, self.planted.prompts
        self.graph: Graph = graph_of(self.loaded, self.prompts[0].clean)
        self.runs: list[Runs] = [runs_of(self.loaded, self.graph, prompt) for prompt in self.prompts]
        self.mechanism = self.graph.circuit(MECHANISMS[name])
        self.edges = MECHANISMS[name]

    def faithful(self, *circuits: np.ndarray) -> np.ndarray:
        """Faithfulness ``[prompt, circuit]``."""
        pairs = zip(self.prompts, self.runs, strict=True)
        return np.stack([faithfulness(self.loaded, self.graph, prompt, circuits, runs) for prompt, runs in pairs])

    def exact(self, edges: list[Edge], direction: str) -> dict[Edge, float]:
        """Exact effects of edges on the first prompt."""
        found = exact_edges(self.loaded, self.graph, self.prompts[0], edges, runs=self.runs[0], direction=direction)
        return dict(zip(edges, found.tolist(), strict=True))

    def scores(self, direction: str = "noising", method: str = "eap") -> np.ndarray:
        """Estimates on the first prompt."""
        return edge_scores(
            self.loaded, self.graph, self.prompts[0], method=method, steps=10, direction=direction, runs=self.runs[0]
        )


@pytest.fixture(scope="module")
def cases(make_model: MakeModel) -> dict[str, Case]:
    return {name: Case(name, make_model) for name in MODELS}


@pytest.mark.parametrize("name", MODELS)
def test_the_mechanism_is_faithful_and_nothing_else_is(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    graph, size = case.graph, len(case.edges)
    assert (prune(graph, case.mechanism) == case.mechanism).all()
    random = [kept for _, kept in random_circuits(graph, size, draws=3, seed=0)]
    assert all(kept.sum() == size for kept in random)
    ends = [case.mechanism, graph.every, np.zeros_like(graph.every), complement(graph, case.mechanism)]
    found = case.faithful(*ends, *random)
    assert found[:, 0] == pytest.approx(1, abs=CLOSE)
    assert found[:, 1] == pytest.approx(1, abs=1e-5)
    assert (found[:, 2] == 0).all()
    assert found[:, 3:] == pytest.approx(0, abs=CLOSE)


@pytest.mark.parametrize("name", ["induction", "copying", "both", "lookup"])
def test_no_edge_of_a_chain_can_be_left_out(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    fewer = without_each(case.graph, case.mechanism, limit=10, seed=0)
    assert [edge for edge, _ in fewer] == case.graph.names(case.mechanism)
    assert case.faithful(*(kept for _, kept in fewer)) == pytest.approx(0, abs=CLOSE)


def test_either_way_is_enough(cases: dict[str, Case]) -> None:
    case = cases["either"]
    left = case.graph.circuit([("input", "a0.v0"), ("a0.h0", "m1"), ("m1", "logits")])
    assert case.faithful(left) == pytest.approx(1, abs=CLOSE)
    assert cases["both"].faithful(left) == pytest.approx(0, abs=CLOSE)


@pytest.mark.parametrize("name", ["induction", "both", "lookup", "cancelling"])
def test_greedy_finds_the_mechanism_by_integrated_gradients(cases: dict[str, Case], name: str) -> None:
    case = cases[name]
    found = greedy(case.graph, case.scores(method="eap-ig"), len(case.edges))
    assert sorted(case.graph.names(found)) == sorted(case.edges)


def test_only_exact_patching_sees_through_a_saturated_softmax(cases: dict[str, Case]) -> None:
    case = cases["lookup"]
    hidden = [("input", "a0.v1"), ("a0.h2", "a2.q1")]
    exact, scores = case.exact([*hidden, ("a2.h1", "logits")], "noising"), case.scores()
    assert exact == pytest.approx(dict.fromkeys(exact, -ALL), abs=CLOSE)
    assert [scores[case.graph.place(*edge)] for edge in hidden] == pytest.approx([0, 0], abs=CLOSE)
    assert scores[case.graph.place("a2.h1", "logits")] == pytest.approx(-ALL, abs=CLOSE)


@pytest.mark.parametrize(("name", "noising", "denoising"), [("both", -ALL, 0), ("either", 0, ALL)])
def test_noising_asks_what_is_needed_and_denoising_what_is_enough(
    cases: dict[str, Case], name: str, noising: float, denoising: float
) -> None:
    switches = SWITCHES[:4]
    for direction, expected in (("noising", noising), ("denoising", denoising)):
        found = cases[name].exact(switches, direction)
        assert found == pytest.approx(dict.fromkeys(switches, expected), abs=CLOSE)


def test_edges_that_cancel_have_effects_of_both_signs(cases: dict[str, Case]) -> None:
    case = cases["cancelling"]
    assert case.exact(case.edges, "noising") == pytest.approx(
        {case.edges[0]: -ALL, case.edges[1]: ALL / 9, case.edges[2]: -ALL * 10 / 9, case.edges[3]: ALL / 9}, abs=CLOSE
    )
    without_the_mlp = case.graph.circuit([("input", "a0.v0"), ("a0.h0", "logits")])
    assert case.faithful(without_the_mlp) == pytest.approx(10 / 9, abs=CLOSE)
    # Where the head says 0, what it adds and what the MLP takes back cancel in the gradient.
    scores = case.scores("denoising")
    assert scores[case.graph.place("input", "a0.v0")] == pytest.approx(0, abs=CLOSE)
