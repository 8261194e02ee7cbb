"""Choosing a circuit: edges with large scores that lie on paths from the input to the logits."""

from __future__ import annotations

import heapq

import numpy as np

from activations.errors import TwinprobeError
from analyses.circuits.graph import Graph, Kept, Scores


def top(graph: Graph, scores: Scores, n: int) -> Kept:
    """The ``n`` edges of largest magnitude, without those that lie on no path (Hanna et al. 2024, section 3.1).

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
    """Grow a circuit from the logits backwards by ``n`` edges, then prune it (Hanna et al. 2024, section 3.1).

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
    reached = np.zeros(len(graph.senders), dtype=bool)
    reached[0] = True
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
    """``n`` edges of random paths from the input to the logits (fewer, where no path leads on).

    Paths are random walks down from what the circuit has already; walks that are too long for the edges that are left
    are given up, and edges between parts of the circuit take their place.
    """
    kept = np.zeros_like(graph.every)
    while (left := n - int(kept.sum())) > 0:
        walk = _walk(graph, kept, left, generator)
        if walk is None:
            inside = _inside(graph, kept)
            if not len(inside):
                break
            walk = [tuple(inside[generator.integers(len(inside))])]
        for place in walk:
            kept[place] = True
    return kept


def _walk(
    graph: Graph, kept: Kept, left: int, generator: np.random.Generator, attempts: int = 100
) -> list[tuple[int, ...]] | None:
    """A random walk down to the input or to what is kept already, of at most ``left`` edges that are not."""
    last = len(graph.receivers) - 1
    for _ in range(attempts):
        receivers = _fed(graph, kept)
        receiver, walk = int(generator.choice(receivers)), []
        while len(walk) <= left:
            sender = int(generator.integers(graph.receivers[receiver].reads))
            walk.append((receiver, sender))
            if sender == 0:
                break
            receiver = int(generator.choice(graph.inputs[sender]))
        new = [place for place in walk if not kept[place]]
        if walk[-1][1] == 0 and 0 < len(new) <= left:
            return new
    return None if kept.any() else [(last, 0)]


def _fed(graph: Graph, kept: Kept) -> list[int]:
    """Receivers that lead on to the logits in a circuit without loose ends."""
    used = {0, *np.flatnonzero(kept.any(0)).tolist()} - {0}
    return [n for n, r in enumerate(graph.receivers) if r.site is None or used.intersection(r.feeds)]


def _inside(graph: Graph, kept: Kept) -> np.ndarray:
    """Edges between parts of a circuit that are not in it."""
    senders = kept.any(0)
    receivers = np.zeros(len(graph.receivers), dtype=bool)
    receivers[_fed(graph, kept)] = True
    return np.argwhere(graph.every & ~kept & senders & receivers[:, None])


def _check(n: int) -> None:
    if n < 1:
        raise TwinprobeError(f"a circuit of {n} edges was asked for; expected 1 or more")
