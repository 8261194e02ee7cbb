"""BIG-bench files: the context of an item is spelled out by hand from the fields of its task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from activations.errors import TwinprobeError
from analyses.benchmarks.bigbench import read_bigbench, subject_of

DATA = [Path(__file__).parents[depth] / "shared" / "data" / "bigbench" for depth in (3, 4)]
EXAMPLES = [
    {"input": "Is ice cold?", "target_scores": {"yes": 1, "no": 0}},
    {"input": "Write a word.", "target": "word"},
    {"input": "Is ice cold?", "target_scores": {"yes": 1, "no": 0}},
    {"input": "Which is warm?", "target_scores": {"ice": 0, "sun": 1.0, "snow": 0, "fire": 1}},
]


def task_file(path: Path, **fields: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"canary": "-", "name": "other", "examples": EXAMPLES, **fields}), encoding="utf-8")
    return path


def test_a_task_with_defaults(tmp_path: Path) -> None:
    """Choices are listed in an order that does not depend on which is right; examples come once, those without choices not."""
    first, second = read_bigbench(task_file(tmp_path / "warmth.json"))
    assert (first.id, first.subject, first.choices, first.gold) == ("0", "warmth", ("yes", "no"), (0,))
    assert (second.id, second.choices, second.gold) == ("3", ("ice", "sun", "snow", "fire"), (1, 3))
    assert first.context == "\nQ: Is ice cold?\n  choice: yes\n  choice: no\nA: "
    listed = [line.removeprefix("  choice: ") for line in second.context.splitlines() if line.startswith("  choice: ")]
    assert sorted(listed) == sorted(second.choices)
    turned = [
        {**example, "target_scores": dict(reversed(example["target_scores"].items()))} for example in EXAMPLES[3:]
    ]
    (same,) = read_bigbench(task_file(tmp_path / "turned.json", examples=turned))
    assert same.context == second.context
    assert same.choices == second.choices[::-1]


def test_the_order_of_choices_is_that_of_the_harness(tmp_path: Path) -> None:
    """lm-evaluation-harness 0.3 permutes the sorted choices with numpy's RandomState(42): 1, 3, 0, 2 for four."""
    (item,) = read_bigbench(task_file(tmp_path / "a.json", examples=EXAMPLES[3:], choice_prefix="|"))
    assert item.context == "\nQ: Which is warm?|ice|sun|fire|snow\nA: "


def test_a_task_with_prefixes_of_its_own(tmp_path: Path) -> None:
    path = task_file(
        tmp_path / "folder" / "task.json", task_prefix="About heat.\n", example_input_prefix="", example_output_prefix=" ->",
        append_choices_to_input=False,
    )  # fmt: skip
    items = read_bigbench(path)
    assert [item.context for item in items] == ["About heat.\nIs ice cold? ->", "About heat.\nWhich is warm? ->"]
    assert {item.subject for item in items} == {subject_of(path)} == {"folder"}


def test_lines_of_queries(tmp_path: Path) -> None:
    path = tmp_path / "bigbench_heat.jsonl"
    rows = [
        {"query": "Q: Is ice cold?\nA: ", "choices": ["Yes", "No"], "gold": 0},
        {"context": "one plus one is", "continuation": "two"},
        {"query": "Q: Is fire?\nA:", "choices": ["Yes", "No"], "gold": 1},
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    first, second = read_bigbench(path)
    assert (first.id, first.subject, first.context) == ("1", "heat", "Q: Is ice cold?\nA: ")
    assert (second.id, second.context, second.gold) == ("3", "Q: Is fire?\nA: ", (1,))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", "a.json: not valid JSON"),
        ("a.json", "[]", "a.json: no 'examples' list; expected a BIG-bench task.json"),
        ("a.json", '{"examples": [{"target": "x"}]}', "a.json, example 0: expected an object with a string 'input'"),
        ("a.json", '{"examples": [{"input": "x", "target": "y"}]}', "a.json: no multiple choice in it"),
        (
            "a.json",
            '{"examples": [{"input": "x", "target_scores": {"a": 0.5, "b": 0}}]}',
            "must give every choice 0 or 1",
        ),
        (
            "a.json",
            '{"examples": [{"input": "x", "target_scores": {"a": [], "b": 0}}]}',
            "must give every choice 0 or 1",
        ),
        ("a.json", '{"examples": [{"input": "x", "target_scores": {"a": 0, "b": 0}}]}', "item '0' of a: right choices"),
        ("a.json", '{"examples": [], "task_prefix": 3}', "'task_prefix' must be a string, got 3"),
        ("a.jsonl", '{"context": "x", "continuation": "y"}', "a.jsonl: no multiple choice in it"),
        ("a.jsonl", '\n{"query": "x", "choices": ["a", 1], "gold": 0}', "a.jsonl:2: expected a string 'query'"),
        ("a.jsonl", '{"query": "x", "choices": ["a", "b"], "gold": true}', "a.jsonl:1: expected a string 'query'"),
        ("a.jsonl", '{"query": "x", "choices": ["a", "b"], "gold": 2}', "item '1' of a: right choices"),
        ("a.jsonl", "3", "a.jsonl:1: expected a JSON object"),
    ],
)
def test_files_that_can_not_be_used(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(TwinprobeError, match=message) as caught:
        read_bigbench(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(TwinprobeError, match=r"absent.json: no such file; expected a BIG-bench task.json, or a .jsonl"):
        read_bigbench(tmp_path / "absent.json")


def test_published_tasks_are_read_whole() -> None:
    root = next((root for root in DATA if root.exists()), None)
    if root is None:
        pytest.skip(f"real data absent: neither {DATA[0]} nor {DATA[1]} is there")
    counts = {}
    for name in ("lm_eval_v03/geometric_shapes.json", "original_json/sports_understanding.json",
                 "original_json/dyck_languages.json", "llm_foundry/bigbench_strategy_qa.jsonl"):  # fmt: skip
        items = read_bigbench(root / name)
        counts[items[0].subject] = (len(items), {len(item.choices) for item in items})
    assert counts == {
        "geometric_shapes": (359, {10, 11}),
        "sports_understanding": (986, {2}),
        "dyck_languages": (1000, {84}),
        "strategy_qa": (1000, {2}),
    }
