"""What holds for every task: splits, determinism, balance, spans that lie where they say."""

import os
import re
import subprocess
import sys
from collections import Counter

import pytest

from activations.errors import TwinprobeError
from probes.tasks import TASKS, get_task
from probes.tasks.pools import CALLEES, PEOPLE, split_sizes

GENERATED = (
    *("nesting", "binding", "aliasing", "arithmetic", "boolean", "branching", "loops", "ordering", "roles", "types"),
    "scope",
)
ON_THE_WAY = ("running",)
"""Targets that label more than the end of the text."""
FINGERPRINT = """
import hashlib
from probes.tasks import TASKS
print(hashlib.sha256(repr([task.generate(60, 3) for task in TASKS.values()]).encode()).hexdigest())
"""


@pytest.fixture(scope="module", params=sorted(TASKS))
def drawn(request):
    task = TASKS[request.param]
    return task, task.generate(180, 0)


def labels(items, form, target):
    return [s.label for i in items if form in i.forms for s in i.forms[form].spans if s.name == target]


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
            assert any(span.label is not None for span in text.spans)
            for span in text.spans:
                assert (span.label is not None) == (span.name in task.targets)
                assert (span.control is not None) == (span.label is not None)
                assert form in task.targets.get(span.name, (form,))


def test_labels_are_balanced_in_every_split(drawn):
    task, items = drawn
    for target, forms in task.targets.items():
        for form in forms:
            for split in ("train", "dev", "test"):
                counts = Counter(labels([i for i in items if i.split == split], form, target))
                assert max(counts.values()) - min(counts.values()) <= 1
                assert max(counts.values()) < 0.6 * counts.total()


@pytest.mark.parametrize("name", GENERATED)
def test_both_forms_of_an_item_have_the_same_labels_and_a_contrast(name):
    for item in TASKS[name].generate(90, 1):
        code, prose = item.forms["code"], item.forms["prose"]
        assert [(s.name, s.label, s.control) for s in code.spans if s.label] == [
            (s.name, s.label, s.control) for s in prose.spans if s.label
        ]
        assert prose.answer in (code.answer, f" {code.answer}")
        for form in (code, prose):
            assert {form.answer, form.contrast.answer} <= set(form.candidates)
            assert len(set(form.candidates)) == len(form.candidates)
            assert form.contrast.answer != form.answer
            assert len(form.contrast.text.split()) == len(form.text.split())
            assert all(
                span.end == len(form.text) == span.start + 1
                for span in form.spans
                if span.label and span.name not in ON_THE_WAY
            )


@pytest.mark.parametrize("name", GENERATED)
def test_names_and_templates_are_disjoint_between_splits(name):
    pool = {word for words in PEOPLE.values() for word in words}
    names, templates = {}, {}
    for item in TASKS[name].generate(900, 2):
        *ids, _ = item.group.split("/", len(item.forms))
        templates.setdefault(item.split, set()).update(enumerate(ids))
        for form in item.forms.values():
            names.setdefault(item.split, set()).update(pool & set(re.findall(r"\w+", form.text)))
    for found in (names, templates):
        assert not (found["train"] & found["dev"])
        assert not (found["train"] & found["test"])
        assert not (found["dev"] & found["test"])
    assert {split: len(ids) >= need for (split, ids), need in zip(templates.items(), (6, 4, 4), strict=True)} == {
        "train": True, "dev": True, "test": True,
    }  # fmt: skip


def test_pools_do_not_overlap():
    for pools in (PEOPLE, CALLEES):
        words = [word for pool in pools.values() for word in pool]
        assert len(words) == len(set(words))


def test_items_do_not_depend_on_the_process():
    prints = {
        subprocess.run(
            [sys.executable, "-c", FINGERPRINT],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1


@pytest.mark.parametrize("name", GENERATED)
def test_another_seed_gives_other_items(name):
    texts = [{item.forms["code"].text for item in TASKS[name].generate(90, seed)} for seed in (0, 1)]
    assert len(texts[0] & texts[1]) < 0.1 * len(texts[0])
