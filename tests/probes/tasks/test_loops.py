"""Loops: a walker with a map judges prose and symbols, and where a place is said does not tell the end."""

import re
from collections import Counter

import pytest
from task_items import covered, drawn, target

from probes.tasks.loops_words import PHRASINGS, PLACES

NUMBERS = ("one", "two", "three", "four", "1", "2", "3", "4")
every_form = pytest.mark.parametrize("form", ["code", "prose", "formal"])


def solve(form: str, text: str) -> str:
    """Read five places as a ring or ten as five links, then a start and a number, and walk."""
    said = re.findall(r"\b(field|river|port|bar|ground|[FRPBG])\b", text)
    *known, start = said
    if len(known) == 5:
        assert len(set(known)) == 5, text
        after = dict(zip(known, known[1:] + known[:1], strict=True))
    else:
        pairs = list(zip(known[::2], known[1::2], strict=True))
        after = {b: a for a, b in pairs} if "←" in text else dict(pairs)
        assert len(after) == len(set(after.values())) == 5, text
    numbers = re.findall(r"\b(?:one|two|three|four|[1-9])\b", text)
    (number,) = numbers
    place = start
    for _ in range({"one": 1, "two": 2, "three": 3, "four": 4}.get(number) or int(number)):
        place = after[place]
    return f" {place}"


@pytest.fixture(scope="module")
def items():
    return drawn("loops", 1200)


def test_spans_name_the_start_and_the_number_of_moves(items):
    for item in items[::5]:
        assert item.forms["formal"].answer.strip() == target(item.forms["formal"]).label[0].upper()
        for form in item.forms.values():
            assert len(form.candidates) == len(PLACES)
            assert len(covered(form, "query")) == len(covered(form, "start")) == len(covered(form, "steps")) == 1
            assert covered(form, "steps")[0] in NUMBERS
        assert covered(item.forms["code"], "start") == [target(item.forms["code"]).control]
        assert covered(item.forms["code"], "steps") == [str(item.difficulty)]


@every_form
def test_every_place_is_said_equally_often_but_for_the_start(items, form):
    for item in items[::5]:
        said = Counter(re.findall(r"\b(field|river|port|bar|ground|[FRPBG])\b", item.forms[form].text))
        (start,) = covered(item.forms[form], "start")
        said[start] -= 1
        assert len(said) == 5
        assert len(set(said.values())) == 1


@every_form
def test_where_a_place_is_said_does_not_tell_the_end(items, form):
    said = [re.findall(r"\b(field|river|port|bar|ground|[FRPBG])\b", item.forms[form].text) for item in items]
    for at in (0, 1, -2, -3):
        right = sum(found[at] == item.forms[form].answer.strip() for found, item in zip(said, items, strict=True))
        assert right / len(items) < 0.3


def test_names_asked_for_do_not_leak_between_splits(items):
    names = {"train": set(), "dev": set(), "test": set()}
    for item in items:
        names[item.split] |= set(covered(item.forms["code"], "query") + covered(item.forms["formal"], "query"))
    assert not names["train"] & names["dev"] and not names["train"] & names["test"] and not names["dev"] & names["test"]


def test_every_split_has_templates_that_list_the_ring_and_templates_that_do_not():
    for splits in PHRASINGS.values():
        assert all({phrasing.listed for phrasing in phrasings} == {True, False} for phrasings in splits.values())
