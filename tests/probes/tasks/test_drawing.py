"""Drawing items from the user's data: whole groups, even labels, the data's own splits, and honest errors."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from activations.errors import TwinprobeError
from activations.texts import Span
from probes.tasks.drawing import Example, assign_groups, draw_even, draw_items, split_files
from probes.tasks.items import Form, Split
from probes.tasks.pools import SHARES

HERE = Path("somewhere")


def example(group: str, label: str, name: str = "prose", split: Split | None = None) -> Example:
    return Example(group, label, 0, name, Form("x", (Span("target", 0, 1, label, "key"),)), split)


def many(groups: int, labels: str, name: str = "prose", split: Split | None = None) -> list[Example]:
    """``groups`` groups, each with as many examples as ``labels`` has letters."""
    return [example(f"{split}-{g}", label, name, split) for g in range(groups) for label in labels]


def test_whole_groups_share_out_every_label_even_the_rare_one() -> None:
    examples = many(60, "aab") + [example(f"rare-{i}", "c") for i in range(18)]
    homes = assign_groups(examples, random.Random(0))
    for label in "abc":
        counts = Counter(homes[e.group] for e in examples if e.label == label)
        for split, share in SHARES.items():
            assert counts[split] / counts.total() == pytest.approx(share, abs=0.06), (label, split)


def test_a_group_that_the_data_hold_in_one_split_stays_there() -> None:
    examples = [e for split in SHARES for e in many(5, "ab", split=split)]
    homes = assign_groups(examples, random.Random(0))
    assert all(homes[e.group] == e.split for e in examples)


def test_of_a_group_in_several_splits_only_the_examples_of_its_own_are_drawn() -> None:
    examples = [example(f"verb{g}", "ab"[g % 2], split=split) for split in SHARES for g in range(40) for _ in range(9)]
    marked = {id(e.form): e for e in examples}
    items = draw_items("t", HERE, examples, 90, 0)
    homes: dict[str, set[str]] = {}
    for item in items:
        assert marked[id(item.forms["prose"])].split == item.split
        homes.setdefault(item.group, set()).add(item.split)
    assert all(len(splits) == 1 for splits in homes.values())
    assert len(homes) > 30


def test_draws_are_even_until_a_label_has_no_more() -> None:
    pool = many(10, "aaaab") + [example("c", "c")] * 3
    assert Counter(e.label for e in draw_even(pool, 30, random.Random(0))) == {"a": 17, "b": 10, "c": 3}
    few = Counter(e.label for e in draw_even(pool, 8, random.Random(1)))
    assert max(few.values()) - min(few.values()) <= 1
    drawn = draw_even(pool, len(pool), random.Random(2))
    assert Counter(map(id, drawn)) == Counter(map(id, pool))  # each just once


def test_every_form_gets_its_share_and_ids_are_unique() -> None:
    examples = many(40, "ab", "one") + many(40, "abc", "two")
    items = draw_items("t", HERE, examples, 91, 4)
    assert len(items) == len({item.id for item in items}) == 91
    assert Counter(next(iter(item.forms)) for item in items) == {"one": 46, "two": 45}
    assert items[0].id.startswith("t-4/train/one-")
    assert draw_items("t", HERE, examples, 91, 4) == items
    assert draw_items("t", HERE, list(reversed(examples)), 91, 5) != items


def test_draws_do_not_depend_on_the_process() -> None:
    code = (
        "from probes.tasks.drawing import *; from probes.tasks.items import Form; from pathlib import Path\n"
        "some = [Example(f'g{i % 30}', 'abc'[i % 7 % 3], 0, 'fg'[i % 2], Form(str(i), ())) for i in range(400)]\n"
        "print([(i.id, i.group, i.forms) for i in draw_items('t', Path(), some, 100, 0)])"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_too_few_is_an_error_that_says_how_many_there_are() -> None:
    with pytest.raises(TwinprobeError, match=r"^task 't': 17 items asked for.*at least 9 together of every form"):
        draw_items("t", HERE, many(40, "ab", "one") + many(40, "ab", "two"), 17, 0)
    with pytest.raises(TwinprobeError, match=r"^task 't': 90 items asked for, 50 of them prose items of the train split, "
                       r"but somewhere has only \d+ such; ask for fewer items$"):  # fmt: skip
        draw_items("t", HERE, many(40, "a"), 90, 0)


def test_a_folder_needs_three_files_and_leaves_the_others_alone(tmp_path: Path) -> None:
    for name in ("a_train.tsv", "b_train.tsv", "dev.tsv", "gen.tsv", "test.json", "notes.txt"):
        (tmp_path / name).touch()
    with pytest.raises(TwinprobeError, match=r"no test\.tsv \(or \*_test\.tsv\); a folder needs"):
        split_files(tmp_path, ".tsv")
    (tmp_path / "c_test.tsv").touch()
    assert [(file.name, split) for file, split in split_files(tmp_path, ".tsv")] == [
        ("a_train.tsv", "train"), ("b_train.tsv", "train"), ("dev.tsv", "dev"), ("c_test.tsv", "test"),
    ]  # fmt: skip
    assert split_files(tmp_path / "gen.tsv", ".tsv") == [(tmp_path / "gen.tsv", None)]
