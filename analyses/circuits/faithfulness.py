"""How much of a model's answer a circuit gives: faithfulness, completeness, minimality.

Faithfulness of an item is (m(circuit) - m(corrupted)) / (m(clean) - m(corrupted)), m being the logit difference: 1 where
the circuit alone does what the whole model does, 0 where it does nothing (normalised as in Hanna et al. 2024, arXiv
2403.17806). Completeness is the faithfulness of everything but the circuit (Marks et al. 2024, arXiv
2403.19647; Wang et al. 2023, arXiv 2211.00593, section 4 ask it of all subsets): small where the circuit leaves nothing
out. Minimality is asked of each edge: by how much faithfulness drops without it (after Wang et al. 2023, section 4).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from activations.models import LoadedModel
from analyses.circuits.circuit import prune, random_edges, random_paths
from analyses.circuits.edges import Runs
from analyses.circuits.graph import Graph, Kept
from analyses.circuits.running import circuit_logits
from analyses.prompts import Prompt

RANDOM = {"edges": random_edges, "paths": random_paths}
"""Kinds of random circuits: of edges anywhere, most of which lead nowhere, and of whole paths."""


def faithfulness(
    loaded: LoadedModel, graph: Graph, prompt: Prompt, circuits: Sequence[Kept], runs: Runs
) -> NDArray[np.float64]:
    """Faithfulness of each circuit on one item; ``runs`` are the item's own."""
    logits = circuit_logits(loaded, graph, runs.clean, runs.corrupted, circuits)
    corrupted = float(prompt.logit_difference(runs.corrupted.recording.logits))
    found: NDArray[np.float64] = prompt.logit_difference(logits).double().cpu().numpy()
    return (found - corrupted) / runs.gap


def complement(graph: Graph, kept: Kept) -> Kept:
    """Everything but the circuit, whose faithfulness is the circuit's completeness."""
    return prune(graph, graph.every & ~kept)


def without_each(graph: Graph, kept: Kept, limit: int, seed: int) -> list[tuple[tuple[str, str], Kept]]:
    """Each edge of a circuit, and the circuit without it; ``limit`` edges drawn at random where it has more."""
    places = np.argwhere(kept)
    if len(places) > limit:
        places = places[np.sort(np.random.default_rng(seed).permutation(len(places))[:limit])]
    found = []
    for receiver, sender in places:
        rest = kept.copy()
        rest[receiver, sender] = False
        found.append(((graph.senders[sender].name, graph.receivers[receiver].name), prune(graph, rest)))
    return found


def random_circuits(graph: Graph, n_edges: int, draws: int, seed: int) -> list[tuple[str, Kept]]:
    """``draws`` circuits of each kind of :data:`RANDOM`, of as many edges (of paths, sometimes fewer)."""
    generator = np.random.default_rng(seed)
    return [(kind, draw(graph, n_edges, generator)) for kind, draw in RANDOM.items() for _ in range(draws)]
