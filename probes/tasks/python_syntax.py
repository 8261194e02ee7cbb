"""The names of a Python source and their nodes, by ``ast``."""

from __future__ import annotations

import ast
import keyword
import tokenize
from collections.abc import Iterator, Sequence
from tokenize import TokenInfo
from typing import Any

from probes.tasks.python_tokens import characters
from probes.tasks.syntax_trees import Name, Node, Place

HEADED = (ast.stmt, ast.ExceptHandler)
"""Nodes with a line of their own. A pattern of ``match`` counts as part of the whole statement."""


def python_names(source: str, tokens: Sequence[TokenInfo]) -> tuple[list[Node], list[Name]]:
    """All placed nodes of a source that parses, and its names with the innermost node that each belongs to.

    A node's kind is its ``ast`` class, ``async`` or not; an expression that is a statement adds none. Nodes without
    a place (``Load``, ``arguments``) are left out. Names in f-strings, which have no exact places before Python 3.12,
    are left out too.
    """
    lines = source.split("\n")
    nodes, ends = _nodes(ast.parse(source), lines)
    order = sorted(range(len(nodes)), key=lambda place: nodes[place].start)  # a parent stays before its children
    words = [token for token in tokens if token.type == tokenize.NAME and not keyword.iskeyword(token.string)]
    names, inside, coming = [], [0], 1
    for token in words:
        while coming < len(order) and nodes[order[coming]].start <= token.start:
            _leave(inside, ends, nodes[order[coming]].start)
            inside.append(order[coming])
            coming += 1
        _leave(inside, ends, token.start)
        names.append(Name(*token.start, token.string, inside[-1]))
    return nodes, names


def _leave(inside: list[int], ends: Sequence[Place], here: Place) -> None:
    """Drop the innermost nodes that end before ``here``."""
    while ends[inside[-1]] <= here:
        inside.pop()


def _nodes(module: ast.Module, lines: Sequence[str]) -> tuple[list[Node], list[Place]]:
    """The nodes, the module first, and where each ends."""
    nodes, ends = [Node("", (0, 0), -1, True)], [(len(lines) + 1, 0)]

    def add(node: ast.AST, parent: int) -> None:
        if isinstance(node, ast.JoinedStr):
            return
        below = [(child, *_extent(child, lines)) for child in _placed_children(node)]
        for child, start, end in sorted(below, key=lambda found: found[1]):
            place = len(nodes)
            nodes.append(Node(_kind(child), start, parent, isinstance(child, HEADED)))
            ends.append(end)
            add(child, place)

    add(module, 0)
    return nodes, ends


def _kind(node: ast.AST) -> str:
    return "" if isinstance(node, ast.Expr) else type(node).__name__.removeprefix("Async")


def _placed_children(node: ast.AST) -> Iterator[ast.AST]:
    """The nearest nodes below that have a place in the source."""
    for child in ast.iter_child_nodes(node):
        if hasattr(child, "lineno"):
            yield child
        else:
            yield from _placed_children(child)


def _extent(node: Any, lines: Sequence[str]) -> tuple[Place, Place]:
    """Where a node starts and ends, in rows and characters."""
    return (
        (node.lineno, characters(lines[node.lineno - 1], node.col_offset)),
        (node.end_lineno, characters(lines[node.end_lineno - 1], node.end_col_offset)),
    )
