"""Probe transfer from model to model: a probe of one model reads the other through an orthogonal map.

The map is fitted on neutral text (:mod:`analyses.study.neutral`), once per pair of models and site, and moves the probe
of every task whose chosen site that is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Any

import pandas as pd

from activations.store import ActivationStore
from analyses.study.neutral import pair_tokens
from analyses.study.stages import Tables
from probes.baselines import Baselines
from probes.controls import draw_control
from probes.fitting import probe_site
from probes.mapped_transfer import MappedTransfer, mapped_transfer
from probes.procrustes import fit_maps
from probes.result import ProbeResult
from probes.rows import RowLabels
from probes.softmax import one_blas_thread
from probes.task_rows import FormRows, target_rows
from probes.tasks.items import Item, Task

DIRECTIONS = (("base", "code"), ("code", "base"), ("base", "second_seed"))
"""From whose probe to whose rows; the last is the null: how well two seeds of one model read each other."""
Place = tuple[str, str, str]
"""Task, target and form."""


@dataclass(frozen=True, eq=False)
class Side:
    """What is there of one model: its neutral store, its store of every task, and its table ``probes``."""

    neutral: ActivationStore
    stores: Mapping[str, ActivationStore]
    probes: pd.DataFrame

    @cached_property
    def lines(self) -> dict[Place, dict[str, Any]]:
        """The line of the chosen site of every place."""
        chosen = self.probes[self.probes.chosen.astype(bool)]
        return {
            (line["task"], line["target"], line["form"]): {str(name): value for name, value in line.items()}
            for line in chosen.to_dict("records")
        }


def map_transfers(
    sides: Mapping[str, Side],
    tasks: Sequence[tuple[Task, Sequence[Item]]],
    *,
    strengths: Sequence[float],
    n_draws: int,
    seed: int,
    n_resamples: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tables:
    """Let the probes of one model read the other, in every one of :data:`DIRECTIONS` whose two models are there.

    The source's probe is fitted at its own chosen site, the target's at the same site of the target; strengths are
    chosen on dev, as in the study's sweep. Targets that are relations between two rows are not mapped.

    Args:
        sides: the models by role.
        tasks: tasks with one draw of their items, whose rows the stores hold.
        strengths: inverse regularisation strengths to choose from.
        n_draws: draws of each of the maps' two controls. ``2 * n_draws + 2`` maps of ``width ** 2`` float64 are in memory.
        seed: seed of the draw, of its controls (as the study's sweep has it), of the maps and of the bootstrap.
        n_resamples: bootstrap resamples.
        progress: called with ``(transfers done, transfers in all)``.

    Returns:
        ``mapped``: a line per source_model, target_model, task, target and form with the scalars of
        :class:`probes.mapped_transfer.MappedTransfer`, ``n_unpaired`` (neutral tokens), and ``left_out``, the reason
        where there is no transfer and so no number. ``mapped_rows``: per test row site, row, cluster, correct and
        control_correct, where no row was dropped.

    Raises:
        TwinprobeError: the neutral texts are probed too, or what was captured does not fit together.
    """
    models = {role: _Model(side, tasks) for role, side in sides.items()}
    directions = [pair for pair in DIRECTIONS if set(pair) <= set(models)]
    control = _controls(models, seed)

    @cache
    def fitted(role: str, place: Place, site: str) -> ProbeResult:
        line = models[role].side.lines[place]
        surface = Baselines(*(line[name] for name in ("majority", "bag_of_tokens", "token", "position")))
        rows = models[role].rows[place].at(site)
        with one_blas_thread():
            return probe_site(
                site, rows, control[place[:2]], surface, strengths=strengths, seed=seed, n_resamples=n_resamples
            )

    lines: list[dict[str, Any]] = []
    outcomes: list[pd.DataFrame] = []
    total = sum(len(models[source].rows) for source, _ in directions)
    for source, target in directions:
        here, there = models[source], models[target]
        tokens = pair_tokens(here.side.neutral, there.side.neutral)
        who = {"source_model": source, "target_model": target}
        for site, places in here.by_site().items():
            reason = f"{target} has no {site}" if site not in there.side.neutral.sites else None
            maps = None if reason else fit_maps(tokens.at(site), n_draws=n_draws, seed=seed)
            for place in places:
                where = {**who, **dict(zip(("task", "target", "form"), place, strict=True))}
                if maps is None:
                    lines.append({**where, "left_out": reason})
                else:
                    moved = mapped_transfer(
                        fitted(source, place, site), fitted(target, place, site), here.rows[place].about,
                        there.rows[place].at(site), control[place[:2]], maps, seed=seed, n_resamples=n_resamples,
                    )  # fmt: skip
                    lines.append({**where, **moved.row(), "n_unpaired": tokens.n_unpaired, "left_out": None})
                    outcomes += _outcomes(where, there.rows[place], moved, seed)
                progress(len(lines), total)
    tables = {"mapped": pd.DataFrame(lines)} if lines else {}
    return tables | ({"mapped_rows": pd.concat(outcomes, ignore_index=True)} if outcomes else {})


class _Model:
    """One model with the rows of every place."""

    def __init__(self, side: Side, tasks: Sequence[tuple[Task, Sequence[Item]]]) -> None:
        self.side = side
        self.rows: dict[Place, FormRows] = {}
        for task, items in tasks:
            for target in task.targets:
                if target not in task.relations:
                    for form, rows in target_rows(side.stores[task.name], task, items, target).items():
                        # The prefixes are by far the largest part, and only the surface baselines read them.
                        about = replace(rows.about, texts=((),) * len(rows.about))
                        self.rows[task.name, target, form] = replace(rows, about=about)

    def by_site(self) -> dict[str, list[Place]]:
        """The places by their chosen site."""
        chosen = {place: str(self.side.lines[place]["site"]) for place in self.rows}
        return {site: [place for place in chosen if chosen[place] == site] for site in dict.fromkeys(chosen.values())}


def _controls(models: Mapping[str, _Model], seed: int) -> dict[tuple[str, str], dict[str, str]]:
    """One control per task and target, for all forms and models."""
    abouts: dict[tuple[str, str], list[RowLabels]] = {}
    for model in models.values():
        for (task, target, _), rows in model.rows.items():
            abouts.setdefault((task, target), []).append(rows.about)
    return {key: draw_control(parts, seed) for key, parts in abouts.items()}


def _outcomes(where: Mapping[str, str], rows: FormRows, moved: MappedTransfer, seed: int) -> list[pd.DataFrame]:
    """Per test row whether the moved probe was right; nothing where rows were dropped, so that all tables pair."""
    if moved.n_dropped:
        return []
    names = rows.names[rows.about.mask("test")].tolist()
    return [
        pd.DataFrame(
            {
                **where,
                "site": moved.target_site,
                "row": [f"{seed}/{name}" for name in names],  # as the other tables of rows have it
                "cluster": moved.items,
                "correct": moved.correct.astype(int),
                "control_correct": moved.control_correct.astype(int),
            }
        )
    ]
