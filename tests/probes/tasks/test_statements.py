"""Binding and aliasing: a small reader of the prose form, what the spans name, and no good guess."""

import re
from collections import Counter

import pytest

from probes.tasks import TASKS
from probes.tasks.pools import PEOPLE, VALUES

VALUE = re.compile(rf"\b({'|'.join(VALUES)})\b")
NAMES = {word for words in PEOPLE.values() for word in words}
both = pytest.mark.parametrize("name", ["binding", "aliasing"])


def solve(form: str, text: str) -> str:
    """Read one fact per sentence (a name gets a value, or what another name has) and answer the last sentence."""
    *facts, question = text.split(". ")
    has: dict[str, str] = {}
    for fact in facts:
        words = re.findall(r"\w+", fact)
        names = [word for word in words if word in NAMES]
        values = [word for word in words if word in VALUES]
        assert (len(names), len(values)) in {(1, 1), (2, 0)}, fact
        has[names[0]] = values[0] if values else has[names[1]]
    (asked,) = [word for word in re.findall(r"\w+", question) if word in NAMES]
    return f" {has[asked]}"


@both
def test_spans_name_the_words_they_cover(name):
    for item in TASKS[name].generate(60, 6):
        for form in item.forms.values():
            covered = [(span.name, form.text[span.start : span.end]) for span in form.spans]
            (definition,) = [word for role, word in covered if role == "definition"]
            (asked,) = [word for role, word in covered if role == "query"]
            (target,) = [span for span in form.spans if span.name == "value"]
            values = [word for role, word in covered if role in ("definition", "distractor")]
            assert definition == target.label == form.answer.strip()
            assert values[0] == target.control
            assert sorted(values) == sorted(word for word in re.findall(r"\w+", form.text) if word in VALUES)
            assert form.text.rindex(asked) == next(span.start for span in form.spans if span.name == "query")
            if name == "aliasing":
                aliases = {word for role, word in covered if role == "alias"}
                assert len(aliases) == item.difficulty + 1
                assert asked in aliases


@both
def test_the_contrast_says_a_new_value(name):
    for item in TASKS[name].generate(60, 7):
        for form in item.forms.values():
            other = form.contrast.answer.strip()
            assert other not in re.findall(r"\w+", form.text)
            assert other in re.findall(r"\w+", form.contrast.text)


def test_binding_difficulty_is_the_number_of_changes():
    for item in TASKS["binding"].generate(60, 8):
        assert len(VALUE.findall(item.forms["prose"].text)) == 3 + item.difficulty


def test_neither_the_first_nor_the_last_value_is_a_good_guess():
    for name, chance in (("binding", 0.34), ("aliasing", 0.55)):
        hits = Counter()
        items = TASKS[name].generate(900, 9)
        for item in items:
            stated = VALUE.findall(item.forms["prose"].text)
            hits.update(first=stated[0] == item.forms["prose"].answer.strip())
            hits.update(last=stated[-1] == item.forms["prose"].answer.strip())
        assert max(hits.values()) / len(items) < chance
