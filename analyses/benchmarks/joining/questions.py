"""The multiple-choice items of a task as rows, a row per choice, and what must be kept together or compared within."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from analyses.benchmarks.local.run import Job
from analyses.benchmarks.multiple_choice import Item

FEWEST_FOLDS = 3
"""Each fold needs another one for the strength, and one at least to train on."""


@dataclass(frozen=True, eq=False)
class Questions:
    """Items with choices.

    Attributes:
        task: its name.
        items: ``[items]``.
        units: what an item can not be parted from (its passage, its twin sentence, else itself), ``[items]``.
        left_out: items of the task whose answers are written.
    """

    task: str
    items: tuple[Item, ...]
    units: tuple[str, ...]
    left_out: int

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """Number of the item of every row, ``[rows]``: choice after choice, item after item."""
        return np.repeat(np.arange(len(self.items)), [len(item.choices) for item in self.items])

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether a row's choice is a right one, ``[rows]``."""
        return np.array([number in item.gold for item in self.items for number in range(len(item.choices))])

    @cached_property
    def clusters(self) -> NDArray[np.int64]:
        """The units as numbers, ``[items]``."""
        return np.unique(self.units, return_inverse=True)[1].astype(np.int64)

    @cached_property
    def firsts(self) -> NDArray[np.int64]:
        """Number of each item's first row, ``[items]``."""
        return np.searchsorted(self.owners, np.arange(len(self.items)))

    def strata(self, right: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Items that have subject, number of choices and places of the right ones in common, as numbers ``[items]``.

        A probe and a model that both prefer the same letter are right on the same items and know nothing; among items
        whose right choice has the same place such a probe is always right or always wrong. Likewise, items with few
        choices are easy for both.
        """
        known: dict[tuple[str, bytes], int] = {}
        marks = np.split(right, self.firsts[1:])
        keys = [(item.subject, own.tobytes()) for item, own in zip(self.items, marks, strict=True)]
        return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)

    def shuffled(self, seed: int) -> NDArray[np.bool_]:
        """Labels for the control: as many choices of every item called right as there are, drawn anew, ``[rows]``."""
        draws = np.random.default_rng(seed).random(len(self.owners))
        order = np.lexsort((draws, self.owners))
        return self.right[order]

    def folds(self, count: int, seed: int) -> NDArray[np.int64]:
        """Fold of every item, ``[items]``: whole units, in random order, each to the fold with the fewest items."""
        sizes = np.bincount(self.clusters)
        filled, homes = np.zeros(count, dtype=np.int64), np.zeros(len(sizes), dtype=np.int64)
        order = np.random.default_rng(seed).permutation(len(sizes))
        for unit in order[np.argsort(-sizes[order], kind="stable")]:
            homes[unit] = filled.argmin()
            filled[homes[unit]] += sizes[unit]
        return homes[self.clusters]


def questions(job: Job, folds: int) -> Questions:
    """The items of ``job`` that are answered by a choice.

    Raises:
        TwinprobeError: there are none, or too few units for so many ``folds``.
    """
    chosen = [one for one in job.asked if isinstance(one.what, Item)]
    task = job.setting.task
    if not chosen:
        raise TwinprobeError(
            f"task {task} has written answers only; a probe picks among choices: leave it out, or name one with choices"
        )
    items = [one.what for one in chosen if isinstance(one.what, Item)]
    # A passage may be asked about in two subjects; an item's own name may be that of another subject's item.
    units = [
        f"{item.subject}\x1f{item.id}" if one.group == item.id else one.group
        for one, item in zip(chosen, items, strict=True)
    ]
    check_folds(task, units, folds)
    return Questions(task, tuple(items), tuple(units), len(job.asked) - len(chosen))


def check_folds(task: str, units: Sequence[str], folds: int) -> None:
    """Raise :class:`TwinprobeError` unless every fold gets a unit of its own."""
    if folds < FEWEST_FOLDS:
        raise TwinprobeError(
            f"{folds} folds are asked for; expected {FEWEST_FOLDS} or more: train, dev and test differ"
        )
    if len(set(units)) < folds:
        raise TwinprobeError(
            f"task {task} has {len(units)} items in {len(set(units))} groups, fewer than the {folds} folds; ask for more "
            "items or fewer folds"
        )
