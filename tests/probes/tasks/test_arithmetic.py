"""Arithmetic: small readers sum up prose and symbols, running values are right, and no number is a good guess."""

import re
from collections import Counter

import pytest
from task_items import covered, drawn, holds
from task_surface import scorable

from probes.tasks import arithmetic
from probes.tasks.pools import PEOPLE

generate = arithmetic.generate.generate
NAMES = {word for words in PEOPLE.values() for word in words}
FORMS = ("code", "prose", "formal")
STARTS = {"starts", "stands", "holds", "spend", "page", "owes", "row", "feeds"}
PLUS = {"wins", "up", "put", "earns", "reads", "borrows", "behind", "more"}
MINUS = {"loses", "down", "take", "pays", "turns", "returns", "ahead", "less"}
forms = pytest.mark.parametrize("form", FORMS)


def read_prose(text: str) -> list[tuple[str, int, int]]:
    """Name, number and value after it, sentence by sentence (all but the question)."""
    has: dict[str, int] = {}
    told = []
    for sentence in text.split(". ")[:-1]:
        words = re.findall(r"\w+", sentence)
        (name,), (number,) = [w for w in words if w in NAMES], [int(w) for w in words if w.isdigit()]
        start, plus, minus = (bool(cues & set(words)) for cues in (STARTS, PLUS, MINUS))
        assert plus + minus <= 1 and start + plus + minus >= 1, sentence
        # "wins 2 more" may share words with a start, which only the first sentence about a name can be.
        assert (name in has) == (plus or minus), sentence
        has[name] = has[name] + (number if plus else -number) if name in has else number
        told.append((name, number, has[name]))
    return told


def read_formal(text: str) -> list[tuple[str, int, int]]:
    """The same for signs: a stretch up to a digit has a name, perhaps a plus or a minus, and the digit."""
    has: dict[str, int] = {}
    told = []
    for stretch in re.findall(r"[^\d]*\d", re.sub("<-|->", "", text)):
        (name,), number = set(re.findall(r"[a-z]", stretch)), int(stretch[-1])
        sign = 1 if "+" in stretch else -1 if "-" in stretch else None
        assert (name in has) == (sign is not None), stretch
        has[name] = number if sign is None else has[name] + sign * number
        told.append((name, number, has[name]))
    return told


def solve(form: str, text: str) -> str:
    """The value of the name that the question is about."""
    if form == "formal":
        told, asked = read_formal(text), re.findall(r"[a-z]", text)[-1]
    else:
        told, asked = read_prose(text), [word for word in re.findall(r"\w+", text) if word in NAMES][-1]
    return str([value for name, _, value in told if name == asked][-1])


def running(form) -> list[str]:
    return [span.label for span in form.spans if span.name == "running"]


@pytest.fixture(scope="module")
def items():
    return drawn("arithmetic")


def test_python_agrees_with_the_running_values_of_the_code_form(items):
    for item in items[::2]:
        form = item.forms["code"]
        question = form.text[form.text.rindex("assert ") :]
        (asked,) = covered(form, "query")
        assert len(running(form)) == 2 * item.difficulty
        for span in form.spans:
            if span.name == "running":
                ran = form.text[: span.end]
                name = [word for word in re.findall(r"\w+", ran) if word in NAMES][-1]
                then = f"{ran}\n{question.replace(asked, name)}"
                assert [word for word in form.candidates if holds(then, word)] == [span.label]


def test_readers_agree_with_the_running_values_of_the_other_forms(items):
    for item in items:
        for name, read in (("prose", read_prose), ("formal", read_formal)):
            form = item.forms[name]
            seen, after = set(), []
            for who, _, value in read(form.text):
                if who in seen:
                    after.append(str(value))
                seen.add(who)
            assert after == running(form) == running(item.forms["code"])


@forms
def test_spans_name_what_they_cover(items, form):
    for item in items[::10]:
        text = item.forms[form]
        said = [(span.name, text.text[span.start : span.end]) for span in text.spans]
        (asked,) = covered(text, "query")
        digits = [word for role, word in said if role in ("definition", "operand", "distractor")]
        own = [word for role, word in said if role in ("definition", "operand")]
        assert digits == re.findall(r"\d", text.text)
        assert len(own) == 1 + item.difficulty == len(digits) // 2
        assert text.text.rindex(asked) == next(span.start for span in text.spans if span.name == "query")
        assert {span.control for span in text.spans if span.label} == {digits[0]}
        if form != "code":
            read = {"prose": read_prose, "formal": read_formal}[form](text.text)
            assert own == [str(number) for name, number, _ in read if name == asked]


@forms
def test_the_contrast_stays_in_range(items, form):
    for item in items:
        text = item.forms[form]
        (said,) = covered(text, "definition")
        assert len(said) == 1 and len(text.text) == len(text.contrast.text)
        assert text.candidates == tuple("0123456789")
        if form == "prose":
            told = read_prose(text.text) + read_prose(text.contrast.text)
            assert all(0 <= value <= 9 for _, _, value in told)


@pytest.mark.parametrize("n_items", [*range(9, 30), 77, 200])
def test_running_values_are_balanced_at_every_size(n_items):
    items = generate(n_items, n_items)
    for split in ("train", "dev", "test"):
        part = [item for item in items if item.split == split]
        passed = Counter(label for item in part for label in running(item.forms["code"]))
        found = [passed[digit] for digit in "0123456789"]
        assert max(found) - min(found) <= 1


def test_no_single_number_is_a_good_guess(items):
    hits = Counter()
    for item in items:
        told, answer = read_prose(item.forms["prose"].text), int(item.forms["prose"].answer)
        asked = [word for word in re.findall(r"\w+", item.forms["prose"].text) if word in NAMES][-1]
        own = [(number, value) for name, number, value in told if name == asked]
        other = [(number, value) for name, number, value in told if name != asked]
        hits.update(start=own[0][0] == answer, last=own[-1][0] == answer, before=own[-2][1] == answer)
        hits.update(rival=other[-1][1] == answer, said_last=told[-1][2] == answer, started_first=told[0][0] == asked)
    assert hits["rival"] == hits["before"] == 0
    assert 0.44 < hits["said_last"] / len(items) < 0.56
    assert 0.44 < hits["started_first"] / len(items) < 0.56
    assert max(hits[guess] for guess in ("start", "last")) / len(items) < 0.25


@forms
def test_texts_of_one_template_and_difficulty_have_one_length(form):
    lengths = {}
    for item in generate(900, 4):
        text = item.forms[form].text
        key = item.group.split("/")[FORMS.index(form)], item.difficulty
        lengths.setdefault(key, set()).add(len(re.findall(r"\w+", text)))
    assert len(lengths) == 32
    assert all(len(found) == 1 for found in lengths.values())


@forms
def test_answers_differ_in_their_first_token_where_the_tokenizer_has_met_few_digits(items, tokenizer, form):
    assert scorable(items[::3], form, tokenizer) == 1
