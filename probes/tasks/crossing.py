"""Labels crossed with difficulties, so that neither tells of the other."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def crossed(rng: random.Random, first: Sequence[A], second: Sequence[B], size: int) -> list[tuple[A, B]]:
    """``size`` pairs in random order; the options of either side, and the pairs in every full round, are equally many.

    For any ``size`` the counts of two options of one side differ by at most one.
    """
    first, second = rng.sample(first, len(first)), rng.sample(second, len(second))
    # Stepping through both sides together meets only some of the pairs when their lengths share a factor: after each
    # block, in which every option has come up equally often, the second side is moved on by one.
    block = math.lcm(len(first), len(second))
    pairs = [(first[i % len(first)], second[(i + i // block) % len(second)]) for i in range(size)]
    rng.shuffle(pairs)
    return pairs
