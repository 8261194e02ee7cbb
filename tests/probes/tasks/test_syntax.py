"""Syntax: marks of small sources by hand, of real ones by another walk, and what the word itself can tell."""

from __future__ import annotations

import ast
import random
import re
from collections import Counter, defaultdict
from collections.abc import Mapping

import pytest
from task_surface import surface

from activations.errors import TwinprobeError
from activations.models import ModelSpec, load_tokenizer
from activations.texts import Span
from probes.tasks import TASKS
from probes.tasks.identifiers import held_out_sources
from probes.tasks.items import Item
from probes.tasks.python_syntax import python_names
from probes.tasks.python_tokens import tokens_of
from probes.tasks.rivals import draw_rivals
from probes.tasks.syntax import LABELS, python_windows
from probes.tasks.syntax_trees import place_marks

SOURCE = """\
@wraps(höhe)
def área(é, b=[c], *, d: int = 1):
    if é.x and not é.y(b, k=c):
        return é[0] + b * é, d
    f(c).z = g(h(c)) + c
    for i in f"{é}", c:
        ...
async def h(): ...
"""


@pytest.fixture(scope="module")
def items() -> list[Item]:
    return TASKS["syntax"].generate(600, 0)


def marks(source: str) -> dict[str, list[tuple[str, str, str, str | None]]]:
    """What every name is marked with, by its line and text."""
    nodes, names = python_names(source, tokens_of(source))
    found: dict[tuple[int, int, str], dict[str, str]] = defaultdict(dict)
    for row, column, text, place in names:
        found[row, column, text]["node"] = nodes[place].kind
    for mark in place_marks(nodes, names):
        found[mark.row, mark.column, mark.text][mark.target] = mark.label
    by_name: dict[str, list[tuple[str, str, str, str | None]]] = defaultdict(list)
    for (row, _, text), labels in found.items():
        by_name[f"{row} {text}"].append(tuple(labels.get(t, "-") for t in ("node", "parent", "depth", "siblings")))
    return by_name


def test_marks_of_a_small_source() -> None:
    nothing = ("-", "-", "-")
    assert dict(marks(SOURCE)) == {
        "1 wraps": [("Name", *nothing)],
        "1 höhe": [("Name", "Call", "2", "1")],
        "2 área": [("FunctionDef", *nothing)],
        "2 é": [("arg", "FunctionDef", "1", "0")],
        "2 b": [("arg", "FunctionDef", "1", "1")],
        "2 c": [("Name", "List", "2", "0")],
        "2 d": [("arg", "FunctionDef", "1", "3")],
        "2 int": [("Name", "arg", "2", "0")],
        # `é.x` starts the BoolOp, so that only what follows tells that there is one; the whole call is its second part
        "3 é": [("Name", *nothing), ("Name", *nothing)],
        "3 x": [("Attribute", *nothing)],
        "3 y": [("Attribute", *nothing)],
        "3 b": [("Name", "Call", "4", "1")],
        "3 k": [("keyword", "Call", "4", "2")],
        "3 c": [("Name", "keyword", "-", "0")],
        "4 é": [("Name", *nothing), ("Name", *nothing)],
        "4 b": [("Name", *nothing)],
        "4 d": [("Name", "Tuple", "2", "1")],
        "5 f": [("Name", *nothing)],
        "5 c": [("Name", *nothing), ("Name", *nothing), ("Name", "BinOp", "2", "1")],
        "5 z": [("Attribute", *nothing)],
        "5 g": [("Name", *nothing)],
        "5 h": [("Name", *nothing)],
        "8 h": [("FunctionDef", *nothing)],
        "6 i": [("Name", "For", "1", "0")],
        "6 c": [("Name", "Tuple", "2", "1")],
    }


def by_another_walk(source: str) -> dict[tuple[int, int], tuple[str, str]]:
    """Kinds of the smallest placed node around every identifier, and of its nearest placed ancestor, by position."""
    lines = source.split("\n")
    offsets = [0]
    for line in lines:
        offsets.append(offsets[-1] + len(line.encode()) + 1)
    module = ast.parse(source)
    above = {child: node for node in ast.walk(module) for child in ast.iter_child_nodes(node)}
    extents = sorted(
        (offsets[n.end_lineno - 1] + n.end_col_offset - (start := offsets[n.lineno - 1] + n.col_offset), start, i, n)
        for i, n in enumerate(ast.walk(module))
        if hasattr(n, "lineno")
    )
    found = {}
    raw = source.encode()
    for word in re.finditer(rb"[A-Za-z_]\w*", raw):
        inner = next((n for size, start, _, n in extents if start <= word.start() and word.end() <= start + size), None)
        outer = above.get(inner)
        while outer is not None and not hasattr(outer, "lineno"):
            outer = above.get(outer)
        row = raw[: word.start()].count(b"\n")
        column = len(raw[offsets[row] : word.start()].decode())
        found[row + 1, column] = (type(inner).__name__, type(outer).__name__)
    return found


@pytest.mark.parametrize("path", ["bisect.py", "heapq.py", "json/decoder.py"])
def test_nodes_and_parents_are_those_of_another_walk(path: str) -> None:
    source = dict(held_out_sources())[path]
    expected = by_another_walk(source)
    nodes, names = python_names(source, tokens_of(source))
    assert len(names) > 100
    for name in names:
        assert nodes[name.node].kind == expected[name.row, name.column][0]
    parents = [mark for mark in place_marks(nodes, names) if mark.target == "parent"]
    assert len(parents) > 50
    for mark in parents:
        assert mark.label == expected[mark.row, mark.column][1]


def test_what_follows_changes_no_label_but_takes_it_away() -> None:
    """A place that is decided stays the same whatever comes after the name, as long as the source parses."""
    before = "if a and f(b, "
    for after in ("x): pass", "x, y): pass", "x) or z: pass", "x)[0] > 1: pass", "x + 1): pass", "x(1).y): pass"):
        (found,) = marks(f"{before}{after}\n")["1 x"]
        assert found in (("Name", "Call", "3", "2"), ("Name", "-", "-", "-"))


def test_windows_label_whole_words_inside_the_text() -> None:
    windows = list(python_windows("small.py", SOURCE))
    assert [window.text for window in windows] == [SOURCE.removesuffix("\n")]
    for span in windows[0].spans:
        assert windows[0].text[span.start : span.end] == span.control
        assert span.label in LABELS[span.name]


def test_spans_of_the_items_are_whole_names(items: list[Item]) -> None:
    for item in items:
        text = item.forms["code"].text
        spans = item.forms["code"].spans
        assert len({(span.name, span.label) for span in spans}) == len(spans) > 0
        for span in spans:
            assert text[span.start : span.end] == span.control
            assert span.control.isidentifier()
            around = text[max(span.start - 1, 0) : span.start] + text[span.end : span.end + 1]
            assert not re.search(r"\w", around)


def test_labels_are_even_where_some_are_scarce(items: list[Item]) -> None:
    counts = Counter((i.split, s.name, s.label) for i in items for s in i.forms["code"].spans)
    for split in ("train", "dev", "test"):
        for target, labels in LABELS.items():
            held = [counts[split, target, label] for label in labels]
            assert max(held) - min(held) <= 1
            assert min(held) > 2


def test_labels_agree_with_what_stands_around_the_name(items: list[Item]) -> None:
    seen: Counter[str] = Counter()
    for form in (item.forms["code"] for item in items):
        for span in form.spans:
            before = form.text[: span.start].rpartition("\n")[2].rstrip()
            if span.name == "node":
                assert (span.label == "FunctionDef") == (re.search(r"\bdef$", before) is not None)
                assert (span.label == "Attribute") == before.endswith(".")
                seen["node"] += 1
            if before.strip() == "return" and span.name == "parent" and re.match(r"\n|$", form.text[span.end :]):
                assert span.label == "Return"
                seen["return"] += 1
    assert seen["node"] > 300
    assert seen["return"] > 5


@pytest.mark.parametrize("target", sorted(LABELS))
def test_the_word_and_the_position_do_not_tell(items: list[Item], target: str) -> None:
    tokenizer = load_tokenizer(ModelSpec("embedded:code"))
    found = surface(items, "code", target, tokenizer)
    assert max(found.token, found.position) < 1.0 / len(LABELS[target]) + 0.15
    assert found.bag_of_tokens < 0.7


def test_a_label_never_has_most_of_a_words_spans(items: list[Item]) -> None:
    for target in LABELS:
        counts: dict[str, Counter[str | None]] = defaultdict(Counter)
        for item in items:
            for span in item.forms["code"].spans:
                if span.name == target:
                    counts[str(span.control)][span.label] += 1
        best = sum(max(held.values()) for held in counts.values())
        assert best < 0.6 * sum(held.total() for held in counts.values())


def spans(**words: str) -> Mapping[str, list[Span]]:
    """Texts by name, each with the spans of ``word:label`` pairs."""
    return {
        name: [Span("t", 0, 1, pair.split(":")[1], pair.split(":")[0]) for pair in pairs.split()]
        for name, pairs in words.items()
    }


def test_rivals_are_one_word_under_two_labels_from_two_texts() -> None:
    texts = spans(one="a:x a:y", two="a:y b:x", three="c:x d:y", four="b:y")
    for seed in range(10):
        drawn = draw_rivals(texts, {"x": 1, "y": 1}, random.Random(seed))
        assert sorted((span.control, span.label) for span in drawn.values()) in (
            [("a", "x"), ("a", "y")],
            [("b", "x"), ("b", "y")],
        )
        assert len(drawn) == 2
        assert all(span in texts[name] for name, span in drawn.items())


def test_words_with_one_label_are_never_drawn() -> None:
    assert draw_rivals(spans(one="a:x", two="b:y", three="b:y"), {"x": 1, "y": 2}, random.Random(0)) == {}


def test_an_odd_last_span_has_a_word_that_the_texts_hold_under_another_label() -> None:
    drawn = draw_rivals(spans(one="a:x", two="a:x", three="a:y", four="b:x"), {"x": 2, "y": 1}, random.Random(0))
    assert Counter((span.control, span.label) for span in drawn.values()) == {("a", "x"): 2, ("a", "y"): 1}


def test_asking_for_more_than_there_is_says_how_much_there_is() -> None:
    with pytest.raises(TwinprobeError, match=r"27778 code train texts asked for.*have only \d+ such") as caught:
        TASKS["syntax"].generate(50_000, 0)
    assert "\n" not in str(caught.value)
