"""The graph of a model: what each sender adds makes up what each receiver reads, in every architecture."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES
from other_models import CLEAN, CORRUPTED, WINDOWED, state
from plain_circuits import KINDS, entering_site, plain_outputs, read

from activations.errors import TwinprobeError
from analyses.circuits.graph import Graph, from_json
from analyses.circuits.outputs import contributed, graph_of

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

Tiny = Callable[[str], "LoadedModel"]


def constant(loaded: LoadedModel, layers: int) -> torch.Tensor:
    """What the output projections of the first layers add whatever they read."""
    biases = [getattr(loaded.module(f"blocks.{layer}.attn.o"), "bias", None) for layer in range(layers)]
    return sum((bias.detach() for bias in biases if bias is not None), torch.zeros(loaded.d_model))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_receiver_reads_is_the_sum_of_its_senders(make_model: MakeModel, architecture: str) -> None:
    loaded = make_model(architecture, **WINDOWED.get(architecture, {}))
    graph = graph_of(loaded, CLEAN)
    before = state(loaded)
    run = contributed(loaded, graph, CORRUPTED)
    assert state(loaded) == before
    for receiver in graph.receivers:
        site = entering_site(loaded, receiver)
        layers = loaded.n_layers if receiver.site is None else (site.layer or 0) + (site.name == "resid_mid")
        biases = constant(loaded, layers) if graph.granularity == "heads" else 0
        expected = read(loaded, CORRUPTED, site, {})
        assert torch.allclose(run.entering(receiver, graph.parallel), expected, atol=1e-6)
        assert torch.allclose(run.outputs[: receiver.reads].sum(0) + biases, expected, atol=1e-5), receiver.name


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_adds_what_its_weights_say(make_model: MakeModel, kind: str) -> None:
    architecture, overrides = KINDS[kind]
    loaded = make_model(architecture, **overrides)
    graph = graph_of(loaded, CLEAN)
    expected = torch.stack(plain_outputs(loaded, graph, CLEAN))
    assert torch.allclose(contributed(loaded, graph, CLEAN).outputs, expected, atol=1e-6)


def names(graph: Graph, layer: int) -> list[str]:
    return [one.name for one in graph.receivers if one.site is not None and one.site.layer == layer]


def test_receivers_are_queries_keys_and_values_where_the_model_has_them_apart(
    tiny: Tiny, make_model: MakeModel
) -> None:
    grouped = graph_of(tiny("llama"), CLEAN)
    assert [one.name for one in grouped.senders[:7]] == ["input", "a0.h0", "a0.h1", "a0.h2", "a0.h3", "m0", "a1.h0"]
    assert names(grouped, 0) == ["a0.q0", "a0.q1", "a0.q2", "a0.q3", "a0.k0", "a0.k1", "a0.v0", "a0.v1", "m0"]
    fed = {one.name: [grouped.senders[number].name for number in one.feeds] for one in grouped.receivers}
    assert fed["a1.q2"] == ["a1.h2"] and fed["a1.k0"] == ["a1.h0", "a1.h1"] and fed["a1.v1"] == ["a1.h2", "a1.h3"]
    single = graph_of(make_model("llama", num_key_value_heads=1), CLEAN)
    assert names(single, 2)[4:] == ["a2.k0", "a2.v0", "m2"]
    assert names(graph_of(tiny("gpt2"), CLEAN), 1) == ["a1.h0", "a1.h1", "a1.h2", "a1.h3", "m1"]


def test_heads_are_told_apart_only_where_they_add_up(tiny: Tiny) -> None:
    graph = graph_of(tiny("gemma2"), CLEAN)
    assert graph.granularity == "attention"
    assert [one.name for one in graph.senders] == ["input", "a0", "m0", "a1", "m1", "a2", "m2"]
    assert names(graph, 1) == ["a1", "m1"]
    assert graph_of(tiny("llama"), CLEAN).granularity == "heads"


def test_a_parallel_mlp_does_not_read_the_heads_beside_it(tiny: Tiny) -> None:
    edges = set(graph_of(tiny("codegen"), CLEAN).names(graph_of(tiny("codegen"), CLEAN).every))
    assert ("a0.h1", "m1") in edges and ("a1.h1", "m1") not in edges and ("m1", "a1.h0") not in edges
    sequential = graph_of(tiny("gpt2"), CLEAN)
    assert ("a1.h1", "m1") in sequential.names(sequential.every)


def test_an_edge_leads_to_what_comes_later(tiny: Tiny) -> None:
    graph = graph_of(tiny("llama"), CLEAN)
    # 9 receivers a layer, of which the MLP also reads its own layer's 4 heads; 1, 6 and 11 senders before the layers.
    assert graph.n_edges == sum(9 * before + 4 for before in (1, 6, 11)) + 16 == len(graph.names(graph.every))
    circuit = graph.circuit([("m0", "a2.q3"), ("input", "logits")])
    assert sorted(graph.names(circuit)) == [("input", "logits"), ("m0", "a2.q3")]
    for edge in (("m2", "a2.q3"), ("m0", "a2.h3"), ("logits", "m0")):
        with pytest.raises(TwinprobeError, match=f"edge {edge[0]} -> {edge[1]}: tiny-llama has none"):
            graph.circuit([edge])


def test_a_graph_and_its_scores_survive_a_file(tiny: Tiny) -> None:
    graph = graph_of(tiny("llama"), CLEAN)
    scores = np.where(graph.every, np.random.default_rng(0).normal(size=graph.every.shape), 0)
    again, its_scores = from_json(json.loads(json.dumps(graph.to_json(scores))))
    assert again == graph
    assert (its_scores == scores).all()
    with pytest.raises(TwinprobeError, match="this is no graph"):
        from_json({"model": "m"})


def test_a_model_that_does_more_than_add_has_no_graph(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    block = loaded.module("blocks.1")
    handle = block.register_forward_hook(lambda _module, _args, result: 2 * result)
    try:
        with pytest.raises(TwinprobeError, match="does more in layer 1 than to add"):
            graph_of(loaded, CLEAN)
    finally:
        handle.remove()
    with pytest.raises(TwinprobeError, match="is an encoder"):
        graph_of(make_model("roberta"), CLEAN)
