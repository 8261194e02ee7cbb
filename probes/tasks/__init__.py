"""The registry of tasks: every task by its name."""

from __future__ import annotations

from activations.errors import TwinprobeError, did_you_mean
from probes.tasks import (
    aliasing,
    arithmetic,
    binding,
    boolean,
    branching,
    identifiers,
    loops,
    nesting,
    ordering,
    roles,
    scope,
    value_types,
)
from probes.tasks.items import Contrast, Form, Item, Task

__all__ = ["TASKS", "Contrast", "Form", "Item", "Task", "get_task"]

_MODULES = (
    *(nesting, binding, aliasing, arithmetic, boolean, branching, loops, ordering, roles, value_types, scope),
    identifiers,
)
TASKS: dict[str, Task] = {module.generate.name: module.generate for module in _MODULES}


def get_task(name: str) -> Task:
    """Return the task called ``name``.

    Raises:
        TwinprobeError: there is no such task.
    """
    if name not in TASKS:
        raise TwinprobeError(f"unknown task {name!r}{did_you_mean(name, TASKS)}; known tasks: {', '.join(TASKS)}")
    return TASKS[name]
