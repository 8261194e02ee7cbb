"""Where names stand in a syntax tree, in the terms that any parser can fill in, and the labels that follow from it.

What a left-to-right model can know of a place is decided by what stands before it: at ``x`` nothing tells that
``f(x)`` is about to become ``f(x + 1)``. A name therefore has labels of its place only where the tree above it is open
already: it starts after its parent, and so do all nodes on the way up to the statement, the statement's own child
excepted (``f(x) + 1`` makes the place of ``x`` too deep to know). The first operand, the called function and the object
of an attribute have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from probes.tasks.python_tokens import Mark

DEEPEST = 4
MOST_SIBLINGS = 3

Place = tuple[int, int]
"""A row, from 1, and a column, from 0 in any one unit."""


class Node(NamedTuple):
    """A node of a syntax tree that lists parents before their children, and siblings in the order of the source.

    ``kind`` is its label, empty for a node that has none and is not counted as a level; ``parent`` is the place of its
    parent in the list, -1 at the top; a ``statement`` is where counting ends.
    """

    kind: str
    start: Place
    parent: int
    statement: bool


class Name(NamedTuple):
    """A name in the source: where it starts, in rows from 1 and columns in characters, and the node it belongs to."""

    row: int
    column: int
    text: str
    node: int


def place_marks(nodes: Sequence[Node], names: Sequence[Name]) -> Iterator[Mark]:
    """Mark names with ``parent``, ``depth`` and ``siblings``, where what stands before them decides these.

    ``parent`` is the kind of the node above the name's own, without which there are no marks; ``depth`` counts the
    nodes with a kind above it, up to its statement and with it, at most :data:`DEEPEST`; ``siblings`` counts the
    children of its parent that come before it, at most :data:`MOST_SIBLINGS`. Deeper and later names have no label of
    that target.
    """
    before = _earlier_siblings(nodes)
    for row, column, text, place in names:
        if nodes[place].statement or not _decided(nodes, place):
            continue
        above = list(_up(nodes, place))[1:]
        depth = sum(nodes[node].kind != "" for node in above)
        if not nodes[above[0]].kind:
            continue
        yield Mark(row, column, text, "parent", nodes[above[0]].kind)
        if depth <= DEEPEST:
            yield Mark(row, column, text, "depth", str(depth))
        if before[place] <= MOST_SIBLINGS:
            yield Mark(row, column, text, "siblings", str(before[place]))


def _up(nodes: Sequence[Node], place: int) -> Iterator[int]:
    """The node and those above it, its statement the last of them."""
    yield place
    while not nodes[place].statement and nodes[place].parent >= 0:
        place = nodes[place].parent
        yield place


def _decided(nodes: Sequence[Node], place: int) -> bool:
    """Whether what stands before a node decides its place: see the module."""
    path = list(_up(nodes, place))
    starts_later = [nodes[child].start > nodes[parent].start for child, parent in pairwise(path)]
    return len(path) > 1 and starts_later[0] and all(starts_later[:-1])


def _earlier_siblings(nodes: Sequence[Node]) -> list[int]:
    """How many children of its parent, which start no earlier than that, come before each node."""
    counts = [0] * len(nodes)
    found = []
    for node in nodes:
        inside = node.parent >= 0 and node.start >= nodes[node.parent].start  # a decorator stands before its function
        found.append(counts[node.parent] if inside else 0)
        if inside:
            counts[node.parent] += 1
    return found
