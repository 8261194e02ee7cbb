"""Whole groups (documents, templates) shared out to train, dev and test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from activations.errors import TwinprobeError

SHARES = {"train": 0.6, "dev": 0.15, "test": 0.25}


def split_groups(groups: Sequence[str], seed: int) -> list[str]:
    """Assign whole groups to train, dev and test, to come near 60, 15 and 25 percent of the members.

    Large groups are placed first, equal ones in a seeded random order, each in the split that is furthest below its share.

    Raises:
        TwinprobeError: there are fewer groups than splits.
    """
    sizes = Counter(groups)
    names = sorted(sizes)
    if len(names) < len(SHARES):
        raise TwinprobeError(
            f"there are {len(names)} groups; at least 3 are needed, as a group never lies in two splits (set 'group')"
        )
    order = [names[index] for index in np.random.default_rng(seed).permutation(len(names))]
    homes: dict[str, str] = {}
    filled = dict.fromkeys(SHARES, 0)
    for name in sorted(order, key=lambda name: sizes[name], reverse=True):
        # None may stay empty: the last groups go to splits that have none.
        empty = [split for split in SHARES if not filled[split]]
        open_to = empty if len(names) - len(homes) <= len(empty) else list(SHARES)
        homes[name] = max(open_to, key=lambda split: SHARES[split] * len(groups) - filled[split])
        filled[homes[name]] += sizes[name]
    return [homes[group] for group in groups]
