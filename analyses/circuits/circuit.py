"""Choosing a circuit: edges with large scores that lie on paths from the input to the logits."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from analyses.circuits.graph import Graph, Kept, Scores


def top(graph: Graph, scores: Scores, n: int) -> Kept:
    """The ``n`` edges of largest magnitude, without those that lie on no path (Hanna et al. 2024, arXiv 2403.17806).

    Raises:
        TwinprobeError: ``n`` is below 1.
    """
    _check(n)
    places = np.argwhere(graph.every)
    sizes = np.abs(scores[graph.every])
    kept = np.zeros_like(graph.every)
    kept[tuple(places[np.argsort(-sizes, kind="stable")[:n]].T)] = True
    return prune(graph, kept)


def greedy(graph: Graph, scores: Scores, n: int) -> Kept:
    """Grow a circuit from the logits backwards by ``n`` edges, then prune it (Hanna et al. 2024, arXiv 2403.17806).

    The next edge is the largest in magnitude among those into what the circuit has already.

    Raises:
        TwinprobeError: ``n`` is below 1.
    """
    _check(n)
    sizes = np.abs(scores)
    kept = np.zeros_like(graph.every)
    queue: list[tuple[float, int, int]] = []
    met: set[int] = set()

    def meet(receiver: int) -> None:
        if receiver not in met:
            met.add(receiver)
            for sender in range(graph.receivers[receiver].reads):
                heapq.heappush(queue, (-float(sizes[receiver, sender]), receiver, sender))

    meet(len(graph.receivers) - 1)
    for _ in range(n):
        if not queue:
            break
        _, receiver, sender = heapq.heappop(queue)
        kept[receiver, sender] = True
        for number in graph.inputs[sender]:
            meet(number)
    return prune(graph, kept)


def prune(graph: Graph, kept: Kept) -> Kept:
    """The edges that lie on a path from the input to the logits; all others change nothing."""
    reached = np.arange(len(graph.senders)) == 0
    # Senders come after all that they are computed from: one walk up and one walk down the layers.
    for sender, receivers in enumerate(graph.inputs):
        if receivers:
            reached[sender] = bool((kept[list(receivers)] & reached).any())
    kept = kept & reached
    used = np.zeros(len(graph.senders), dtype=bool)
    useful = np.zeros(len(graph.receivers), dtype=bool)
    for number in reversed(range(len(graph.receivers))):
        receiver = graph.receivers[number]
        useful[number] = receiver.site is None or used[list(receiver.feeds)].any()
        if useful[number]:
            used |= kept[number]
    return kept & useful[:, None]


def random_edges(graph: Graph, n: int, generator: np.random.Generator) -> Kept:
    """``n`` edges drawn at random; most of them lie on no path."""
    places = np.argwhere(graph.every)
    kept = np.zeros_like(graph.every)
    kept[tuple(generator.permutation(places)[:n].T)] = True
    return kept


def random_paths(graph: Graph, n: int, generator: np.random.Generator) -> Kept:
    """``n`` edges of random paths from the input to the logits.

    Paths are random walks from the circuit so far down to the input. Where walks keep coming out longer than what is
    left to draw, edges between parts of the circuit are drawn instead; there are fewer than ``n`` where none are left.
    """
    kept = np.zeros_like(graph.every)
    while (left := n - int(kept.sum())) > 0:
        drawn = _walk(graph, kept, left, generator)
        if drawn is None:
            inside = np.argwhere(graph.every & ~kept & kept.any(0) & _leading_on(graph, kept)[:, None])
            if not len(inside):
                break
            drawn = inside[generator.integers(len(inside), size=1)]
        kept[tuple(drawn.T)] = True
    return kept


def _walk(
    graph: Graph, kept: Kept, left: int, generator: np.random.Generator, attempts: int = 100
) -> NDArray[np.int64] | None:
    """A random walk down to the input, of at most ``left`` edges that are not kept yet: receivers and senders."""
    starts = np.flatnonzero(_leading_on(graph, kept))
    for _ in range(attempts):
        receiver, walk = int(generator.choice(starts)), []
        while receiver >= 0:
            sender = int(generator.integers(graph.receivers[receiver].reads))
            walk.append((receiver, sender))
            receiver = int(generator.choice(graph.inputs[sender])) if sender else -1
        if 1 <= sum(not kept[place] for place in walk) <= left:
            return np.array(walk)
    return None


def _leading_on(graph: Graph, kept: Kept) -> NDArray[np.bool_]:
    """Receivers ``[receiver]`` that something of the circuit, or the logits, is computed from."""
    used = np.asarray(kept.any(0))
    return np.array([receiver.site is None or used[list(receiver.feeds)].any() for receiver in graph.receivers])


def _check(n: int) -> None:
    if n < 1:
        raise TwinprobeError(f"a circuit of {n} edges was asked for; expected 1 or more")
