"""A picture of a circuit: layers from bottom to top, heads side by side, an arrow for every edge."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from analyses.circuits.graph import LOGITS, Graph, Sender
from analyses.circuits.result import CircuitResult
from analyses.report.canvas import COLOUR, Canvas, drawn

SUPPORT, OPPOSE = COLOUR["base"], COLOUR["code"]
"""Colours of edges that speak for the clean answer, and of those that speak against it."""
BOX, ROW, COLUMN, LEAN = (0.62, 0.27), 0.62, 1.0, 0.42
"""Inches: size of a node, how far rows and columns of nodes are apart, and how far every second row is to the right."""
TITLE, LEGEND, MARGIN = 0.45, 0.3, 0.3
WIDEST, THINNEST = 4.0, 0.5
PORTS = {"q": -0.2, "k": 0.0, "v": 0.2}
"""Where an arrow to a head's queries, keys or values ends, in inches from its middle."""
INK, FILL, FRAME = "#1a1a1a", "#f4f4f4", "#8a8a8a"


@dataclass(frozen=True)
class _Arrow:
    """An edge between two nodes of the picture; ``port`` is what it reads into (empty where a node has only one)."""

    start: str
    end: str
    port: str
    support: float


@drawn
def draw_circuit(result: CircuitResult, title: str) -> Figure:
    """Write a picture of a circuit to a PNG file; of 5 to 60 edges it is readable.

    Args:
        result: the circuit, with the score of every edge.
        title: what is above it.
        path: the file (the last argument).
    """
    arrows = _arrows(result)
    nodes = {node for arrow in arrows for node in (arrow.start, arrow.end)} | {"input", LOGITS}
    places = _places(result.graph, nodes)
    width = max(4.6, max(x for x, _ in places.values()) + BOX[0] + MARGIN)
    height = TITLE + LEGEND + places[LOGITS][1] + BOX[1] / 2 + MARGIN
    canvas = Canvas(width, height)
    axes = canvas.axes(0, TITLE, width, height - TITLE)
    axes.set(xlim=(0, width), ylim=(0, height - TITLE))
    axes.axis("off")
    strongest = max((abs(arrow.support) for arrow in arrows), default=1.0) or 1.0
    for arrow in arrows:
        axes.add_patch(_line(arrow, places, strongest))
    for node, (x, y) in places.items():
        corner = x - BOX[0] / 2, y - BOX[1] / 2
        axes.add_patch(
            FancyBboxPatch(corner, *BOX, boxstyle="round,pad=0,rounding_size=0.06", fc=FILL, ec=FRAME, lw=0.8, zorder=3)
        )
        axes.text(x, y - 0.01, node, ha="center", va="center", fontsize=8, color=INK, zorder=4)
    for node, port in sorted({(arrow.end, arrow.port) for arrow in arrows if arrow.port}):
        x, y = places[node]
        axes.text(
            x + PORTS[port] - 0.05, y - BOX[1] / 2 - 0.02, port,
            ha="right", va="top", fontsize=6.5, color=INK, zorder=4,
        )  # fmt: skip
    handles = [
        Line2D([], [], color=SUPPORT, lw=2.5, label="for the clean answer"),
        Line2D([], [], color=OPPOSE, lw=2.5, label="against it"),
    ]
    axes.legend(handles=handles, loc="upper left", ncol=2, borderaxespad=0.3, fontsize=7.5)
    scale = f"widest line: {strongest:.2g} logits ({result.method}, {result.direction})"
    for text, down, size, weight in ((title, 0.08, 9, "bold"), (scale, 0.28, 7.5, "normal")):
        canvas.figure.text(
            0.1 / width, 1 - down / height, text, ha="left", va="top", fontsize=size, fontweight=weight, color=INK
        )
    return canvas.figure


def _arrows(result: CircuitResult) -> list[_Arrow]:
    """An arrow for each edge; keys and values that several heads of the circuit share have one to each of them."""
    graph = result.graph
    sign = -1.0 if result.direction == "noising" else 1.0
    present = np.asarray(result.kept.any(0))
    chosen = result.edges[result.edges["kept"]]
    arrows = []
    for sender, name, effect in zip(chosen["sender"], chosen["receiver"], chosen["effect"], strict=True):
        receiver = graph.receivers[graph.receiver_numbers[name]]
        port = receiver.site.name if receiver.site is not None and receiver.site.name in PORTS else ""
        ends = [graph.senders[number].name for number in receiver.feeds if present[number]] or [LOGITS]
        arrows += [_Arrow(sender, end, port, sign * float(effect)) for end in ends]
    return arrows


def _places(graph: Graph, nodes: set[str]) -> dict[str, tuple[float, float]]:
    """The middle of every node, in inches from the bottom left.

    From the bottom up: the input, the attention and the MLP of every layer, the logits. A head stands in the column of
    its number, the MLPs in the last one; layers lean left and right in turn, so that fewer arrows pass behind nodes.
    """
    inside = [sender for sender in graph.senders if sender.name in nodes and sender.name != "input"]
    rows = sorted({_row(sender) for sender in inside})
    columns = sorted({_column(sender) for sender in inside})
    middle = MARGIN + BOX[0] / 2 + max(len(columns) - 1, 1) * COLUMN / 2
    places = {"input": (middle, MARGIN)}
    for sender in inside:
        lean = LEAN if rows.index(_row(sender)) % 2 else 0.0
        x = MARGIN + BOX[0] / 2 + columns.index(_column(sender)) * COLUMN + lean
        places[sender.name] = x, MARGIN + (1 + rows.index(_row(sender))) * ROW
    return {**places, LOGITS: (middle, MARGIN + (1 + len(rows)) * ROW)}


def _row(sender: Sender) -> tuple[int, bool]:
    return sender.site.layer or 0, sender.site.name == "mlp_out"


def _column(sender: Sender) -> tuple[bool, int]:
    return sender.site.name == "mlp_out", sender.site.head or 0


def _line(arrow: _Arrow, places: dict[str, tuple[float, float]], strongest: float) -> FancyArrowPatch:
    (x0, y0), (x1, y1) = places[arrow.start], places[arrow.end]
    share = abs(arrow.support) / strongest
    levels = (y1 - y0) / ROW
    # Long arrows bend away from what stands between their ends.
    bend = 0.0 if levels < 1.5 else float(np.clip(0.12 * levels, 0, 0.35)) * (1 if x1 >= x0 else -1)
    settings: dict[str, Any] = {
        "arrowstyle": "-|>",
        "mutation_scale": 6 + 4 * share,
        "connectionstyle": f"arc3,rad={bend:.3f}",
        "color": SUPPORT if arrow.support >= 0 else OPPOSE,
        "lw": THINNEST + (WIDEST - THINNEST) * share,
        "alpha": 0.45 + 0.45 * share,
        "shrinkA": 0,
        "shrinkB": 0,
        "zorder": 2,
    }
    end = x1 + PORTS.get(arrow.port, 0.0), y1 - BOX[1] / 2
    return FancyArrowPatch((x0, y0 + BOX[1] / 2), end, **settings)
