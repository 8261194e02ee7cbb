"""Induction: a reader that only matches what was said before, and guesses that must fail."""

import re
from collections import Counter

import pytest
from task_items import covered, drawn, target

from probes.tasks.induction import NAMES
from probes.tasks.pools import VALUES

NAME = re.compile(rf" ({'|'.join(NAMES)})\b")
forms = pytest.mark.parametrize("form", ["code", "prose"])


def common_end(one: str, two: str) -> int:
    """How many last characters of two texts are the same."""
    return next(
        (i for i, (a, b) in enumerate(zip(one[::-1], two[::-1], strict=False)) if a != b), min(len(one), len(two))
    )


def solve(form: str, text: str) -> str:
    """The name behind the longest earlier copy of the end of the text."""
    return max(NAME.finditer(text), key=lambda found: common_end(text[: found.start()], text)).group()


@forms
def test_the_text_ends_in_a_copy_of_what_came_before_its_answer(form):
    for item in drawn("induction"):
        rendered = item.forms[form]
        (definition,) = [span for span in rendered.spans if span.name == "definition"]
        (key,) = covered(rendered, "key")
        assert covered(rendered, "query") == [key]
        assert rendered.text.count(key) == 2
        start = rendered.text.rindex(key) - rendered.text.index(key)
        copied = rendered.text[rendered.text.index(key) : definition.start - 1]
        assert rendered.text[rendered.text.index(key) + start :] == copied
        assert covered(rendered, "definition") == [rendered.answer.strip()] == [target(rendered).label]


@forms
def test_the_difficulty_is_the_number_of_names_and_each_is_said_once(form):
    for item in drawn("induction"):
        said = [name.strip() for name in NAME.findall(item.forms[form].text)]
        assert len(said) == len(set(said)) == item.difficulty
        assert target(item.forms[form]).control in VALUES
        assert len(item.forms[form].candidates) == item.difficulty + 1


def test_neither_the_first_nor_the_last_name_is_a_good_guess():
    hits, items = Counter(), [item for item in drawn("induction", 1800) if item.difficulty > 1]
    for item in items:
        said = NAME.findall(item.forms["prose"].text)
        hits.update(first=said[0] in item.forms["prose"].answer, last=said[-1] in item.forms["prose"].answer)
    assert max(hits.values()) / len(items) < 0.48
