"""Scope: a small reader follows the tales and the brackets, and shortcuts stay closed."""

import re
from collections import Counter

import pytest
from task_items import covered, drawn, target

from probes.tasks import scope
from probes.tasks.pools import PEOPLE

NAMES = {word for words in PEOPLE.values() for word in words}
VALUES = set(scope.VALUES)
forms = pytest.mark.parametrize("form", ["code", "prose", "formal"])

Definition = tuple[str, str, str]  # the teller of the scope, the name, its value


@pytest.fixture(scope="module")
def items():
    return drawn("scope")


def read(text: str) -> tuple[list[Definition], str, str]:
    """The definitions from the outermost scope inwards, and the teller and the name that are asked for.

    Of the names and values of a text, in order, three in a row open the outermost scope (teller, name, value), another
    pair follows, then three for each inner one; what is left is the question.
    """
    words = [word for word in re.findall(r"\w+", text) if word in NAMES | VALUES]
    assert [word in VALUES for word in words[:5]] == [False, False, True, False, True], text
    found = [(words[0], words[1], words[2]), (words[0], words[3], words[4])]
    rest = words[5:]
    while len(rest) > 2:
        teller, name, value, *rest = rest
        assert value in VALUES and not {teller, name} & VALUES, text
        found.append((teller, name, value))
    teller, name = rest
    return found, teller, name


def value_and_depth(text: str) -> tuple[str, int]:
    """The value of the name asked for where it is asked for, and how many scopes lie in the outermost one."""
    definitions, teller, name = read(text)
    tellers = list(dict.fromkeys(found for found, _, _ in definitions))
    seen = tellers[: tellers.index(teller) + 1]
    *_, value = [value for where, defined, value in definitions if where in seen and defined == name]
    return value, len(tellers) - 1


def solve(form: str, text: str) -> str:
    """The answer to a text in prose or symbols."""
    return f" {value_and_depth(text)[0]}"


@pytest.mark.parametrize("form", ["prose", "formal"])
def test_difficulty_is_the_number_of_inner_scopes(items, form):
    assert all(value_and_depth(item.forms[form].text)[1] == item.difficulty for item in items)


def test_brackets_of_the_formal_form_are_closed_before_the_question(items):
    for item in items:
        text = item.forms["formal"].text
        for pair in ("()", "[]", "{}"):
            assert text.count(pair[0]) == text.count(pair[1])
        opened = max(text.count(sign) for sign in "([{") or text.count("< /")
        assert opened == item.difficulty + 1


def test_functions_and_expressions_nest_as_deep_as_the_difficulty(items):
    for item in items:
        text = item.forms["code"].text
        scopes = len(re.findall(r"def |lambda| for ", text))
        assert scopes == item.difficulty


def test_the_control_key_is_the_value_said_first_and_all_forms_have_the_same_answers(items):
    for item in items:
        code = item.forms["code"]
        for form in ("prose", "formal"):
            other = item.forms[form]
            assert target(other).control == read(other.text)[0][0][2]
            assert other.contrast.answer == f" {code.contrast.answer}"
            assert other.candidates == tuple(f" {word}" for word in code.candidates)


@forms
def test_the_contrast_says_a_new_value_in_place_of_the_settling_one(items, form):
    for item in items:
        shown = item.forms[form]
        assert covered(shown, "definition") == [shown.answer.strip()]
        assert shown.contrast.answer.strip() not in re.findall(r"\w+", shown.text)
        assert shown.contrast.answer.strip() in re.findall(r"\w+", shown.contrast.text)
        assert len(shown.candidates) == item.difficulty + 3


@forms
def test_spans_cover_every_value_once_and_the_name_that_is_read(items, form):
    for item in items:
        shown = item.forms[form]
        _, teller, name = read(item.forms["prose"].text)
        values = covered(shown, "definition") + covered(shown, "distractor")
        assert sorted(values) == sorted(word for word in re.findall(r"\w+", shown.text) if word in VALUES)
        assert len(set(values)) == item.difficulty + 2
        assert covered(shown, "query") == [name]
        assert covered(shown, "scope") == ([] if form == "code" else [teller])


def test_the_name_asked_for_has_several_definitions_and_neither_the_last_nor_the_first_is_a_good_guess(items):
    hits = Counter()
    for item in items:
        definitions, _, name = read(item.forms["prose"].text)
        own = [value for _, defined, value in definitions if defined == name]
        answer = item.forms["code"].answer
        assert len(own) > 1
        hits.update(last=own[-1] == answer, first=own[0] == answer, latest=definitions[-1][2] == answer)
    assert max(hits.values()) < 0.5 * len(items)
