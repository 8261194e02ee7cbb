"""Branching: a reader of sentences and symbols judges the branches, and none of them is a good guess."""

import re
import sys
from collections import Counter

import pytest
from task_items import covered, drawn, target

from probes.tasks.branching_words import STATES


def parse(text: str, form: str) -> tuple[str, list[tuple[list[str], bool]], list[str]]:
    """The stated word, the tests (the words they name, and whether they deny them), and the outcomes, of a text.

    The text goes either test by test, each before its outcome, or outcome by outcome, each before its test; the stated
    word is the last one where it follows all outcomes, else the first.
    """
    states, outcomes, negation = "[a-v]", "[KMFL]", "[≠∉]"
    if form == "prose":
        states = "|".join(state for pool in STATES.values() for state in pool)
        outcomes, negation = "key|map|file|log", r"\b(not|neither)\b"
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


def solve(form: str, text: str) -> str:
    """The answer to a text in prose or symbols."""
    return " " + parse(text, form)[2][runs(text, form)]


@pytest.fixture(scope="module")
def items():
    return drawn("branching", 1200)


def test_difficulty_is_the_number_of_branches_to_judge(items):
    for item in items:
        for name in ("prose", "formal"):
            form = item.forms[name]
            assert min(runs(form.text, name) + 1, 3) == item.difficulty
        assert item.forms["formal"].answer.strip() == target(item.forms["formal"]).label[0].upper()


def test_spans_name_the_outcomes(items):
    for item in items[::5]:
        for form in item.forms.values():
            assert len(form.candidates) == 4
            assert form.answer.strip() in covered(form, "definition")
            assert len(covered(form, "distractor")) == 3
            assert len(covered(form, "query")) == 1


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


def test_every_split_states_words_of_its_own(items):
    for item in items:
        assert set(covered(item.forms["prose"], "stated")) <= set(STATES[item.split])


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
