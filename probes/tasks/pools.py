"""The words that generated tasks are made of, and how they are drawn.

Names and callees are disjoint between the splits, so that a probe cannot pass its test by knowing a word; values are
classes and therefore shared. All are short and common, so that a small tokenizer keeps most of them whole, both after
a space and after a quote.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import TypeVar

from activations.errors import TwinprobeError
from probes.tasks.items import Split

SHARES: dict[Split, float] = {"train": 5 / 9, "dev": 1.5 / 9, "test": 2.5 / 9}
FEWEST_ITEMS = 9

VALUES = ("key", "map", "lock", "block", "file", "thread", "string", "log")

PEOPLE: dict[Split, tuple[str, ...]] = {
    "train": (
        "man", "boy", "girl", "king", "lady", "father", "mother", "brother",
        "son", "wife", "friend", "master", "doctor", "captain", "uncle", "child",
    ),
    "dev": ("woman", "sister", "guard", "driver", "soldier", "teacher", "baker", "sailor", "lawyer", "lord"),
    "test": ("queen", "aunt", "judge", "cook", "prince", "fool", "farmer", "poet", "nurse", "host"),
}  # fmt: skip

CALLEES: dict[Split, tuple[str, ...]] = {
    "train": ("find", "get", "call", "read", "load", "len", "max", "group"),
    "dev": ("set", "take", "join", "next"),
    "test": ("list", "send", "make", "sort"),
}

T = TypeVar("T")


def split_sizes(n_items: int) -> dict[Split, int]:
    """How many of ``n_items`` go to each split."""
    train, dev = round(n_items * SHARES["train"]), round(n_items * SHARES["dev"])
    return {"train": train, "dev": dev, "test": n_items - train - dev}


def check_size(task: str, n_items: int) -> None:
    """Raise :class:`TwinprobeError` when ``n_items`` is too small to be split."""
    if n_items < FEWEST_ITEMS:
        raise TwinprobeError(
            f"task {task!r}: {n_items} items asked for, but train, dev and test need at least {FEWEST_ITEMS} together"
        )


def each_split(task: str, n_items: int, seed: int) -> Iterator[tuple[Split, int, random.Random]]:
    """Yield every split with its number of items and a random generator that depends on task, seed and split only."""
    check_size(task, n_items)
    for split, size in split_sizes(n_items).items():
        yield split, size, random.Random(f"{task}-{seed}-{split}")


def balanced(rng: random.Random, options: Sequence[T], size: int) -> list[T]:
    """``size`` draws in random order in which the counts of any two options differ by at most one."""
    order = rng.sample(options, len(options))
    drawn = [order[i % len(order)] for i in range(size)]
    rng.shuffle(drawn)
    return drawn
