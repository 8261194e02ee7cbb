"""How the items of a task from the user's files are drawn: whole groups to splits, labels as even as the data allow.

A reader turns the files into :class:`Example` values, all of them; a draw is a seeded choice among these. A group goes
to one split. Where the files say themselves which split an example belongs to, an example is only ever drawn for that
one: a group that the files hold in one split stays there, and of a group in several splits (a verb that every file has)
only the examples of the split that it was given are left.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from activations.errors import TwinprobeError
from probes.tasks.items import Form, FormName, Item, Split
from probes.tasks.pools import FEWEST_ITEMS, SHARES, split_sizes


@dataclass(frozen=True)
class Example:
    """One labelled text of the user's data.

    ``label`` is what a draw makes even; ``split`` is where the data themselves put the example, if they say so.
    """

    group: str
    label: str
    difficulty: int
    name: FormName
    form: Form
    split: Split | None = None


def split_files(path: Path, suffix: str) -> list[tuple[Path, Split | None]]:
    """The files to read: ``path`` itself, or from a folder those whose names end in train, dev and test.

    ``boxes_train.jsonl`` is as good a name as ``train.jsonl``. Other files of the folder are left alone. A single file
    has no split of its own.

    Raises:
        TwinprobeError: the folder lacks one of the three.
    """
    if not path.is_dir():
        return [(path, None)]
    names = sorted(file for file in path.iterdir() if file.suffix == suffix)
    found = [(file, split) for split in SHARES for file in names if file.stem.split("_")[-1] == split]
    for split in SHARES:
        if split not in {named for _, named in found}:
            raise TwinprobeError(
                f"{path}: no {split}{suffix} (or *_{split}{suffix}); a folder needs a train, a dev and a test file; "
                "name a single file to have it split"
            )
    return list(found)


def draw_items(task: str, path: Path, examples: Sequence[Example], n_items: int, seed: int) -> list[Item]:
    """Draw ``n_items`` items, an equal share of every form, each split with its share and its labels as even as can be.

    An item has one form. ``path`` is named in the error.

    Raises:
        TwinprobeError: too few items for three splits of every form, or more than the data have.
    """
    names = sorted({example.name for example in examples})
    if n_items < FEWEST_ITEMS * len(names):
        raise TwinprobeError(
            f"task {task!r}: {n_items} items asked for, but train, dev and test need at least {FEWEST_ITEMS} together "
            f"of every form ({', '.join(names)})"
        )
    rng = random.Random(f"{task}-{seed}")
    items = []
    for number, name in enumerate(names):
        some = [example for example in examples if example.name == name]
        homes = assign_groups(some, rng)
        n_form = n_items // len(names) + (number < n_items % len(names))
        for split, size in split_sizes(n_form).items():
            pool = [e for e in some if homes[e.group] == split and e.split in (None, split)]
            if len(pool) < size:
                raise TwinprobeError(
                    f"task {task!r}: {n_items} items asked for, {size} of them {name} items of the {split} split, "
                    f"but {path} has only {len(pool)} such; ask for fewer items"
                )
            for i, drawn in enumerate(draw_even(pool, size, rng)):
                item_id = f"{task}-{seed}/{split}/{name}-{i:04d}"
                items.append(Item(item_id, task, split, drawn.group, drawn.difficulty, {name: drawn.form}))
    return items


def assign_groups(examples: Iterable[Example], rng: random.Random) -> dict[str, Split]:
    """Give every group a split, the largest first, such that each label is shared out as :data:`SHARES` asks."""
    labels: dict[str, Counter[str]] = defaultdict(Counter)
    own: dict[str, set[Split | None]] = defaultdict(set)
    for example in examples:
        labels[example.group][example.label] += 1
        own[example.group].add(example.split)
    totals = sum(labels.values(), Counter[str]())
    filled: dict[Split, Counter[str]] = {split: Counter() for split in SHARES}

    def need(group: str, split: Split) -> float:
        """How far the split is below its share of the group's labels; a rare label counts as much as a common one."""
        found = labels[group].items()
        return sum(
            count * (SHARES[split] - filled[split][label] / totals[label]) / totals[label] for label, count in found
        )

    homes: dict[str, Split] = {}
    for group in sorted(rng.sample(sorted(labels), len(labels)), key=lambda group: labels[group].total(), reverse=True):
        said = next(iter(own[group])) if len(own[group]) == 1 else None
        neediest = max(SHARES, key=lambda split: need(group, split))
        home = said or neediest
        homes[group] = home
        filled[home] += labels[group]
    return homes


def draw_even(pool: Sequence[Example], size: int, rng: random.Random) -> list[Example]:
    """``size`` different examples in random order: equally many of every label until a label has no more."""
    left: dict[str, list[Example]] = defaultdict(list)
    for example in rng.sample(pool, len(pool)):
        left[example.label].append(example)
    drawn: list[Example] = []
    while len(drawn) < size:
        holders = [label for label in sorted(left) if left[label]]
        for label in rng.sample(holders, min(len(holders), size - len(drawn))):
            drawn.append(left[label].pop())
    rng.shuffle(drawn)
    return drawn
