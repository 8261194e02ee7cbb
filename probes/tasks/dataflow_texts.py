"""The texts of the dataflow task: cut from real source files, with every relation and source that they offer."""

from __future__ import annotations

import ast
import bisect
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from activations.texts import Span
from probes.tasks.def_use import Definition, Use, def_use
from probes.tasks.items import Relation
from probes.tasks.python_tokens import tokens_of
from probes.tasks.windows import Window

SOURCES = ("parameter", "assignment", "loop")
MAX_CHARACTERS = 400
BINS_PER_OCTAVE = 4
UNTOLD = ("self", "cls")  # always a parameter, hardly ever assigned


class Cell(NamedTuple):
    """What the surface tells of a relation; "yes" and "no" are drawn evenly from every cell."""

    definition_first: bool
    parameter: bool
    another_between: bool
    distance: int  # in tokens, in quarters of an octave


@dataclass(frozen=True)
class Candidate:
    """A relation that a text offers, its cell, and the number of definitions of the name before the use."""

    relation: Relation
    cell: Cell
    difficulty: int


@dataclass(frozen=True)
class Passage(Window):
    """A text with the sources of its uses (``spans``) and its relations."""

    candidates: tuple[Candidate, ...]


def runs(statements: Sequence[ast.stmt], lines: Sequence[str], inside: bool = False) -> Iterator[tuple[int, int]]:
    """First and last rows of neighbouring statements that fit into a text together; only functions outside of functions.

    What is too long is cut further inside. Functions that declare ``global`` or ``nonlocal`` names are left alone.
    """
    start = end = 0
    for node in statements:
        first, last = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))]), node.end_lineno or 0
        whole = (inside or isinstance(node, ast.FunctionDef)) and _size(lines, first, last) <= MAX_CHARACTERS
        if start and (not whole or _size(lines, start, last) > MAX_CHARACTERS):
            yield start, end
            start = 0
        if whole:
            start, end = start or first, last
            continue
        function = isinstance(node, ast.FunctionDef)
        if not (function and any(isinstance(inner, ast.Global | ast.Nonlocal) for inner in ast.walk(node))):
            for block in ("body", "orelse"):
                yield from runs(getattr(node, block, []), lines, inside or function)
    if start:
        yield start, end


def _size(lines: Sequence[str], first: int, last: int) -> int:
    return sum(len(line) + 1 for line in lines[first - 1 : last])


def passage(group: str, text: str) -> Passage | None:
    """Analyse one text; None where a part of it is outside of what :mod:`probes.tasks.def_use` decides."""
    try:
        body = ast.parse(text).body
    except SyntaxError:  # a string over several rows that stands further left than its statement
        return None
    functions = [node for node in body if isinstance(node, ast.FunctionDef)]
    scopes = [def_use(node.body, node.args) for node in functions] if len(functions) == len(body) else [def_use(body)]
    definitions: list[Definition] = []
    uses: list[Use] = []
    for scope in scopes:
        if scope is None:
            return None
        definitions += scope.definitions
        uses += scope.uses
    place = _Places(text)
    spans = []
    for use in uses:
        kinds = {definition.kind for definition in use.reached_by}
        if len(kinds) == 1 and kinds <= set(SOURCES) and use.name not in UNTOLD:
            spans.append(Span("source", *place.characters(use), kinds.pop(), use.name))
    candidates = tuple(
        _candidate(first, second, definitions, place)
        for second in uses
        for first in definitions
        if first.name == second.name not in UNTOLD and first.at != second.at
    )
    return Passage(group, text, tuple(spans), candidates)


class _Places:
    """Where the names of a text stand: in characters and in tokens."""

    def __init__(self, text: str) -> None:
        self.lines = text.split("\n")
        self.starts = [sum(len(line) + 1 for line in self.lines[:row]) for row in range(len(self.lines))]
        self.tokens = [token.start for token in tokens_of(text)]

    def characters(self, name: Definition | Use) -> tuple[int, int]:
        """First and last character (exclusive); the syntax tree counts in bytes."""
        row, column = name.at
        start = self.starts[row - 1] + len(self.lines[row - 1].encode()[:column].decode())
        return start, start + len(name.name)

    def between(self, one: Definition | Use, other: Definition | Use) -> int:
        """Distance in tokens."""
        return abs(bisect.bisect(self.tokens, one.at) - bisect.bisect(self.tokens, other.at))


def _candidate(first: Definition, second: Use, definitions: Sequence[Definition], place: _Places) -> Candidate:
    low, high = sorted((first.at, second.at))
    cell = Cell(
        definition_first=first.at < second.at,
        parameter=first.kind == "parameter",
        another_between=any(other.name == first.name and low < other.at < high for other in definitions),
        distance=int(BINS_PER_OCTAVE * math.log2(max(place.between(first, second), 1))),
    )
    label = "yes" if first in second.reached_by else "no"
    ends = place.characters(first), place.characters(second)
    before = sum(other.name == second.name and other.at < second.at for other in definitions)
    return Candidate(Relation("reaches", *ends, label, second.name), cell, before)
