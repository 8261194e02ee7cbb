"""Loops: Python runs the code form, a walker with a map judges prose and symbols; no shortcut, no leak."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_surface import aligned, scorable, surface, trained

from activations.models import ModelSpec, load_tokenizer
from probes.tasks.loops import generate as loops
from probes.tasks.loops_words import PHRASINGS, PLACES

FORMS = ("code", "prose", "formal")
SPLITS = ("train", "dev", "test")
every_form = pytest.mark.parametrize("form", FORMS)
seeds = given(seed=st.integers(0, 2**32))
few = settings(max_examples=25, deadline=None, derandomize=True)


def holds(code: str, answer: str) -> bool:
    """Whether Python agrees that the unfinished assertion is completed by ``answer``."""
    try:
        exec(f'{code}{answer}"', {})
    except AssertionError:
        return False
    return True


def walk(text: str) -> str:
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


def label(form):
    (span,) = [span for span in form.spans if span.label is not None]
    return span


def covered(form, role: str) -> list[str]:
    return [form.text[span.start : span.end] for span in form.spans if span.name == role]


@pytest.fixture(scope="module")
def items():
    return loops.generate(1200, 0)


@seeds
@few
def test_python_agrees_with_the_ends_of_the_code_form(seed):
    for item in loops.generate(20, seed):
        form = item.forms["code"]
        assert [word for word in form.candidates if holds(form.text, word)] == [form.answer]
        assert [word for word in form.candidates if holds(form.contrast.text, word)] == [form.contrast.answer]
        assert label(form).label == form.answer


@seeds
@few
def test_a_walker_agrees_with_the_ends_of_prose_and_symbols(seed):
    for item in loops.generate(20, seed):
        for name in ("prose", "formal"):
            form = item.forms[name]
            assert walk(form.text) == form.answer
            assert walk(form.contrast.text) == form.contrast.answer
        assert item.forms["prose"].answer.strip() == label(item.forms["prose"]).label
        assert item.forms["formal"].answer.strip() == label(item.forms["formal"]).label[0].upper()


def test_every_loops_template_is_right_and_used_in_its_split_only(items):
    seen = {form: {split: set() for split in SPLITS} for form in FORMS}
    for item in items:
        for form, template in zip(FORMS, item.group.split("/"), strict=False):
            seen[form][item.split].add(template)
        assert holds(item.forms["code"].text, item.forms["code"].answer)
        assert walk(item.forms["prose"].text) == item.forms["prose"].answer
        assert walk(item.forms["formal"].text) == item.forms["formal"].answer
    assert seen == {
        form: {split: {p.id for p in pool} for split, pool in pools.items()} for form, pools in PHRASINGS.items()
    }
    for pools in PHRASINGS.values():
        ids = [p.id for pool in pools.values() for p in pool]
        assert len(ids) == len(set(ids))
        assert [len(pools[split]) >= need for split, need in zip(SPLITS, (4, 2, 2), strict=True)] == [True] * 3
        assert all({p.listed for p in pools[split]} == {True, False} for split in SPLITS)


def test_loops_forms_share_label_control_and_shape(items):
    for item in items[::5]:
        assert set(item.forms) == set(FORMS)
        assert len({(label(form).label, label(form).control) for form in item.forms.values()}) == 1
        for form in item.forms.values():
            assert label(form).end == len(form.text) == label(form).start + 1
            assert len(form.candidates) == len(set(form.candidates)) == len(PLACES)
            assert {form.answer, form.contrast.answer} <= set(form.candidates)
            assert form.contrast.answer != form.answer
            assert len(covered(form, "query")) == len(covered(form, "start")) == len(covered(form, "steps")) == 1
            assert len(form.contrast.text.split()) == len(form.text.split())
        assert covered(item.forms["code"], "start") == [label(item.forms["code"]).control]
        assert covered(item.forms["code"], "steps") == [str(item.difficulty)]


def test_the_contrast_changes_nothing_but_the_number_of_moves(items):
    numbers = {"one", "two", "three", "four", "1", "2", "3", "4"}
    for item in items[::5]:
        for form in item.forms.values():
            (span,) = [span for span in form.spans if span.name == "steps"]
            other = form.contrast.text[span.start : len(form.contrast.text) - len(form.text) + span.end]
            assert form.text[: span.start] + other + form.text[span.end :] == form.contrast.text
            assert {other, form.text[span.start : span.end]} <= numbers


def test_ends_and_numbers_of_moves_are_balanced_and_crossed_in_every_split():
    for n_items in (9, 17, 101, 600):
        for split in SPLITS:
            part = [item for item in loops.generate(n_items, 3) if item.split == split]
            for options, found in (
                (PLACES, Counter(label(item.forms["code"]).label for item in part)),
                ((1, 2, 3, 4), Counter(item.difficulty for item in part)),
            ):
                counts = [found[option] for option in options]
                assert max(counts) - min(counts) <= 1
                assert sum(counts) == len(part)
            cells = Counter((label(item.forms["code"]).label, item.difficulty) for item in part)
            assert max(cells.values()) - (min(cells.values()) if len(cells) == 20 else 0) <= 1


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


def test_names_and_templates_of_loops_do_not_leak_between_splits(items):
    splits, names = {}, {split: set() for split in SPLITS}
    for item in items:
        splits.setdefault(item.group, set()).add(item.split)
        names[item.split] |= set(covered(item.forms["code"], "query") + covered(item.forms["formal"], "query"))
    assert all(len(found) == 1 for found in splits.values())
    assert not names["train"] & names["dev"] and not names["train"] & names["test"] and not names["dev"] & names["test"]


@every_form
def test_lengths_do_not_tell_the_end_or_the_number_of_moves(items, form):
    for key in (lambda item: label(item.forms[form]).label, lambda item: item.difficulty):
        lengths = {}
        for item in items:
            lengths.setdefault(key(item), []).append(len(item.forms[form].text))
        means = [sum(found) / len(found) for found in lengths.values()]
        assert max(means) < 1.05 * min(means)


@every_form
def test_no_surface_baseline_comes_near_the_ceiling_of_loops(form):
    found = surface(loops.generate(600, 4), form, "value", load_tokenizer(ModelSpec("embedded:code")))
    assert found.majority < 0.25
    assert max(found.bag_of_tokens, found.token, found.position) < found.majority + 0.6 * (1 - found.majority)
    assert max(found.bag_of_tokens, found.token, found.position) < 0.38  # at best 0.25: not the start


@every_form
def test_texts_and_contrasts_of_loops_have_as_many_tokens(items, form, make_tokenizer):
    texts = [item.forms[form].text for item in items]
    embedded = load_tokenizer(ModelSpec("embedded:code"))
    for tokenizer in (embedded, trained(texts, True), trained(texts, False)):
        assert aligned(items[::4], form, tokenizer) == 1
        assert scorable(items[::4], form, tokenizer) == 1
    for trim in (True, False):  # so small that it cuts " three" and " four" into unequally many
        assert aligned(items[::4], form, make_tokenizer(trim_offsets=trim)) > (0.4 if form == "prose" else 0.99)
