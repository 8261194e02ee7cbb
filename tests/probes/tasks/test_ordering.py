"""Ordering: Python itself runs the code form, a solver that tries every order reads the prose and formal forms."""

import itertools
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.inputs import encode
from activations.loaded import ModelSpec
from activations.models import load_tokenizer
from activations.texts import Text
from probes.baselines import baselines
from probes.rows import RowLabels
from probes.tasks.ordering import PHRASINGS, RANKS, generate
from probes.tasks.pools import PEOPLE, VALUES

POOLS = {split: set(words) for split, words in PEOPLE.items()}
NAMES = set().union(*POOLS.values())
FIRST_BEFORE_SECOND = {
    "above": True, "below": False, "more": True, "less": False, "nearer": True, "farther": False, "warmer": True,
    "colder": False, "before": True, "after": False, "over": True, "under": False, "greater": True, "lesser": False,
    ">": True, "<": False,
}  # fmt: skip
every_form = pytest.mark.parametrize("form", ["code", "prose", "formal"])


def holds(code: str, answer: str) -> bool:
    """Whether Python agrees that the unfinished assertion is completed by ``answer``."""
    try:
        exec(f'{code}{answer}"', {})
    except AssertionError:
        return False
    return True


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


def possible_ranks(pairs: list[tuple[str, str]], asked: str) -> set[str]:
    """The ranks of ``asked`` in all orders of the people named that agree with every pair."""
    people = sorted({name for pair in pairs for name in pair} | {asked})
    return {
        RANKS[order.index(asked)]
        for order in itertools.permutations(people)
        if all(order.index(one) < order.index(two) for one, two in pairs)
    }


def label(form) -> str:
    return next(span.label for span in form.spans if span.name == "rank")


@pytest.fixture(scope="module")
def items():
    return generate.generate(600, 0)


@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_python_agrees_with_the_answers_of_the_code_form(seed):
    for item in generate.generate(18, seed):
        form = item.forms["code"]
        assert [word for word in form.candidates if holds(form.text, word)] == [form.answer] == [label(form)]
        assert [word for word in form.candidates if holds(form.contrast.text, word)] == [form.contrast.answer]


@pytest.mark.parametrize(("form", "read"), [("prose", read_prose), ("formal", read_formal)])
@given(seed=st.integers(0, 2**32))
@settings(max_examples=15, deadline=None, derandomize=True)
def test_trying_every_order_agrees_with_the_answers_of_prose_and_symbols(form, read, seed):
    for item in generate.generate(18, seed):
        rendered = item.forms[form]
        for text, answer in (
            (rendered.text, rendered.answer), (rendered.contrast.text, rendered.contrast.answer),
        ):  # fmt: skip
            pairs, asked = read(text)
            assert len(pairs) == item.difficulty
            assert {f" {rank}" for rank in possible_ranks(pairs, asked)} == {answer}
        assert rendered.answer == f" {label(rendered)}"


def test_every_template_is_right_and_stays_in_its_split(items):
    seen = {form: {} for form in PHRASINGS}
    for item in items:
        code, prose, formal = item.group.split("/")[:3]
        for form, template in zip(("code", "prose", "formal"), (code, prose, formal), strict=True):
            seen[form].setdefault(item.split, set()).add(template)
        assert holds(item.forms["code"].text, item.forms["code"].answer)
        for form, read in (("prose", read_prose), ("formal", read_formal)):
            assert possible_ranks(*read(item.forms[form].text)) == {label(item.forms[form])}
    assert seen == {f: {s: {p.id for p in ps} for s, ps in splits.items()} for f, splits in PHRASINGS.items()}
    for splits in seen.values():
        assert [len(splits[split]) for split in ("train", "dev", "test")] == [4, 2, 2]
        assert len(set().union(*splits.values())) == 8


def test_the_three_forms_state_the_same_facts_in_the_same_order(items):
    for item in items:
        assert read_prose(item.forms["prose"].text) == read_formal(item.forms["formal"].text)
        code = [word for word in re.findall(r"\w+", item.forms["code"].text) if word in NAMES]
        stated, asked = read_prose(item.forms["prose"].text)
        assert code[-1] == asked
        said = [word for word in re.findall(r"\w+", item.forms["prose"].text) if word in NAMES][:-1]
        assert "/".join(said) in "/".join(code)
        assert len(stated) == len(said) / 2


def test_names_are_those_of_the_split_and_groups_end_with_them(items):
    for item in items:
        for form in item.forms.values():
            named = set(re.findall(r"\w+", form.text)) & NAMES
            assert named <= POOLS[item.split]
            assert sorted(named) == item.group.split("/")[3:]


def test_ranks_and_numbers_of_facts_are_balanced_and_crossed(items):
    for split, size in (("train", 333), ("dev", 100), ("test", 167)):
        chosen = [item for item in items if item.split == split]
        assert len(chosen) == size
        for counts in (
            Counter(label(item.forms["code"]) for item in chosen),
            Counter(item.difficulty for item in chosen),
            Counter((label(item.forms["code"]), item.difficulty) for item in chosen),
        ):
            assert max(counts.values()) - min(counts.values()) <= 1
        assert len(counts) == 12


@every_form
def test_length_and_number_of_mentions_do_not_depend_on_the_rank(items, form):
    shapes = {}
    for item in items:
        text = item.forms[form].text
        (asked,) = [text[s.start : s.end] for s in item.forms[form].spans if s.name == "query"]
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
            assert ranks == {label(item.forms["prose"])}
        elif label(item.forms["prose"]) in ("second", "third"):
            assert ranks == {"second", "third"}


def test_both_directions_of_the_relation_are_said_equally_often_at_every_rank():
    said = {rank: Counter() for rank in RANKS}
    for item in generate.generate(1800, 1):
        form = item.forms["formal"]
        said[label(form)].update(
            form.text[s.start : s.end] for s in form.spans if s.name in ("definition", "distractor")
        )
    assert all(0.45 < counts["<"] / counts.total() < 0.55 for counts in said.values())


def test_the_contrast_turns_one_fact_round_and_moves_the_rank_by_one_place(items):
    for item in items:
        for form in item.forms.values():
            (span,) = [span for span in form.spans if span.name == "definition"]
            edit = form.contrast.text[span.start : len(form.contrast.text) - len(form.text) + span.end]
            assert form.text[: span.start] + edit + form.text[span.end :] == form.contrast.text
            assert edit != form.text[span.start : span.end]
            assert len(form.contrast.text.split()) == len(form.text.split())
            assert abs(RANKS.index(form.answer.strip()) - RANKS.index(form.contrast.answer.strip())) == 1
            assert len(set(form.candidates)) == 4
            assert {form.answer, form.contrast.answer} <= set(form.candidates)


def test_spans_name_the_words_they_cover(items):
    for item in items:
        for form in item.forms.values():
            covered = {}
            for span in form.spans:
                covered.setdefault(span.name, []).append(form.text[span.start : span.end])
            (target,) = [span for span in form.spans if span.label]
            assert (target.start, target.end) == (len(form.text) - 1, len(form.text))
            assert covered["topic"] == [target.control]
            assert target.control in VALUES
            assert len(covered["definition"] + covered["distractor"]) == item.difficulty
            assert set(covered["definition"] + covered["distractor"]) <= set(FIRST_BEFORE_SECOND)
            assert covered["query"][0] in NAMES
            assert form.text.rindex(covered["query"][0]) == next(s.start for s in form.spans if s.name == "query")


@every_form
def test_no_surface_baseline_beats_60_percent_of_the_gap(items, form):
    tokenizer = load_tokenizer(ModelSpec("embedded:code"))
    ids = [e.ids for e in encode(tokenizer, [item.as_text(form) for item in items], False, 256)]
    (spans,) = zip(*[[s for s in item.forms[form].spans if s.label] for item in items], strict=True)
    about = RowLabels(
        labels=[s.label for s in spans], controls=[s.control for s in spans], items=[i.id for i in items],
        groups=[i.group for i in items], splits=[i.split for i in items], texts=ids,
        tokens=[row[-1:] for row in ids], positions=[len(row) - 1 for row in ids],
    )  # fmt: skip
    found = baselines(about)
    assert max(found.bag_of_tokens, found.token, found.position) < found.majority + 0.6 * (1 - found.majority)
    assert max(found.bag_of_tokens, found.token, found.position) < 0.4


@every_form
def test_clean_and_contrast_have_the_same_number_of_tokens(items, form, make_tokenizer):
    tokenizers = (load_tokenizer(ModelSpec("embedded:code")), make_tokenizer(), make_tokenizer(trim_offsets=True))
    for tokenizer, share in zip(tokenizers, (0.99, 0.6, 0.6), strict=True):
        texts = [[i.forms[form].text for i in items], [i.forms[form].contrast.text for i in items]]
        clean, twin = ([len(e) for e in encode(tokenizer, [Text("t", t) for t in ts], False, 512)] for ts in texts)
        assert sum(a == b for a, b in zip(clean, twin, strict=True)) >= share * len(items)
