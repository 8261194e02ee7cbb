"""Types: a small reader follows the prose form, and neither literals nor words give the type away."""

import re
from collections import Counter

import pytest
from task_items import covered, drawn

from probes.tasks import value_types_words

KINDS = {"number", "text", "list", "answer"}
NAMES = {word for words in value_types_words.SPEAKERS.values() for word in words}
MADE = {
    "number": r"\b(length|size) of\b",
    "text": r"\b(spelling|wording) of\b",
    "list": r"\b(parts of|letters in)\b",
    "answer": r"\bwhether\b",
}
SAID = {
    "number": r"\b(two|three|four|five|six|seven|eight|nine)$",
    "text": r'"\w+"$',
    "list": r"\w+ and \w+$",
    "answer": r"\b(yes|no)$",
}
forms = pytest.mark.parametrize("form", ["code", "prose"])


@pytest.fixture(scope="module")
def items():
    return drawn("types")


def kind_of(clause: str, cues: dict[str, str]) -> str | None:
    """The one type whose cue is in the clause, or none."""
    found = [kind for kind, cue in cues.items() if re.search(cue, clause)]
    assert len(found) < 2, clause
    return found[0] if found else None


def read(prose: str) -> tuple[str, int]:
    """Type of what the question asks for, and how many copies it is away from where it was made."""
    *facts, question = prose.split(". ")
    has: dict[str, tuple[str, int]] = {}
    for fact in facts:
        name, *rest = [word for word in re.findall(r"\w+", fact) if word in NAMES]
        assert name not in has and len(rest) < 2, fact
        if not rest:
            kind = kind_of(fact, SAID)
            assert kind, fact
            has[name] = kind, 0
        else:
            kind, copies = has[rest[0]]
            made = kind_of(fact, MADE)
            has[name] = (made, 0) if made else (kind, copies + 1)
    (asked,) = [word for word in re.findall(r"\w+", question) if word in NAMES]
    return has[asked]


def span(form, name):
    return next(span for span in form.spans if span.name == name)


def maker(form) -> str:
    """The sentence of a prose form that the definition lies in."""
    at = span(form, "definition").start
    return form.text[form.text.rfind(". ", 0, at) + 1 : form.text.index(". ", at)]


def solve(form: str, text: str) -> str:
    """The answer to a text in prose."""
    return f" {read(text)[0]}"


def test_difficulty_is_the_number_of_copies(items):
    assert all(read(item.forms["prose"].text)[1] == item.difficulty for item in items)


@forms
def test_the_contrast_exchanges_one_name_for_an_earlier_one_in_a_copy(items, form):
    for item in items:
        shown = item.forms[form]
        source, twin = span(shown, "source"), shown.contrast.text
        other = twin[source.start : source.end + len(twin) - len(shown.text)]
        assert other in re.findall(r"\w+", shown.text[: source.start])
        assert len(shown.candidates) == 4


@forms
def test_spans_name_the_maker_of_the_value_and_the_name_asked_for(items, form):
    for item in items[::5]:
        shown = item.forms[form]
        (made,), (asked,) = covered(shown, "definition"), covered(shown, "query")
        assert {made, asked} <= NAMES
        assert shown.text.rindex(asked) == span(shown, "query").start
        if form == "prose":  # the sentence about the maker says a value of the type, or makes one
            assert f" {kind_of(maker(shown), MADE) or kind_of(maker(shown), SAID)}" == shown.answer


def test_prose_never_says_the_name_of_a_type_and_code_says_each_once(items):
    for item in items:
        assert not {*KINDS, "numbers", "lists"} & set(re.findall(r"\w+", item.forms["prose"].text.lower()))
        said = Counter(re.findall(r'"(\w+)"', item.forms["code"].text))
        assert [said[kind] for kind in KINDS] == [1] * 4


def test_a_literal_settles_as_often_as_a_conversion_whatever_the_label(items):
    for kind in KINDS:
        made = Counter()
        for item in items:
            shown = item.forms["prose"]
            if shown.answer == f" {kind}":
                made[kind_of(maker(shown), MADE) is None] += 1
        assert 0.4 < made[True] / made.total() < 0.6
