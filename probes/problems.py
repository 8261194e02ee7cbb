"""Problems out of a store: from the labels of its spans or of a file, or from a task's items; and their sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from activations.errors import TwinprobeError
from activations.features import SiteFeatures
from activations.sites import parse_sites
from activations.store import ActivationStore
from probes.baselines import Baselines, baselines
from probes.controls import draw_control
from probes.estimators import STRENGTHS
from probes.labels import Labelled
from probes.result import ProbeResult
from probes.rows import RowLabels
from probes.softmax import one_blas_thread
from probes.sweep import Problem, sweep_problems
from probes.task_rows import target_rows
from probes.tasks.items import Item, Task

BaselineCache = dict[str, Baselines]
"""Surface baselines see tokens only, so models with one tokenizer share them."""


def label_problem(target: str, labelled: Labelled, *, seed: int, strengths: Sequence[float] = STRENGTHS) -> Problem:
    """The problem of one set of labels (:mod:`probes.labels`); ``seed`` draws the control."""
    control = draw_control([labelled.about], seed)
    surface = _surface(labelled.about, strengths, {})
    return Problem(labelled.about, labelled.rows, control, surface, {"target": target, "seed": seed})


def task_problems(
    store: ActivationStore,
    task: Task,
    items: Sequence[Item],
    *,
    seed: int,
    strengths: Sequence[float] = STRENGTHS,
    cache: BaselineCache | None = None,
) -> list[Problem]:
    """One problem per target and form of a task, over one draw of its items; the forms of a target share its control.

    Args:
        store: holds the labelled spans of these items, of other items too maybe.
        task: the task.
        items: one draw.
        seed: seed of the control, and what ``where`` calls the draw.
        strengths: of the surface baselines' probes.
        cache: surface baselines known already; it is added to.

    Raises:
        TwinprobeError: the store has no rows for a target.
    """
    known = {} if cache is None else cache
    problems = []
    for target in task.targets:
        parts = target_rows(store, task, items, target)
        control = draw_control([part.about for part in parts.values()], seed)
        for form, part in parts.items():
            where = {"task": task.name, "target": target, "form": form, "seed": seed}
            surface = _surface(part.about, strengths, known)
            problems.append(Problem(part.about, part.rows, control, surface, where, part.names))
    return problems


def sweep_store(
    store: ActivationStore, problems: Sequence[Problem], *, sites: Sequence[str] | None = None, **effort: Any
) -> Iterator[tuple[str, list[ProbeResult]]]:
    """Probe the sites of a store (all of them, or ``sites``) for problems that count in its row numbers.

    Of each site only the rows that some problem needs are read, once. ``effort`` is what
    :func:`probes.sweep.sweep_problems` takes besides features and problems.
    """
    held = np.unique(np.concatenate([problem.rows.ravel() for problem in problems]))
    placed = [replace(problem, rows=np.searchsorted(held, problem.rows)) for problem in problems]
    return sweep_problems(SiteFeatures(store, held, sites), placed, **effort)


def store_sites(store: ActivationStore, selection: str | None) -> list[str]:
    """The sites of a store that a selection such as ``resid_post.*`` names; all of them when it is None.

    Raises:
        TwinprobeError: the selection is malformed, or names a site that the store does not hold.
    """
    if selection is None:
        return store.sites
    model = store.provenance["model"]
    wanted = [str(site) for site in parse_sites(selection, model["layers"], model["heads"])]
    if absent := [site for site in wanted if site not in store.sites]:
        raise TwinprobeError(f"{store.path} does not hold {absent[0]}; it holds {', '.join(store.sites)}")
    return wanted


def _surface(about: RowLabels, strengths: Sequence[float], cache: BaselineCache) -> Baselines:
    key = str(hash((tuple(about.labels), tuple(map(tuple, about.texts)), tuple(strengths))))
    if key not in cache:
        with one_blas_thread():
            cache[key] = baselines(about, strengths)
    return cache[key]
