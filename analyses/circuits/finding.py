"""Find the circuit of a contrast in one model, and say how far it can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from activations.errors import TwinprobeError, did_you_mean
from activations.models import LoadedModel
from analyses.circuits.circuit import greedy, top
from analyses.circuits.edges import check_options, edge_scores, edge_table, runs_of
from analyses.circuits.faithfulness import complement, faithfulness, random_circuits, without_each
from analyses.circuits.graph import Graph, Kept, Scores
from analyses.circuits.items import CHOOSING, HELD_OUT, choose_items
from analyses.circuits.outputs import graph_of
from analyses.circuits.paths import exact_edges
from analyses.circuits.result import CircuitResult
from analyses.circuits.tables import (
    Intervals,
    agreements,
    curve_table,
    mean_edges,
    minimality_table,
    random_table,
)
from analyses.patching.exactness import has_suffixes
from analyses.prompts import Prompt

CHOICES = {"greedy": greedy, "top": top}
EXACT_ITEMS = 8
"""Items on which estimates are compared with exact patches."""
ROUNDING = 1e-6
"""The whole model is not quite 1 faithful to itself, as it is added up in another order."""
LEFT_OUT = 64
"""Edges of a circuit that are left out one at a time; of larger circuits as many are drawn."""


def find_circuit(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    method: str = "eap-ig",
    steps: int = 5,
    n_edges: int | None = None,
    target: float = 0.85,
    choice: str = "greedy",
    direction: str = "noising",
    max_items: int = 64,
    random_draws: int = 10,
    check_exact: int = 100,
    seed: int = 0,
    n_resamples: int = 1000,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CircuitResult:
    """Score all edges, choose a circuit, and measure it on items that had no part in that.

    Args:
        loaded: a decoder; it is left as it was found, also after an error.
        prompts: the contrasts; those are used that the model gets right in both texts, with a large enough gap.
        method: see :func:`analyses.circuits.edges.edge_scores`, as for ``steps`` and ``direction``. The circuit itself
            always runs on the clean text, with the corrupted run's outputs along all other edges.
        steps: gradients averaged by ``eap-ig``.
        n_edges: edges to choose, before those that lie on no path are taken away; if not given, the first of 1, 2, 4, ...
            that is ``target`` faithful on the choosing items.
        target: see there; above 0, at most 1.
        choice: ``greedy`` or ``top``, see :mod:`analyses.circuits.circuit`.
        direction: in which edges are scored.
        max_items: items used at most.
        random_draws: random circuits of each kind, of as many edges as the circuit has.
        check_exact: edges drawn at random (and at most as many of the circuit's) whose estimate is compared with an exact
            patch.
        seed: of every draw.
        n_resamples: of every interval.
        progress: called with steps done and steps in all.

    Raises:
        TwinprobeError: the model is quantised or does more than add to its residual stream, fewer than two items are
            right in both texts, or an option is out of range.
    """
    check_options(method, direction, steps)
    _check(choice, target, n_edges)
    items = choose_items(loaded, prompts, max_items, seed)
    longest = max((prompt.clean for prompt in (*items.choosing, *items.held_out)), key=len)
    graph = graph_of(loaded, longest)
    total = 2 * len(items.choosing) + len(items.held_out) + min(EXACT_ITEMS, len(items.choosing))
    steps_done = count(1)

    def advance() -> None:
        progress(next(steps_done), total)

    score = partial(edge_scores, method=method, steps=steps, direction=direction)
    found, gaps = _scored(loaded, graph, items.choosing, score, advance)
    scores: Scores = np.mean(found, axis=0)
    recovery: Scores = np.mean([one / gap for one, gap in zip(found, gaps, strict=True)], axis=0)
    sizes = _sizes(graph, n_edges)
    grown = [CHOICES[choice](graph, scores, size) for size in sizes]
    chosen_by = _measured(loaded, graph, items.choosing, grown, advance)
    enough = np.flatnonzero(chosen_by.mean(0) >= target - ROUNDING)
    at = sizes.index(n_edges) if n_edges else int(enough[0]) if len(enough) else len(sizes) - 1
    kept = grown[at]

    random = random_circuits(graph, int(kept.sum()), random_draws, seed)
    fewer = without_each(graph, kept, LEFT_OUT, seed)
    others = [complement(graph, kept), *(one for _, one in random), *(one for _, one in fewer)]
    measured = _measured(loaded, graph, items.held_out, [*grown, *others], advance)
    curve, completeness, drawn, left = np.split(
        measured, np.cumsum([len(grown), 1, len(random)]), axis=1
    )  # fmt: skip
    intervals = Intervals(items, n_resamples, seed)
    exact = _exact(loaded, graph, items.choosing, found, kept, direction, check_exact, seed, advance)
    return CircuitResult(
        graph=graph,
        kept=kept,
        method=method,
        steps=steps,
        direction=direction,
        choice=choice,
        edges=mean_edges(graph, scores, recovery, kept),
        kept_edges=pd.concat(
            [
                edge_table(graph, prompt, one, direction, gap, kept)
                for prompt, one, gap in zip(items.choosing, found, gaps, strict=True)
            ],
            ignore_index=True,
        ),
        curve=curve_table(sizes, grown, {CHOOSING: chosen_by, HELD_OUT: curve}, intervals),
        faithfulness=intervals.of(curve[:, at]),
        completeness=intervals.of(completeness[:, 0]),
        random=random_table(random, drawn),
        minimality=minimality_table([edge for edge, _ in fewer], curve[:, [at]] - left, intervals),
        exact=exact,
        agreement=agreements(exact),
        items=items.table,
    )


def _check(choice: str, target: float, n_edges: int | None) -> None:
    if choice not in CHOICES:
        raise TwinprobeError(
            f"choice {choice!r} is not known{did_you_mean(choice, CHOICES)}; known: {', '.join(CHOICES)}"
        )
    if not 0 < target <= 1:
        raise TwinprobeError(f"a circuit {target} faithful was asked for; expected above 0 and at most 1")
    if n_edges is not None and n_edges < 1:
        raise TwinprobeError(f"a circuit of {n_edges} edges was asked for; expected 1 or more")


def _sizes(graph: Graph, n_edges: int | None) -> list[int]:
    """1, 2, 4, ... and all edges, and the size that is asked for."""
    doubling = {2**power for power in range(graph.n_edges.bit_length())}
    return sorted({*doubling, graph.n_edges, *([n_edges] if n_edges else [])})


def _scored(
    loaded: LoadedModel,
    graph: Graph,
    prompts: Sequence[Prompt],
    score: Callable[..., Scores],
    advance: Callable[[], None],
) -> tuple[list[Scores], list[float]]:
    """Each item's score of every edge, and its gap."""
    found, gaps = [], []
    for prompt in prompts:
        runs = runs_of(loaded, graph, prompt)
        found.append(score(loaded, graph, prompt, runs=runs))
        gaps.append(runs.gap)
        advance()
    return found, gaps


def _measured(
    loaded: LoadedModel,
    graph: Graph,
    prompts: Sequence[Prompt],
    circuits: Sequence[Kept],
    advance: Callable[[], None],
) -> NDArray[np.float64]:
    """Faithfulness of each circuit on each item, ``[item, circuit]``."""
    found = []
    for prompt in prompts:
        found.append(faithfulness(loaded, graph, prompt, circuits, runs_of(loaded, graph, prompt)))
        advance()
    return np.stack(found)


def _exact(
    loaded: LoadedModel,
    graph: Graph,
    prompts: Sequence[Prompt],
    found: Sequence[Scores],
    kept: Kept,
    direction: str,
    checked: int,
    seed: int,
    advance: Callable[[], None],
) -> pd.DataFrame:
    """Exact effects and estimates of some of all edges, and of some of the circuit's."""
    generator = np.random.default_rng(seed)
    drawn = {
        kind: generator.permutation(np.argwhere(among))[:checked]
        for kind, among in (("random", graph.every), ("circuit", kept))
    }
    places = np.concatenate([*drawn.values()])
    names = [(graph.senders[sender].name, graph.receivers[receiver].name) for receiver, sender in places]
    first = list(zip(prompts, found, strict=True))[:EXACT_ITEMS]
    suffixes = bool(checked) and has_suffixes(loaded, max((prompt.clean for prompt, _ in first), key=len))
    exact, estimates = [], []
    for prompt, scores in first:
        if checked:
            runs = runs_of(loaded, graph, prompt, suffixes=suffixes)
            exact.append(exact_edges(loaded, graph, prompt, names, runs=runs, direction=direction))
            estimates.append(scores[tuple(places.T)])
        advance()
    return pd.DataFrame(
        {
            "drawn": [kind for kind, part in drawn.items() for _ in part],
            "sender": [sender for sender, _ in names],
            "receiver": [receiver for _, receiver in names],
            "estimate": np.mean(estimates, axis=0) if checked else [],
            "exact": np.mean(exact, axis=0) if checked else [],
        }
    )
