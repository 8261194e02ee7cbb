"""Which definitions of a local name reach which uses of it: reaching definitions on a subset of Python.

The def-use relation is what GraphCodeBERT calls "where the value comes from" (Guo et al. 2021), computed as in any
compiler (Aho et al., "Compilers", 9.2.4): every path through branches and loops counts as possible, a definition holds
until another of the same name. What can't be decided so is refused rather than guessed: ``try``, ``match``, ``del``,
``global``, ``nonlocal``, walrus, nested functions and classes, ``exec`` and its kin, a comprehension's variable that is
also a local name, a branch on a constant. A context manager is taken not to swallow exceptions; those known to are refused.
Names inside f-strings, generator expressions (which are read later) and annotations are no uses here.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal["parameter", "assignment", "loop", "with", "import"]

REFUSED = (
    *(ast.Try, ast.TryStar, ast.Match, ast.Delete, ast.Global, ast.Nonlocal, ast.NamedExpr, ast.Lambda, ast.ClassDef),
    *(ast.FunctionDef, ast.AsyncFunctionDef, ast.AsyncFor, ast.AsyncWith, ast.Await),
)
FRAME_READERS = frozenset({"exec", "eval", "locals", "vars", "globals", "dir"})
SWALLOWERS = frozenset({"suppress", "raises", "assertRaises", "assertRaisesRegex", "subTest"})
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
UNREAD = (ast.JoinedStr, ast.GeneratorExp)


@dataclass(frozen=True, order=True)
class Definition:
    """A place that binds ``name``: its 1-based row and 0-based column in bytes, as the syntax tree gives them."""

    at: tuple[int, int]
    name: str
    kind: Kind


@dataclass(frozen=True)
class Use:
    """A place that reads ``name``, and the definitions that reach it."""

    at: tuple[int, int]
    name: str
    reached_by: frozenset[Definition]


@dataclass(frozen=True)
class DefUse:
    """All definitions and uses of the local names of one function, in the order of the text."""

    definitions: tuple[Definition, ...]
    uses: tuple[Use, ...]


Holding = dict[str, frozenset[Definition]]
State = Holding | None
"""The definitions that hold at a point, by name; None where no path leads to."""


def def_use(statements: Sequence[ast.stmt], parameters: ast.arguments | None = None) -> DefUse | None:
    """Analyse the body of a function, or some whole statements of it; None where it leaves the subset."""
    if any(_refused(node) for statement in statements for node in ast.walk(statement)):
        return None
    flow = _Flow()
    try:
        flow.block(statements, {name: frozenset({d}) for name, d in flow.parameters(parameters)})
    except _Undecided:
        return None
    inner = {name for statement in statements for name in _comprehension_names(statement)}
    definitions = tuple(sorted(flow.definitions))
    if inner & {definition.name for definition in definitions}:
        return None
    local = {definition.name for definition in definitions}
    uses = (Use(*read, frozenset(found)) for read, found in sorted(flow.reached.items()))
    return DefUse(definitions, tuple(use for use in uses if use.name in local))


def _refused(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Name(id=name)) if name in FRAME_READERS:
            return True
        case ast.withitem(context_expr=ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name))):
            return name in SWALLOWERS
        case ast.If(test=ast.Constant()) | ast.While(test=ast.Constant(value=0 | None | "")):
            return True
        case _:
            return isinstance(node, REFUSED)


def _comprehension_names(node: ast.AST) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.comprehension):
            yield from (name.id for name in ast.walk(inner.target) if isinstance(name, ast.Name))


class _Undecided(Exception):
    """A statement outside of the subset."""


class _Flow:
    """Walks the statements in the order in which they run, loops until nothing changes, and notes what uses see."""

    def __init__(self) -> None:
        self.definitions: set[Definition] = set()
        self.reached: dict[tuple[tuple[int, int], str], set[Definition]] = defaultdict(set)
        self.loops: list[tuple[list[State], list[State]]] = []  # the states at break and at continue, innermost last

    def parameters(self, arguments: ast.arguments | None) -> Iterator[tuple[str, Definition]]:
        """Every parameter as a definition."""
        if arguments is not None:
            starred = [each for each in (arguments.vararg, arguments.kwarg) if each is not None]
            for arg in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, *starred]:
                found = Definition((arg.lineno, arg.col_offset), arg.arg, "parameter")
                self.definitions.add(found)
                yield arg.arg, found

    def block(self, statements: Iterable[ast.stmt], state: State) -> State:
        """The state after the statements; those that no path reaches are not looked at."""
        for statement in statements:
            if state is None:
                break
            state = self.statement(statement, state)
        return state

    def statement(self, node: ast.stmt, state: Holding) -> State:
        """The state after one statement."""
        match node:
            case ast.Assign():
                self.read(node.value, state)
                for target in node.targets:
                    state = self.bind(target, "assignment", state)
                return state
            case ast.AnnAssign():
                self.read(node.value, state)
                return state if node.value is None else self.bind(node.target, "assignment", state)
            case ast.AugAssign():
                if isinstance(node.target, ast.Name):
                    self.note(node.target, state)
                self.read(node.value, state)
                return self.bind(node.target, "assignment", state)
            case ast.If():
                self.read(node.test, state)
                return _join(self.block(node.body, state), self.block(node.orelse, state))
            case ast.For() | ast.While():
                return self.loop(node, state)
            case ast.With():
                for item in node.items:
                    self.read(item.context_expr, state)
                    if item.optional_vars is not None:
                        state = self.bind(item.optional_vars, "with", state)
                return self.block(node.body, state)
            case ast.Import() | ast.ImportFrom():
                for alias in node.names:
                    if alias.asname or "." in alias.name or alias.name == "*":
                        raise _Undecided  # the tree does not say where the name stands
                    state = self.define(alias, alias.name, "import", state)
                return state
            case ast.Return() | ast.Raise():
                for child in ast.iter_child_nodes(node):
                    self.read(child, state)
                return None
            case ast.Break() | ast.Continue():
                if not self.loops:
                    raise _Undecided  # the loop is not among the statements
                self.loops[-1][isinstance(node, ast.Continue)].append(state)
                return None
            case ast.Expr() | ast.Assert() | ast.Pass():
                for child in ast.iter_child_nodes(node):
                    self.read(child, state)
                return state
        raise _Undecided

    def loop(self, node: ast.For | ast.While, state: Holding) -> State:
        """Run the body until the state at its head stands still; ``else`` follows the head, ``break`` passes it by."""
        if isinstance(node, ast.For):
            self.read(node.iter, state)
        head: State = state
        while True:
            breaks: list[State] = []
            continues: list[State] = []
            self.loops.append((breaks, continues))
            assert head is not None
            if isinstance(node, ast.For):
                entered = self.bind(node.target, "loop", head)
            else:
                self.read(node.test, head)
                entered = head
            again = _join(state, self.block(node.body, entered), *continues)
            self.loops.pop()
            if again == head:
                break
            head = again
        endless = isinstance(node, ast.While) and isinstance(node.test, ast.Constant)
        return _join(None if endless else self.block(node.orelse, head), *breaks)

    def bind(self, target: ast.expr, kind: Kind, state: Holding) -> Holding:
        """Assign to a target from left to right; the parts of attributes and subscripts are read."""
        match target:
            case ast.Name():
                return self.define(target, target.id, kind, state)
            case ast.Tuple() | ast.List():
                for part in target.elts:
                    state = self.bind(part, kind, state)
                return state
            case ast.Starred():
                return self.bind(target.value, kind, state)
        self.read(target, state)
        return state

    def define(self, node: ast.Name | ast.alias, name: str, kind: Kind, state: Holding) -> Holding:
        """The state in which this definition alone holds for the name."""
        found = Definition((node.lineno, node.col_offset), name, kind)
        self.definitions.add(found)
        return {**state, name: frozenset({found})}

    def read(self, node: ast.AST | None, state: Holding) -> None:
        """Note every name that an expression reads."""
        if node is None or isinstance(node, UNREAD):
            return
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            self.note(node, state)
        for child in ast.iter_child_nodes(node):
            self.read(child, state)

    def note(self, name: ast.Name, state: Holding) -> None:
        """Add what holds for a name to what its use has seen."""
        self.reached[(name.lineno, name.col_offset), name.id] |= state.get(name.id, frozenset())


def _join(*states: State) -> State:
    """What holds where several paths meet."""
    arriving = [state for state in states if state is not None]
    if not arriving:
        return None
    names = dict.fromkeys(name for state in arriving for name in state)
    return {name: frozenset().union(*(state.get(name, frozenset()) for state in arriving)) for name in names}
