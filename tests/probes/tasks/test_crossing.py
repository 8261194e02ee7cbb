import random
from collections import Counter

import pytest

from probes.tasks.crossing import crossed


def spread(options) -> int:
    counts = Counter(options).values()
    return max(counts) - min(counts)


@pytest.mark.parametrize(("n", "m"), [(10, 4), (2, 3), (4, 4), (1, 3)])
def test_full_rounds_hold_every_pair_equally_often(n, m):
    pairs = crossed(random.Random(0), range(n), range(m), 3 * n * m)
    assert set(Counter(pairs).values()) == {3}
    assert len(set(pairs)) == n * m


@pytest.mark.parametrize(("n", "m"), [(10, 4), (2, 3), (4, 4)])
def test_either_side_is_balanced_at_every_size(n, m):
    for size in range(max(n, m), 150):
        pairs = crossed(random.Random(size), range(n), range(m), size)
        assert len(pairs) == size
        assert max(spread(a for a, _ in pairs), spread(b for _, b in pairs)) <= 1


def test_the_order_is_drawn():
    drawn = [crossed(random.Random(seed), "abc", "xy", 6) for seed in range(20)]
    assert len({tuple(pairs) for pairs in drawn}) > 10
    assert drawn[3] == crossed(random.Random(3), "abc", "xy", 6)
