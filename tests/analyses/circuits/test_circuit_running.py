"""Running circuits: equal to plain passes, one per receiver, and to the two runs at both ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from other_models import CLEAN, CORRUPTED, state
from plain_circuits import KINDS, PROMPT, plain_circuit, plain_logits

from analyses.circuits import parts, running
from analyses.circuits.circuit import prune
from analyses.circuits.edges import edge_scores, runs_of
from analyses.circuits.outputs import graph_of
from analyses.circuits.paths import exact_edges
from analyses.circuits.running import circuit_logits

if TYPE_CHECKING:
    from conftest import MakeModel

    from analyses.circuits.graph import Graph, Kept


def some(graph: Graph, share: float, seed: int) -> Kept:
    return graph.every & (np.random.default_rng(seed).random(graph.every.shape) < share)


@pytest.mark.parametrize("kind", KINDS)
def test_a_circuit_is_a_plain_pass_per_receiver(make_model: MakeModel, kind: str) -> None:
    architecture, overrides = KINDS[kind]
    loaded = make_model(architecture, **overrides)
    graph = graph_of(loaded, CLEAN)
    before = state(loaded)
    runs = runs_of(loaded, graph, PROMPT)
    circuits = [some(graph, 0.5, 3), some(graph, 0.2, 1), graph.every, np.zeros_like(graph.every)]
    found = circuit_logits(loaded, graph, runs.clean, runs.corrupted, circuits)
    assert state(loaded) == before
    for logits, kept in zip(found[:2], circuits, strict=False):
        assert torch.allclose(logits, plain_circuit(loaded, graph, kept), atol=1e-5)
    assert torch.allclose(found[2], plain_logits(loaded, CLEAN, {}), atol=1e-5)
    assert torch.equal(found[3], runs.corrupted.recording.logits)
    assert (found[0] - found[2]).abs().max() > 0.01 and (found[0] - found[3]).abs().max() > 0.01


def test_what_lies_on_no_path_changes_nothing(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    graph = graph_of(loaded, CLEAN)
    runs = runs_of(loaded, graph, PROMPT)
    circuits = [some(graph, 0.15, seed) for seed in range(6)]
    pruned = [prune(graph, kept) for kept in circuits]
    assert any(kept.sum() > rest.sum() > 0 for kept, rest in zip(circuits, pruned, strict=True))
    found = circuit_logits(loaded, graph, runs.clean, runs.corrupted, [*circuits, *pruned])
    assert torch.allclose(found[:6], found[6:], atol=1e-5)


def test_circuits_do_not_depend_on_what_runs_with_them(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = make_model("llama")
    graph = graph_of(loaded, CLEAN)
    runs = runs_of(loaded, graph, PROMPT)
    circuits = [some(graph, 0.3, seed) for seed in range(3)]
    whole = circuit_logits(loaded, graph, runs.clean, runs.corrupted, circuits)
    monkeypatch.setattr(running, "MAX_NUMBERS", 1)
    monkeypatch.setattr(parts, "MAX_TOKENS", 2 * len(CORRUPTED))
    assert torch.allclose(circuit_logits(loaded, graph, runs.clean, runs.corrupted, circuits), whole, atol=1e-6)
    assert circuit_logits(loaded, graph, runs.clean, runs.corrupted, []).shape == (0, whole.shape[1])


def test_no_hook_stays_after_an_error(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = make_model("llama")
    graph = graph_of(loaded, CLEAN)
    runs = runs_of(loaded, graph, PROMPT)

    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(loaded.module("blocks.1.mlp"), "forward", fail)
    before = state(loaded)
    for work in (
        lambda: circuit_logits(loaded, graph, runs.clean, runs.corrupted, [graph.every]),
        lambda: exact_edges(loaded, graph, PROMPT, [("m0", "m1")], runs=runs),
        lambda: edge_scores(loaded, graph, PROMPT, runs=runs),
    ):
        with pytest.raises(RuntimeError, match="out of memory"):
            work()
        assert state(loaded) == before


def test_bfloat16_runs_in_its_own_precision(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    loaded.model.bfloat16()
    graph = graph_of(loaded, CLEAN)
    assert graph.granularity == "heads"
    runs = runs_of(loaded, graph, PROMPT)
    found = circuit_logits(loaded, graph, runs.clean, runs.corrupted, [graph.every])[0]
    assert found.dtype == torch.bfloat16
    assert torch.allclose(found.float(), runs.clean.recording.logits.float(), atol=0.1)
