"""The probing part of a study: capture a model's rows for every task, probe them, transfer the probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from activations.capturing import capture
from activations.models import LoadedModel
from activations.store import ActivationStore
from analyses.study.stages import Tables
from probes.baselines import baselines
from probes.fitting import probe_site
from probes.held_out import held_out_rows, leave_one_out
from probes.metrics import cluster_bootstrap
from probes.problems import BaselineCache, sweep_store, task_problems
from probes.result import ProbeResult
from probes.resumable import SCORES
from probes.rows import Rows
from probes.seeds import pool_seeds
from probes.softmax import one_blas_thread
from probes.sweep import Problem
from probes.task_rows import labelled_texts, rows_at
from probes.tasks.items import Item, Task
from probes.transfer import transfer

PLACE = ("task", "target", "form")
TRANSFERS = (
    ("score", "low", "high"),
    ("selectivity", "selectivity_low", "selectivity_high"),
    ("ratio", "ratio_low", "ratio_high"),
)


def capture_task(
    loaded: LoadedModel,
    items: Sequence[Item],
    out: Path,
    *,
    bos: bool,
    sites: str,
    pool: str,
    dtype: str,
    progress: Callable[[int, int], None],
) -> ActivationStore:
    """Capture the labelled spans of a task's items, all forms, at ``sites``."""
    chosen = loaded.sites(sites)
    texts = labelled_texts(items)
    return capture(
        loaded, texts, chosen, out, bos=bos, rows="spans", pool=pool, dtype=dtype, progress=progress
    )  # fmt: skip


@dataclass(frozen=True)
class Effort:
    """How much is computed: strengths tried, bootstrap resamples, orders of the codelength, families beside the linear."""

    strengths: tuple[float, ...]
    n_resamples: int
    code_orders: int
    capacity: tuple[str, ...]


def probe_task(
    store: ActivationStore,
    task: Task,
    draws: Sequence[Sequence[Item]],
    *,
    effort: Effort,
    seed: int,
    cache: BaselineCache,
    progress: Callable[[int, int], None],
) -> Tables:
    """Probe every target and form of a task at every captured site, and transfer the probes between forms and layers.

    Args:
        store: the rows of one model.
        task: the task.
        draws: its items, one list per draw; each draw has its own probes, and lines are pooled over draws.
        effort: how much is computed.
        seed: seed of the controls and of every bootstrap; draw ``i`` uses ``seed + i``.
        cache: surface baselines known already.
        progress: called with ``(probes done, probes in all)``.

    Returns:
        ``probes`` (one line per target, form and site; ``chosen`` marks the layer chosen on dev, ``embedding`` is the
        score at ``embed``), ``probe_rows`` (per test row at the chosen site: correct, control_correct, difficulty),
        ``difficulty`` (per target, form and difficulty at the chosen site), ``transfer`` and ``transfer_rows`` (between
        forms), ``left_out`` (a probe of all other forms, for targets in three or more), ``layers`` (the chosen probe read
        at every other site), ``capacity`` (other families at the chosen site).
    """
    problems = [
        problem
        for draw, items in enumerate(draws)
        for problem in task_problems(store, task, items, seed=seed + draw, strengths=effort.strengths, cache=cache)
    ]
    results: list[list[ProbeResult]] = [[] for _ in problems]
    for _, at_site in sweep_store(
        store, problems, strengths=effort.strengths, seed=seed, n_resamples=effort.n_resamples,
        code_orders=effort.code_orders, progress=progress,
    ):  # fmt: skip
        for of_problem, result in zip(results, at_site, strict=True):
            of_problem.append(result)
    swept = [Swept(*parts) for parts in zip(problems, results, _chosen_sites(problems, results), strict=True)]
    return _tables(store, swept, effort, seed)


@dataclass(frozen=True, eq=False)
class Swept:
    """One problem, its results at every site, and the site chosen on dev over all draws."""

    problem: Problem
    results: list[ProbeResult]
    site: str

    @property
    def best(self) -> ProbeResult:
        """The result at the chosen site."""
        return self.at(self.site)

    def at(self, site: str) -> ProbeResult:
        """The result at ``site``."""
        return next(result for result in self.results if result.site == site)

    def rows(self, store: ActivationStore, site: str) -> Rows:
        """The problem's rows at ``site``."""
        return rows_at(store, site, self.problem.rows, self.problem.about)


def _chosen_sites(problems: Sequence[Problem], results: Sequence[list[ProbeResult]]) -> list[str]:
    """Per problem the site with the best mean dev score over all draws of its target and form."""
    places = [tuple(problem.where[name] for name in PLACE) for problem in problems]
    chosen: dict[tuple[str, ...], str] = {}
    for place in dict.fromkeys(places):
        own = [found for other, found in zip(places, results, strict=True) if other == place]
        scores = np.mean([[result.dev_score for result in found] for found in own], axis=0)
        chosen[place] = own[0][int(np.argmax(scores))].site
    return [chosen[place] for place in places]


def _tables(store: ActivationStore, swept: Sequence[Swept], effort: Effort, seed: int) -> Tables:
    lines: dict[str, list[dict[str, Any]]] = {name: [] for name in ("probes", "transfer", "layers", "capacity")}
    rows: dict[str, list[pd.DataFrame]] = {"probe_rows": [], "transfer_rows": []}
    for one in swept:
        where, best = dict(one.problem.where), one.best
        embedding = next((result.score for result in one.results if result.site == "embed"), None)
        lines["probes"] += [
            {**where, **result.row(), "embedding": embedding, "chosen": result is best} for result in one.results
        ]
        rows["probe_rows"].append(_outcomes(where, one.problem, best.site, best.correct, best.control_correct))
        here = one.rows(store, best.site)
        lines["capacity"] += [
            {**where, **_capacity(one, here, family, effort, seed).row()}
            for family in (best.family, *effort.capacity)
            if effort.capacity and one.problem.rows.ndim == 1
        ]
        for other in one.results:
            if other is not best:
                moved = transfer(
                    best, other, here, one.rows(store, other.site), one.problem.control, seed=seed,
                    n_resamples=effort.n_resamples,
                )  # fmt: skip
                lines["layers"].append({**where, **moved.row()})
    for source, goal in permutations(swept, 2):
        if not _same_but_form(source.problem.where, goal.problem.where):
            continue
        site = source.site
        moved = transfer(
            source.best, goal.at(site), source.rows(store, site), goal.rows(store, site), source.problem.control, seed=seed,
            n_resamples=effort.n_resamples,
        )  # fmt: skip
        where = {**goal.problem.where, "source": source.problem.where["form"]}
        lines["transfer"].append({**where, **moved.row()})
        if not moved.n_dropped:
            rows["transfer_rows"].append(_outcomes(where, goal.problem, site, moved.correct, moved.control_correct))
    lines["left_out"] = _left_out(store, swept, effort, seed)
    tables = {name: pd.DataFrame(found) for name, found in lines.items() if found}
    for name, by, intervals in (
        ("probes", (*PLACE, "site"), SCORES),
        ("transfer", (*PLACE, "source"), TRANSFERS),
        ("layers", (*PLACE, "source_site", "target_site"), TRANSFERS),
        ("left_out", PLACE, TRANSFERS),
        ("capacity", (*PLACE, "family"), SCORES),
    ):
        if name in tables:
            tables[name] = pool_seeds(tables[name], by, intervals)
    tables |= {name: pd.concat(parts, ignore_index=True) for name, parts in rows.items() if parts}
    return tables | {"difficulty": by_difficulty(tables["probe_rows"], effort.n_resamples, seed)}


def _left_out(store: ActivationStore, swept: Sequence[Swept], effort: Effort, seed: int) -> list[dict[str, Any]]:
    """Per form of targets in three or more: a probe of all other forms, at the site where they do best on dev."""
    together: dict[tuple[str, int], dict[str, Swept]] = {}
    for one in swept:
        where = one.problem.where
        if one.problem.rows.ndim == 1:
            together.setdefault((where["target"], where["seed"]), {})[where["form"]] = one
    lines = []
    for forms in together.values():
        for form, one in forms.items() if len(forms) > 2 else ():
            others = [other for name, other in forms.items() if name != form]
            scores = np.mean([[result.dev_score for result in other.results] for other in others], axis=0)
            in_form = one.results[int(np.argmax(scores))]
            rows = {name: other.rows(store, in_form.site) for name, other in forms.items()}
            with one_blas_thread():
                surface = baselines(held_out_rows(rows, form).about, effort.strengths)
                found = leave_one_out(
                    rows, form, in_form, one.problem.control, surface, strengths=effort.strengths, seed=seed,
                    n_resamples=effort.n_resamples,
                )  # fmt: skip
            lines.append({**one.problem.where, **found.row()})
    return lines


def _same_but_form(one: Any, other: Any) -> bool:
    return all(one[name] == other[name] for name in ("target", "seed")) and one["form"] != other["form"]


def _capacity(one: Swept, here: Rows, family: str, effort: Effort, seed: int) -> ProbeResult:
    if family == one.best.family:
        return one.best
    return probe_site(
        one.site, here, one.problem.control, one.problem.surface, family=family, strengths=effort.strengths, seed=seed,
        n_resamples=effort.n_resamples,
    )  # fmt: skip


def by_difficulty(rows: pd.DataFrame, n_resamples: int, seed: int) -> pd.DataFrame:
    """Accuracy and control accuracy at the chosen site per difficulty of the items, with an interval over clusters.

    Targets whose items are all of one difficulty are left out.

    Returns:
        Columns task, target, form, difficulty, n_test, n_items, score, low, high, control.
    """
    lines = []
    for place, part in rows.groupby(list(PLACE), sort=False):
        if part.difficulty.nunique() < 2:
            continue
        for difficulty, level in part.groupby("difficulty"):
            found = cluster_bootstrap(level.correct.to_numpy(), level.cluster.to_numpy(), n_resamples, seed)
            lines.append(
                {
                    **dict(zip(PLACE, place, strict=True)),
                    "difficulty": difficulty,
                    "n_test": len(level),
                    "n_items": level.cluster.nunique(),
                    "score": found.estimate,
                    "low": found.low,
                    "high": found.high,
                    "control": level.control_correct.mean(),
                }
            )
    columns = [*PLACE, "difficulty", "n_test", "n_items", "score", "low", "high", "control"]
    return pd.DataFrame(lines, columns=columns)


def _outcomes(
    where: dict[str, Any],
    problem: Problem,
    site: str,
    correct: npt.NDArray[np.bool_],
    control_correct: npt.NDArray[np.bool_],
) -> pd.DataFrame:
    test = problem.about.mask("test")
    return pd.DataFrame(
        {
            **where,
            "site": site,
            # A user's own items can be in the test split of several draws.
            "row": [f"{where['seed']}/{name}" for name in problem.names[test].tolist()],
            "cluster": problem.about.items[test],
            "difficulty": problem.about.difficulties[test],
            "correct": correct.astype(int),
            "control_correct": control_correct.astype(int),
        }
    )
