"""The graph of a model: what adds to the residual stream, what reads it, and which reads which.

Senders add to the stream: ``input`` (what enters the first block), ``a0.h3`` (head 3 of layer 0) and ``m1`` (the MLP of
layer 1). Receivers read it: ``a0.q3``, ``a0.k1`` and ``a0.v1`` (the queries of head 3, the keys and values of key/value
head 1, of which grouped-query attention has fewer), ``m1`` and ``logits``. Where a model computes queries, keys and
values in one, a head has a single receiver of its own name, ``a0.h3``.

An edge leads from a sender to a receiver that comes after it; all receivers read the stream, so nothing else is needed to
say which edges there are. In parallel blocks an MLP does not read the heads of its own layer.

Heads are told apart only where what they add is a sum over heads. Where it is not (Gemma 2 normalises the sum), the nodes
are whole attentions, ``a0``, each with a single receiver.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from activations.sites import Site, parse_site

LOGITS = "logits"
Kept = NDArray[np.bool_]
"""A circuit: which edges ``[receiver, sender]`` of a graph are in it."""
Scores = NDArray[np.float64]
"""A number for every edge ``[receiver, sender]`` of a graph, 0 where there is none."""


@dataclass(frozen=True)
class Sender:
    """What adds to the residual stream. ``site`` is where its part of a run is recorded."""

    name: str
    site: Site


@dataclass(frozen=True)
class Receiver:
    """What reads the residual stream.

    It reads the first ``reads`` senders of the graph. ``site`` is what it makes of them (``None`` for the logits), which
    the senders with the numbers ``feeds`` are computed from.
    """

    name: str
    site: Site | None
    reads: int
    feeds: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """Senders and receivers of a model in computing order; the last receiver is the logits.

    ``granularity`` is ``heads``, or ``attention`` where heads can not be told apart.
    """

    model: str
    granularity: str
    parallel: bool
    senders: tuple[Sender, ...]
    receivers: tuple[Receiver, ...]

    @cached_property
    def every(self) -> Kept:
        """All edges."""
        reads = np.array([receiver.reads for receiver in self.receivers])
        return np.arange(len(self.senders)) < reads[:, None]

    @property
    def n_edges(self) -> int:
        """How many edges there are."""
        return int(self.every.sum())

    @cached_property
    def inputs(self) -> tuple[tuple[int, ...], ...]:
        """The numbers of the receivers that each sender is computed from; none for ``input``."""
        found: list[list[int]] = [[] for _ in self.senders]
        for number, receiver in enumerate(self.receivers):
            for sender in receiver.feeds:
                found[sender].append(number)
        return tuple(map(tuple, found))

    @cached_property
    def sender_numbers(self) -> dict[str, int]:
        """Where each sender is in ``senders``."""
        return {sender.name: number for number, sender in enumerate(self.senders)}

    @cached_property
    def receiver_numbers(self) -> dict[str, int]:
        """Where each receiver is in ``receivers``."""
        return {receiver.name: number for number, receiver in enumerate(self.receivers)}

    def names(self, kept: Kept) -> list[tuple[str, str]]:
        """Sender and receiver of each edge of a circuit, by receiver."""
        return [(self.senders[sender].name, self.receivers[receiver].name) for receiver, sender in np.argwhere(kept)]

    def circuit(self, edges: Iterable[tuple[str, str]]) -> Kept:
        """The circuit of some edges, each a sender and a receiver.

        Raises:
            TwinprobeError: there is no such edge.
        """
        kept = np.zeros_like(self.every)
        for sender, receiver in edges:
            kept[self.place(sender, receiver)] = True
        return kept

    def place(self, sender: str, receiver: str) -> tuple[int, int]:
        """Where an edge is in a circuit: the numbers of its receiver and its sender.

        Raises:
            TwinprobeError: there is no such edge.
        """
        row, column = self.receiver_numbers.get(receiver), self.sender_numbers.get(sender)
        if row is None or column is None or not self.every[row, column]:
            raise TwinprobeError(
                f"edge {sender} -> {receiver}: {self.model} has none; senders are {', '.join(self._few('senders'))}, "
                f"receivers {', '.join(self._few('receivers'))}, and a receiver reads only what comes before it"
            )
        return row, column

    def _few(self, side: str) -> list[str]:
        names = [part.name for part in getattr(self, side)]
        return names if len(names) <= 8 else [*names[:6], "...", names[-1]]

    def to_json(self, scores: Scores) -> dict[str, Any]:
        """Plain values: the graph, and the score of every edge."""
        return {
            "model": self.model,
            "granularity": self.granularity,
            "parallel": self.parallel,
            "senders": [{"name": sender.name, "site": str(sender.site)} for sender in self.senders],
            "receivers": [
                {
                    "name": receiver.name,
                    "site": None if receiver.site is None else str(receiver.site),
                    "reads": receiver.reads,
                    "feeds": [self.senders[sender].name for sender in receiver.feeds],
                }
                for receiver in self.receivers
            ],
            "edges": [
                {"sender": sender, "receiver": receiver, "score": score}
                for (sender, receiver), score in zip(
                    self.names(self.every), scores[self.every].astype(float).tolist(), strict=True
                )
            ],
        }


def from_json(given: dict[str, Any]) -> tuple[Graph, Scores]:
    """Read back what :meth:`Graph.to_json` wrote; edges that are not there have the score 0.

    Raises:
        TwinprobeError: an edge that the graph does not have, or something is missing.
    """
    try:
        senders = tuple(Sender(one["name"], parse_site(one["site"])) for one in given["senders"])
        numbers = {sender.name: number for number, sender in enumerate(senders)}
        receivers = tuple(
            Receiver(
                one["name"],
                None if one["site"] is None else parse_site(one["site"]),
                int(one["reads"]),
                tuple(numbers[name] for name in one["feeds"]),
            )
            for one in given["receivers"]
        )
        graph = Graph(given["model"], given["granularity"], bool(given["parallel"]), senders, receivers)
        scores = np.zeros(graph.every.shape)
        for one in given["edges"]:
            scores[graph.place(one["sender"], one["receiver"])] = float(one["score"])
    except (KeyError, TypeError, ValueError) as error:
        raise TwinprobeError(f"this is no graph: {error!r}; expected what Graph.to_json wrote") from None
    return graph, scores
