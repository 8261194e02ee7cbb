"""The registry of tasks: every task by its name, and sources that make tasks of the user's own files (``name:PATH``)."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from activations.errors import TwinprobeError, did_you_mean
from probes.tasks import (
    agreement,
    aliasing,
    arithmetic,
    binding,
    boolean,
    boxes,
    branching,
    closers,
    clutrr,
    cogs,
    dataflow,
    from_file,
    identifiers,
    indentation,
    induction,
    logic,
    loops,
    nesting,
    ordering,
    roles,
    scope,
    syntax,
    syntax_files,
    treebank,
    value_types,
    vulnerability,
)
from probes.tasks.items import Contrast, Form, Item, Relation, Source, Task

__all__ = ["SOURCES", "TASKS", "Contrast", "Form", "Item", "Relation", "Source", "Task", "get_task"]

_MODULES = (
    *(nesting, binding, aliasing, arithmetic, boolean, branching, loops, ordering, roles, value_types, scope),
    *(closers, indentation, induction, agreement),
    *(identifiers, syntax, dataflow),
)
TASKS: dict[str, Task] = {module.generate.name: module.generate for module in _MODULES}

_READERS = (from_file, syntax_files, treebank, vulnerability, cogs, boxes, clutrr, logic)
SOURCES: dict[str, Source] = {module.read.name: module.read for module in _READERS}


def get_task(name: str) -> Task:
    """Return the task called ``name``, or ``name:PATH`` for a task that is read from files.

    Raises:
        TwinprobeError: there is no such task, a source has no path or a path that is not there, or can't read it.
    """
    kind, colon, path = name.partition(":")
    if kind in SOURCES and (colon or kind not in TASKS):
        if not path:
            raise TwinprobeError(
                f"task {kind!r} is read from files; write {kind}:PATH, where PATH is {SOURCES[kind].path}"
            )
        if not Path(path).exists():
            raise TwinprobeError(f"task {name!r}: {path} is not there; expected {SOURCES[kind].path}")
        return _read(kind, Path(path))
    if colon or name not in TASKS:
        known = [*TASKS, *(f"{source}:PATH" for source in SOURCES)]
        raise TwinprobeError(f"unknown task {name!r}{did_you_mean(name, known)}; known tasks: {', '.join(known)}")
    return TASKS[name]


@lru_cache(maxsize=32)
def _read(kind: str, path: Path) -> Task:
    return SOURCES[kind].read(path)
