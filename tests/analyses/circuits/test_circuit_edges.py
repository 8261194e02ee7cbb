"""Edge attribution: the slope of each edge's exact effect, and that effect itself in linear models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from linear_models import linearise, spread_attention
from other_models import CLEAN, CORRUPTED, state
from plain_circuits import KINDS, PROMPT, plain_changes, plain_edge

from activations.errors import TwinprobeError
from analyses.circuits import edges
from analyses.circuits.edges import edge_scores, edge_table, runs_of
from analyses.circuits.outputs import graph_of
from analyses.circuits.paths import exact_edges

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel
    from analyses.circuits.graph import Graph


def plain_slope(loaded: LoadedModel, graph: Graph, edge: tuple[str, str], changes: Sequence[torch.Tensor]) -> float:
    """How fast the clean run's logit difference changes as one edge sets out towards the corrupted run.

    The five-point rule: float32 is too coarse for a step that is small enough for two points.
    """
    step, slope = 0.02, 0.0
    for steps, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        moved = [steps * step * change for change in changes]
        slope += weight * plain_edge(loaded, graph, edge, CLEAN, moved) / (12 * step)
    return slope


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_the_slope_of_the_edge_s_effect(make_model: MakeModel, kind: str) -> None:
    architecture, overrides = KINDS[kind]
    loaded = make_model(architecture, **overrides)
    graph = graph_of(loaded, CLEAN)
    scores = edge_scores(loaded, graph, PROMPT, method="eap")
    changes = plain_changes(loaded, graph, CLEAN, CORRUPTED)
    generator = np.random.default_rng(1)
    # One receiver of every kind; some of its senders.
    kinds = {receiver.site.name if receiver.site else "logits": receiver for receiver in graph.receivers}
    for receiver in kinds.values():
        edge = graph.senders[int(generator.integers(receiver.reads))].name, receiver.name
        expected = plain_slope(loaded, graph, edge, changes)
        assert scores[graph.place(*edge)] == pytest.approx(expected, rel=0.01, abs=1e-4), edge
    assert np.abs(scores).max() > 0.01


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("method", ["eap", "eap-ig"])
def test_a_score_is_the_effect_where_the_model_is_linear(make_model: MakeModel, architecture: str, method: str) -> None:
    loaded = spread_attention(linearise(make_model(architecture)))
    graph = graph_of(loaded, CLEAN)
    runs = runs_of(loaded, graph, PROMPT)
    found = {}
    for direction in ("noising", "denoising"):
        exact = exact_edges(loaded, graph, PROMPT, graph.names(graph.every), runs=runs, direction=direction)
        scores = edge_scores(loaded, graph, PROMPT, method=method, direction=direction, steps=3, runs=runs)
        scale = np.abs(exact).max()
        assert scale > 0.1
        assert scores[graph.every] == pytest.approx(exact, abs=1e-4 * scale)
        found[direction] = scores
    assert found["noising"] == pytest.approx(-found["denoising"], abs=1e-4 * scale)


def test_integrated_scores_into_the_logits_add_up_to_the_gap(make_model: MakeModel) -> None:
    loaded = make_model("gpt2")
    graph = graph_of(loaded, CLEAN)
    runs = runs_of(loaded, graph, PROMPT)
    few, many = (
        edge_scores(loaded, graph, PROMPT, steps=steps, direction="denoising", runs=runs)[-1].sum() for steps in (1, 60)
    )
    assert many == pytest.approx(runs.gap, rel=0.1)
    assert abs(many - runs.gap) < abs(few - runs.gap)


def test_steps_are_averaged_whatever_runs_together(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = make_model("llama")
    graph = graph_of(loaded, CLEAN)
    whole = edge_scores(loaded, graph, PROMPT, steps=5)
    monkeypatch.setattr(edges, "MAX_TOKENS", 2 * len(CLEAN))
    assert edge_scores(loaded, graph, PROMPT, steps=5) == pytest.approx(whole, abs=1e-6)
    assert np.abs(whole - edge_scores(loaded, graph, PROMPT, steps=1)).max() > 1e-4


def test_the_model_is_left_as_it_was_found(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    before = state(loaded)
    graph = graph_of(loaded, CLEAN)
    edge_scores(loaded, graph, PROMPT)
    assert state(loaded) == before
    assert all(parameter.grad is None and parameter.requires_grad for parameter in loaded.model.parameters())


def test_the_table_has_one_line_per_edge(make_model: MakeModel) -> None:
    loaded = make_model("gemma2")
    graph = graph_of(loaded, CLEAN)
    scores = edge_scores(loaded, graph, PROMPT)
    table = edge_table(graph, PROMPT, scores, "noising", gap=2.0)
    assert list(table) == ["item", "group", "direction", "sender", "receiver", "effect", "recovery"]
    assert list(zip(table["sender"], table["receiver"], strict=True)) == graph.names(graph.every)
    line = table[(table["sender"] == "a0") & (table["receiver"] == "m1")].iloc[0]
    assert line["effect"] == scores[graph.place("a0", "m1")] == 2 * line["recovery"]
    assert len(edge_table(graph, PROMPT, scores, "noising", 2.0, graph.circuit([("a0", "m1")]))) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "eap-gi"}, "edge attribution method 'eap-gi' is not known.*did you mean 'eap-ig'"),
        ({"direction": "up"}, "direction 'up' is not known"),
        ({"steps": 0}, "integrated gradients over 0 steps"),
    ],
)
def test_wrong_options_are_refused(make_model: MakeModel, options: dict[str, Any], message: str) -> None:
    loaded = make_model("llama")
    with pytest.raises(TwinprobeError, match=message):
        edge_scores(loaded, graph_of(loaded, CLEAN), PROMPT, **options)


def test_a_quantised_model_is_refused(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    graph = graph_of(loaded, CLEAN)
    loaded.model.config.quantization_config = {"quant_method": "bitsandbytes"}
    with pytest.raises(TwinprobeError, match="tiny-llama is quantised"):
        edge_scores(loaded, graph, PROMPT)


def test_rows_of_gradients_do_not_mix(make_model: MakeModel) -> None:
    """With one receiver at a time instead of a batch of them, scores are the same."""
    loaded = make_model("llama")
    graph = graph_of(loaded, CLEAN)
    whole = edge_scores(loaded, graph, PROMPT, method="eap")
    with torch.no_grad():
        loaded.module("blocks.2.attn.q").weight[: loaded.d_head] = 0  # the first head of the last layer
    changed = edge_scores(loaded, graph, PROMPT, method="eap")
    row = graph.receiver_numbers["a2.q0"]
    assert np.abs(whole[row]).max() > 0
    assert (changed[row] == 0).all() and np.abs(changed[row + 1]).max() > 0
