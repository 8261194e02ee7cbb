"""Branching: Python runs the code form, a reader of sentences and symbols judges the others; no shortcut, no leak."""

import re
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_surface import aligned, scorable, surface, trained

from activations.models import ModelSpec, load_tokenizer
from probes.tasks.branching import generate as branching
from probes.tasks.branching_words import PHRASINGS, STATES

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


def parse(text: str, form: str) -> tuple[str, list[tuple[list[str], bool]], list[str]]:
    """The stated word, the tests (the words they name, and whether they deny them), and the outcomes, of a text.

    The text goes either test by test, each before its outcome, or outcome by outcome, each before its test; the stated
    word is the last one where it follows all outcomes, else the first.
    """
    states, outcomes, negation = "[a-v]", "[KMSL]", "[≠∉]"
    if form == "prose":
        states = "|".join(state for pool in STATES.values() for state in pool)
        outcomes, negation = "key|map|ship|log", r"\b(not|neither)\b"
    pieces = re.split(rf"\b({outcomes})\b", text)
    between, named = pieces[::2], pieces[1::2]
    found = [re.findall(rf"\b({states})\b", piece) for piece in between]
    denied = [re.search(negation, piece) is not None for piece in between]
    (stated,) = found.pop() if found[-1] else [found[0].pop(0)]
    tests = [(words, denial) for words, denial in zip(found, denied, strict=False) if words]
    assert len(named) == len(set(named)) == 4, text
    assert sorted(len(words) for words, _ in tests) == [1, 2, 2], text
    assert sum(denial for _, denial in tests) == 1, text
    return stated, tests, named


def runs(text: str, form: str) -> int:
    """The index of the branch that runs."""
    stated, tests, _ = parse(text, form)
    return next((i for i, (words, denial) in enumerate(tests) if (stated in words) != denial), 3)


def read(text: str, form: str) -> str:
    """The answer to a text in prose or symbols."""
    return " " + parse(text, form)[2][runs(text, form)]


def label(form):
    (span,) = [span for span in form.spans if span.label is not None]
    return span


def covered(form, role: str) -> list[str]:
    return [form.text[span.start : span.end] for span in form.spans if span.name == role]


@pytest.fixture(scope="module")
def items():
    return branching.generate(1200, 0)


@seeds
@few
def test_python_agrees_with_the_answers_of_the_code_form(seed):
    for item in branching.generate(18, seed):
        form = item.forms["code"]
        assert [word for word in form.candidates if holds(form.text, word)] == [form.answer]
        assert [word for word in form.candidates if holds(form.contrast.text, word)] == [form.contrast.answer]
        assert label(form).label == form.answer


@seeds
@few
def test_a_reader_agrees_with_the_answers_of_prose_and_symbols(seed):
    for item in branching.generate(18, seed):
        for name in ("prose", "formal"):
            form = item.forms[name]
            assert read(form.text, name) == form.answer
            assert read(form.contrast.text, name) == form.contrast.answer
            assert min(runs(form.text, name) + 1, 3) == item.difficulty
        assert item.forms["prose"].answer.strip() == label(item.forms["prose"]).label
        assert item.forms["formal"].answer.strip() == label(item.forms["formal"]).label[0].upper()


def test_every_template_is_right_and_used_in_its_split_only(items):
    seen = {form: {split: set() for split in SPLITS} for form in FORMS}
    for item in items:
        for form, template in zip(FORMS, item.group.split("/"), strict=False):
            seen[form][item.split].add(template)
        assert holds(item.forms["code"].text, item.forms["code"].answer)
        assert read(item.forms["prose"].text, "prose") == item.forms["prose"].answer
        assert read(item.forms["formal"].text, "formal") == item.forms["formal"].answer
    assert seen == {
        form: {split: {p.id for p in pool} for split, pool in pools.items()} for form, pools in PHRASINGS.items()
    }
    for pools in PHRASINGS.values():
        ids = [p.id for pool in pools.values() for p in pool]
        assert len(ids) == len(set(ids))
        assert [len(pools[split]) >= need for split, need in zip(SPLITS, (4, 2, 2), strict=True)] == [True] * 3


def test_forms_share_label_control_and_shape(items):
    for item in items[::5]:
        spans = {(label(form).label, label(form).control) for form in item.forms.values()}
        assert len(spans) == 1
        assert set(item.forms) == set(FORMS)
        for form in item.forms.values():
            assert label(form).end == len(form.text) == label(form).start + 1
            assert len(form.candidates) == len(set(form.candidates)) == 4
            assert form.answer in form.candidates
            assert form.contrast.answer in form.candidates
            assert form.contrast.answer != form.answer
            assert form.answer.strip() in covered(form, "definition")
            assert len(covered(form, "distractor")) == 3
            assert len(covered(form, "query")) == 1
            assert len(form.contrast.text.split()) == len(form.text.split())


def test_the_contrast_changes_nothing_but_the_stated_word(items):
    for item in items[::5]:
        for form in item.forms.values():
            (span,) = [span for span in form.spans if span.name == "stated"]
            rest = form.contrast.text[span.start : len(form.contrast.text) - len(form.text) + span.end]
            assert form.text[: span.start] + rest + form.text[span.end :] == form.contrast.text
            assert re.fullmatch(r"\w+", rest)
            assert rest != form.text[span.start : span.end]


def test_labels_and_difficulties_are_balanced_and_crossed_in_every_split():
    for n_items in (9, 17, 101, 600):
        for split in SPLITS:
            part = [item for item in branching.generate(n_items, 3) if item.split == split]
            for options, found in (
                (("key", "map", "ship", "log"), Counter(label(item.forms["code"]).label for item in part)),
                ((1, 2, 3), Counter(item.difficulty for item in part)),
            ):
                counts = [found[option] for option in options]
                assert max(counts) - min(counts) <= 1
                assert sum(counts) == len(part)
            cells = Counter((label(item.forms["code"]).label, item.difficulty) for item in part)
            assert max(cells.values()) - (min(cells.values()) if len(cells) == 12 else 0) <= 1


def test_difficulty_is_the_number_of_tests_that_python_makes(items):
    lines = set()

    class Watched(str):  # a string that notes on which lines it is compared
        def __eq__(self, other):
            lines.add(sys._getframe(1).f_lineno)
            return str.__eq__(self, other)

        def __ne__(self, other):
            lines.add(sys._getframe(1).f_lineno)
            return str.__ne__(self, other)

        __hash__ = str.__hash__

    chains = [item for item in items if item.group.startswith("elif/")]
    assert len(chains) > 50
    for item in chains:
        stated, rule = item.forms["code"].text.split("\n", 1)
        thing, word = stated.split(" = ")
        lines.clear()
        exec(rule.rsplit("assert", 1)[0], {thing: Watched(word.strip('"'))})
        assert len(lines) == item.difficulty


def test_names_and_stated_words_do_not_leak_between_splits(items):
    groups, words = {}, {split: set() for split in SPLITS}
    for item in items:
        groups.setdefault(item.group, set()).add(item.split)
        words[item.split] |= set(item.group.split("/")[3:])
        assert set(covered(item.forms["prose"], "stated")) <= set(STATES[item.split])
    assert all(len(splits) == 1 for splits in groups.values())
    assert not words["train"] & words["dev"] and not words["train"] & words["test"] and not words["dev"] & words["test"]


def test_no_single_branch_and_not_the_one_that_names_the_stated_word_is_a_good_guess(items):
    guesses = Counter()
    for item in items:
        text = item.forms["prose"].text
        stated, tests, _ = parse(text, "prose")
        naming = [i for i, (words, _) in enumerate(tests) if stated in words]
        guesses.update(branch == runs(text, "prose") for branch in naming[:1])
        guesses.update({f"branch {runs(text, 'prose')}": 1})
    assert guesses[True] / len(items) < 0.5
    assert max(guesses[f"branch {i}"] for i in range(4)) / len(items) < 0.35


@every_form
def test_lengths_do_not_tell_the_label_or_the_difficulty(items, form):
    for key in (lambda item: label(item.forms[form]).label, lambda item: item.difficulty):
        lengths = {}
        for item in items:
            lengths.setdefault(key(item), []).append(len(item.forms[form].text))
        means = [sum(found) / len(found) for found in lengths.values()]
        assert max(means) < 1.04 * min(means)


@every_form
def test_no_surface_baseline_comes_near_the_ceiling(form):
    found = surface(branching.generate(600, 4), form, "value", load_tokenizer(ModelSpec("embedded:code")))
    assert found.majority < 0.3
    assert max(found.bag_of_tokens, found.token, found.position) < found.majority + 0.6 * (1 - found.majority)
    assert max(found.bag_of_tokens, found.token, found.position) < 0.4  # chance is 0.25


@every_form
def test_texts_and_contrasts_have_as_many_tokens_and_candidates_can_be_told_apart(items, form, make_tokenizer):
    texts = [item.forms[form].text for item in items]
    embedded = load_tokenizer(ModelSpec("embedded:code"))
    for tokenizer in (embedded, trained(texts, True), trained(texts, False)):
        assert aligned(items[::4], form, tokenizer) == 1
        assert scorable(items[::4], form, tokenizer) == 1
    for trim in (True, False):
        assert aligned(items[::4], form, make_tokenizer(trim_offsets=trim)) == 1
