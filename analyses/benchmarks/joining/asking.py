"""What a model answers, and how sure it is: the item table of ``twinprobe bench run``, and every choice's log-likelihood."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from activations.files import write_whole
from activations.models import LoadedModel
from analyses.benchmarks.local.grading import summary
from analyses.benchmarks.local.run import Job, Progress, finished, identity, scored
from analyses.benchmarks.multiple_choice import Item, score_choices
from probes.tables import plain, read_table

LENGTHS: dict[str, Callable[[str], int]] = {"acc_norm": len, "acc_bytes": lambda choice: len(choice.encode())}
"""By what a log-likelihood is divided; by nothing for any other metric."""


def choices_only(job: Job) -> Job:
    """The job without the items whose answers are written."""
    return replace(job, asked=tuple(one for one in job.asked if isinstance(one.what, Item)))


def likelihoods(job: Job, loaded: LoadedModel, bos: bool, out: Path, progress: Progress) -> pd.DataFrame:
    """Every choice's log-likelihood, as :func:`analyses.benchmarks.multiple_choice.score_choices` gives them.

    Writes ``TASK_choices.csv``, and ``TASK.csv`` and ``TASK.json`` as ``twinprobe bench run`` does; what is there is not
    asked again.

    Raises:
        TwinprobeError: the model is no decoder, an item does not fit it, or ``out`` has another result of that name.
    """
    about, name = identity(job, loaded, bos), job.setting.task
    kept = out / f"{name}_choices.csv"
    if finished(job, about, out) and kept.exists():
        return read_table(kept).astype({"subject": str, "item": str})
    begun, found = time.monotonic(), pd.DataFrame()

    def choose(items: Sequence[Item], report: Progress) -> pd.DataFrame:
        nonlocal found
        found = score_choices(loaded, items, bos=bos, progress=report)
        return found

    table = scored(job, choose, lambda *_: [], loaded.spec.name, progress)
    summed = {key: plain(value) for key, value in summary(table).items()}
    record = {"about": about, "summary": summed, "seconds": time.monotonic() - begun}
    write_whole(kept, found.to_csv(index=False).encode())
    write_whole(out / f"{name}.csv", table.to_csv(index=False).encode())
    write_whole(out / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())
    return found


def answers(items: Sequence[Item], choices: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Which choice a model picks, whether it is right, and how far it is ahead.

    Args:
        items: what was asked.
        choices: their choices' log-likelihoods, in that order.
        metric: ``acc_norm`` and ``acc_bytes`` compare log-likelihoods per character and per byte, all others as they are
            (mc2, which is no right or wrong, is answered like acc).

    Returns:
        pick (number of the choice; of equal ones the first), right, confidence (its value minus the next best one's, nats
        or nats per character or byte), one line per item.
    """
    length = LENGTHS.get(metric, lambda _: 1)
    values = choices.log_likelihood.to_numpy(float) / [length(choice) for item in items for choice in item.choices]
    lines = []
    for own in np.split(values, np.cumsum([len(item.choices) for item in items])[:-1]):
        first, second = np.sort(own)[::-1][:2]
        lines.append({"pick": int(own.argmax()), "confidence": float(first - second)})
    table = pd.DataFrame(lines)
    return table.assign(right=[pick in item.gold for pick, item in zip(table.pick, items, strict=True)])
