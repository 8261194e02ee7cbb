"""Scores of explanations: reading both sides, each metric next to its own package, tables and tests between systems."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from activations.errors import TwinprobeError
from analyses.benchmarks.explanation.items import Explained, read_hypotheses, read_references
from analyses.benchmarks.explanation.scores import METRICS, bleu_from_statistics, compare, measure, per_item

ROOTS = [Path(__file__).parents[depth] / "shared" / "data" / "conala" for depth in (4, 5)]
ABSENT = "is not installed (extra bench): its scores are not checked here"
ITEMS = [
    Explained("a", "x.sort()", ("sort the list in place",), "1"),
    Explained("b", "f.readlines()", ("read all lines of a file into a list", "reads a file into a list of lines"), "1"),
    Explained("c", "f.close()", ("close the file",), "2"),
]
SAID = ["sorts the list in place", "reads all lines of the file into a list", ""]
PERFECT = [item.references[-1] for item in ITEMS]


def test_bleu_from_statistics_is_sacrebleus() -> None:
    """Numbers of sacrebleu 2.6: an n without matches is smoothed, one without n-grams makes the score 0."""
    counts = [
        [9, 10, 7, 4, 0, 0, 9, 8, 7, 6],
        [3, 3, 2, 1, 0, 0, 3, 2, 1, 0],
        [20, 15, 0, 0, 0, 0, 20, 19, 18, 17],
        [12, 20, 12, 8, 5, 2, 12, 11, 10, 9],
    ]
    assert bleu_from_statistics(np.array(counts, dtype=float)) == pytest.approx(
        [0.1650504154925752, 0.0, 0.0, 0.27373734046968395], abs=1e-15
    )


def test_bleu() -> None:
    sacrebleu = pytest.importorskip("sacrebleu", reason=f"sacrebleu {ABSENT}")
    [found] = measure(SAID, ITEMS, ["bleu"])
    assert found.items == pytest.approx([0.6687403049764218, 0.44632361378533304, 0.0], abs=1e-12)
    second = [item.references[1] if len(item.references) > 1 else None for item in ITEMS]
    theirs = sacrebleu.corpus_bleu(SAID, [[item.references[0] for item in ITEMS], second]).score
    assert found.corpus == pytest.approx(theirs / 100, abs=1e-12) == pytest.approx(0.4172582072841818, abs=1e-12)


def test_rouge() -> None:
    pytest.importorskip("rouge_score", reason=f"rouge-score {ABSENT}")
    found = measure(SAID, ITEMS, ["rouge1", "rouge2", "rougeL"])
    expected = [[0.8, 14 / 17, 0], [0.75, 0.625, 0], [0.8, 7 / 9, 0]]
    for one, scores in zip(found, expected, strict=True):
        assert one.items == pytest.approx(scores, abs=1e-12)
        assert one.corpus == pytest.approx(np.mean(scores))


def test_a_perfect_and_a_silent_system() -> None:
    pytest.importorskip("sacrebleu", reason=f"sacrebleu {ABSENT}")
    pytest.importorskip("rouge_score", reason=f"rouge-score {ABSENT}")
    perfect, silent = measure(PERFECT, ITEMS), measure([""] * 3, ITEMS)
    assert [one.name for one in perfect] == list(METRICS)
    # METEOR takes half a chunk's share off even a perfect match; "close the file" has no 4-grams, which is effective order.
    assert [one.corpus for one in perfect] == pytest.approx([1, 1, 1, 1, perfect[4].corpus], abs=1e-12)
    assert perfect[4].corpus == pytest.approx(np.mean([1 - 0.5 / n**3 for n in (5, 8, 3)]))
    assert [one.corpus for one in silent] == [0] * 5


def test_metrics_that_are_not_there_are_refused() -> None:
    with pytest.raises(TwinprobeError, match="'rouge9' is not known"):
        measure(SAID, ITEMS, ["rouge9"])


def test_the_table_has_a_line_per_metric_and_item() -> None:
    table = per_item("m", "conala", measure(PERFECT, ITEMS, ["meteor"]), ITEMS)
    assert list(table) == ["model", "task", "subject", "item", "score", "chance", "group"]
    assert (
        list(table.item) == ["a", "b", "c"]
        and list(table.group) == ["1", "1", "2"]
        and set(table.subject) == {"meteor"}
    )
    assert table.chance.isna().all()


def test_systems_are_compared_with_the_first_and_corrected_over_all_lines() -> None:
    items = [Explained(str(n), "", (f"sort list number {n} in place",), str(n)) for n in range(40)]
    better = [item.references[0] for item in items]
    worse = [text if n % 2 else "no idea" for n, text in enumerate(better)]
    systems = {name: measure(texts, items, ["meteor"]) for name, texts in (("w", worse), ("x", worse), ("b", better))}
    table = compare(systems, items, n_resamples=500)
    assert list(table.base) == ["w", "w"] and list(table.model) == ["x", "b"]
    assert list(table.significant) == [False, True]
    assert table.p_bootstrap_holm[1] == pytest.approx(2 * table.p_bootstrap[1])
    assert table.difference[1] == pytest.approx(systems["b"][0].corpus - systems["w"][0].corpus)
    assert compare({"w": systems["w"]}, items).empty


def test_conala_as_it_is_published() -> None:
    folder = next((root for root in ROOTS if root.exists()), None)
    if folder is None:
        pytest.skip(f"real data absent: neither {ROOTS[0]} nor {ROOTS[1]} is there")
    items = read_references(folder / "conala-test.json")
    rows = json.loads((folder / "conala-test.json").read_text(encoding="utf-8"))
    assert len(items) == len(rows) == 500
    assert len({item.group for item in items}) == len({row["question_id"] for row in rows}) == 364
    assert (
        sum(len(item.references) for item in items) == 976
    )  # 23 without a rewritten intent, one rewritten to the same
    assert items[0].source == rows[0]["snippet"] and items[0].references[0] == rows[0]["rewritten_intent"]
    assert len(read_references(folder / "conala-train.json")) == 2379
    [gold] = measure([item.references[0] for item in items], items, ["meteor"])
    assert gold.items.min() >= 0.5 and gold.corpus > 0.98
    [constant] = measure(["x" * 40] * 500, items, ["meteor"])
    assert constant.corpus == 0


def test_own_references_and_hypotheses(tmp_path: Path) -> None:
    references, said = tmp_path / "r.jsonl", tmp_path / "h.jsonl"
    references.write_text(
        '{"id": 1, "references": ["a b"], "source": "s", "group": 7}\n{"id": "2", "references": ["c"]}\n'
    )
    items = read_references(references)
    assert items == [Explained("1", "s", ("a b",), "7"), Explained("2", "", ("c",), "2")]
    said.write_text('{"id": "2", "text": ""}\n{"id": 1, "text": "b"}\n')
    assert read_hypotheses(said, items) == ["b", ""]


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("r.jsonl", '{"id": 1, "references": []}', "'references' must be a list"),
        ("r.jsonl", '{"id": 1, "references": [""]}', "'references' must be a list"),
        ("r.jsonl", '{"references": ["a"]}', "'id' must be"),
        ("r.jsonl", '{"id": 1, "references": ["a"]}\n{"id": "1", "references": ["b"]}', "more than once"),
        ("r.jsonl", '{"id": 1, "reference": "a"}', "unknown key 'reference'"),
        ("r.jsonl", "", "no items"),
        ("r.json", "{}", "expected a JSON list"),
        ("r.json", '[{"intent": "a", "rewritten_intent": null, "question_id": 1}]', "row 0 needs texts"),
        ("r.json", '[{"intent": "a", "snippet": "b"}]', "question_id"),
    ],
)
def test_bad_references_are_refused(tmp_path: Path, name: str, content: str, problem: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(TwinprobeError, match=problem):
        read_references(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"id": "a", "text": "x"}', "lacks 2 of 3 items"),
        ('{"id": "z", "text": "x"}', "no item 'z'"),
        ('{"id": "a", "text": "x"}\n{"id": "a", "text": "y"}', "h.jsonl:2: id 'a' was already used"),
        ('{"id": "a"}', "'text' must be a string"),
    ],
)
def test_bad_hypotheses_are_refused(tmp_path: Path, content: str, problem: str) -> None:
    (tmp_path / "h.jsonl").write_text(content)
    with pytest.raises(TwinprobeError, match=problem):
        read_hypotheses(tmp_path / "h.jsonl", ITEMS)
