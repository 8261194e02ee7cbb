"""Items from a file: what is read, how a study draws them, and one line naming file and line for everything else."""

from __future__ import annotations

import json
import re
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import probes.tasks.item_lines
from activations.errors import TwinprobeError
from activations.texts import Span
from probes.tasks import from_file, get_task
from probes.tasks.from_file import read_items
from probes.tasks.items import Contrast, Form, Item, Relation, Split, Task

SHORT: dict[str, Any] = {
    "id": "1",
    "clean": "The key is in the box. The key is in the",
    "answer": " box",
    "corrupted": "The key is in the bag. The key is in the",
    "contrast": " bag",
    "candidates": [" jar"],
    "spans": [{"name": "definition", "start": 18, "end": 21}],
    "difficulty": 1,
}
FULL: dict[str, Any] = {
    "id": "7",
    "difficulty": 2,
    "group": "template3",
    "split": "train",
    "forms": {
        "code": {
            "text": "a = k; b = a; b",
            "spans": [{"name": "value", "start": 14, "end": 15, "label": "k", "control": "b"}],
            "answer": " k",
            "contrast": {"text": "a = m; b = a; b", "answer": " m"},
            "candidates": [" n", " k"],
            "relations": [
                {"target": "reads", "first": [14, 15], "second": [7, 8], "label": 1, "control": "x"},
                {"target": "reads", "first": [11, 12], "second": [7, 8], "label": 0.5},
            ],
        },
        "prose": {"text": "Ann has it.", "spans": [{"name": "value", "start": 10, "end": 11, "label": 3}]},
    },
}
SPLITS: tuple[Split, ...] = ("train", "dev", "test")
read = from_file.read.read
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def changed(raw: dict[str, Any], *path: str | int, to: Any) -> dict[str, Any]:
    """A copy of ``raw`` with one value set."""
    copy = json.loads(json.dumps(raw))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return copy


def labelled(number: int, label: str, **more: Any) -> dict[str, Any]:
    """A small item of one form with one label; its group is its id."""
    text = f"word {number}"
    span = {"name": "value", "start": 5, "end": len(text), "label": label}
    return {"id": number, "forms": {"code": {"text": text, "spans": [span]}}, **more}


def lines(*raws: dict[str, Any]) -> str:
    return "\n".join(map(json.dumps, raws))


def written(content: str | bytes, folder: Path) -> Path:
    path = folder / "my.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def to_patch(content: str | bytes) -> list[Item]:
    with tempfile.TemporaryDirectory() as folder:
        return read_items(written(content, Path(folder)))


def task_of(*raws: dict[str, Any]) -> Task:
    with tempfile.TemporaryDirectory() as folder:
        return read(written(lines(*raws), Path(folder)))


def message(error: pytest.ExceptionInfo[TwinprobeError]) -> str:
    said = str(error.value)
    assert "\n" not in said
    return said[said.index("my.jsonl") :]


def refusal(content: str | bytes) -> str:
    with pytest.raises(TwinprobeError) as caught:
        to_patch(content)
    return message(caught)


def test_the_short_way_makes_one_form() -> None:
    (item,) = to_patch(lines(SHORT))
    form = Form(
        SHORT["clean"], (Span("definition", 18, 21),), " box", (" box", " bag", " jar"),
        Contrast(SHORT["corrupted"], " bag"),
    )  # fmt: skip
    assert item == Item("1", "items", "test", "1", 1, {"text": form})
    assert SHORT["clean"][18:21] == "box"
    assert item.as_text("text").id == "1/text"


def test_optional_keys_have_defaults_and_blank_lines_are_skipped() -> None:
    short = {key: SHORT[key] for key in ("id", "clean", "answer", "corrupted", "contrast")}
    items = to_patch(f"\n{json.dumps({**short, 'id': 7})}\n\n{json.dumps({**short, 'candidates': [' box']})}\n")
    assert [item.id for item in items] == ["7", "1"]
    assert [item.difficulty for item in items] == [0, 0]
    assert all(item.forms["text"].candidates == (" box", " bag") for item in items)
    assert all(item.forms["text"].spans == () for item in items)


def test_all_forms_of_a_line_are_read() -> None:
    (item,) = to_patch(lines(FULL))
    code = Form(
        "a = k; b = a; b",
        (Span("value", 14, 15, "k", "b"), Span("reads", 14, 15), Span("reads", 7, 8), Span("reads", 11, 12)),
        " k", (" k", " m", " n"), Contrast("a = m; b = a; b", " m"),
        (Relation("reads", (14, 15), (7, 8), "1", "x"), Relation("reads", (11, 12), (7, 8), "0.5", "a b")),
    )  # fmt: skip
    prose = Form("Ann has it.", (Span("value", 10, 11, "3"),))
    assert item == Item("7", "items", "train", "template3", 2, {"code": code, "prose": prose})


def test_the_examples_in_the_documentation_are_valid() -> None:
    page = (Path(__file__).parents[3] / "docs" / "FORMATS.md").read_text()
    section = page.split("\n## Items\n")[1].split("\n## ")[0]
    shown = re.findall(r"```jsonl?\n(.+?)```", section, re.DOTALL)
    said = (probes.tasks.item_lines.__doc__ or "").split("::\n\n")[1:]
    documented, told = [[json.loads(block.split("\n\n")[0]) for block in blocks] for blocks in (shown, said)]
    assert len(documented) == len(told) == 2
    for full, short in (documented, told):
        (short_item,) = to_patch(lines(short))
        assert short == SHORT
        assert short_item.forms["text"].text[18:21] == "box"
        (item,) = to_patch(lines(full))
        code = item.forms["code"]
        assert [code.text[s.start : s.end] for s in code.spans] == ["'", "key", "ann", "ann"]
        for form in item.forms.values():
            assert form.spans[0].end == len(form.text)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (changed(SHORT, "id", to=None), "'id' must be a string or a whole number, got None"),
        (changed(SHORT, "id", to=True), "'id' must be a string or a whole number, got True"),
        (changed(SHORT, "group", to=[1]), "'group' must be a string or a whole number, got [1]"),
        (changed(SHORT, "clean", to=""), "'clean' must be a non-empty string, got ''"),
        (changed(SHORT, "corrupted", to=3), "'corrupted' must be a non-empty string, got 3"),
        (changed(SHORT, "answer", to=None), "'answer' must be a non-empty string, got None"),
        (changed(SHORT, "contrast", to=[]), "'contrast' must be a non-empty string, got []"),
        (changed(SHORT, "contrast", to="\ud800"), "not valid Unicode (half of a surrogate pair"),
        (changed(SHORT, "candidates", to=["\udfff"]), "not valid Unicode (half of a surrogate pair"),
        (changed(SHORT, "candidates", to=" jar"), "'candidates' must be a list of non-empty strings, got ' jar'"),
        (changed(SHORT, "candidates", to=[""]), "'candidates' must be a list of non-empty strings, got ['']"),
        (changed(SHORT, "difficulty", to="hard"), "'difficulty' must be a whole number from 0 on, got 'hard'"),
        (changed(SHORT, "difficulty", to=True), "'difficulty' must be a whole number from 0 on, got True"),
        (changed(SHORT, "difficulty", to=-1), "'difficulty' must be a whole number from 0 on, got -1"),
        (changed(SHORT, "spans", to={}), "'spans' must be a list, got dict"),
        (changed(SHORT, "spans", 0, "end", to=99), "'definition' covers characters 18 to 99, but the text has 40"),
        (changed(SHORT, "split", to="valid"), "'split' must be one of train, dev, test, got 'valid'"),
        (changed(SHORT, "answr", to=" box"), "unknown key 'answr' (did you mean 'answer'"),
        (changed(SHORT, "forms", to={"a": {"text": "x"}}), "'clean' stands beside 'forms'; put it into one of the"),
        ({"id": 1}, "an item needs 'forms', or else clean, corrupted, answer, contrast"),
        (changed(FULL, "forms", to={}), "'forms' must be an object of forms by name, got {}"),
        (changed(FULL, "forms", to="code"), "'forms' must be an object of forms by name, got 'code'"),
        (changed(FULL, "forms", "a/b", to={}), "a form is named with letters, digits, '-' and '_', got 'a/b'"),
        (changed(FULL, "forms", "code", to=3), "form 'code': expected a JSON object with text, spans, answer"),
        (changed(FULL, "forms", "code", "txt", to="x"), "form 'code': unknown key 'txt' (did you mean 'text'"),
        (changed(FULL, "forms", "code", "text", to=None), "form 'code': 'text' must be a non-empty string, got None"),
        (changed(FULL, "forms", "prose", "spans", 0, "label", to=[]), "form 'prose': span 'value': 'label' must be a"),
        (changed(FULL, "forms", "code", "contrast", to=" m"), "form 'code': contrast: expected a JSON object with"),
        (changed(FULL, "forms", "code", "contrast", "text", to=""), "form 'code': contrast: 'text' must be a non-e"),
        (changed(FULL, "forms", "code", "contrast", to=None), "form 'code': 'answer' needs a 'contrast'"),
        (changed(FULL, "forms", "prose", "candidates", to=["x"]), "form 'prose': 'candidates' needs a 'contrast'"),
        (changed(FULL, "forms", "code", "answer", to=""), "form 'code': 'answer' must be a non-empty string, got ''"),
        (changed(FULL, "forms", "code", "relations", to={}), "form 'code': 'relations' must be a list, got dict"),
        (changed(FULL, "forms", "code", "relations", 0, to=1), "form 'code': relation: expected a JSON object with"),
        (changed(FULL, "forms", "code", "relations", 0, "target", to=2), "relation: 'target' must be a non-empty s"),
        (
            changed(FULL, "forms", "code", "relations", 0, "first", to=[3]),
            "form 'code': relation 'reads': 'first' must be two whole numbers, [start, end], got [3]",
        ),
        (
            changed(FULL, "forms", "code", "relations", 1, "second", to=[3, "x"]),
            "form 'code': span 'reads' needs whole numbers 'start' and 'end', got 3 and 'x'",
        ),
        (
            changed(FULL, "forms", "code", "relations", 1, "second", to=[3, 99]),
            "form 'code': text '7': span 'reads' covers characters 3 to 99, but the text has 15",
        ),
        (
            changed(FULL, "forms", "code", "relations", 0, "label", to=None),
            "form 'code': relation 'reads': 'label' must be a string or a number, got None",
        ),
        (
            changed(FULL, "forms", "code", "relations", 1, "first", to=[14, 15]),
            "form 'code': 'reads' at (14, 15) to (7, 8) is labelled twice",
        ),
        (
            changed(
                FULL, "forms", "prose", "spans", to=[{"name": "v", "start": 0, "end": 3, "label": i} for i in "xy"]
            ),
            "form 'prose': 'v' at 0 to 3 is labelled twice",
        ),
    ],
)
def test_a_bad_line_is_named(raw: dict[str, Any], expected: str) -> None:
    said = refusal(f"{json.dumps({**SHORT, 'id': 'fine'})}\n\n{json.dumps(raw)}")
    assert said.startswith("my.jsonl:3: ")
    assert expected in said


def test_lines_that_do_not_go_together_are_both_named() -> None:
    def said(*raws: dict[str, Any]) -> str:
        with pytest.raises(TwinprobeError) as caught:
            task_of(*raws)
        return message(caught)

    first = labelled(1, "x", split="train", group="g")
    assert said(first, labelled(1, "y", split="train")) == (
        "my.jsonl:2: id '1' was already used; ids must be unique (see line 1)"
    )
    assert said(first, labelled(2, "y", split="dev"), labelled(3, "y")) == (
        "my.jsonl:3: 'split' must be on every line or on none (see line 1)"
    )
    assert said(first, labelled(2, "y", split="dev"), labelled(3, "y", split="test", group="g")) == (
        "my.jsonl:3: group 'g' is in test here and in train before; a group never lies in two splits (see line 1)"
    )
    clash = changed(labelled(2, "x", split="dev"), "forms", "code", "relations", to=[])
    clash["forms"]["code"]["relations"] = [{"target": "value", "first": [0, 1], "second": [1, 2], "label": "x"}]
    clash["forms"]["code"]["spans"] = []
    assert said(first, clash) == "my.jsonl:2: 'value' names a relation here and a labelled span (see line 1)"


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    assert refusal("").startswith("my.jsonl: no items found; expected one JSON object per line with id and forms, or")
    assert refusal(f"{json.dumps(SHORT)}\n{{").startswith("my.jsonl:2: not valid JSON (")
    assert refusal(b'{"id": "\xff"}') == "my.jsonl:1: not UTF-8 (byte 8); save the file as UTF-8"
    assert refusal("[1]").startswith(
        "my.jsonl:1: expected a JSON object with id, difficulty, group, split, forms, clean"
    )
    assert refusal("[" * 100_000).startswith("my.jsonl:1: not readable JSON (")
    assert refusal('{"id": ' + "9" * 5000 + "}").startswith("my.jsonl:1: not readable JSON (")
    assert refusal(lines(labelled(1, "x"))) == (
        "my.jsonl: no item has an 'answer' and a 'contrast', so there is nothing to patch"
    )
    with pytest.raises(TwinprobeError, match="so there is nothing to probe"):
        task_of(SHORT)
    with pytest.raises(TwinprobeError, match="no such file; expected a JSONL file"):
        read_items(tmp_path / "absent.jsonl")


def test_a_file_is_a_task(tmp_path: Path) -> None:
    raws = [
        {**changed(FULL, "group", to=i), "id": i, "split": split} for i, split in enumerate(["train", "dev", "test"])
    ]
    path = written(lines(*raws), tmp_path)
    task = get_task(f"items:{path}")
    assert (task.name, task.summary, task.files) == ("items", "items of my.jsonl", (path,))
    assert task.targets == {"value": ("code", "prose"), "reads": ("code",)}
    assert task.relations == ("reads",)
    assert task.causal
    assert task.clusters == "group"
    assert not task_of(labelled(1, "x")).causal
    with pytest.raises(TwinprobeError, match=r"task 'items' is read from files; write items:PATH.*JSONL file"):
        get_task("items")
    with pytest.raises(TwinprobeError, match=r"absent.jsonl is not there; expected a JSONL file of items"):
        get_task(f"items:{tmp_path / 'absent.jsonl'}")


def test_splits_of_the_file_are_kept_and_every_split_gives_its_share() -> None:
    given_splits = ["train"] * 60 + ["dev"] * 10 + ["test"] * 30
    task = task_of(*(labelled(i, "xy"[i % 2], split=split) for i, split in enumerate(given_splits)))
    everything = task.generate(1000, 0)
    assert [item.split for item in everything] == given_splits
    some = task.generate(50, 0)
    assert Counter(item.split for item in some) == {"train": 30, "dev": 5, "test": 15}
    assert [item for item in everything if item in some] == some == task.generate(50, 0)
    assert some != task.generate(50, 1)


def test_without_splits_whole_groups_are_shared_out_anew_for_every_seed() -> None:
    task = task_of(*(labelled(i, "xy"[i % 2], group=i // 3) for i in range(90)))
    draws = [task.generate(n_items, seed) for n_items, seed in ((90, 0), (90, 1), (30, 0))]
    for items in draws:
        homes = {(item.group, item.split) for item in items}
        assert len(homes) == len({group for group, _ in homes})
    assert [item.id for item in draws[0]] == [item.id for item in draws[1]] == [str(i) for i in range(90)]
    assert [item.split for item in draws[0]] != [item.split for item in draws[1]]
    assert Counter(item.split for item in draws[0]) == pytest.approx({"train": 54, "dev": 13, "test": 22}, abs=3)
    assert len(draws[2]) == 30
    assert all(item in draws[0] for item in draws[2])


@pytest.mark.parametrize(
    ("labels", "splits", "expected"),
    [
        ("xx xy", "train dev test", "my.jsonl: 'value' in form 'code' has one label in the train split ('x'); a probe"),
        ("xy xy", "train test", "my.jsonl: 'value' in form 'code' has no label in the dev split; add items or ask for"),
        ("xy xy", "", "my.jsonl: there are 2 groups; at least 3 are needed"),
    ],
)
def test_a_target_that_can_not_be_probed_is_named(labels: str, splits: str, expected: str) -> None:
    raws = []
    for number, split in enumerate(splits.split() or ["a", "b"]):
        for i, label in enumerate(labels.split()[min(number, 1)]):
            raws.append(labelled(10 * number + i, label, group=split, **({"split": split} if splits else {})))
    with pytest.raises(TwinprobeError) as caught:
        task_of(*raws).generate(100, 0)
    assert message(caught).startswith(expected)


def test_a_target_with_one_control_key_is_named() -> None:
    raws = [labelled(i, "xy"[i % 2], split=split) for i, split in enumerate(["train", "train", "dev", "test"])]
    same = [changed(raw, "forms", "code", "spans", 0, "control", to="all") for raw in raws]
    assert len(task_of(*raws).generate(9, 0)) == 4
    with pytest.raises(
        TwinprobeError, match=r"'value' in form 'code' has one control key in the train split \('all'\)"
    ):
        task_of(*same).generate(9, 0)


WORD = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)


@st.composite
def _place(draw: st.DrawFn, text: str) -> tuple[int, int]:
    start = draw(st.integers(0, len(text) - 1))
    return start, draw(st.integers(start + 1, len(text)))


@st.composite
def _form(draw: st.DrawFn) -> Form:
    text = draw(WORD)
    places = _place(text)
    spans = draw(st.lists(st.builds(lambda at, *rest: Span("value", *at, *rest), places, WORD, st.none() | WORD)))
    roles = draw(st.lists(st.builds(lambda at: Span("role", *at), places), max_size=2))
    related = draw(st.lists(st.builds(Relation, st.just("reads"), places, places, WORD, WORD), max_size=3))
    relations = {(relation.first, relation.second): relation for relation in related}.values()
    ends = [Span("reads", *at) for relation in relations for at in (relation.first, relation.second)]
    kept = {(span.name, span.start, span.end): span for span in (*spans, *roles, *ends)}
    answers = draw(st.none() | st.lists(WORD, min_size=2, max_size=4, unique=True))
    return Form(
        text, tuple(kept.values()), answers[0] if answers else None, tuple(answers or ()),
        Contrast(draw(WORD), answers[1]) if answers else None, tuple(relations),
    )  # fmt: skip


@st.composite
def items_of_a_file(draw: st.DrawFn) -> list[Item]:
    with_splits = draw(st.booleans())
    items = []
    for name in draw(st.lists(WORD, min_size=1, max_size=4, unique=True)):
        split: Split = draw(st.sampled_from(SPLITS)) if with_splits else "test"
        forms = draw(st.dictionaries(st.sampled_from(("code", "prose", "x_1")), _form(), min_size=1, max_size=2))
        items.append(
            Item(name, "items", split, draw(st.sampled_from((name, f"g {split}"))), draw(st.integers(0, 9)), forms)
        )
    return items


def as_raw(item: Item, with_split: bool) -> dict[str, Any]:
    """The line of an item, written independently of the reader."""
    forms: dict[str, Any] = {}
    for name, form in item.forms.items():
        forms[name] = {
            "text": form.text,
            "spans": [vars(span) for span in form.spans],
            "relations": [vars(relation) for relation in form.relations],
        }
        if form.contrast:
            forms[name] |= {"answer": form.answer, "contrast": vars(form.contrast), "candidates": form.candidates[2:]}
    raw = {"id": item.id, "group": item.group, "difficulty": item.difficulty, "forms": forms}
    return {**raw, "split": item.split} if with_split else raw


def file_of(items: Sequence[Item]) -> list[dict[str, Any]]:
    return [as_raw(item, any(item.split != "test" for item in items)) for item in items]


@given(items_of_a_file())
@settings(max_examples=50, deadline=None)
def test_what_is_written_is_read_again(items: list[Item]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = written("\n".join(json.dumps(raw, ensure_ascii=False) for raw in file_of(items)), Path(folder))
        owners: dict[str, str] = {}
        if any(owners.setdefault(item.group, item.split) != item.split for item in items):
            with pytest.raises(TwinprobeError, match="a group never lies in two splits"):
                read_items(path)
        elif any(form.contrast for item in items for form in item.forms.values()):
            assert read_items(path) == items
        if any(span.label for item in items for form in item.forms.values() for span in form.spans):
            assert "value" in read(path).targets


def accepted_or_refused(content: bytes) -> None:
    """Both readers, and a draw, work or refuse in one line that names the file; of a bad line, its number."""
    with tempfile.TemporaryDirectory() as folder:
        path = written(content, Path(folder))
        for attempt in (lambda: read_items(path), lambda: read(path).generate(9, 0)):
            try:
                for item in attempt():
                    for form in item.forms.values():
                        texts = [form.text, *form.candidates, form.contrast.text if form.contrast else "-"]
                        assert all(texts)
                        json.dumps([item.id, texts], ensure_ascii=False).encode()
            except TwinprobeError as error:
                said = str(error)
                assert "\n" not in said
                # Only what no single line is to blame for is said of the whole file.
                whole = r"no items found|nothing to p|has no label in|has one (label|control key) in|groups; at least 3"
                assert re.match(rf"{re.escape(str(path))}(:\d+: |: .*({whole}))", said), said


def places(raw: Any) -> list[tuple[str | int, ...]]:
    """The paths of all values inside a JSON value."""
    inner = raw.items() if isinstance(raw, dict) else enumerate(raw) if isinstance(raw, list) else ()
    return [path for key, value in inner for path in ((key,), *((key, *rest) for rest in places(value)))]


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_value_is_refused_by_line_or_accepted(data: st.DataObject) -> None:
    raw = data.draw(st.sampled_from([SHORT, FULL]))
    path = data.draw(st.sampled_from(places(raw)))
    if isinstance(path[-1], str) and data.draw(st.booleans()):
        path = (*path[:-1], data.draw(st.text(max_size=5)))
    damaged = changed(raw, *path, to=data.draw(JSON))
    accepted_or_refused("\n".join(json.dumps(line) for line in (damaged, changed(FULL, "id", to=2))).encode())


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_a_damaged_byte_is_refused_by_line_or_accepted(data: st.DataObject) -> None:
    bad = bytearray(json.dumps(data.draw(st.sampled_from([SHORT, FULL])), ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(bad) - 1))
        bad[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    accepted_or_refused(bytes(bad))


@pytest.mark.parametrize("depth", [10, 400, 940, 980, 1000, 1050, 3000, 30_000])
def test_brackets_in_brackets_are_refused_at_every_depth(depth: int) -> None:
    deep = "[" * depth + "]" * depth
    for line in (
        json.dumps(SHORT).replace('[" jar"]', deep),
        json.dumps(FULL).replace('"label": 1', f'"label": {deep}'),
        json.dumps(FULL).replace('"label": 3', f'"label": {deep}'),
    ):
        assert refusal(line).startswith("my.jsonl:1: ")
