"""Answers and patching: what a model gets right among the candidates, and where the answer can be put back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from activations.errors import TwinprobeError
from analyses.pretraining.evaluation.inputs import decoder, fitting, steps, task_of
from analyses.pretraining.evaluation.score import Evaluation, Score
from analyses.pretraining.loop import Report
from probes.tasks.items import Task

if TYPE_CHECKING:
    import pandas as pd

STREAM, HEADS = "resid_pre", "z"


class Patching(Evaluation):
    """A ``[[patching]]`` table: the task whose contrasts are run, and how many are patched."""

    task: str
    """One with contrasts (``twinprobe show tasks``), or ``name:PATH`` for one read from a file in the folder of the data."""
    forms: tuple[str, ...] = ()
    """All forms of the task without it."""
    items: int = Field(440, ge=40)
    prompts: int = Field(100, gt=0)
    """At most so many test items, a quarter of all, are run."""
    patched: int = Field(16, ge=0)
    """At most so many of the retained ones are patched; 0 for answers alone."""
    fewest: int = Field(5, gt=0)
    """With fewer patched prompts there are no scores of patching."""
    seed: int = 0
    group: str = "answers"
    patching_group: str = "patching"

    @model_validator(mode="after")
    def _known(self) -> Patching:
        if ":" not in self.task:
            _chosen_task(self, Path())
        return self


def patching(table: Patching, model_folder: Path, data_dir: Path, scratch: Path, report: Report) -> list[Score]:
    """Per form: ``right``, ``retained``, and of the patched prompts ``arrival`` and ``best head``.

    ``right`` is the share of texts, clean and corrupted, whose answer is preferred among the candidates; ``retained`` the
    share of prompts right in both with a large enough gap. ``arrival`` is the recovery when the last position of the
    residual stream alone is put right, averaged over layers: high when the answer gets there early. ``best head`` is the
    largest mean recovery by one head at one role. (The best cell of the residual stream would say nothing: the edited
    token below the first layer and the last one above the last restore all of it in any model.) These two are about the
    prompts that a model retains, so about others in another model; one that retains too few has neither.

    Raises:
        TwinprobeError: an unknown task or form, one without contrasts, or no prompt that the tokenizer can align.
    """
    from analyses.patching.grids import Grid
    from analyses.study.causal import patch_task

    task = _chosen_task(table, data_dir)
    loaded, bos = decoder(model_folder)
    drawn = task.generate(table.items, table.seed)
    forms = sorted({form for item in drawn for form in item.forms})
    items, too_long = fitting(loaded, drawn, bos)
    tables = patch_task(
        loaded, task.name, items, forms, grids=(Grid(STREAM, "role"), Grid(HEADS, "role")), bos=bos,
        max_prompts=table.prompts, max_items=table.patched, check_exact=0, seed=table.seed, n_resamples=RESAMPLES,
        progress=steps(report, ""),
    )  # fmt: skip
    lines: list[dict[Any, Any]] = tables["retention"].to_dict("records")
    scores = []
    for line in lines:
        form = str(line["form"])
        if not line["prompts"]:
            raise TwinprobeError(
                f"[[patching]] {table.name!r}: no {form} item of {task.name!r} can be used with this tokenizer: "
                f"{line['why_not_aligned'] or 'no test item fits its context'}"
            )
        prompts = int(line["prompts"])
        counts = {name: float(line[name]) for name in ("both_right", "gap_too_small", "not_aligned")}
        counts |= {"chance_of_both_right": float(line["chance"]), "items_too_long": float(too_long)}
        answered = (line["clean_right"] + line["corrupted_right"]) / (2 * prompts)
        for name, score in (("right", answered), ("retained", line["retained"] / prompts)):
            scores.append(Score(f"{table.name} {form} {name}", float(score), form, table.group, prompts, counts))
        if line["patched"] >= table.fewest:
            cells = tables["patching"]
            own = cells[cells.form == form]
            for name, (score, detail) in (("arrival", arrival(own)), ("best head", best_head(own))):
                task_name, items_patched = f"{table.name} {form} {name}", int(line["patched"])
                scores.append(Score(task_name, score, form, table.patching_group, items_patched, detail))
    return scores


def _chosen_task(table: Patching, data_dir: Path) -> Task:
    task = task_of(table.task, table.forms, data_dir)
    if not task.causal:
        raise TwinprobeError(
            f"[[patching]] {table.name!r}: task {task.name!r} has no contrasts to patch; choose another"
        )
    return task


RESAMPLES = 100
"""Of the intervals that are not read here."""


def arrival(cells: pd.DataFrame) -> tuple[float, dict[str, float]]:
    """Mean over layers of the recovery at the last position of the residual stream; that of every layer."""
    last = cells[(cells.site == STREAM) & (cells.role == "last")]
    recoveries = dict(zip(last.layer, last.recovery, strict=True))
    return float(last.recovery.mean()), {f"layer {layer}": float(found) for layer, found in recoveries.items()}


def best_head(cells: pd.DataFrame) -> tuple[float, dict[str, float]]:
    """The largest mean recovery of one head at one role, and which head it is."""
    heads = cells[cells.site == HEADS]
    best = heads.iloc[int(heads.recovery.to_numpy().argmax())]
    return float(best.recovery), {"layer": float(best.layer), "head": float(best["head"])}
