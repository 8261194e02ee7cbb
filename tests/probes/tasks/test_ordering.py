"""Ordering: a solver that tries every order reads prose and symbols, and only a second hop tells the rank."""

import itertools
import re
from collections import Counter

import pytest
from task_items import covered, drawn, target

from probes.tasks.ordering import PHRASINGS, RANKS, generate
from probes.tasks.pools import PEOPLE, VALUES

NAMES = {name for names in PEOPLE.values() for name in names}
FIRST_BEFORE_SECOND = {
    "above": True, "below": False, "more": True, "less": False, "nearer": True, "farther": False, "warmer": True,
    "colder": False, "before": True, "after": False, "over": True, "under": False, "greater": True, "lesser": False,
    "up": True, "down": False, ">": True, "<": False,
}  # fmt: skip
every_form = pytest.mark.parametrize("form", ["code", "prose", "formal"])


def read_prose(text: str) -> tuple[list[tuple[str, str]], str]:
    """The facts as pairs (before, after), and who is asked for."""
    _, *facts, question = text.split(". ")
    pairs = []
    for fact in facts:
        words = fact.split()
        one, two = (word for word in words if word in NAMES)
        (relation,) = (word for word in words if word in FIRST_BEFORE_SECOND)
        pairs.append((one, two) if FIRST_BEFORE_SECOND[relation] else (two, one))
    (asked,) = (word for word in re.findall(r"\w+", question) if word in NAMES)
    return pairs, asked


def read_formal(text: str) -> tuple[list[tuple[str, str]], str]:
    """The same of the bare symbols: after the scale, two names and a sign make a fact, the last name is asked for."""
    facts = text.split("first > second > third > last")[1].replace("=>", "").replace("->", "")
    *said, asked = (word for word in re.findall(r"\w+|[<>]", facts))
    pairs = []
    for triple in zip(*[iter(said)] * 3, strict=True):
        one, two = (word for word in triple if word in NAMES)
        (sign,) = set(triple) - {one, two}
        pairs.append((one, two) if FIRST_BEFORE_SECOND[sign] else (two, one))
    return pairs, asked


READERS = {"prose": read_prose, "formal": read_formal}


def possible_ranks(pairs: list[tuple[str, str]], asked: str) -> set[str]:
    """The ranks of ``asked`` in all orders of the people named that agree with every pair."""
    people = sorted({name for pair in pairs for name in pair} | {asked})
    return {
        RANKS[order.index(asked)]
        for order in itertools.permutations(people)
        if all(order.index(one) < order.index(two) for one, two in pairs)
    }


def solve(form: str, text: str) -> str:
    """The one rank that every order allows, in prose or symbols."""
    (rank,) = possible_ranks(*READERS[form](text))
    return f" {rank}"


@pytest.fixture(scope="module")
def items():
    return drawn("ordering")


def test_the_three_forms_state_the_same_facts_in_the_same_order(items):
    for item in items:
        assert read_prose(item.forms["prose"].text) == read_formal(item.forms["formal"].text)
        code = [word for word in re.findall(r"\w+", item.forms["code"].text) if word in NAMES]
        stated, asked = read_prose(item.forms["prose"].text)
        assert code[-1] == asked
        said = [word for word in re.findall(r"\w+", item.forms["prose"].text) if word in NAMES][:-1]
        assert "/".join(said) in "/".join(code)
        assert len(stated) == len(said) / 2 == item.difficulty


@every_form
def test_length_and_number_of_mentions_do_not_depend_on_the_rank(items, form):
    shapes = {}
    for item in items:
        text = item.forms[form].text
        (asked,) = covered(item.forms[form], "query")
        people = Counter(word for word in re.findall(r"\w+", text) if word in NAMES)
        key = item.difficulty, item.group.split("/")[list(PHRASINGS).index(form)]
        shape = len(re.findall(r"\w+|[^\w\s]", text)), tuple(sorted(people.values())), people[asked]
        shapes.setdefault(key, set()).add(shape)
    assert all(len(found) == 1 for found in shapes.values())


def test_only_a_second_hop_tells_the_second_rank_from_the_third_from_four_facts_on(items):
    for item in items:
        pairs, asked = read_prose(item.forms["prose"].text)
        everybody = sorted({name for pair in pairs for name in pair})
        near = [pair for pair in pairs if asked in pair]
        orders = [
            order
            for order in itertools.permutations(everybody)
            if all(order.index(one) < order.index(two) for one, two in near)
        ]
        ranks = {RANKS[order.index(asked)] for order in orders}
        if item.difficulty == 3:
            assert ranks == {target(item.forms["prose"]).label}
        elif target(item.forms["prose"]).label in ("second", "third"):
            assert ranks == {"second", "third"}


def test_both_directions_of_the_relation_are_said_equally_often_at_every_rank():
    said = {rank: Counter() for rank in RANKS}
    for item in generate.generate(1800, 1):
        form = item.forms["formal"]
        said[target(form).label].update(
            form.text[s.start : s.end] for s in form.spans if s.name in ("definition", "distractor")
        )
    assert all(0.45 < counts["<"] / counts.total() < 0.55 for counts in said.values())


def test_the_contrast_moves_the_rank_by_one_place(items):
    for item in items:
        for form in item.forms.values():
            assert abs(RANKS.index(form.answer.strip()) - RANKS.index(form.contrast.answer.strip())) == 1
            assert len(form.candidates) == 4


def test_spans_name_the_words_they_cover(items):
    for item in items:
        for form in item.forms.values():
            relations, (asked,) = covered(form, "definition") + covered(form, "distractor"), covered(form, "query")
            assert covered(form, "topic") == [target(form).control]
            assert target(form).control in VALUES
            assert len(relations) == item.difficulty
            assert set(relations) <= set(FIRST_BEFORE_SECOND)
            assert form.text.rindex(asked) == next(s.start for s in form.spans if s.name == "query")
            assert sorted(set(re.findall(r"\w+", form.text)) & NAMES) == item.group.split("/")[3:]
