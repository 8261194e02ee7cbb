"""Reaching definitions: against programs that are run with every choice of branches, and on what must be refused."""

from __future__ import annotations

import ast
import contextlib
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from probes.tasks.def_use import DefUse, def_use

NAMES = ("a", "b", "c")
MOST_CHOICES = 10


@dataclass
class Program:
    """A random function whose definitions write where they stand, and whose uses report what they see."""

    rng: random.Random
    lines: list[str] = field(default_factory=lambda: ["def f(a, b, c):"])

    def line(self, depth: int, text: str) -> None:
        self.lines.append("    " * depth + text.replace("ROW", str(len(self.lines) + 1)))

    def block(self, depth: int, size: int, in_loop: bool) -> None:
        for _ in range(size):
            self.statement(depth, in_loop)

    def statement(self, depth: int, in_loop: bool) -> None:
        one, other = self.rng.sample(NAMES, 2)
        kinds = ["assign", "tuple", "both", "grow", "see", "see"]
        if depth < 3:
            kinds += ["if", "ifelse", "for", "while", "forelse", "endless", "with"]
        if depth > 1:
            kinds += ["return", "break", "continue"] if in_loop else ["return"]
        kind, smaller = self.rng.choice(kinds), self.rng.randint(1, 2)
        match kind:
            case "assign":
                self.line(depth, f"{one} = see(ROW, {other}={other}) or tag(ROW, '{one}')")
            case "tuple":
                self.line(depth, f"{one}, [{other}] = tag(ROW, '{one}'), [tag(ROW, '{other}')]")
            case "both":
                self.line(depth, f"{one} = see(ROW, {one}={one}) or tag(ROW, '{one}')")
            case "grow":
                self.line(depth, f"{one} += tag(ROW, '{one}')")
            case "see":
                self.line(depth, f"see(ROW, {one}={one}, {other}={other})")
            case "return" | "break" | "continue":
                self.line(depth, "if choice():")
                self.line(depth + 1, kind)
            case "endless":
                self.line(depth, "while True:")
                self.line(depth + 1, "if choice():")
                self.line(depth + 2, "break")
                self.block(depth + 1, smaller, True)
            case _:
                heads = {"while": "while choice():", "with": f"with opened(ROW, '{one}') as {one}:"}
                loop = kind in ("for", "while", "forelse")
                inside = f"for {one} in tags(ROW, '{one}'):" if loop else "if choice():"
                self.line(depth, heads.get(kind, inside))
                self.block(depth + 1, smaller, in_loop or loop)
                if kind in ("ifelse", "forelse"):
                    self.line(depth, "else:")
                    self.block(depth + 1, smaller, in_loop)


def drawn(rng: random.Random) -> str:
    """A program with so few branches that MOST_CHOICES choices go through every path that matters."""
    while True:
        program = Program(rng)
        program.block(1, 4, False)
        program.line(1, "see(ROW, a=a, b=b, c=c)")
        source = "\n".join(program.lines)
        if 2 <= source.count("choice(") + source.count("tags(") <= 5:
            return source


class Stopped(Exception):
    pass


@dataclass
class Run:
    """Runs a program with given choices, then with no's; ``seen`` is (row of the use, name, row of the definition)."""

    choices: list[bool]
    made: int = 0
    seen: set[tuple[int, str, int]] = field(default_factory=set)

    def choice(self) -> bool:
        self.made += 1
        if self.made > MOST_CHOICES:
            raise Stopped
        if self.made > len(self.choices):
            self.choices.append(False)
        return self.choices[self.made - 1]

    def see(self, row: int, **names: Tag) -> None:
        for name, value in names.items():
            assert value.name == name
            self.seen.add((row, name, value.row))

    def tags(self, row: int, name: str) -> Iterator[Tag]:
        while self.choice():
            yield self.tag(row, name)

    def tag(self, row: int, name: str) -> Tag:
        return Tag(row, name, self)

    @contextlib.contextmanager
    def opened(self, row: int, name: str) -> Iterator[Tag]:
        yield self.tag(row, name)

    def call(self, source: str) -> None:
        scope: dict[str, Any] = {name: getattr(self, name) for name in ("see", "choice", "tags", "tag", "opened")}
        exec(source, scope)
        with contextlib.suppress(Stopped):
            scope["f"](*(self.tag(1, name) for name in NAMES))


@dataclass
class Tag:
    row: int
    name: str
    run: Run

    def __add__(self, other: Tag) -> Tag:
        self.run.see(other.row, **{other.name: self})
        return other


def executed(source: str) -> set[tuple[int, str, int]]:
    """What the uses see in any run of at most MOST_CHOICES choices."""
    seen, choices = set(), []
    while True:
        run = Run(choices)
        run.call(source)
        seen |= run.seen
        while choices and choices[-1]:
            choices.pop()
        if not choices:
            return seen
        choices[-1] = True


def analysed(source: str) -> DefUse:
    [function] = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    found = def_use(function.body, function.args)
    assert found is not None
    return found


def reached(source: str) -> set[tuple[int, str, int]]:
    return {(use.at[0], use.name, d.at[0]) for use in analysed(source).uses for d in use.reached_by}


def kinds(source: str) -> dict[tuple[int, str], set[str]]:
    return {(use.at[0], use.name): {d.kind for d in use.reached_by} for use in analysed(source).uses}


@pytest.mark.parametrize("seed", range(80))
def test_a_use_is_reached_by_exactly_the_definitions_that_it_sees_in_some_run(seed: int) -> None:
    source = drawn(random.Random(seed))
    assert reached(source) == executed(source), source


def test_kinds_of_definitions_and_what_is_no_use() -> None:
    source = """def f(first, *rest, key: int = 0, **more):
    import os
    for i, (j, k) in rest:
        total = i + j
    with open(first) as handle:
        text: str = handle.read()
    self.field, many[i] = key, total
    unbound: int
    late = (key for i in rest)
    return f"{text}", [x for x in more], os, text
"""
    assert kinds(source.replace("for i in rest)", "for y in rest)")) == {
        (3, "rest"): {"parameter"}, (4, "i"): {"loop"}, (4, "j"): {"loop"}, (5, "first"): {"parameter"},
        (6, "handle"): {"with"}, (7, "key"): {"parameter"}, (7, "i"): {"loop"}, (7, "total"): {"assignment"},
        (10, "more"): {"parameter"}, (10, "os"): {"import"}, (10, "text"): {"assignment"},
    }  # fmt: skip
    [function] = ast.parse(source).body
    assert isinstance(function, ast.FunctionDef)
    assert def_use(function.body, function.args) is None  # the comprehension's i is a local name as well


@pytest.mark.parametrize(
    "statement",
    [
        "try:\n        a = 1\n    finally:\n        a = 2", "del a", "global a", "nonlocal a", "exec('a = 1')", "locals()",
        "def g(): pass", "class G: pass", "a = lambda: a", "print(a := 1)", "if 0: a = 1", "while 0: a = 1",
        "with suppress(KeyError): a = 1", "with self.assertRaises(KeyError): a = 1", "break", "import os.path",
        "import os as a", "from os import *", "match a:\n        case b: pass", "[a for a in b]",
    ],
)  # fmt: skip
def test_what_can_not_be_decided_is_refused(statement: str) -> None:
    [function] = ast.parse(f"def f(a, b):\n    {statement}\n    return a").body
    assert isinstance(function, ast.FunctionDef)
    assert def_use(function.body, function.args) is None


def test_code_that_no_path_reaches_has_no_definitions() -> None:
    source = "def f(a):\n    while True:\n        a = 1\n        if a: return a\n    a = 2\n    return a"
    assert reached(source) == {(4, "a", 3)}
    assert {definition.at[0] for definition in analysed(source).definitions} == {1, 3}
