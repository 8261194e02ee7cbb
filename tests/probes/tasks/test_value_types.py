"""Types: Python runs the code form, a small reader follows the prose form, and the surface gives little away."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_surface import aligned, scorable, surface

from activations.errors import TwinprobeError
from activations.models import ModelSpec, load_tokenizer
from probes.tasks import value_types, value_types_words

generate = value_types.generate.generate
SPLITS = ("train", "dev", "test")
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
seeds = given(seed=st.integers(0, 2**32))
few = settings(max_examples=15, deadline=None, derandomize=True)


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


@seeds
@few
def test_python_agrees_with_the_answers_of_the_code_form(seed):
    for item in generate(18, seed):
        form = item.forms["code"]
        assert [kind for kind in form.candidates if holds(form.text, kind)] == [form.answer]
        assert [kind for kind in form.candidates if holds(form.contrast.text, kind)] == [form.contrast.answer]


@seeds
@few
def test_a_reader_agrees_with_the_answers_and_difficulties_of_the_prose_form(seed):
    for item in generate(18, seed):
        form = item.forms["prose"]
        kind, copies = read(form.text)
        assert (f" {kind}", copies) == (form.answer, item.difficulty)
        assert f" {read(form.contrast.text)[0]}" == form.contrast.answer


def test_every_template_is_right():
    seen = {form: {split: set() for split in SPLITS} for form in ("code", "prose")}
    for item in generate(400, 5):
        for form, template in zip(("code", "prose"), item.group.split("/"), strict=False):
            seen[form][item.split].add(template)
        assert holds(item.forms["code"].text, item.forms["code"].answer)
        assert f" {read(item.forms['prose'].text)[0]}" == item.forms["prose"].answer
    for form, splits in value_types_words.PHRASINGS.items():
        assert seen[form] == {split: {p.id for p in phrasings} for split, phrasings in splits.items()}
        assert [len(seen[form][split]) for split in SPLITS] == [4, 2, 2]
        assert len(set.union(*seen[form].values())) == 8


def test_both_forms_have_the_same_label_control_and_answer(items):
    for item in items:
        code, prose = (item.forms[form] for form in ("code", "prose"))
        assert span(code, "type").label == span(prose, "type").label == code.answer
        assert span(code, "type").control == span(prose, "type").control
        assert prose.answer == f" {code.answer}"
        assert prose.contrast.answer == f" {code.contrast.answer}"


@forms
def test_labels_and_difficulties_are_balanced_and_crossed_in_every_split(items, form):
    for split in SPLITS:
        cells = [(span(i.forms[form], "type").label, i.difficulty) for i in items if i.split == split]
        for counts in (Counter(label for label, _ in cells), Counter(hops for _, hops in cells)):
            assert max(counts.values()) - min(counts.values()) <= 1
        assert len(set(cells)) == 12
        assert max(Counter(cells).values()) - min(Counter(cells).values()) <= 1


@forms
def test_the_contrast_exchanges_one_name_for_an_earlier_one_in_a_copy(items, form):
    for item in items:
        shown = item.forms[form]
        source = span(shown, "source")
        twin = shown.contrast.text
        other = twin[source.start : source.end + len(twin) - len(shown.text)]
        assert shown.text[: source.start] + other + shown.text[source.end :] == twin
        assert other in re.findall(r"\w+", shown.text[: source.start])
        assert len(twin.split()) == len(shown.text.split())
        assert set(shown.candidates) >= {shown.answer, shown.contrast.answer}
        assert shown.answer != shown.contrast.answer
        assert len(set(shown.candidates)) == 4


@forms
def test_spans_name_the_maker_of_the_value_and_the_name_asked_for(items, form):
    for item in items[::5]:
        shown = item.forms[form]
        target, made, asked = (span(shown, name) for name in ("type", "definition", "query"))
        words = {name: shown.text[s.start : s.end] for name, s in (("made", made), ("asked", asked))}
        assert set(words.values()) <= NAMES
        assert target.start == target.end - 1 == len(shown.text) - 1
        assert shown.text.rindex(words["asked"]) == asked.start
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


def test_names_do_not_leak_across_splits_and_no_group_lies_in_two(items):
    pools = [set(value_types_words.SPEAKERS[split]) for split in SPLITS]
    assert len(set.union(*pools)) == sum(map(len, pools))
    groups = {}
    for item in items:
        groups.setdefault(item.group, set()).add(item.split)
        for shown in item.forms.values():
            assert set(re.findall(r"\w+", shown.text)) & NAMES <= set(value_types_words.SPEAKERS[item.split])
    assert all(len(splits) == 1 for splits in groups.values())


@forms
def test_text_lengths_do_not_depend_on_the_label(items, form):
    lengths = {kind: [] for kind in KINDS}
    for item in items:
        lengths[item.forms[form].answer.strip()].append(len(re.findall(r"\w+|[^\w\s]", item.forms[form].text)))
    means = [sum(found) / len(found) for found in lengths.values()]
    assert max(means) < 1.05 * min(means)


@forms
def test_the_surface_stays_near_the_majority(items, embedded, form):
    found = surface(items, form, "type", embedded)
    assert max(found.bag_of_tokens, found.token, found.position) < found.majority + 0.15


@forms
def test_contrasts_align_in_tokens(items, embedded, make_tokenizer, form):
    assert aligned(items, form, embedded) == 1
    assert scorable(items, form, embedded) == 1
    for trim in (True, False):
        assert aligned(items, form, make_tokenizer(trim_offsets=trim)) > 0.85


def test_the_same_arguments_give_the_same_items_and_another_seed_others():
    assert generate(60, 3) == generate(60, 3)
    texts = [{item.forms["code"].text for item in generate(90, seed)} for seed in (0, 1)]
    assert not texts[0] & texts[1]


def test_too_few_items_are_refused_in_one_line():
    with pytest.raises(TwinprobeError, match=r"^task 'types': 3 items asked for.*at least 9") as caught:
        generate(3, 0)
    assert "\n" not in str(caught.value)
