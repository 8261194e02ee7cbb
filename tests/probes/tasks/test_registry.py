"""What holds for every task: splits, determinism, balance, spans that lie where they say."""

import os
import subprocess
import sys
from collections import Counter

import pytest

from activations.errors import TwinprobeError
from probes.tasks import TASKS, get_task
from probes.tasks.pools import CALLEES, PEOPLE, split_sizes

FINGERPRINT = """
import hashlib
from probes.tasks import TASKS
def fingerprint():
    drawn = [task.generate(60, 3) for task in TASKS.values()]
    return hashlib.sha256(repr(drawn).encode()).hexdigest()
"""


def labels(item, form):
    """``(target, label)`` of everything that is labelled in one form of an item."""
    rendered = item.forms[form]
    spans = [(span.name, span.label) for span in rendered.spans if span.label is not None]
    return spans + [(relation.target, relation.label) for relation in rendered.relations]


@pytest.fixture(scope="module", params=sorted(TASKS))
def drawn(request):
    task = TASKS[request.param]
    return task, task.generate(180, 0)


def test_get_task_suggests_the_name_that_was_meant():
    assert get_task("binding").name == "binding"
    with pytest.raises(TwinprobeError, match=r"unknown task 'bindings'.*did you mean 'binding'"):
        get_task("bindings")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_too_few_items_are_refused_in_one_line(name):
    with pytest.raises(TwinprobeError, match=r"^task '\w+': 3 items asked for.*at least 9") as caught:
        TASKS[name].generate(3, 0)
    assert "\n" not in str(caught.value)


def test_items_are_as_many_as_asked_with_unique_ids_and_the_promised_shares(drawn):
    task, items = drawn
    assert len(items) == len({item.id for item in items}) == 180
    assert Counter(item.split for item in items) == pytest.approx({"train": 100, "dev": 30, "test": 50}, abs=1)
    assert all(item.task == task.name for item in items)


@pytest.mark.parametrize("n_items", [9, 10, 17, 101])
def test_split_sizes_add_up_and_leave_no_split_empty(n_items):
    sizes = split_sizes(n_items)
    assert sum(sizes.values()) == n_items
    assert min(sizes.values()) > 0


def test_no_group_lies_in_two_splits(drawn):
    _, items = drawn
    assert all(len({item.split for item in items if item.group == group}) == 1 for group in {i.group for i in items})


def test_spans_lie_inside_the_text_and_only_targets_carry_labels(drawn):
    task, items = drawn
    for item in items:
        for form in item.forms:
            text = item.as_text(form)  # Text itself refuses spans outside of it
            assert text.id == f"{item.id}/{form}"
            assert text.group == item.group
            assert labels(item, form)
            joined = {(r.target, *end) for r in item.forms[form].relations for end in (r.first, r.second)}
            assert joined == {(s.name, s.start, s.end) for s in text.spans if s.name in task.relations}
            for span in text.spans:
                assert (span.label is not None) == (span.name in set(task.targets) - set(task.relations))
                assert (span.control is not None) == (span.label is not None)
                assert form in task.targets.get(span.name, (form,))


def test_labels_are_balanced_in_every_split(drawn):
    task, items = drawn
    for target, forms in task.targets.items():
        for form in forms:
            for split in ("train", "dev", "test"):
                part = [item for item in items if item.split == split and form in item.forms]
                counts = Counter(label for item in part for name, label in labels(item, form) if name == target)
                assert max(counts.values()) - min(counts.values()) <= 1
                assert max(counts.values()) < 0.6 * counts.total()


def test_pools_do_not_overlap():
    for pools in (PEOPLE, CALLEES):
        words = [word for pool in pools.values() for word in pool]
        assert len(words) == len(set(words))


def test_items_do_not_depend_on_the_process():
    """A process whose strings have other hashes, and therefore sets another order, draws the same."""
    other_seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    ran = subprocess.run(
        [sys.executable, "-c", f"{FINGERPRINT}\nprint(fingerprint())"],
        env={**os.environ, "PYTHONHASHSEED": other_seed, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    here = {}
    exec(FINGERPRINT, here)
    assert ran.stdout.strip() == here["fingerprint"]()
