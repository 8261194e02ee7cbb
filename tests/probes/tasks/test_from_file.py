"""Contrast items from a file: what is read, and one line naming file and line for everything else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from activations.texts import Span
from probes.tasks.from_file import FORM, read_items
from probes.tasks.items import Contrast, Form, Item

VALID: dict[str, Any] = {
    "id": "1",
    "clean": "The key is in the box. The key is in the",
    "answer": " box",
    "corrupted": "The key is in the bag. The key is in the",
    "contrast": " bag",
    "candidates": [" jar"],
    "spans": [{"name": "definition", "start": 18, "end": 21}],
    "difficulty": 1,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def read(content: str | bytes) -> list[Item]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "my.jsonl"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_items(path)


def message(content: str | bytes) -> str:
    with pytest.raises(TwinprobeError) as caught:
        read(content)
    said = str(caught.value)
    assert "\n" not in said
    return said[said.index("my.jsonl") :]


def test_an_item_is_read() -> None:
    (item,) = read(json.dumps(VALID))
    form = Form(
        VALID["clean"], (Span("definition", 18, 21),), " box", (" box", " bag", " jar"),
        Contrast(VALID["corrupted"], " bag"),
    )  # fmt: skip
    assert item == Item("1", "file", "test", "1", 1, {FORM: form})
    assert VALID["clean"][18:21] == "box"
    assert item.as_text(FORM).id == "1/text"


def test_optional_keys_have_defaults_and_blank_lines_are_skipped() -> None:
    short = {key: VALID[key] for key in ("id", "clean", "answer", "corrupted", "contrast")}
    items = read(f"\n{json.dumps({**short, 'id': 7})}\n\n{json.dumps({**short, 'candidates': [' box']})}\n")
    assert [item.id for item in items] == ["7", "1"]
    assert [item.difficulty for item in items] == [0, 0]
    assert all(item.forms[FORM].candidates == (" box", " bag") for item in items)
    assert all(item.forms[FORM].spans == () for item in items)


def test_the_example_in_the_docstring_is_valid() -> None:
    import probes.tasks.from_file as module

    assert module.__doc__ is not None
    block = module.__doc__.split("::\n\n")[1].split("\n\n")[0]
    (item,) = read(json.dumps(json.loads(block)))
    assert item.forms[FORM].text[18:21] == "box"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"id": None}, "'id' must be a string or a whole number, got None"),
        ({"id": True}, "'id' must be a string or a whole number, got True"),
        ({"clean": ""}, "'clean' must be a non-empty string, got ''"),
        ({"corrupted": 3}, "'corrupted' must be a non-empty string, got 3"),
        ({"answer": None}, "'answer' must be a non-empty string, got None"),
        ({"contrast": []}, "'contrast' must be a non-empty string, got []"),
        ({"contrast": "\ud800"}, "not valid Unicode (half of a surrogate pair"),
        ({"candidates": ["\udfff"]}, "not valid Unicode (half of a surrogate pair"),
        ({"candidates": " jar"}, "'candidates' must be a list of non-empty strings, got ' jar'"),
        ({"candidates": [""]}, "'candidates' must be a list of non-empty strings, got ['']"),
        ({"difficulty": "hard"}, "'difficulty' must be a whole number, got 'hard'"),
        ({"difficulty": True}, "'difficulty' must be a whole number, got True"),
        ({"spans": {}}, "'spans' must be a list, got dict"),
        ({"spans": [{"name": "x", "start": 0, "end": 99}]}, "span 'x' covers characters 0 to 99, but the text has 40"),
        ({"answr": " box"}, "unknown key 'answr' (did you mean 'answer'"),
    ],
)
def test_a_bad_line_is_named(change: dict[str, Any], expected: str) -> None:
    lines = [json.dumps({**VALID, "id": "fine"}), "", json.dumps({**VALID, **change})]
    said = message("\n".join(lines))
    assert said.startswith("my.jsonl:3: ")
    assert expected in said


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    assert message("").startswith(
        "my.jsonl: no items found; expected one JSON object per line with id, clean, corrupted"
    )
    assert message(f"{json.dumps(VALID)}\n{{").startswith("my.jsonl:2: not valid JSON (")
    assert message(b'{"id": "\xff"}') == "my.jsonl:1: not UTF-8 (byte 8); save the file as UTF-8"
    assert message("[1]").startswith("my.jsonl:1: expected a JSON object with id, clean, corrupted, answer, contrast")
    assert message("[" * 100_000).startswith("my.jsonl:1: not readable JSON (")
    assert message('{"id": ' + "9" * 5000 + "}").startswith("my.jsonl:1: not readable JSON (")
    twice = f"{json.dumps(VALID)}\n{json.dumps({**VALID, 'id': 1})}"
    assert message(twice) == "my.jsonl:2: id '1' was already used; ids must be unique"
    with pytest.raises(TwinprobeError, match="no such file; expected a JSONL file"):
        read_items(tmp_path / "absent.jsonl")


def accepted_or_refused(content: bytes) -> None:
    try:
        items = read(content)
    except TwinprobeError as error:
        said = str(error)
        assert "my.jsonl:" in said
        assert "\n" not in said
        assert any(f"my.jsonl:{number}: " in said for number in range(1, 9)) or ": no items found" in said
    else:
        for item in items:
            form = item.forms[FORM]
            assert form.contrast is not None
            assert all((form.text, form.answer, form.contrast.text, form.contrast.answer, *form.candidates))
            json.dumps([item.id, form.text, form.candidates], ensure_ascii=False).encode()


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_value_is_refused_by_line_or_accepted(data: st.DataObject) -> None:
    raw: dict[str, Any] = json.loads(json.dumps(VALID))
    target = data.draw(st.sampled_from([raw, raw["spans"][0]]))
    target[data.draw(st.sampled_from(sorted(target)) | st.text(max_size=5))] = data.draw(JSON)
    accepted_or_refused(json.dumps(raw).encode())


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_byte_is_refused_by_line_or_accepted(data: st.DataObject) -> None:
    bad = bytearray(json.dumps(VALID, ensure_ascii=False).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(bad) - 1))
        bad[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    accepted_or_refused(bytes(bad))
