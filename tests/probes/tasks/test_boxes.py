"""Boxes: what is read from files, checked against a simulator that keeps a place for every thing."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from real_data import real
from task_surface import aligned, scorable, surface

from activations.errors import TwinprobeError
from activations.models import ModelSpec, load_tokenizer
from probes.tasks import get_task
from probes.tasks.boxes import final_boxes
from probes.tasks.items import Item, Task

THINGS = [f"{a}{b}" for a in ("red", "old", "odd", "big") for b in ("cap", "pen", "cup", "net", "jar", "map")]
VALID = {
    "sample_id": 1,
    "numops": 2,
    "context": "Box 0 contains the pen, Box 1 is empty. Move the pen from Box 0 to Box 1. Put the cup into Box 1.",
    "query": "Box 1",
    "answer": "contains the cup and the pen",
}


def places(context: str) -> tuple[list[str], dict[str, str]]:
    """The boxes, and where every thing is in the end: read word by word, unlike the reader."""
    boxes: list[str] = []
    where: dict[str, str] = {}
    for sentence in context.replace(",", ".").split("."):
        words = sentence.split()
        named = [f"Box {words[i + 1]}" for i, word in enumerate(words) if word == "Box"]
        things = [words[i + 1] for i, word in enumerate(words) if word == "the"]
        if words[:1] == ["Box"]:
            boxes += named
        for thing in things:
            if words[0] in ("Move", "Remove"):
                assert where.pop(thing) == named[0]
            if words[0] != "Remove":
                where[thing] = named[-1]
    return boxes, where


def said(context: str, box: str) -> str:
    """The answer that the simulator gives."""
    held = sorted(thing for thing, at in places(context)[1].items() if at == box)
    return "contains " + " and ".join(f"the {thing}" for thing in held) if held else "is empty"


def a_story(rng: random.Random) -> list[tuple[str, Counter[str]]]:
    """Contexts that grow by one operation each, with how many operations have touched each box."""
    boxes = [f"Box {i}" for i in range(4)]
    things = rng.sample(THINGS, len(THINGS))
    held = {box: [things.pop() for _ in range(rng.randrange(3))] for box in boxes}
    a_list = " and the ".join
    facts = (f"{box} contains the {a_list(inside)}" if inside else f"{box} is empty" for box, inside in held.items())
    touched: Counter[str] = Counter()
    stages = [(", ".join(facts) + ".", touched.copy())]
    for _ in range(4):
        full = rng.choice([box for box in boxes if held[box]] or boxes)
        box = rng.choice([each for each in boxes if each != full])
        if held[full] and rng.random() < 0.5:
            held[box] += held[full]
            told = f"Move the {a_list(held[full])} from {full} to {box}."
            held[full] = []
            touched.update((box, full))
        elif held[full]:
            told = f"Remove the {held[full].pop()} from {full}."
            touched[full] += 1
        else:
            held[box].append(things.pop())
            told = f"Put the {held[box][-1]} into {box}."
            touched[box] += 1
        stages.append((f"{stages[-1][0]} {told}", touched.copy()))
    return stages


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, split in enumerate(("train", "dev", "test")):
        rng = random.Random(number)
        lines = [
            json.dumps({"sample_id": i, "numops": touched[f"Box {box}"], "context": context, "query": f"Box {box}",
                        "answer": said(context, f"Box {box}")})
            for i in range(12) for context, touched in a_story(rng) for box in range(4)
        ]  # fmt: skip
        (tmp_path / f"boxes_{split}.jsonl").write_text("\n".join(lines) + "\n")
    return tmp_path


def check_items(task: Task, items: list[Item]) -> None:
    """Labels, answers and contrasts are what the simulator says."""
    assert task.targets == {"count": ("prose",)}
    assert task.causal
    for item in items:
        form = item.forms["prose"]
        query, count = form.spans
        box = form.text[query.start : query.end]
        context = form.text.removesuffix(f" {box}")
        _, where = places(context)
        assert count.label == str(list(where.values()).count(box))
        assert (count.name, count.end, count.control) == ("count", len(form.text), box)
        assert said(context, box).startswith(str(form.answer).strip())
        if form.contrast is not None:
            assert form.contrast.text.startswith(f"{context} Box ")
            other = form.contrast.text.removeprefix(f"{context} ")
            assert said(context, other).startswith(form.contrast.answer.strip())
            assert form.contrast.answer != form.answer
        else:
            boxes, _ = places(context)
            assert len({said(context, each) == "is empty" for each in boxes}) == 1


def test_items_follow_the_simulator_and_the_files_own_splits(folder: Path) -> None:
    task = get_task(f"boxes:{folder}")
    items = task.generate(120, 0)
    check_items(task, items)
    assert all(item.group.startswith(f"boxes_{item.split}/") for item in items)
    assert [file.name for file in task.files] == ["boxes_train.jsonl", "boxes_dev.jsonl", "boxes_test.jsonl"]
    assert len({item.difficulty for item in items}) > 2
    assert sum(item.forms["prose"].contrast is not None for item in items) > 100


def test_one_file_is_split_by_sample(folder: Path) -> None:
    items = get_task(f"boxes:{folder / 'boxes_train.jsonl'}").generate(60, 0)
    groups = {split: {item.group for item in items if item.split == split} for split in ("train", "dev", "test")}
    assert not groups["train"] & groups["test"] | groups["train"] & groups["dev"] | groups["dev"] & groups["test"]
    assert all(groups.values())


def test_too_many_items_are_refused(folder: Path) -> None:
    with pytest.raises(TwinprobeError, match=r"task 'boxes': 900 items asked for, 500 of them .* only 240 such"):
        get_task(f"boxes:{folder}").generate(900, 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "contains the pen"}, "'answer' is 'contains the pen', but by the context Box 1 holds the cup and the pen"),
        ({"query": "Box 7"}, "'query' must be one of Box 0, Box 1, got 'Box 7'"),
        ({"numops": "2"}, "'numops' must be a whole number, got '2'"),
        ({"sample_id": True}, "'sample_id' must be a whole number, got True"),
        ({"context": 3}, "'context' must be a string, got 3"),
        ({"context": "A dog barks."}, "'A dog barks' does not say what a box holds"),
        ({"context": "Box 1 is empty. Lose the pen."}, "'Lose the pen' is not an operation"),
        ({"context": "Box 1 is empty. Remove the pen from Box 1."}, "takes what Box 1 does not hold"),
        ({"context": "Box 1 contains the pen. Move the pen from Box 1 to Box 2."}, "names a box that was not described"),
        ({"numop": 1}, "unknown key 'numop' (did you mean 'numops'"),
    ],
)  # fmt: skip
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "my.jsonl"
    path.write_text(f"{json.dumps(VALID)}\n\n{json.dumps(VALID | change)}\n")
    with pytest.raises(TwinprobeError) as caught:
        get_task(f"boxes:{path}")
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.jsonl").touch()
    with pytest.raises(TwinprobeError, match=r"my\.jsonl: no lines found"):
        get_task(f"boxes:{tmp_path / 'my.jsonl'}")


@pytest.mark.parametrize("file", ["boxes_train.jsonl", "boxes_dev.jsonl", "boxes_test.jsonl"])
def test_every_box_of_the_published_kind_is_as_simulated(file: str) -> None:
    rows = [json.loads(line) for line in (real("entity_tracking") / file).read_text().splitlines()]
    assert len(rows) > 1000
    for row in rows:
        assert said(row["context"], row["query"]) == row["answer"]
    for context in {row["context"] for row in rows}:
        boxes, where = places(context)
        assert final_boxes(context) == {box: {thing for thing, at in where.items() if at == box} for box in boxes}


def test_on_the_published_kind_counts_are_even_and_the_surface_does_not_tell_them() -> None:
    task = get_task(f"boxes:{real('entity_tracking')}")
    items = task.generate(900, 0)
    check_items(task, items)
    assert set(Counter(i.forms["prose"].spans[-1].label for i in items if i.split == "train").values()) == {125}
    tokenizer = load_tokenizer(ModelSpec("embedded:code"))
    found = surface(items, "prose", "count", tokenizer)
    assert max(found.bag_of_tokens, found.token, found.position) < 0.4
    patched = [item for item in items if item.forms["prose"].contrast is not None]
    assert len(patched) > 0.8 * len(items)
    assert aligned(patched, "prose", tokenizer) == scorable(patched, "prose", tokenizer) == 1.0
