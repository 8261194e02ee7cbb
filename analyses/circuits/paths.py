"""Exact patching of single edges: a receiver reads the donor's output of one sender, and all else the patched run's.

This is the direct path between two components (Wang et al. 2023, arXiv 2211.00593; Goldowsky-Dill et al. 2023, arXiv
2304.05969), of which edge attribution is an estimate: the receiver is computed once from its changed input, and what it
becomes is patched into the run, so that all that comes after it follows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from activations.engines.places import locate
from activations.models import LoadedModel
from analyses.attribution.nodes import DIRECTIONS
from analyses.circuits.edges import Runs
from analyses.circuits.graph import Graph
from analyses.circuits.outputs import Contributed
from analyses.circuits.parts import few, kind_of, layer_of, read_receiver, site_of
from analyses.patching.head import head_logits
from analyses.patching.suffix import Patch, suffix_logits
from analyses.prompts import Prompt

if TYPE_CHECKING:
    import torch

AT_ONE_POSITION = ("q", "k", "v", "mlp_out")
"""Sites whose activation at a position depends on their input at that position alone."""


def exact_edges(
    loaded: LoadedModel,
    graph: Graph,
    prompt: Prompt,
    edges: Sequence[tuple[str, str]],
    *,
    runs: Runs,
    direction: str = "noising",
) -> NDArray[np.float64]:
    """The change of the logit difference, in logits, that patching each edge alone makes.

    Args:
        loaded: a decoder; it is left as it was found, also after an error.
        graph: its graph.
        prompt: the contrast.
        edges: sender and receiver of each.
        runs: those of the prompt (see :func:`analyses.circuits.edges.runs_of`).
        direction: see :func:`analyses.circuits.edges.edge_scores`.

    Raises:
        TwinprobeError: there is no such edge.
    """
    import torch

    patched, donor = (runs[row] for row in DIRECTIONS[direction])
    places = [graph.place(sender, receiver) for sender, receiver in edges]
    before = float(prompt.logit_difference(patched.recording.logits))
    effects = np.zeros(len(edges))
    cells: list[tuple[int, Patch]] = []
    order = sorted(range(len(edges)), key=lambda number: places[number][0])
    with torch.inference_mode():
        for (_, name), same in groupby(order, key=lambda number: kind_of(graph.receivers[places[number][0]])):
            numbers = list(same)
            if name == "logits":
                change = donor.outputs[:, -1] - patched.outputs[:, -1]
                stream = patched.recording.stream[-1, -1]
                states = (stream.float() + change[[places[number][1] for number in numbers]]).to(stream.dtype)
                logits = head_logits(loaded, states[:, None])[:, 0]
                effects[numbers] = prompt.logit_difference(logits).double().cpu().numpy() - before
            else:
                found = _patches(loaded, graph, patched, donor, [places[number] for number in numbers])
                cells += zip(numbers, found, strict=True)
        after = prompt.logit_difference(suffix_logits(loaded, patched.recording, [(patch,) for _, patch in cells]))
    effects[[number for number, _ in cells]] = after.double().cpu().numpy() - before
    return effects


def _patches(
    loaded: LoadedModel, graph: Graph, patched: Contributed, donor: Contributed, places: Sequence[tuple[int, int]]
) -> list[Patch]:
    """What the receivers of edges become, which are all of one layer's attention, or its MLP."""
    import torch

    run = patched.recording
    receivers = [graph.receivers[number] for number, _ in places]
    layer = layer_of(receivers[0])
    sites = list(dict.fromkeys(replace(site_of(receiver), head=None) for receiver in receivers))
    own = patched.entering(receivers[0], graph.parallel)
    patches = []
    for part in few(len(places), len(run.ids)):
        senders = [sender for _, sender in places[part]]
        changes = donor.outputs[senders] - patched.outputs[senders]
        inputs = (own.float() + changes).to(own.dtype)
        found = read_receiver(loaded, run.calls[layer], sites, inputs, run.stream[layer])
        for row, receiver in enumerate(receivers[part]):
            site = site_of(receiver)
            values = found[replace(site, head=None)][row][:, locate(loaded, site).columns]
            differs = changes[row].any(-1)
            if site.name not in AT_ONE_POSITION:
                differs = differs.cumsum(0) > 0
            at = differs.nonzero()[:, 0]
            patches.append(Patch(site, tuple(at.tolist()), values[at.to(values.device)].to(torch.as_tensor(own).device)))
    return patches
