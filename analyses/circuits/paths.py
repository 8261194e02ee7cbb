"""Exact patching of single edges: a receiver reads the donor's output of one sender, and all else the patched run's.

This is the direct path between two components (Wang et al. 2023, arXiv 2211.00593; Goldowsky-Dill et al. 2023, arXiv
2304.05969), of which edge attribution is an estimate: the receiver is computed once from its changed input, and what it
becomes is patched into the run, so that all that comes after it follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from activations.engines.places import locate
from activations.models import LoadedModel
from activations.sites import Site
from analyses.circuits.edges import Runs
from analyses.circuits.graph import Graph
from analyses.circuits.outputs import Contributed
from analyses.circuits.parts import by_site, few, read_receiver
from analyses.patching.cells import Patch
from analyses.patching.head import head_logits
from analyses.patching.suffix import suffix_logits
from analyses.prompts import DIRECTIONS, Prompt

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
        for site, same in by_site([graph.receivers[places[number][0]] for number in order]):
            numbers = [order[one] for one in same]
            if site is None:
                change = donor.outputs[:, -1] - patched.outputs[:, -1]
                stream = patched.recording.stream[-1, -1]
                states = (stream.float() + change[[places[number][1] for number in numbers]]).to(stream.dtype)
                logits = head_logits(loaded, states[:, None])[:, 0]
                effects[numbers] = prompt.logit_difference(logits).double().cpu().numpy() - before
            else:
                found = _patches(loaded, graph, patched, donor, [places[number] for number in numbers], site)
                cells += zip(numbers, found, strict=True)
        after = prompt.logit_difference(suffix_logits(loaded, patched.recording, [(patch,) for _, patch in cells]))
    effects[[number for number, _ in cells]] = after.double().cpu().numpy() - before
    return effects


def _patches(
    loaded: LoadedModel,
    graph: Graph,
    patched: Contributed,
    donor: Contributed,
    places: Sequence[tuple[int, int]],
    site: Site,
) -> list[Patch]:
    """What the receivers of edges become, which are all heads of ``site``."""
    run, layer = patched.recording, site.layer
    assert layer is not None
    receivers = [graph.receivers[number] for number, _ in places]
    own = patched.entering(receivers[0], graph.parallel)
    patches = []
    for part in few(len(places), len(run.ids)):
        senders = [sender for _, sender in places[part]]
        changes = donor.outputs[senders] - patched.outputs[senders]
        found = read_receiver(
            loaded, run.calls[layer], site, (own.float() + changes).to(own.dtype), run.stream[layer]
        )  # fmt: skip
        for row, receiver in enumerate(receivers[part]):
            head = receiver.site or site
            differs = changes[row].any(-1)
            if site.name not in AT_ONE_POSITION:
                differs = differs.cumsum(0) > 0
            positions = differs.nonzero()[:, 0].tolist()
            patches.append(Patch(head, tuple(positions), found[row, positions][:, locate(loaded, head).columns]))
    return patches
