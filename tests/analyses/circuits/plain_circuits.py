"""What circuits and paths are by definition, one full hooked forward pass after the other."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from other_models import CLEAN, CORRUPTED

from activations.engines.hooks import editing, forward
from activations.engines.places import locate
from activations.sites import Site
from analyses.prompts import Prompt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from activations.models import LoadedModel
    from analyses.circuits.graph import Graph, Kept, Receiver

PROMPT = Prompt(
    "item", "group", 1, CLEAN, CORRUPTED, 300, 310, (300, 310), tuple(f"t{i}" for i in range(9)),
    ("other",) * 8 + ("last",),
)  # fmt: skip
KINDS = {
    "grouped": ("llama", {}),
    "multi-query": ("llama", {"num_key_value_heads": 1}),
    "biases": ("qwen2", {}),
    "learned positions": ("gpt2", {}),
    "parallel": ("codegen", {}),
    "parallel, biases": ("neox-parallel", {}),
    "scaled": ("granite", {}),
    "normalised attention": ("gemma2", {"sliding_window": 4}),
}
"""An architecture of every way in which blocks add up."""
Edits = dict[Site, torch.Tensor]


def read(loaded: LoadedModel, ids: Sequence[int], site: Site, instead: Edits) -> torch.Tensor:
    """One activation ``[pos, width]`` of a run with others put in."""
    tokens = torch.tensor([ids])
    with ExitStack() as stack:
        for edited, values in instead.items():
            stack.enter_context(editing(loaded, edited, lambda _, values=values: values[None]))
        return forward(loaded, tokens, torch.ones_like(tokens), [site])[site][0].clone()


def plain_logits(loaded: LoadedModel, ids: Sequence[int], instead: Edits) -> torch.Tensor:
    """The last position's logits of a run with activations put in."""
    with torch.no_grad(), ExitStack() as stack:
        for edited, values in instead.items():
            stack.enter_context(editing(loaded, edited, lambda _, values=values: values[None]))
        return loaded.model(torch.tensor([ids])).logits[0, -1]


def added(loaded: LoadedModel, site: Site, z: torch.Tensor) -> torch.Tensor:
    """What a head adds to the stream, by the weights of the output projection."""
    projection = loaded.module(f"blocks.{site.layer}.attn.o")
    weight = projection.weight if type(projection).__name__ == "Conv1D" else projection.weight.T
    columns = locate(loaded, site).columns
    return (z[:, columns] @ weight[columns]).detach() * locate(loaded, Site("attn_out", site.layer)).scale


def plain_outputs(loaded: LoadedModel, graph: Graph, ids: Sequence[int]) -> list[torch.Tensor]:
    """What every sender adds in a plain run."""
    outputs = []
    for sender in graph.senders:
        found = read(loaded, ids, replace(sender.site, head=None), {})
        outputs.append(found if sender.site.head is None else added(loaded, sender.site, found))
    return outputs


def entering_site(loaded: LoadedModel, receiver: Receiver) -> Site:
    """Where a receiver reads."""
    if receiver.site is None:
        return Site("resid_post", loaded.n_layers - 1)
    between = receiver.site.name == "mlp_out" and not loaded.parallel
    return Site("resid_mid" if between else "resid_pre", receiver.site.layer)


def plain_changes(loaded: LoadedModel, graph: Graph, ids: Sequence[int], donor: Sequence[int]) -> list[torch.Tensor]:
    """How far the donor's output of every sender is from the run's own."""
    pairs = zip(plain_outputs(loaded, graph, donor), plain_outputs(loaded, graph, ids), strict=True)
    return [other - own for other, own in pairs]


def plain_edge(
    loaded: LoadedModel, graph: Graph, edge: tuple[str, str], ids: Sequence[int], changes: Sequence[torch.Tensor]
) -> float:
    """The logit difference after a run in which the receiver reads something else, and one that goes on from it."""
    row, column = graph.place(*edge)
    receiver = graph.receivers[row]
    entering = entering_site(loaded, receiver)
    instead = {entering: read(loaded, ids, entering, {}) + changes[column]}
    if receiver.site is not None:
        instead = {receiver.site: read(loaded, ids, receiver.site, instead)}
    return float(PROMPT.logit_difference(plain_logits(loaded, ids, instead)))


def plain_circuit(loaded: LoadedModel, graph: Graph, kept: Kept) -> torch.Tensor:
    """The logits of a circuit: every receiver reads its kept edges from the circuit's own run, all others corrupted."""
    corrupted = plain_outputs(loaded, graph, CORRUPTED)
    current: dict[int, torch.Tensor] = {0: plain_outputs(loaded, graph, CLEAN)[0]}
    received: dict[Site, torch.Tensor] = {}
    for row, receiver in enumerate(graph.receivers):
        entering = entering_site(loaded, receiver)
        mixed = read(loaded, CORRUPTED, entering, {})
        for column in np.flatnonzero(kept[row]):
            mixed = mixed + current[int(column)] - corrupted[column]
        if receiver.site is None:
            return plain_logits(loaded, CORRUPTED, {entering: mixed})
        received[receiver.site] = read(loaded, CORRUPTED, receiver.site, {entering: mixed})
        layer = receiver.site.layer
        last = graph.receivers[row + 1].site
        if receiver.site.name in ("attn_out", "mlp_out"):
            current[receiver.feeds[0]] = received[receiver.site]
        elif last is not None and last.name == "mlp_out":
            inside = {site: values for site, values in received.items() if site.layer == layer}
            z = read(loaded, CORRUPTED, Site("z", layer), inside)
            for number, sender in enumerate(graph.senders):
                if sender.site.name == "z" and sender.site.layer == layer:
                    current[number] = added(loaded, sender.site, z)
    raise AssertionError("a graph ends with the logits")
