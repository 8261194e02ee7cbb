"""Trees as distances and depths, and how well predicted ones agree with them.

A tree is given by its parents: ``parents[i]`` is the row of node i's parent, -1 for the root. The scores are those of
Hewitt & Manning 2019 ("A Structural Probe for Finding Syntax in Word Representations"). Functions named in the
singular take one sentence; those that pool over sentences take sequences.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.stats import rankdata

from activations.errors import TwinprobeError

#: Sentence lengths over which the paper averages its correlations ("DSpr.", "NSpr.").
LENGTHS = (5, 50)


def ancestry(parents: ArrayLike) -> NDArray[np.bool_]:
    """``[n, n]``, true where the column's node is the row's node or lies above it.

    Raises:
        TwinprobeError: the parents are not those of one tree.
    """
    above = np.asarray(parents)
    n = len(above) if above.ndim == 1 else 0
    if n == 0 or above.dtype.kind not in "iu" or above.min() < -1 or above.max() >= n or np.sum(above == -1) != 1:
        raise TwinprobeError(
            f"parents are {_brief(parents)}; expected one row number per node, from 0, and -1 for the one root"
        )
    found = np.eye(n, dtype=bool)
    current = above.copy()
    for _ in range(n):
        rows = np.flatnonzero(current >= 0)
        if not len(rows):
            return found
        found[rows, current[rows]] = True
        current[rows] = above[current[rows]]
    raise TwinprobeError(f"parents {_brief(parents)} run in a circle; expected a tree: break the circle at its root")


def _brief(value: ArrayLike) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else text[:77] + "..."


def tree_depths(parents: ArrayLike) -> NDArray[np.float64]:
    """Edges from the root to every node, ``[n]``; raises :class:`TwinprobeError` unless the parents form one tree."""
    return ancestry(parents).sum(axis=1).astype(np.float64) - 1.0


def tree_distances(parents: ArrayLike) -> NDArray[np.float64]:
    """Edges on the path between every two nodes, ``[n, n]``; raises as :func:`tree_depths`.

    For rows that stand for some of the nodes only, as the leaves of a syntax tree, index the result with them:
    ``tree_distances(parents)[np.ix_(leaves, leaves)]``.
    """
    above = ancestry(parents).astype(np.float64)
    shared = above @ above.T  # nodes on both ways to the root: the depth of the lowest common one, plus 1
    own = np.diag(shared)
    return own[:, None] + own[None, :] - 2.0 * shared


def spanning_edges(distances: ArrayLike) -> set[tuple[int, int]]:
    """Edges of the minimum spanning tree of ``distances [n, n]``, the smaller row first."""
    table = np.asarray(distances, dtype=np.float64)
    upper = np.triu(table - table.min() + 1.0, k=1)  # scipy reads 0 as "no edge"; a shift changes no spanning tree
    rows, columns = minimum_spanning_tree(upper).nonzero()
    return {(min(i, j), max(i, j)) for i, j in zip(rows.tolist(), columns.tolist(), strict=True)}


def edge_hits(gold: ArrayLike, predicted: ArrayLike) -> NDArray[np.bool_]:
    """For every edge of the gold spanning tree of one sentence, whether the predicted one has it too, ``[n - 1]``.

    The gold tree is that of the gold distances. These decide it where all nodes of the tree have a row; where rows are
    missing (the leaves of a syntax tree) many spanning trees tie, and :func:`distance_spearman` is the score to use.
    """
    found = spanning_edges(predicted)
    return np.array([edge in found for edge in sorted(spanning_edges(gold))], dtype=bool)


def uuas(gold: Sequence[ArrayLike], predicted: Sequence[ArrayLike]) -> float:
    """Undirected unlabelled attachment score: share of gold edges found, all sentences pooled; NaN without any edge.

    Leave punctuation out of both matrices to score as the paper does.
    """
    hits = [edge_hits(truth, found) for truth, found in zip(gold, predicted, strict=True)]
    pooled = np.concatenate(hits) if hits else np.zeros(0)
    return float(pooled.mean()) if len(pooled) else float("nan")


def root_hit(gold: ArrayLike, predicted: ArrayLike) -> bool:
    """Whether the node of the smallest predicted depth is the root of one sentence."""
    return int(np.argmin(np.asarray(predicted))) == int(np.argmin(np.asarray(gold)))


def root_accuracy(gold: Sequence[ArrayLike], predicted: Sequence[ArrayLike]) -> float:
    """Share of sentences whose root is the node of the smallest predicted depth; NaN without any sentence."""
    hits = [root_hit(truth, found) for truth, found in zip(gold, predicted, strict=True)]
    return float(np.mean(hits)) if hits else float("nan")


def distance_spearman(
    gold: Sequence[ArrayLike], predicted: Sequence[ArrayLike], lengths: tuple[int, int] = LENGTHS
) -> float:
    """The paper's DSpr.: rank correlation of each word's distances, averaged per sentence length, then over lengths.

    Sentences shorter or longer than ``lengths`` (inclusive) do not count; NaN when none is left.
    """
    return _mean_over_lengths(gold, predicted, lengths, lambda truth, found: _row_correlations(truth, found))


def depth_spearman(
    gold: Sequence[ArrayLike], predicted: Sequence[ArrayLike], lengths: tuple[int, int] = LENGTHS
) -> float:
    """The paper's NSpr.: rank correlation of each sentence's depths, averaged as in :func:`distance_spearman`."""
    return _mean_over_lengths(
        gold, predicted, lengths, lambda truth, found: _row_correlations(truth[None], found[None])
    )


def _mean_over_lengths(
    gold: Iterable[ArrayLike],
    predicted: Iterable[ArrayLike],
    lengths: tuple[int, int],
    correlations: Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]],
) -> float:
    by_length: dict[int, list[NDArray[np.float64]]] = defaultdict(list)
    for truth, found in zip(gold, predicted, strict=True):
        table = np.asarray(truth, dtype=np.float64)
        if lengths[0] <= len(table) <= lengths[1]:
            by_length[len(table)].append(correlations(table, np.asarray(found, dtype=np.float64)))
    means = [np.nanmean(np.concatenate(values)) for values in by_length.values()]
    return float(np.mean(means)) if means else float("nan")


def _row_correlations(truth: NDArray[np.float64], found: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman's correlation row by row; 0 where the prediction is constant, NaN where the truth is."""
    expected, ranks = (rankdata(rows, axis=1) for rows in (truth, found))
    expected, ranks = (rows - rows.mean(axis=1, keepdims=True) for rows in (expected, ranks))
    norms = np.linalg.norm(expected, axis=1) * np.linalg.norm(ranks, axis=1)
    values = np.divide(np.sum(expected * ranks, axis=1), norms, out=np.zeros(len(norms)), where=norms > 0)
    return np.where(expected.any(axis=1), values, np.nan)
