"""What is known of a circuit that was found, and its file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analyses.attribution.agreement import Agreement
from analyses.circuits.graph import Graph, Kept
from probes.metrics import Interval

METRIC = "logit difference"


@dataclass(frozen=True, eq=False)
class CircuitResult:
    """A circuit, how it was found, and what it does.

    Edges and size are chosen on one half of the items; all figures are of the other half, unless they say otherwise.

    Attributes:
        graph: the model's graph.
        kept: the circuit.
        method, steps, direction, choice: how edges were scored and chosen.
        edges: one line per edge of the graph: sender, receiver, effect (logits, mean over the items that chose), recovery
            (likewise), kept.
        kept_edges: one line per edge of the circuit and item that chose: item, group, direction, sender, receiver,
            effect, recovery.
        curve: one line per half of the items (``choosing``, ``held out``) and size: half, asked (edges before those that
            lie on no path were taken away), edges, faithfulness, low, high, items.
        faithfulness, completeness: mean over held-out items, with a 95% interval over items; see
            :mod:`analyses.circuits.faithfulness`.
        random: one line per random circuit: kind (``edges`` or ``paths``), draw, edges, faithfulness.
        minimality: one line per edge that was left out: sender, receiver, drop (of faithfulness), low, high.
        exact: one line per edge that was checked: drawn (``random``: from all edges; ``circuit``), sender, receiver,
            estimate and exact (logits, mean over the first of the items that chose).
        agreement: of the estimates with the exact effects, by how edges were drawn; where there are two or more.
        items: one line per prompt: item, group, difficulty, clean_right, corrupted_right, clean, corrupted, gap, status
            (``choosing``, ``held out``, or why it is neither).
    """

    graph: Graph
    kept: Kept
    method: str
    steps: int
    direction: str
    choice: str
    edges: pd.DataFrame
    kept_edges: pd.DataFrame
    curve: pd.DataFrame
    faithfulness: Interval
    completeness: Interval
    random: pd.DataFrame
    minimality: pd.DataFrame
    exact: pd.DataFrame
    agreement: dict[str, Agreement]
    items: pd.DataFrame

    @property
    def n_edges(self) -> int:
        """Edges of the circuit."""
        return int(self.kept.sum())

    def to_json(self, **labels: str) -> dict[str, Any]:
        """Plain values: the circuit and its figures, without the edges that are not in it.

        ``labels`` say more about it, such as the task and the form.
        """
        kept = self.edges[self.edges["kept"]].drop(columns="kept")
        drawn = self.random.groupby("kind")["faithfulness"]
        return {
            "model": self.graph.model,
            **labels,
            "metric": METRIC,
            "method": self.method,
            "steps": self.steps if self.method == "eap-ig" else None,
            "direction": self.direction,
            "choice": self.choice,
            "granularity": self.graph.granularity,
            "graph_edges": self.graph.n_edges,
            "circuit_edges": self.n_edges,
            "faithfulness": _plain(asdict(self.faithfulness)),
            "completeness": _plain(asdict(self.completeness)),
            "random": {
                str(kind): _plain({"mean": float(part.mean()), "low": float(part.min()), "high": float(part.max())})
                for kind, part in drawn
            },
            "agreement": {drawn: _plain(asdict(found)) for drawn, found in self.agreement.items()},
            "items": {str(status): int(count) for status, count in self.items["status"].value_counts().items()},
            "curve": [_plain(line) for line in self.curve.to_dict("records")],
            "edges": [_plain(line) for line in kept.to_dict("records")],
        }

    def write(self, path: Path, **labels: str) -> None:
        """Write :meth:`to_json` to a file."""
        path.write_text(json.dumps(self.to_json(**labels), indent=1, allow_nan=False) + "\n")


def _plain(values: dict[Any, Any]) -> dict[str, Any]:
    """JSON has no NaN: what is missing is null."""
    return {str(name): None if value != value else value for name, value in values.items()}
