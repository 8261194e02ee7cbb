"""Abstract syntax trees of Python sources as trees over character spans, for the structural probes.

AST-Probe (Hernández López et al. 2022) asks whether a tree can be read off the rows of a program's tokens. Tokens are
the leaves of the tree, so the probe sees leaves only, at their distances in the whole tree. The distance probe on
:meth:`SourceTree.leaf_distances` is that question with the geometry of Hewitt & Manning 2019; its score is
:func:`probes.trees.distance_spearman`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from probes.trees import tree_distances


@dataclass(frozen=True, eq=False)
class SourceTree:
    """A syntax tree whose nodes have spans in the source; the root is node 0, parents come before their children.

    Attributes:
        spans: character offsets (start, end) of every node.
        types: name of every node's ``ast`` class.
        parents: ``[n]``, the parent of every node, -1 for the root.
    """

    spans: tuple[tuple[int, int], ...]
    types: tuple[str, ...]
    parents: NDArray[np.int64]

    @property
    def leaves(self) -> NDArray[np.int64]:
        """Nodes without children, in the order of the source."""
        childless = np.setdiff1d(np.arange(len(self.spans)), self.parents)
        return np.array(sorted(childless.tolist(), key=lambda node: self.spans[node]), dtype=np.int64)

    def leaf_distances(self) -> NDArray[np.float64]:
        """Edges between every two leaves, ``[l, l]``, in the order of :attr:`leaves`."""
        return tree_distances(self.parents)[np.ix_(self.leaves, self.leaves)]


def python_tree(source: str) -> SourceTree:
    """The syntax tree of a Python source, by ``ast``.

    Nodes without a place in the source (``Load``, ``Add``, ``arguments``) are left out, and their children hang from
    the next node above. Below the root, a node that covers the same characters as its parent (an expression that is a
    statement) is one with it and gives it its type. f-strings are leaves, as their parts have no exact places in every
    Python version.

    Raises:
        TwinprobeError: the source does not parse.
    """
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError) as error:
        raise TwinprobeError(f"the source does not parse ({error}); expected valid Python") from None
    starts = [0, *(match.end() for match in re.finditer(r"\r\n|\r|\n", source))]
    spans, types, parents = [(0, len(source))], ["Module"], [-1]
    pending = [(child, 0) for child in _placed_children(module)]
    while pending:
        node, parent = pending.pop()
        span = _span(source, starts, node)
        if parent and span == spans[parent]:
            place = parent
            types[place] = type(node).__name__
        else:
            place = len(spans)
            spans.append(span)
            types.append(type(node).__name__)
            parents.append(parent)
        if not isinstance(node, ast.JoinedStr):
            pending.extend((child, place) for child in _placed_children(node))
    return SourceTree(tuple(spans), tuple(types), np.array(parents, dtype=np.int64))


def _placed_children(node: ast.AST) -> Iterator[ast.AST]:
    """The nearest nodes below that have a place in the source."""
    for child in ast.iter_child_nodes(node):
        if hasattr(child, "lineno"):
            yield child
        else:
            yield from _placed_children(child)


def _span(source: str, starts: list[int], node: Any) -> tuple[int, int]:
    return (
        _offset(source, starts, node.lineno, node.col_offset),
        _offset(source, starts, node.end_lineno, node.end_col_offset),
    )


def _offset(source: str, starts: list[int], line: int, column: int) -> int:
    """Character offset of a line (from 1) and a column in UTF-8 bytes, which is how ``ast`` counts."""
    start = starts[line - 1]
    head = source[start : start + column]  # at least as many characters as are wanted
    return start + (column if head.isascii() else len(head.encode()[:column].decode()))
