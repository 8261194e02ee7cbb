"""Scope: Python runs the code form, small readers follow the tales and the brackets, and shortcuts stay closed."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_surface import aligned, scorable, surface

from activations.errors import TwinprobeError
from activations.models import ModelSpec, load_tokenizer
from probes.tasks import scope, scope_words
from probes.tasks.pools import PEOPLE

generate = scope.generate.generate
SPLITS = ("train", "dev", "test")
FORMS = ("code", "prose", "formal")
NAMES = {word for words in PEOPLE.values() for word in words}
VALUES = set(scope.VALUES)
forms = pytest.mark.parametrize("form", FORMS)
seeds = given(seed=st.integers(0, 2**32))
few = settings(max_examples=15, deadline=None, derandomize=True)

Definition = tuple[str, str, str]  # the teller of the scope, the name, its value


@pytest.fixture(scope="module")
def items():
    return generate(600, 0)


@pytest.fixture(scope="module")
def embedded():
    return load_tokenizer(ModelSpec("embedded:code"))


def holds(code: str, answer: str) -> bool:
    """Whether Python agrees that the unfinished assertion is completed by ``answer``."""
    try:
        exec(f'{code}{answer}"', {})
    except AssertionError:
        return False
    return True


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


def solve(text: str) -> tuple[str, int]:
    """The value of the name asked for where it is asked for, and how many scopes lie in the outermost one."""
    definitions, teller, name = read(text)
    tellers = list(dict.fromkeys(found for found, _, _ in definitions))
    seen = tellers[: tellers.index(teller) + 1]
    *_, value = [value for where, defined, value in definitions if where in seen and defined == name]
    return value, len(tellers) - 1


def span(form, name):
    return next(span for span in form.spans if span.name == name)


@seeds
@few
def test_python_agrees_with_the_answers_of_the_code_form(seed):
    for item in generate(18, seed):
        form = item.forms["code"]
        assert [word for word in form.candidates if holds(form.text, word)] == [form.answer]
        assert [word for word in form.candidates if holds(form.contrast.text, word)] == [form.contrast.answer]


@pytest.mark.parametrize("name", ["prose", "formal"])
@seeds
@few
def test_a_reader_agrees_with_the_answers_and_depths_of_the_other_forms(name, seed):
    for item in generate(18, seed):
        form = item.forms[name]
        value, depth = solve(form.text)
        assert (f" {value}", depth) == (form.answer, item.difficulty)
        assert f" {solve(form.contrast.text)[0]}" == form.contrast.answer


def test_every_template_is_right():
    seen = {form: {split: set() for split in SPLITS} for form in FORMS}
    for item in generate(500, 5):
        for form, template in zip(FORMS, item.group.split("/"), strict=False):
            seen[form][item.split].add(template)
        assert holds(item.forms["code"].text, item.forms["code"].answer)
        assert all(f" {solve(item.forms[form].text)[0]}" == item.forms[form].answer for form in ("prose", "formal"))
    for form, splits in {"code": scope_words.CODE, **scope_words.TOLD}.items():
        assert seen[form] == {split: {p.id for p in phrasings} for split, phrasings in splits.items()}
        assert [len(seen[form][split]) for split in SPLITS] == [4, 2, 2]
        assert len(set.union(*seen[form].values())) == 8


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


def test_all_forms_have_the_same_label_control_and_answer(items):
    for item in items:
        code = item.forms["code"]
        for form in ("prose", "formal"):
            other = item.forms[form]
            assert span(other, "value").label == span(code, "value").label == code.answer
            assert span(other, "value").control == span(code, "value").control == read(other.text)[0][0][2]
            assert other.answer == f" {code.answer}"
            assert other.contrast.answer == f" {code.contrast.answer}"
            assert other.candidates == tuple(f" {word}" for word in code.candidates)


@forms
def test_labels_and_difficulties_are_balanced_and_crossed_in_every_split(items, form):
    for split in SPLITS:
        cells = [(span(i.forms[form], "value").label, i.difficulty) for i in items if i.split == split]
        for counts in (Counter(label for label, _ in cells), Counter(depth for _, depth in cells)):
            assert max(counts.values()) - min(counts.values()) <= 1
        assert len(set(cells)) == 24
        assert max(Counter(cells).values()) - min(Counter(cells).values()) <= 1


@forms
def test_the_contrast_changes_nothing_but_the_settling_value(items, form):
    for item in items:
        shown = item.forms[form]
        at, other = span(shown, "definition"), shown.contrast.answer.strip()
        assert shown.text[at.start : at.end] == shown.answer.strip() == span(shown, "value").label
        assert other not in re.findall(r"\w+", shown.text)
        assert shown.text[: at.start] + other + shown.text[at.end :] == shown.contrast.text
        assert len(set(shown.candidates)) == len(shown.candidates) == item.difficulty + 3
        assert {shown.answer, shown.contrast.answer} <= set(shown.candidates)


@forms
def test_spans_cover_every_value_once_and_the_name_that_is_read(items, form):
    for item in items:
        shown = item.forms[form]
        _, teller, name = read(item.forms["prose"].text)
        covered = [(s.name, shown.text[s.start : s.end]) for s in shown.spans]
        values = [word for role, word in covered if role in ("definition", "distractor")]
        assert sorted(values) == sorted(word for word in re.findall(r"\w+", shown.text) if word in VALUES)
        assert len(set(values)) == item.difficulty + 2
        assert [word for role, word in covered if role == "query"] == [name]
        assert [word for role, word in covered if role == "scope"] == ([] if form == "code" else [teller])
        target = span(shown, "value")
        assert target.start == target.end - 1 == len(shown.text) - 1


def test_the_name_asked_for_has_several_definitions_and_neither_the_last_nor_the_first_is_a_good_guess(items):
    hits = Counter()
    for item in items:
        definitions, _, name = read(item.forms["prose"].text)
        own = [value for _, defined, value in definitions if defined == name]
        answer = item.forms["code"].answer
        assert len(own) > 1
        hits.update(last=own[-1] == answer, first=own[0] == answer, latest=definitions[-1][2] == answer)
    assert max(hits.values()) < 0.5 * len(items)


def test_names_do_not_leak_across_splits_and_no_group_lies_in_two(items):
    groups = {}
    for item in items:
        groups.setdefault(item.group, set()).add(item.split)
        for shown in item.forms.values():
            assert set(re.findall(r"\w+", shown.text)) & NAMES <= set(PEOPLE[item.split])
    assert all(len(splits) == 1 for splits in groups.values())


@forms
def test_text_lengths_do_not_depend_on_the_label(items, form):
    lengths = {value: [] for value in VALUES}
    for item in items:
        lengths[item.forms[form].answer.strip()].append(len(re.findall(r"\w+|[^\w\s]", item.forms[form].text)))
    means = [sum(found) / len(found) for found in lengths.values()]
    assert max(means) < 1.12 * min(means)


@forms
def test_the_surface_stays_far_below_60_percent_of_the_gap(items, embedded, form):
    found = surface(items, form, "value", embedded)
    assert max(found.token, found.position) < found.majority + 0.1
    assert found.bag_of_tokens < found.majority + 0.25 * (1 - found.majority)


@forms
def test_contrasts_align_in_tokens(items, embedded, make_tokenizer, form):
    assert aligned(items, form, embedded) == 1
    assert scorable(items, form, embedded) == 1
    for trim in (True, False):
        assert aligned(items[:100], form, make_tokenizer(trim_offsets=trim)) == 1


def test_the_same_arguments_give_the_same_items_and_another_seed_others():
    assert generate(60, 3) == generate(60, 3)
    texts = [{item.forms["code"].text for item in generate(90, seed)} for seed in (0, 1)]
    assert len(texts[0] & texts[1]) < 3


def test_too_few_items_are_refused_in_one_line():
    with pytest.raises(TwinprobeError, match=r"^task 'scope': 3 items asked for.*at least 9") as caught:
        generate(3, 0)
    assert "\n" not in str(caught.value)
