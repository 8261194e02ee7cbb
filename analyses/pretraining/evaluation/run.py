"""Evaluate every finished model of a family; what is done already is not done again."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from activations.errors import TwinprobeError
from activations.files import write_whole
from analyses.pretraining.evaluation.bits import bits_per_byte
from analyses.pretraining.evaluation.choices import choices
from analyses.pretraining.evaluation.finetuning import finetune, finetune_seconds
from analyses.pretraining.evaluation.models import Trained
from analyses.pretraining.evaluation.patching import patching
from analyses.pretraining.evaluation.probing import probes
from analyses.pretraining.evaluation.score import Evaluation, Score
from analyses.pretraining.evaluation.settings import Evaluations
from analyses.pretraining.loop import Report

Evaluate = Callable[[Any, Path, Path, Path, Report], list[Score]]
"""``(table, model folder, data folder, scratch folder, report)`` to scores.

The scratch folder is empty at first, is kept when the work is killed, and goes when the scores are written."""

KINDS: dict[str, Evaluate] = {
    "finetune": finetune,
    "choices": choices,
    "bits_per_byte": bits_per_byte,
    "probes": probes,
    "patching": patching,
}
"""What computes the evaluations of each field of :class:`Evaluations`."""

EXPECTED: dict[str, Callable[[Any, Path, Path], float]] = {"finetune": finetune_seconds}
"""``(table, model folder, data folder)`` to the seconds an evaluation will take, of the kinds that take long."""


@dataclass(frozen=True)
class Unit:
    """One evaluation of one model: the unit of work."""

    model: Trained
    kind: str
    table: Evaluation

    def place(self, out: Path) -> Path:
        """The file of its scores."""
        return out / self.model.name / f"{self.table.name}.json"


def units(models: Sequence[Trained], evaluations: Evaluations) -> list[Unit]:
    """Every evaluation of every model, model by model."""
    return [Unit(model, kind, table) for model in models for kind, table in evaluations.each()]


def unfinished(work: Sequence[Unit], out: Path) -> list[Unit]:
    """The units without scores.

    Raises:
        TwinprobeError: there are scores of that name for other settings or other weights.
    """
    return [unit for unit in work if not _done(unit, out)]


def expected_seconds(
    work: Sequence[Unit], done: Sequence[Unit], data_dir: Path, out: Path, measured: dict[str, float]
) -> float:
    """How long ``work`` takes: as long as the same evaluations took for other models, or what :data:`EXPECTED` says.

    ``measured`` keeps what it said, by the name of the evaluation, for the next time this is asked.
    """
    took: dict[str, list[float]] = {}
    for unit in done:
        took.setdefault(unit.table.name, []).append(json.loads(unit.place(out).read_text(encoding="utf-8"))["seconds"])
    each = {name: sum(times) / len(times) for name, times in took.items()}
    for unit in work:
        name = unit.table.name
        if name not in each and name not in measured:
            expect = EXPECTED.get(unit.kind)
            measured[name] = expect(unit.table, unit.model.folder, data_dir) if expect else 0.0
    return sum(each.get(unit.table.name, measured.get(unit.table.name, 0.0)) for unit in work)


def evaluate(
    work: Sequence[Unit], data_dir: Path, out: Path, report: Report, finished: Callable[[Unit], None]
) -> list[Unit]:
    """Write the scores of every unit to ``out/<model>/<evaluation>.json``; return those that other processes work on.

    Several processes may work on one ``out``: each takes what no other is at. ``finished`` is called after each unit.

    Raises:
        TwinprobeError: see :func:`unfinished`, and each kind of evaluation.
    """
    elsewhere = []
    for unit in work:
        place = unit.place(out)
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(place.with_suffix(".lock"))
        try:
            with lock.acquire(timeout=0):
                if not _done(unit, out):
                    _compute(unit, data_dir, place, report)
        except Timeout:
            elsewhere.append(unit)
        else:
            Path(lock.lock_file).unlink(missing_ok=True)  # whoever waits at it now finds the scores
            finished(unit)
    return elsewhere


def _done(unit: Unit, out: Path) -> bool:
    place = unit.place(out)
    if not place.exists():
        return False
    written = json.loads(place.read_text(encoding="utf-8"))
    for what, now in _identity(unit).items():
        if written.get(what) != now:
            raise TwinprobeError(
                f"{place} was computed with other {what}; give the evaluation another name, choose another --out, or delete it"
            )
    return True


def _identity(unit: Unit) -> dict[str, Any]:
    """What scores depend on, as JSON has it."""
    return {"settings": {unit.kind: unit.table.model_dump(mode="json")}, "weights": unit.model.weights}


def _compute(unit: Unit, data_dir: Path, place: Path, report: Report) -> None:
    scratch, identity = place.with_suffix(".scratch"), _identity(unit)
    started = scratch / "started.json"
    if scratch.exists() and (not started.exists() or json.loads(started.read_text(encoding="utf-8")) != identity):
        shutil.rmtree(scratch)  # half of something else
    scratch.mkdir(exist_ok=True)
    write_whole(started, json.dumps(identity).encode())
    began = time.monotonic()

    def told(what: str, done: int, total: int, note: str) -> None:
        report(", ".join(filter(None, (unit.model.name, unit.table.name, what))), done, total, note)

    scores = KINDS[unit.kind](unit.table, unit.model.folder, data_dir, scratch, told)
    result = {
        **identity,
        "model": unit.model.name,
        "run": unit.model.run,
        "seconds": round(time.monotonic() - began, 1),
        "scores": [asdict(score) for score in scores],
    }
    write_whole(place, (json.dumps(result, indent=1, ensure_ascii=False) + "\n").encode())
    shutil.rmtree(scratch)
