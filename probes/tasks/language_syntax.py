"""The names of a source in any language that tree-sitter has a grammar for, their nodes, and the statements' rows.

The tree is cut down to the words of :mod:`probes.tasks.grammars` before anything is counted in it, so that levels and
siblings mean the same in every language.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

from activations.errors import TwinprobeError
from probes.tasks.grammars import DECLARATORS, KIND_OF, LANGUAGES, ROLE_OF, UNSEEN, is_opaque, is_statement
from probes.tasks.python_tokens import Mark, characters
from probes.tasks.syntax_trees import Name, Node, place_marks

METHOD = "method_invocation.name"


class Raw(NamedTuple):
    """A node of tree-sitter's tree; ``place`` is its parent's type and the field it fills there, past declarators."""

    node: Any
    parent: int
    place: str
    hidden: bool


@cache
def parser(language: str) -> Any:
    """tree-sitter's parser of a language of :data:`LANGUAGES`.

    Raises:
        TwinprobeError: tree-sitter or the grammar is not installed.
    """
    entry = LANGUAGES[language]
    try:
        tree_sitter = importlib.import_module("tree_sitter")
        grammar = importlib.import_module(entry.module)
    except ImportError as error:
        raise TwinprobeError(
            f'{language} sources need tree-sitter ({error}); install it: pip install "twinprobe[languages]"'
        ) from None
    return tree_sitter.Parser(tree_sitter.Language(getattr(grammar, entry.function)()))


def language_marks(language: str, source: str) -> tuple[list[tuple[int, int]], list[Mark]]:
    """The rows of every statement, as :func:`probes.tasks.windows.cut_windows` wants them, and the labelled names.

    ``node`` is the role of a name; the other targets are those of :func:`place_marks`. Rows with errors are ``(0, 0)``.
    """
    raws = _raws(parser(language).parse(source.encode()))
    nodes, kept = _cut_down(raws)
    lines = source.split("\n")
    marks, names = [], []
    for index, raw in enumerate(raws):
        role = None if raw.hidden else _role(raw)
        if role:
            row, column = raw.node.start_point
            name = Name(row + 1, characters(lines[row], column), raw.node.text.decode(), kept[index])
            marks.append(Mark(name.row, name.column, name.text, "node", role))
            if role == "name":
                names.append(name)
            elif role == "member" and nodes[nodes[name.node].parent].kind == "member":
                names.append(name._replace(node=nodes[name.node].parent))
    return _statement_rows(raws), [*marks, *place_marks(nodes, names)]


def _raws(tree: Any) -> list[Raw]:
    """All nodes, parents before their children; those in strings, imports and comments are ``hidden``."""
    cursor, raws, above = tree.walk(), list[Raw](), list[int]()
    while True:
        node, parent = cursor.node, above[-1] if above else -1
        field = f".{cursor.field_name}" if cursor.field_name else ""
        hidden = node.is_extra
        place = ""
        if parent >= 0:
            outer = raws[parent]
            hidden |= outer.hidden or is_opaque(outer.node.type)
            place = outer.place if outer.node.type in DECLARATORS else f"{outer.node.type}{field}"
            hidden |= place in UNSEEN
        above.append(len(raws))
        raws.append(Raw(node, parent, place, hidden))
        if cursor.goto_first_child():
            continue
        above.pop()
        while not cursor.goto_next_sibling():
            if not cursor.goto_parent():
                return raws
            above.pop()


def _role(raw: Raw) -> str | None:
    """The role of a name; None for whatever is no name, and for names that have no role."""
    if not raw.node.type.endswith("identifier") or raw.node.named_child_count:
        return None
    role = ROLE_OF.get(raw.place)
    if raw.place == METHOD and not _has_object(raw):
        return "name"
    if role or raw.node.type != "identifier" or raw.place.endswith((".name", "assignment_pattern.left")):
        return role
    return "name"


def _has_object(raw: Raw) -> bool:
    return raw.place == METHOD and raw.node.parent.child_by_field_name("object") is not None


def _cut_down(raws: Sequence[Raw]) -> tuple[list[Node], list[int]]:
    """The tree in the shared words, and for every raw node its own node there or the next above."""
    nodes, kept = list[Node](), list[int]()
    for raw in raws:
        above = kept[raw.parent] if raw.parent >= 0 else -1
        kind, statement = KIND_OF.get(raw.node.type, ""), is_statement(raw.node.type)
        # Java's call holds object and method as two; elsewhere they are one, the called member.
        leaf = (raw.node.named_child_count == 0 and not _has_object(raw)) or is_opaque(raw.node.type)
        if above < 0 or (raw.node.is_named and not raw.hidden and (kind or statement or leaf)):
            nodes.append(Node(kind, raw.node.start_point, above, statement or above < 0))
            above = len(nodes) - 1
        kept.append(above)
    return nodes, kept


def _statement_rows(raws: Sequence[Raw]) -> list[tuple[int, int]]:
    """Rows, from 1, that can't be parted: those of the largest nodes without a statement below them."""
    holds = [False] * len(raws)
    broken: set[int] = set()
    for index in range(len(raws) - 1, -1, -1):
        raw = raws[index]
        if raw.parent >= 0:
            holds[raw.parent] |= holds[index] or is_statement(raw.node.type)
        if raw.node.is_error or raw.node.is_missing:
            broken.update(range(*_rows(raw)))
    runs: list[tuple[int, int]] = []
    for index, raw in enumerate(raws):
        if not holds[index] and not raw.node.is_extra and (raw.parent < 0 or holds[raw.parent]):
            first, end = _rows(raw)
            if runs and first < runs[-1][1]:
                first, end = runs[-1][0], max(end, runs.pop()[1])
            runs.append((first, end))
    return [(0, 0) if broken & set(range(first, end)) else (first, end - 1) for first, end in runs]


def _rows(raw: Raw) -> tuple[int, int]:
    """First row of a node, from 1, and the row after its last."""
    (first, _), (last, column) = raw.node.start_point, raw.node.end_point
    return first + 1, last + 1 + (column > 0 or last == first)
