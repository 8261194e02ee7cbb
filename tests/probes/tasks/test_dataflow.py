"""Dataflow: labels on small sources and on the texts of this Python, and what their surface betrays."""

from __future__ import annotations

import ast
import sys
from collections import Counter

import numpy as np
import pytest
from task_surface import surface

from activations.errors import TwinprobeError
from activations.inputs import encode
from activations.models import ModelSpec, load_tokenizer
from activations.texts import Span
from probes.baselines import position_bins
from probes.bilinear import BilinearProbe
from probes.estimators import LogisticProbe, choose_strength
from probes.softmax import decompose
from probes.tasks import TASKS
from probes.tasks.dataflow_texts import MAX_CHARACTERS, SOURCES, Passage, passage, runs
from probes.tasks.items import Form, Item

STRAIGHT = (ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Expr, ast.Return, ast.Raise, ast.Assert, ast.Pass)


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return TASKS["dataflow"].generate(600, 0)


def code(items: list[Item]) -> list[Form]:
    return [item.forms["code"] for item in items]


def analysed(text: str) -> Passage:
    found = passage("file.py", text)
    assert found is not None
    return found


def numbered(found: Passage) -> dict[tuple[int, int], str]:
    """Label by the line of the definition and that of the use."""
    lines = {
        it: (found.text.count("\n", 0, it.first[0]) + 1, found.text.count("\n", 0, it.second[0]) + 1)
        for it in (candidate.relation for candidate in found.candidates)
    }
    return {lines[it]: it.label for it in lines}


def test_killed_definitions_other_branches_and_later_ones_do_not_reach() -> None:
    text = "é = 1\nx = é\nif go(x):\n    x = 2\n    keep(x)\nelse:\n    x = 3\n    keep(x)\nkeep(x)\nx = 4"
    found = analysed(text)
    assert {text[slice(*end)] for c in found.candidates for end in (c.relation.first, c.relation.second)} == {"é", "x"}
    assert {pair for pair, label in numbered(found).items() if label == "yes"} == {
        (1, 2), (2, 3), (4, 5), (7, 8), (4, 9), (7, 9),
    }  # fmt: skip
    assert len(numbered(found)) == 1 + 4 * 4
    at_last_use = {c.difficulty for c in found.candidates if text.count("\n", 0, c.relation.second[0]) == 8}
    assert at_last_use == {3}


def test_a_later_definition_reaches_round_a_loop() -> None:
    assert numbered(analysed("n = 9\nwhile n:\n    show(n)\n    n -= 1")) == {
        (1, 2): "yes", (1, 3): "yes", (1, 4): "yes", (4, 2): "yes", (4, 3): "yes",
    }  # fmt: skip


def test_functions_have_names_of_their_own() -> None:
    found = analysed("def f(a):\n    return a\ndef g(b):\n    a = b\n    return a")
    assert numbered(found) == {(1, 2): "yes", (4, 2): "no", (3, 4): "yes", (1, 5): "no", (4, 5): "yes"}
    assert [(found.text[s.start : s.end], s.label) for s in found.spans] == [
        ("a", "parameter"), ("b", "parameter"), ("a", "assignment"),
    ]  # fmt: skip


def test_a_source_is_named_only_where_all_definitions_that_reach_are_of_one_kind() -> None:
    found = analysed(
        "def f(self, a, many):\n    for i in many:\n        show(self, i, a)\n        a = i\n    return a, i"
    )
    assert {(found.text[s.start : s.end], s.label) for s in found.spans} == {("many", "parameter"), ("i", "loop")}


def test_texts_are_cut_at_whole_statements_and_leave_functions_with_globals_alone() -> None:
    body = "".join(f"        value_{i} = {i}\n" for i in range(30))
    source = (
        "import os\nclass Box:\n    @property\n    def a(self): pass\n    def b(self):\n        x = 1\n        return x\n"
        f"    def long(self):\n{body}    def other(self):\n        global value\n{body}value = 3\n"
    )
    lines = source.split("\n")
    found = list(runs(ast.parse(source).body, lines))
    assert found[0] == (3, 7)
    assert [row for first, last in found[1:] for row in range(first, last + 1)] == list(range(9, 39))
    assert all(len("\n".join(lines[first - 1 : last])) <= MAX_CHARACTERS for first, last in found)


def test_relations_join_two_places_of_one_name(items: list[Item]) -> None:
    for form in code(items):
        spans = {(span.start, span.end) for span in form.spans if span.name == "reaches"}
        assert spans == {end for it in form.relations for end in (it.first, it.second)}
        assert len(set(form.relations)) == len(form.relations) <= 8
        for it in form.relations:
            assert it.first != it.second
            assert form.text[slice(*it.first)] == form.text[slice(*it.second)] == it.control
            assert it.control not in ("self", "cls")


def test_in_texts_without_branches_the_last_assignment_before_the_use_reaches(items: list[Item]) -> None:
    """What no analysis is needed for: told from the order of the lines alone."""
    seen: Counter[str] = Counter()
    for form in code(items):
        body = ast.parse(form.text).body
        if not all(isinstance(node, STRAIGHT) for node in body) or any(isinstance(n, ast.comprehension) for n in body):
            continue
        for it in form.relations:
            stores = [
                (node.lineno, node.end_lineno)
                for node in body
                for target in ast.walk(node)
                if isinstance(target, ast.Name) and isinstance(target.ctx, ast.Store) and target.id == it.control
            ]
            use = form.text.count("\n", 0, it.second[0]) + 1
            before = [line for line, end in stores if end < use]
            defined = form.text.count("\n", 0, it.first[0]) + 1
            assert (it.label == "yes") == bool(before and before[-1] <= defined <= stores[len(before) - 1][1])
            seen[it.label] += 1
    assert min(seen["yes"], seen["no"]) > 5


def test_yes_and_no_come_in_equal_numbers_and_sources_too(items: list[Item]) -> None:
    for split in ("train", "dev", "test"):
        forms = code([item for item in items if item.split == split])
        found = Counter(it.label for form in forms for it in form.relations)
        assert found["yes"] == found["no"] > len(forms) / 3
        sources = Counter(span.label for form in forms for span in form.spans if span.name == "source")
        assert set(sources) == set(SOURCES)
        assert sources.total() == len(forms)


def test_texts_are_short_and_distinct(items: list[Item]) -> None:
    assert len({form.text for form in code(items)}) == 600
    assert max(len(form.text) for form in code(items)) <= MAX_CHARACTERS


def test_names_recur_between_train_and_test(items: list[Item]) -> None:
    """Otherwise the control could not be learnt, and selectivity would say nothing."""
    names = {
        split: [it.control for item in items if item.split == split for it in item.forms["code"].relations]
        for split in ("train", "test")
    }
    assert np.mean([name in set(names["train"]) for name in names["test"]]) > 0.25


def test_asking_for_more_than_there_is_says_how_much_there_is() -> None:
    with pytest.raises(TwinprobeError, match=r"that reads a loop, but .* have only \d+ such") as caught:
        TASKS["dataflow"].generate(100_000, 0)
    assert "\n" not in str(caught.value)


def test_neither_order_nor_distance_nor_place_betrays_the_relation(items: list[Item]) -> None:
    tokenizer = load_tokenizer(ModelSpec("embedded:code"))
    rows = []
    for item, text in zip(
        items, encode(tokenizer, [i.as_text("code") for i in items], False, sys.maxsize), strict=True
    ):
        for it in item.forms["code"].relations:
            first, second = (text.positions(Span("reaches", *end))[-1] for end in (it.first, it.second))
            rows.append((item.split, it.label, second - first, abs(second - first), first, second))
    splits, labels, *columns = (np.array(column) for column in zip(*rows, strict=True))
    train, dev, test = (splits == name for name in ("train", "dev", "test"))
    features = np.concatenate([position_bins(column.astype(np.int64), train) for column in columns], axis=1)
    probe = choose_strength(decompose(features[train]), labels[train], features[dev], labels[dev]).probe
    assert 0.42 < np.mean(probe.predict(features[test]) == labels[test]) < 0.58
    source = surface(items, "code", "source", tokenizer)
    assert source.majority == pytest.approx(1 / 3, abs=0.01)
    assert max(source.token, source.position) < 0.6 < source.bag_of_tokens < 0.9  # "for" and "def" before the use tell


def test_the_bilinear_probe_finds_planted_relations_that_no_single_row_holds(items: list[Item]) -> None:
    """The definition's row names its place in the text, the use's row the places that reach it."""
    rng = np.random.default_rng(0)
    width = 12
    rows, labels, train = [], [], []
    for item in items:
        relations = item.forms["code"].relations
        firsts = sorted({it.first for it in relations})
        place = dict(zip(firsts, np.eye(width)[rng.permutation(width)], strict=False))
        for it in relations:
            reaching = [place[each.first] for each in relations if each.second == it.second and each.label == "yes"]
            rows.append(np.concatenate([place[it.first], np.sum(reaching, axis=0) if reaching else np.zeros(width)]))
            labels.append(it.label)
            train.append(item.split == "train")
    features, truth, fitted = np.array(rows), np.array(labels), np.array(train)
    features += rng.normal(0, 0.1, features.shape)
    right = {}
    for probe in (BilinearProbe(rank=width), LogisticProbe()):
        guessed = probe.fit(features[fitted], truth[fitted]).predict(features[~fitted])
        right[type(probe)] = np.mean(guessed == truth[~fitted])
    assert right[BilinearProbe] > 0.95
    assert right[LogisticProbe] < 0.85  # a use that nothing reaches shows in its own row
