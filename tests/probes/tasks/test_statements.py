"""Binding and aliasing: Python itself runs the code form, a small solver reads the prose form."""

import importlib
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from probes.tasks import TASKS
from probes.tasks.pools import PEOPLE, VALUES

VALUE = re.compile(rf"\b({'|'.join(VALUES)})\b")
NAMES = {word for words in PEOPLE.values() for word in words}
both = pytest.mark.parametrize("name", ["binding", "aliasing"])
seeds = given(seed=st.integers(0, 2**32))
few = settings(max_examples=25, deadline=None, derandomize=True)


def holds(code: str, answer: str) -> bool:
    """Whether Python agrees that the unfinished assertion is completed by ``answer``."""
    try:
        exec(f'{code}{answer}"', {})
    except AssertionError:
        return False
    return True


def solve(prose: str) -> str:
    """Read one fact per sentence (a name gets a value, or what another name has) and answer the last sentence."""
    *facts, question = prose.split(". ")
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
@seeds
@few
def test_python_agrees_with_the_answers_of_the_code_form(name, seed):
    for item in TASKS[name].generate(18, seed):
        form = item.forms["code"]
        assert [word for word in form.candidates if holds(form.text, word)] == [form.answer]
        assert [word for word in form.candidates if holds(form.contrast.text, word)] == [form.contrast.answer]


@both
@seeds
@few
def test_a_reader_agrees_with_the_answers_of_the_prose_form(name, seed):
    for item in TASKS[name].generate(18, seed):
        form = item.forms["prose"]
        assert solve(form.text) == form.answer
        assert solve(form.contrast.text) == form.contrast.answer


@both
def test_every_template_is_right(name):
    seen = {form: set() for form in ("code", "prose")}
    for item in TASKS[name].generate(400, 5):
        for form, template in zip(("code", "prose"), item.group.split("/"), strict=False):
            seen[form].add(template)
        assert holds(item.forms["code"].text, item.forms["code"].answer)
        assert solve(item.forms["prose"].text) == item.forms["prose"].answer
    module = importlib.import_module(f"probes.tasks.{name}")
    assert seen == {form: {p.id for ps in splits.values() for p in ps} for form, splits in module.PHRASINGS.items()}


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
def test_the_contrast_changes_nothing_but_the_settling_value(name):
    for item in TASKS[name].generate(60, 7):
        for form in item.forms.values():
            (span,) = [span for span in form.spans if span.name == "definition"]
            other = form.contrast.answer.strip()
            assert other not in re.findall(r"\w+", form.text)
            assert form.text[: span.start] + other + form.text[span.end :] == form.contrast.text


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


@both
@pytest.mark.parametrize("form", ["code", "prose"])
def test_a_bag_of_words_stays_below_60_percent_of_the_gap(name, form):
    items = TASKS[name].generate(1800, 10)
    bag = CountVectorizer(token_pattern=r"\w+|[^\w\s]")
    rows = {split: [i.forms[form] for i in items if i.split == split] for split in ("train", "test")}
    x = {split: bag.fit_transform(t) if split == "train" else bag.transform(t)
         for split, forms in rows.items() for t in [[f.text for f in forms]]}  # fmt: skip
    y = {split: [f.answer for f in forms] for split, forms in rows.items()}
    score = LogisticRegression(C=0.1, max_iter=500).fit(x["train"], y["train"]).score(x["test"], y["test"])
    assert score < 1 / 8 + 0.6 * (7 / 8)
