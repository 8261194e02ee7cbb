"""The tables of a circuit; their columns are said in :class:`analyses.circuits.result.CircuitResult`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from analyses.attribution.agreement import Agreement, agreement
from analyses.circuits.graph import Graph, Kept, Scores
from analyses.circuits.items import CHOOSING, HELD_OUT, Items
from probes.metrics import Interval, cluster_bootstrap

TOP = 10
"""Edges of largest exact effect that are looked for among the estimates; fewer where few were checked."""


@dataclass(frozen=True)
class Intervals:
    """Means over the items of a half, with 95% intervals over items."""

    items: Items
    n_resamples: int
    seed: int

    def of(self, values: NDArray[np.float64], half: str = HELD_OUT) -> Interval:
        """The mean of one value per item of a half."""
        prompts = self.items.choosing if half == CHOOSING else self.items.held_out
        return cluster_bootstrap(values, [prompt.item for prompt in prompts], self.n_resamples, self.seed)


def mean_edges(graph: Graph, scores: Scores, recovery: Scores, kept: Kept) -> pd.DataFrame:
    """One line per edge of the graph."""
    names = graph.names(graph.every)
    return pd.DataFrame(
        {
            "sender": [sender for sender, _ in names],
            "receiver": [receiver for _, receiver in names],
            "effect": scores[graph.every],
            "recovery": recovery[graph.every],
            "kept": kept[graph.every],
        }
    )


def curve_table(
    sizes: Sequence[int], grown: Sequence[Kept], halves: Mapping[str, NDArray[np.float64]], intervals: Intervals
) -> pd.DataFrame:
    """One line per half and size; ``halves`` hold faithfulness ``[item, size]``."""
    lines = []
    for half, measured in halves.items():
        for asked, kept, values in zip(sizes, grown, measured.T, strict=True):
            mean = intervals.of(values, half)
            shown = {"faithfulness": mean.estimate, "low": mean.low, "high": mean.high, "items": len(values)}
            lines.append({"half": half, "asked": asked, "edges": int(kept.sum()), **shown})
    return pd.DataFrame(lines)


def random_table(circuits: Sequence[tuple[str, Kept]], measured: NDArray[np.float64]) -> pd.DataFrame:
    """One line per random circuit, given by kind; ``measured`` is faithfulness ``[item, circuit]``."""
    kinds = pd.Series([kind for kind, _ in circuits], dtype=object)
    return pd.DataFrame(
        {
            "kind": kinds,
            "draw": kinds.groupby(kinds).cumcount(),
            "edges": [int(kept.sum()) for _, kept in circuits],
            "faithfulness": measured.mean(0),
        }
    )


def minimality_table(
    edges: Sequence[tuple[str, str]], drops: NDArray[np.float64], intervals: Intervals
) -> pd.DataFrame:
    """One line per edge left out; ``drops`` are of faithfulness ``[item, edge]``."""
    lines = []
    for (sender, receiver), values in zip(edges, drops.T, strict=True):
        drop = intervals.of(values)
        lines.append(
            {"sender": sender, "receiver": receiver, "drop": drop.estimate, "low": drop.low, "high": drop.high}
        )
    return pd.DataFrame(lines, columns=["sender", "receiver", "drop", "low", "high"])


def agreements(exact: pd.DataFrame) -> dict[str, Agreement]:
    """How the estimates agree with the exact effects, by how edges were drawn."""
    return {
        str(drawn): agreement(part["exact"], part["estimate"], top=max(1, min(TOP, len(part) // 5)))
        for drawn, part in exact.groupby("drawn")
        if len(part) > 1
    }
