"""What holds for every task that is made of templates: right answers, twin forms, contrasts, no leak and no shortcut.

Python itself runs the code forms. The other forms are solved by a small reader of each task's own, in its test file.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import test_arithmetic
import test_boolean
import test_branching
import test_indentation
import test_induction
import test_loops
import test_nesting
import test_number_agreement
import test_ordering
import test_roles
import test_scope
import test_statements
import test_value_types
from hypothesis import given, settings
from hypothesis import strategies as st
from task_items import drawn, holds
from task_surface import GENERATED, aligned, scorable, surface, tokenizer_families
from transformers import PreTrainedTokenizerFast

from probes.tasks import (
    TASKS,
    agreement,
    aliasing,
    arithmetic,
    binding,
    boolean,
    branching_words,
    indentation,
    induction,
    loops_words,
    nesting,
    ordering,
    roles,
    scope_words,
    value_types_words,
)
from probes.tasks.items import Form, Item
from probes.tasks.pools import PEOPLE

SPLITS = ("train", "dev", "test")
SIZES = (9, 10, 13, 17, 26, 77, 101, 200, 600)
TEMPLATES = {"train": 4, "dev": 2, "test": 2}


@dataclass(frozen=True)
class Case:
    """A task, what it is made of, and how much its surface may tell.

    Attributes:
        solve: ``(form, text) -> answer``, for the forms that Python can not run.
        phrasings: its templates by form and split.
        edited: the span whose words the contrast replaces; empty where it exchanges words.
        names: words of which every split has its own.
        majority, bag, place: what the majority label, a bag of tokens, and one token or position may score at most,
            where this is less than 60% of the gap.
        length: how many times as long the texts of one label may be as those of another.
        flat: whether the same holds for difficulties.
        tiny: per form the share of contrasts that must align in a tokenizer of 400 entries, which cuts most words up.
    """

    solve: Callable[[str, str], str]
    phrasings: Mapping[str, Mapping[Any, Sequence[Any]]]
    edited: str = ""
    names: Mapping[Any, Sequence[str]] = field(default_factory=lambda: PEOPLE)
    majority: float = 1
    bag: float = 1
    place: float = 1
    length: float = 1.2
    flat: bool = False
    tiny: Mapping[str, float] = field(default_factory=dict)


def all_forms(share: float, **other: float) -> dict[str, float]:
    """The same share for every form but those named."""
    return {"code": share, "prose": share, "formal": share, **other}


CASES = {
    "nesting": Case(test_nesting.solve, nesting.PHRASINGS, "opener", majority=0.51, length=1.05),
    "binding": Case(test_statements.solve, binding.PHRASINGS, "definition", majority=0.15, bag=0.4, place=0.2),
    "aliasing": Case(test_statements.solve, aliasing.PHRASINGS, "definition", majority=0.15, place=0.2),
    "arithmetic": Case(
        test_arithmetic.solve, arithmetic.PHRASINGS, "definition", majority=0.15, tiny=all_forms(0.5)
    ),
    "boolean": Case(
        test_boolean.solve, boolean.PHRASINGS, majority=0.51, bag=0.8, place=0.8, length=1.05, tiny=all_forms(1)
    ),
    "branching": Case(
        test_branching.solve, branching_words.PHRASINGS, "stated", majority=0.3, bag=0.4, place=0.4, length=1.04,
        flat=True, tiny=all_forms(1),
    ),
    "loops": Case(
        test_loops.solve, loops_words.PHRASINGS, "steps", majority=0.25, bag=0.38, place=0.38, length=1.05, flat=True,
        tiny=all_forms(0.99, prose=0.4),
    ),
    "ordering": Case(
        test_ordering.solve, ordering.PHRASINGS, "definition", bag=0.4, place=0.4, length=1.08, tiny=all_forms(0.6)
    ),
    "roles": Case(test_roles.solve, roles.PHRASINGS, bag=0.45, place=0.45, length=1.06, tiny=all_forms(1)),
    "types": Case(
        test_value_types.solve, value_types_words.PHRASINGS, "source", value_types_words.SPEAKERS, majority=0.26,
        bag=0.4, place=0.4, length=1.05, tiny=all_forms(0.86),
    ),
    "scope": Case(
        test_scope.solve, {"code": scope_words.CODE, **scope_words.TOLD}, "definition", majority=0.13, bag=0.344,
        place=0.225, length=1.12, tiny=all_forms(1),
    ),
    "closers": Case(test_nesting.solve, nesting.PHRASINGS, "opener", majority=0.51, bag=0.6, place=0.6, length=1.05),
    "indentation": Case(
        test_indentation.solve, {"code": indentation.PHRASINGS}, majority=0.35, bag=0.45, place=0.45, length=1.2
    ),
    "induction": Case(test_induction.solve, induction.PHRASINGS, "definition", majority=0.2, bag=0.66, place=0.25),
    "agreement": Case(
        test_number_agreement.solve, {"prose": agreement.PHRASINGS}, "subject", test_number_agreement.WORDS,
        majority=0.51, bag=0.6, place=0.6,
    ),
}  # fmt: skip
RUN_BY_PYTHON = set(GENERATED) - {"nesting", "closers", "indentation", "induction", "agreement"}
NOT_CROSSED = {"nesting", "binding", "aliasing"}
"""Tasks whose labels and difficulties are balanced each, but not with each other."""
ON_THE_WAY = ("running",)
"""Targets that label more than the end of the text."""

every_task = pytest.mark.parametrize("name", GENERATED)
every_form = pytest.mark.parametrize(
    ("name", "form"), [(name, form) for name in GENERATED for form in CASES[name].phrasings]
)


def first_form(name: str) -> str:
    """The form that labels are read from where all forms have the same: code, where there is one."""
    return next(iter(CASES[name].phrasings))


def solved(name: str, form: str, rendered: Form, text: str) -> list[str]:
    """Every candidate that completes ``text`` rightly."""
    if form == "code" and name in RUN_BY_PYTHON:
        return [word for word in rendered.candidates if holds(text, word)]
    return [CASES[name].solve(form, text)]


def assert_right(name: str, items: Sequence[Item]) -> None:
    for item in items:
        for form, rendered in item.forms.items():
            assert rendered.contrast is not None
            assert solved(name, form, rendered, rendered.text) == [rendered.answer]
            assert solved(name, form, rendered, rendered.contrast.text) == [rendered.contrast.answer]


def labels(items: Sequence[Item], form: str, name: str) -> list[str]:
    return [str(s.label) for item in items for s in item.forms[form].spans if s.name == name and s.label is not None]


def spread(found: Sequence[object], options: Sequence[object]) -> int:
    counts = Counter(found)
    return max(counts[option] for option in options) - min(counts[option] for option in options)


def test_every_generated_task_has_a_case() -> None:
    assert list(CASES) == list(GENERATED)
    for name, case in CASES.items():
        assert {form for forms in TASKS[name].targets.values() for form in forms} == set(case.phrasings)


@every_task
@given(seed=st.integers(0, 2**32))
@settings(max_examples=10, deadline=None, derandomize=True)
def test_answers_are_right_in_every_form_and_contrast(name: str, seed: int) -> None:
    assert_right(name, TASKS[name].generate(18, seed))


@every_task
def test_every_template_is_right_and_stays_in_its_split(name: str) -> None:
    assert_right(name, drawn(name))
    phrasings = CASES[name].phrasings
    seen: dict[str, dict[str, set[str]]] = {form: {split: set() for split in SPLITS} for form in phrasings}
    for item in drawn(name):
        for form, template in zip(phrasings, item.group.split("/"), strict=False):
            seen[form][item.split].add(template)
    assert seen == {
        form: {split: {p.id for p in found} for split, found in splits.items()} for form, splits in phrasings.items()
    }
    for splits in seen.values():
        assert len(set().union(*splits.values())) == sum(map(len, splits.values()))
        for split, found in splits.items():
            assert len(found) == TEMPLATES[split] - (name in ("nesting", "closers") and split == "train")


@every_task
def test_all_forms_of_an_item_have_the_same_labels_and_controls(name: str) -> None:
    for item in drawn(name):
        first, *others = item.forms.values()
        for other in others:
            assert [(s.name, s.label, s.control) for s in first.spans if s.label] == [
                (s.name, s.label, s.control) for s in other.spans if s.label
            ]
            if other is item.forms["prose"]:
                assert other.answer in (first.answer, f" {first.answer}")
        if name in RUN_BY_PYTHON:
            assert labels([item], "code", next(iter(TASKS[name].targets)))[-1] == str(first.answer).strip()


@every_form
def test_a_form_has_a_contrast_candidates_and_a_label_on_its_last_character(name: str, form: str) -> None:
    for item in drawn(name):
        rendered = item.forms[form]
        assert rendered.contrast is not None
        assert {rendered.answer, rendered.contrast.answer} <= set(rendered.candidates)
        assert len(set(rendered.candidates)) == len(rendered.candidates)
        assert rendered.contrast.answer != rendered.answer
        assert len(rendered.contrast.text.split()) == len(rendered.text.split())
        labelled = [span for span in rendered.spans if span.label and span.name not in ON_THE_WAY]
        assert {span.name for span in labelled} == set(TASKS[name].targets) - set(ON_THE_WAY)
        assert all(span.end == len(rendered.text) == span.start + 1 for span in labelled)
        assert all(rendered.text[span.start].strip() for span in rendered.spans if span.name != "indent")


@pytest.mark.parametrize(("name", "form"), [param for param in every_form.args[1] if CASES[param[0]].edited])
def test_the_contrast_changes_nothing_but_one_span(name: str, form: str) -> None:
    for item in drawn(name):
        rendered = item.forms[form]
        assert rendered.contrast is not None
        (span,) = [span for span in rendered.spans if span.name == CASES[name].edited]
        text, twin = rendered.text, rendered.contrast.text
        other = twin[span.start : span.end + len(twin) - len(text)]
        assert text[: span.start] + other + text[span.end :] == twin
        assert other != text[span.start : span.end]
        assert re.fullmatch(r"\w+|[<>()\[\]]", other)


@every_task
@pytest.mark.parametrize("n_items", SIZES)
def test_labels_and_difficulties_are_balanced_and_crossed_in_every_split(name: str, n_items: int) -> None:
    main = next(iter(TASKS[name].targets))
    levels = sorted({item.difficulty for item in drawn(name)})
    options = sorted(set(labels(drawn(name), first_form(name), main)))
    for split in SPLITS:
        part = [item for item in drawn(name, n_items, 0 if n_items == 600 else 3) if item.split == split]
        found, depths = labels(part, first_form(name), main), [item.difficulty for item in part]
        assert len(found) == len(part) > 0
        assert spread(found, options) <= 1
        assert spread(depths, levels) <= 1
        if name not in NOT_CROSSED:
            assert spread(list(zip(found, depths, strict=True)), list(itertools.product(options, levels))) <= 1


@every_task
def test_names_and_templates_are_disjoint_between_splits(name: str) -> None:
    """A group is named after its templates and the words that its forms do not share with those of other splits."""
    shared = {
        label for task_target in TASKS[name].targets for label in labels(drawn(name), first_form(name), task_target)
    }
    said: dict[str, set[object]] = {split: set() for split in SPLITS}
    for item in drawn(name):
        parts = item.group.split("/")
        said[item.split] |= {*enumerate(parts[: len(item.forms)]), *(set(parts[len(item.forms) :]) - shared)}
        for rendered, pool in itertools.product(item.forms.values(), (PEOPLE, CASES[name].names)):
            everybody = {word for words in pool.values() for word in words}
            assert set(re.findall(r"\w+", rendered.text)) & everybody <= set(pool[item.split])
    for one, two in itertools.combinations(SPLITS, 2):
        assert not said[one] & said[two]


@pytest.mark.parametrize(
    ("name", "form", "probed"), [(*param, probed) for param in every_form.args[1] for probed in TASKS[param[0]].targets]
)
def test_the_surface_stays_below_60_percent_of_the_gap(name: str, form: str, probed: str) -> None:
    case, found = CASES[name], surface(drawn(name), form, probed, tokenizer_families()[0])
    gap = found.majority + 0.6 * (1 - found.majority)
    assert found.majority < case.majority
    assert found.bag_of_tokens < min(gap, case.bag)
    assert max(found.token, found.position) < min(gap, case.place)


@every_form
def test_contrasts_align_and_candidates_differ_in_their_first_token(
    name: str, form: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    items = drawn(name)[::4]
    for family in tokenizer_families():
        assert aligned(items, form, family) == scorable(items, form, family) == 1
    assert aligned(items, form, tokenizer) >= CASES[name].tiny.get(form, 0)


@every_form
def test_lengths_do_not_tell_the_label(name: str, form: str) -> None:
    case, main = CASES[name], next(iter(TASKS[name].targets))
    items = drawn(name, 1200 if case.flat else 600)
    keys: list[list[object]] = [[next(s.label for s in i.forms[form].spans if s.name == main) for i in items]]
    if case.flat:
        keys.append([item.difficulty for item in items])
    for key, length in itertools.product(keys, (len, lambda text: len(re.findall(r"\w+|[^\w\s]", text)))):
        lengths: dict[object, list[int]] = {}
        for item, value in zip(items, key, strict=True):
            lengths.setdefault(value, []).append(length(item.forms[form].text))
        means = [sum(found) / len(found) for found in lengths.values()]
        assert max(means) < case.length * min(means)


@every_task
def test_the_same_arguments_give_the_same_items_and_another_seed_others(name: str) -> None:
    generate = TASKS[name].generate
    assert generate(40, 3) == generate(40, 3)
    texts = [{item.forms[first_form(name)].text for item in generate(200, seed)} for seed in (0, 1)]
    assert len(texts[0] & texts[1]) < 0.02 * len(texts[0])
