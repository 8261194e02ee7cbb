"""Linear probes: what can be read off a model's activations, at the layer that dev chooses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pydantic import Field, model_validator

from activations.errors import TwinprobeError, did_you_mean
from activations.sites import parse_site
from analyses.pretraining.evaluation.inputs import decoder, fitting, steps, task_of
from analyses.pretraining.evaluation.score import Evaluation, Score
from analyses.pretraining.loop import Report
from probes.families import LOGISTIC, check_family
from probes.result import ProbeResult
from probes.sweep import best_layer
from probes.tasks.items import Task


class Probes(Evaluation):
    """A ``[[probes]]`` table: the task whose labels are decoded, and where from."""

    task: str
    """Of ``twinprobe show tasks``, or ``name:PATH`` for one read from a file in the folder of the data."""
    forms: tuple[str, ...] = ()
    """All forms of the task without it."""
    targets: tuple[str, ...] = ()
    """All targets of the task without it."""
    items: int = Field(440, ge=40)
    sites: str = "resid_post.*"
    family: str = LOGISTIC
    strengths: tuple[float, ...] = Field((1e-3, 1e-2, 1e-1), min_length=1)
    seed: int = 0
    group: str = "probes"

    @model_validator(mode="after")
    def _known(self) -> Probes:
        check_family(self.family)
        if ":" not in self.task:
            _chosen_task(self, Path())
        return self


def probes(table: Probes, model_folder: Path, data_dir: Path, scratch: Path, report: Report) -> list[Score]:
    """Test accuracy of each target in each form at the site with the best dev score; control and baselines are details.

    Raises:
        TwinprobeError: an unknown task, form, target or family, sites that the model lacks, or too few items.
    """
    from analyses.study.probing import capture_task
    from probes.problems import sweep_store, task_problems

    task = _chosen_task(table, data_dir)
    loaded, bos = decoder(model_folder)
    items, too_long = fitting(loaded, task.generate(table.items, table.seed), bos)
    store = capture_task(
        loaded, items, scratch / "rows", bos=bos, sites=table.sites, pool="last", dtype="float32",
        progress=steps(report, "reading"),
    )  # fmt: skip
    problems = task_problems(store, task, items, seed=table.seed, strengths=table.strengths)
    swept = sweep_store(
        store, problems, family=table.family, strengths=table.strengths, seed=table.seed, n_resamples=RESAMPLES,
        progress=steps(report, "probing"),
    )  # fmt: skip
    by_problem = zip(*(results for _, results in swept), strict=True)
    scores = []
    for problem, results in zip(problems, by_problem, strict=True):
        best, form = best_layer(results), problem.where["form"]
        name = f"{table.name} {problem.where['target']} {form}"
        detail = {**_detail(best), "items_too_long": float(too_long)}
        scores.append(Score(name, best.score, form, table.group, best.n_test, detail))
    return scores


def _chosen_task(table: Probes, data_dir: Path) -> Task:
    task = task_of(table.task, table.forms, data_dir)
    for target in table.targets:
        if target not in task.targets:
            raise TwinprobeError(
                f"[[probes]] {table.name!r}: task {task.name!r} has no target {target!r}"
                f"{did_you_mean(target, task.targets)}; it has {', '.join(task.targets)}"
            )
    return replace(task, targets={name: task.targets[name] for name in table.targets or task.targets})


RESAMPLES = 100
"""Of the interval in the details; between models, seeds give the interval."""


def _detail(best: ProbeResult) -> dict[str, float]:
    names = (
        "low", "high", "dev_score", "macro_f1", "control", "control_seen", "selectivity", "majority", "bag_of_tokens", "token",
        "position",
    )  # fmt: skip
    layer = parse_site(best.site).layer
    return {"layer": -1.0 if layer is None else float(layer), **{name: float(getattr(best, name)) for name in names}}
