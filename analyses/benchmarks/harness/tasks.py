"""Tasks of lm-evaluation-harness by name, from its own folder, a folder of one's own, and with local data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activations.errors import TwinprobeError, did_you_mean
from analyses.benchmarks.harness.local_data import digest, folder_of, local_splits, local_tasks, overrides

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

HUB = "as the task says"
"""Stands for the hash of the data where the harness reads it from where its task file says."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """What is run under one name.

    Attributes:
        name: a task, a group of tasks, or a benchmark of several tasks.
        spec: what ``TaskManager.load`` takes.
        data: a hash of the local rows, or :data:`HUB`.
    """

    name: str
    spec: str | dict[str, Any]
    data: str


def require_harness() -> None:
    """Check that lm-evaluation-harness is there, before anything long is done.

    Raises:
        TwinprobeError: it is not installed.
    """
    if find_spec("lm_eval") is None:
        raise TwinprobeError('lm-evaluation-harness is not installed; pip install "twinprobe[bench]"')


def task_manager(names: Sequence[str], include: Path | None, data: Path | None) -> TaskManager:
    """An index of the harness' tasks: all of them only where ``names`` may be anywhere, as 14,000 take many seconds to read.

    Raises:
        TwinprobeError: ``include`` is no folder, or a name is unknown.
    """
    import lm_eval.tasks
    from lm_eval.tasks import TaskManager

    if include is not None and not include.is_dir():
        raise TwinprobeError(f"{include} is no folder; expected the folder of your own task files (YAML)")
    own = [] if include is None else [include]
    root = Path(lm_eval.tasks.__file__).parent
    folders = {root / folder_of(name) for name in names if data and folder_of(name)}
    with quiet():
        few = TaskManager(include_path=[*sorted(folders), *own], include_defaults=False)
    if data or all(name in few.all_tasks for name in names):
        return few
    with quiet():
        manager = TaskManager(include_path=own or None)
    for name in names:
        if name not in manager.all_tasks:
            where = f" or in {include}" if include else ""
            raise TwinprobeError(
                f"no task {name!r}{did_you_mean(name, manager.all_tasks)} in lm-evaluation-harness{where}; "
                "lm_eval ls tasks lists them"
            )
    return manager


def choose_tasks(manager: TaskManager, names: Sequence[str], data: Path | None) -> list[Chosen]:
    """What to run: every name with its local rows if there is a folder of ``data``, else as its task file says.

    A name that has no reader for local files keeps its own data where it comes from a folder of one's own.

    Raises:
        TwinprobeError: a name can not be read from ``data``, or its files are missing.
    """
    found = []
    for name in dict.fromkeys(names):
        if data is None or (not folder_of(name) and name in manager.all_tasks):
            found.append(Chosen(name, name, HUB))
            continue
        tasks = [task for task in local_tasks(name, data) if task in manager.all_subtasks]
        if not tasks:
            raise TwinprobeError(f"no task {name!r}{did_you_mean(name, manager.all_subtasks)} in lm-evaluation-harness")
        splits = {task: local_splits(task, data) for task in tasks}
        # What a group says about its tasks goes before what their files say.
        members = [{"task": task, **overrides(task, rows)} for task, rows in splits.items()]
        found.append(Chosen(name, {"group": f"{name} on local files", "task": members}, digest(splits)))
    return found


def load_tasks(manager: TaskManager, chosen: Chosen) -> list[Any]:
    """The harness' task objects, with their data.

    Raises:
        TwinprobeError: their data can not be loaded, or they run code that a model writes.
    """
    try:
        with quiet():
            found = manager.load([chosen.spec])["tasks"]
    except Exception as error:  # what fails is a data set, a hub, a network or a script of the task: nothing in common
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        hint = "the files or the task" if chosen.data != HUB else "the network, or give local files with --data-dir"
        raise TwinprobeError(
            f"task {chosen.name}: its data could not be loaded ({reason[:200]}); check {hint}"
        ) from None
    unsafe = [name for name, task in found.items() if getattr(task, "UNSAFE_CODE", False)]
    if unsafe:
        raise TwinprobeError(
            f"task {unsafe[0]} runs what the model writes, without a sandbox; use twinprobe bench execute for generated code"
        )
    return list(found.values())


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the harness' advice and the bars of data sets off the screen."""
    import datasets

    logger = logging.getLogger("lm_eval")
    level, hidden = logger.level, datasets.are_progress_bars_disabled()
    logger.setLevel(logging.ERROR)
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not hidden:
            datasets.enable_progress_bars()
