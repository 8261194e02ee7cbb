"""Put benchmarks to a model, a task at a time; what is written already is not asked again."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from activations.errors import TwinprobeError
from activations.files import write_whole
from activations.models import LoadedModel, fingerprint
from analyses.benchmarks.local.grading import KEYS, grade_answers, grade_choices, summary
from analyses.benchmarks.local.questions import FEW_SHOT_SEED, Asked, Prompt, asked
from analyses.benchmarks.local.tasks import TASKS, Setting, needing_data
from analyses.benchmarks.local.writing import BATCH, written
from analyses.benchmarks.multiple_choice import Item, score_choices
from probes.tables import plain

Progress = Callable[[int, int], None]
Choose = Callable[[Sequence[Item], Progress], pd.DataFrame]
"""The log-likelihoods of items' choices, as :func:`analyses.benchmarks.multiple_choice.score_choices` gives them."""
Write = Callable[[Sequence[Prompt], int, Progress], list[str]]
"""What is written after prompts, in at most so many tokens."""
SAMPLE = 4
"""Items that are timed before the rest."""


@dataclass(frozen=True)
class Job:
    """A task with all that is asked."""

    setting: Setting
    asked: tuple[Asked, ...]

    @property
    def items(self) -> list[Item]:
        """What is answered by a choice."""
        return [one.what for one in self.asked if isinstance(one.what, Item)]

    @property
    def prompts(self) -> list[Prompt]:
        """What is answered in writing."""
        return [one.what for one in self.asked if isinstance(one.what, Prompt)]

    def digest(self) -> str:
        """A hash of all prompts, choices and right answers."""
        texts = json.dumps([asdict(one.what) for one in self.asked], sort_keys=True)
        return hashlib.sha256(texts.encode()).hexdigest()[:32]


def jobs(settings: Sequence[Setting], data: Path | None, limit: int | None = None) -> list[Job]:
    """Read every task; ``limit`` (of items per subject) goes before a preset's own, ``data`` may be None if none needs it.

    Raises:
        TwinprobeError: a file is missing or can not be used, a task needs a folder and there is none, or there are too few
            few-shot examples.
    """
    if data is None and (reading := needing_data(settings)):
        raise TwinprobeError(
            f"no folder of benchmarks' files is given, which {', '.join(reading)} "
            f"{'needs' if len(reading) == 1 else 'need'}; give one with --data-dir"
        )
    found = []
    for setting in settings:
        limited = setting.model_copy(update={"limit": limit or setting.limit})
        questions = asked(TASKS[setting.task].read(data or Path()), setting.shots, FEW_SHOT_SEED, limited.limit)
        found.append(Job(limited, tuple(questions)))
    return found


def scored(job: Job, choose: Choose, write: Write, model: str, progress: Progress) -> pd.DataFrame:
    """The per-item table of a task, in the order of its items.

    Returns:
        model, task, subject, item, score, chance (missing for written answers), group (the subject where there are several),
        cut (tokens left out), and every metric of the task.
    """
    task, metric, items, prompts = TASKS[job.setting.task], job.setting.metric, job.items, job.prompts
    total, parts = len(items) + len(prompts), []
    if items:
        choices = sum(len(item.choices) for item in items)
        found = grade_choices(items, choose(items, lambda done, _: progress(done * len(items) // choices, total)))
        parts.append(found.assign(score=found[metric]))
    if prompts:
        answers = write(prompts, task.tokens, lambda done, _: progress(len(items) + done, total))
        found = grade_answers(prompts, answers, task.marks)
        # A task whose score is that of choices has one mark for the few answers that are written.
        own = metric if metric in task.marks else next(iter(task.marks))
        parts.append(found.assign(score=found[own], chance=float("nan"), cut=0))
    about = pd.DataFrame([{"subject": one.what.subject, "item": one.what.id, "group": one.group} for one in job.asked])
    if about.subject.nunique() > 1:
        about["group"] = about.subject
    table = about.merge(pd.concat(parts, ignore_index=True), on=KEYS, how="left", validate="one_to_one")
    table = table.assign(model=model, task=job.setting.task)
    first = ["model", "task", *KEYS, "score", "chance", "group", "cut"]
    return table[[*first, *(name for name in table.columns if name not in first)]]


def identity(job: Job, loaded: LoadedModel, bos: bool) -> dict[str, Any]:
    """What makes the result what it is: model, task, prompts; kept beside it."""
    task, template = TASKS[job.setting.task], getattr(loaded.tokenizer, "chat_template", None)
    return {
        "model": loaded.spec.name, "revision": loaded.commit or loaded.spec.revision, "weights": fingerprint(loaded.model),
        "dtype": str(loaded.model.dtype).removeprefix("torch."), "bos": bos, "chat_template": "not applied",
        "tokenizer_has_chat_template": bool(template), **job.setting.model_dump(), "version": task.version,
        "like": task.like, "seed": FEW_SHOT_SEED, "prompts": job.digest(),
    }  # fmt: skip


def finished(job: Job, about: dict[str, Any], out: Path) -> dict[str, Any] | None:
    """What an earlier run wrote about the same task, if it did.

    Raises:
        TwinprobeError: it was of another model, other settings or other data.
    """
    path = out / f"{job.setting.task}.json"
    if not path.exists():
        return None
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    for name, value in about.items():
        if record["about"].get(name) != value:
            raise TwinprobeError(
                f"{path} is of {name} {record['about'].get(name)!r}, not {value!r}; choose another --out"
            )
    return record


def run(job: Job, loaded: LoadedModel, bos: bool, out: Path, progress: Progress) -> dict[str, Any]:
    """Put a task to a model; write ``TASK.csv`` and, when all of it is there, ``TASK.json`` with what was asked and scored.

    Raises:
        TwinprobeError: the model is no decoder, an item does not fit it, or ``out`` has another result of that name.
    """
    about = identity(job, loaded, bos)
    if record := finished(job, about, out):
        return record
    begun = time.monotonic()
    table = answered(job, loaded, bos, progress)
    record = {
        "about": about,
        "summary": {name: plain(value) for name, value in summary(table).items()},
        "seconds": time.monotonic() - begun,
    }
    write_whole(out / f"{job.setting.task}.csv", table.to_csv(index=False).encode())
    write_whole(out / f"{job.setting.task}.json", (json.dumps(record, indent=1) + "\n").encode())
    return record


def answered(job: Job, loaded: LoadedModel, bos: bool, progress: Progress) -> pd.DataFrame:
    """What the model makes of a task, as :func:`scored` has it.

    Raises:
        TwinprobeError: the model is no decoder, or an item does not fit it.
    """

    def choose(items: Sequence[Item], report: Progress) -> pd.DataFrame:
        return score_choices(loaded, items, bos=bos, progress=report)

    def write(prompts: Sequence[Prompt], tokens: int, report: Progress) -> list[str]:
        return written(loaded, prompts, bos=bos, tokens=tokens, progress=report)

    return scored(job, choose, write, loaded.spec.name, progress)


def expected_seconds(work: Sequence[Job], loaded: LoadedModel, bos: bool) -> float:
    """How long ``work`` takes, from timing :data:`SAMPLE` of its items and a batch of each task's written answers."""
    items = [item for job in work for item in job.items]
    seconds = 0.0
    if items:
        sample = items[:: max(1, len(items) // SAMPLE)][:SAMPLE]
        begun = time.monotonic()
        score_choices(loaded, sample, bos=bos)
        characters = sum(_length(item, loaded) for item in items)
        seconds += (time.monotonic() - begun) * characters / sum(_length(item, loaded) for item in sample)
    for job in work:
        if prompts := job.prompts:
            begun = time.monotonic()
            written(loaded, prompts[:BATCH], bos=bos, tokens=TASKS[job.setting.task].tokens)
            seconds += (time.monotonic() - begun) * math.ceil(len(prompts) / BATCH)
    return seconds


def _length(item: Item, loaded: LoadedModel) -> int:
    """Characters that are read for an item: choices as short as a letter are read off one pass over the context."""
    longest = 4 * loaded.context  # what a context holds, more or less
    if max(map(len, item.choices)) <= 3 and not item.leads:
        return min(longest, len(item.context))
    return sum(min(longest, len(item.before(at)) + len(choice)) for at, choice in enumerate(item.choices))
