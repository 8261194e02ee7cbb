"""The join of a task: answers, activations and probes of one model, kept as they are finished."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from activations.capturing import Job as Capture
from activations.capturing import prepare
from activations.capturing import run as run_capture
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.rows import RowRule
from analyses.benchmarks.joining.asking import answers, choices_only, likelihoods
from analyses.benchmarks.joining.probing import expected_seconds as probing_seconds
from analyses.benchmarks.joining.probing import site_scores
from analyses.benchmarks.joining.questions import Questions, questions
from analyses.benchmarks.joining.tables import Evidence
from analyses.benchmarks.joining.texts import texts
from analyses.benchmarks.local.run import Job, expected_seconds, finished, identity

SITES = "embed,resid_post.*"
Report = Callable[[str, int, int], None]
"""Progress: what is done, steps done, steps in all."""


@dataclass(frozen=True, eq=False)
class Part:
    """A task of the join: its items, and the job that puts them to a model."""

    job: Job
    asked: Questions

    @property
    def task(self) -> str:
        """The task's name."""
        return self.asked.task


@dataclass(frozen=True)
class Estimate:
    """What is left to do. ``bytes`` and ``free`` are those of the disk."""

    items: int
    rows: int
    bytes: int
    free: int
    seconds: float


def parts(work: Sequence[Job], folds: int) -> list[Part]:
    """What can be joined of every task.

    Raises:
        TwinprobeError: a task has no choices, or fewer groups of items than ``folds``.
    """
    return [Part(choices_only(job), questions(job, folds)) for job in work]


def planned(part: Part, loaded: LoadedModel, bos: bool) -> tuple[Capture, np.ndarray]:
    """The capture of a task, last token of every choice, and the tokens that each text has lost, ``[rows]``."""
    read, lost = texts(loaded, part.asked, bos)
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    return prepare(loaded, read, loaded.sites(SITES), bos=bos, rule=RowRule("last"), dtype=dtype), lost


def estimate(work: Sequence[Part], loaded: LoadedModel, bos: bool, out: Path, folds: int) -> Estimate | None:
    """What the tasks that are not finished will take; None where none is left.

    Raises:
        TwinprobeError: ``out`` has answers of another model, other data or other settings.
    """
    import shutil

    left = [part for part in work if finished(part.job, identity(part.job, loaded, bos), out) is None]
    uncaptured = [part for part in work if not (_store(out, part) / "index.h5").exists()]
    sites = len(loaded.sites(SITES))
    unprobed = [part for part in work if len(list(_probes(out, part).glob("*.npy"))) < sites]
    if not (left or uncaptured or unprobed):
        return None
    captures = [planned(part, loaded, bos)[0] for part in uncaptured]
    seconds = expected_seconds([part.job for part in left], loaded, bos) + sum(each.seconds() for each in captures)
    seconds += sum(probing_seconds(len(part.asked.owners), loaded.d_model, sites, folds) for part in unprobed)
    counted = [each.estimate() for each in captures]
    return Estimate(
        sum(len(part.asked.items) for part in {id(part): part for part in (*left, *uncaptured, *unprobed)}.values()),
        sum(each.rows for each in counted), sum(each.bytes for each in counted), shutil.disk_usage(out).free, seconds,
    )  # fmt: skip


def evidence(
    part: Part, loaded: LoadedModel, bos: bool, out: Path, *, folds: int, seed: int, report: Report
) -> Evidence:
    """Ask, capture and probe; ``out`` keeps what is finished.

    Raises:
        TwinprobeError: the model is no decoder, an item does not fit it, or ``out`` has something else of that name.
    """
    asked, task = part.asked, part.task
    found = likelihoods(part.job, loaded, bos, out, lambda done, total: report(f"{task}: answers", done, total))
    capture, lost = planned(part, loaded, bos)
    store = run_capture(
        capture, _store(out, part), progress=lambda done, total: report(f"{task}: activations", done, total)
    )
    control, homes = asked.shuffled(seed), asked.folds(folds, seed)
    scores = site_scores(
        store, [asked.right, control], asked.owners, homes, _probes(out, part),
        progress=lambda done, total: report(f"{task}: probes", done, total),
    )  # fmt: skip
    cut = np.bincount(asked.owners, weights=lost > 0) > 0
    own = answers(asked.items, found, part.job.setting.metric)
    return Evidence(asked, own, None, control, homes, scores, cut)


def different_weights(work: Sequence[Part], loaded: LoadedModel, bos: bool, out: Path) -> None:
    """Make sure that ``loaded`` is not the model whose answers are in ``out``.

    Raises:
        TwinprobeError: the weights are the same.
    """
    about = json.loads((out / f"{work[0].task}.json").read_text(encoding="utf-8"))["about"]
    if about["weights"] == identity(work[0].job, loaded, bos)["weights"]:
        raise TwinprobeError(
            f"{loaded.spec.name} has the weights of {about['model']}; comparing takes the answers of another model"
        )


def _store(out: Path, part: Part) -> Path:
    return out / "activations" / part.task


def _probes(out: Path, part: Part) -> Path:
    return out / "probes" / part.task
