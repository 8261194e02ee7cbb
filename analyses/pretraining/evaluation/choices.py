"""Zero-shot multiple choice from local BIG-bench files."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from activations.errors import TwinprobeError
from analyses.benchmarks.bigbench import read_bigbench, subject_of
from analyses.benchmarks.multiple_choice import Item, grade, score_choices
from analyses.pretraining.evaluation.inputs import decoder, steps
from analyses.pretraining.evaluation.score import Evaluation, Score
from analyses.pretraining.loop import Report


class Choices(Evaluation):
    """A ``[[choices]]`` table: files of questions, and how they are scored."""

    paths: tuple[str, ...] = Field(min_length=1)
    """From the folder of the data; see :func:`analyses.benchmarks.bigbench.read_bigbench`."""
    max_items: int = Field(300, gt=0)
    """At most so many questions of each file, drawn with ``seed``: every model is asked the same."""
    seed: int = 0
    score: Literal["acc", "acc_norm"] = "acc"
    """Accuracy by the log-likelihood of a choice, or by that per byte; the other one is in the details."""
    group: str = "BIG-bench"


def choices(table: Choices, model_folder: Path, data_dir: Path, scratch: Path, report: Report) -> list[Score]:
    """The accuracy on each file, with the share that guessing gets (``chance``) in its details.

    Raises:
        TwinprobeError: a file can not be used, two have one name, or the model is no decoder.
    """
    subjects = [subject_of(path) for path in table.paths]
    if len(set(subjects)) < len(subjects):
        twice = next(name for name in subjects if subjects.count(name) > 1)
        raise TwinprobeError(
            f"[[choices]] {table.name!r}: two files are called {twice!r}; give each a table of its own"
        )
    asked = [
        item for path in table.paths for item in drawn(read_bigbench(data_dir / path), table.max_items, table.seed)
    ]
    loaded, bos = decoder(model_folder, inside=False)
    graded = grade(score_choices(loaded, asked, bos=bos, progress=steps(report, "")))
    scores = []
    for subject, lines in graded.groupby("subject", sort=False):
        detail = {name: float(lines[name].mean()) for name in ("acc", "acc_norm", "chance")}
        detail["items_cut"] = float((lines.cut > 0).sum())
        score = float(np.mean(lines[table.score]))
        scores.append(Score(f"{table.name} {subject}", score, group=table.group, items=len(lines), detail=detail))
    return scores


def drawn(items: Sequence[Item], count: int, seed: int) -> list[Item]:
    """``count`` of the items in their order, all of them where there are no more."""
    if len(items) <= count:
        return list(items)
    return [items[place] for place in sorted(random.Random(f"choices-{seed}").sample(range(len(items)), count))]
