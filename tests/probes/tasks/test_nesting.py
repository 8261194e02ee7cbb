"""Nesting: an independent stack parser reads both forms, and the shortcuts stay closed."""

import re
from collections import Counter, defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_items import drawn

from probes.tasks import TASKS

PAIRS = {")": "(", "]": "["}
CLOSER = {"(": ")", "[": "]"}
WORDS = {")": "round", "]": "square"}
forms = pytest.mark.parametrize("form", ["code", "prose"])


def open_brackets(text: str) -> list[int]:
    """Where the brackets stand that are still open, outermost first; fails on a closer that does not fit."""
    stack: list[int] = []
    for at, character in enumerate(text):
        if character in CLOSER:
            stack.append(at)
        elif character in PAIRS:
            assert text[stack.pop()] == PAIRS[character]
    return stack


def solve(form: str, text: str) -> str:
    """The closer of the innermost open bracket."""
    return CLOSER[text[open_brackets(text)[-1]]]


def label(form, target: str) -> str:
    return next(span.label for span in form.spans if span.name == target)


@pytest.fixture(scope="module")
def items():
    return drawn("nesting", 3600)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_a_stack_parser_agrees_with_labels_and_contrasts(seed):
    for item in TASKS["nesting"].generate(36, seed):
        for form in item.forms.values():
            stack = open_brackets(form.text)
            assert len(stack) == item.difficulty == int(label(form, "depth"))
            assert label(form, "closer") == WORDS[form.answer]
            assert open_brackets(form.contrast.text) == stack


def test_spans_name_the_pending_opener_and_the_last_word(items):
    for item in items[::20]:
        for form in item.forms.values():
            spans = {span.name: span for span in form.spans}
            assert spans["opener"].start == open_brackets(form.text)[-1]
            assert form.text[spans["query"].start :] == re.findall(r"\w+", form.text)[-1]
            control = spans["closer"].control
            assert control == spans["depth"].control != form.text[spans["query"].start :]
            assert re.findall(r"\w+", form.text[spans["opener"].end :])[-1] != control
            assert control in re.findall(r"\w+", form.text[spans["opener"].end :])[:4]
            assert spans["closer"].end == spans["depth"].end == spans["query"].end == len(form.text)


@forms
def test_the_last_bracket_opened_is_often_not_the_pending_one(items, form):
    texts = [item.forms[form].text for item in items]
    missed = sum(max(map(text.rfind, CLOSER)) != open_brackets(text)[-1] for text in texts) / len(texts)
    wrong = sum(text[max(map(text.rfind, CLOSER))] != text[open_brackets(text)[-1]] for text in texts) / len(texts)
    assert missed > 0.5
    assert wrong > 0.25


@forms
def test_counting_brackets_does_not_give_the_pending_closer_from_depth_two_on(items, form):
    cells = defaultdict(Counter)
    for item in items:
        text = item.forms[form].text
        if item.difficulty > 1:
            cells[item.difficulty, text.count("(") - text.count(")")][item.forms[form].answer] += 1
    assert {cell for cell in cells} == {(2, 1), (3, 1), (3, 2), (4, 2)}
    assert all(max(counts.values()) < 0.56 * counts.total() for counts in cells.values())


@forms
def test_length_and_number_of_openers_do_not_tell_the_depth(items, form):
    lengths, opened = defaultdict(list), defaultdict(set)
    for item in items:
        text = item.forms[form].text
        lengths[item.difficulty].append(len(re.findall(r"\w+|[^\w\s]", text)))
        opened[item.difficulty].add(len(re.findall(r"[\[(]", text)))
    means = [sum(counts) / len(counts) for counts in lengths.values()]
    assert max(means) < 1.12 * min(means)
    assert all(counts == {5, 6} for counts in opened.values())
