"""Texts and their JSONL format: exact round trips, and one clear line naming file and line for anything else."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from activations.texts import Span, Text, labels_of, parse_text, read_texts, text_set_hash, to_dict, write_texts

UNICODE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
OPTIONAL = st.none() | st.text(st.characters(exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
VALID = {
    "id": "a1",
    "text": "x = 1 # größer",
    "group": "file.py",
    "spans": [{"name": "role", "start": 0, "end": 1, "label": "identifier", "control": "x"}],
}


@st.composite
def some_texts(draw: st.DrawFn) -> list[Text]:
    texts = []
    for name in draw(st.lists(UNICODE, min_size=1, max_size=4, unique=True)):
        body = draw(UNICODE)
        spans = []
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, len(body) - 1))
            end = draw(st.integers(start + 1, len(body)))
            spans.append(Span(draw(UNICODE), start, end, draw(OPTIONAL), draw(OPTIONAL)))
        texts.append(Text(name, body, tuple(spans), draw(UNICODE | st.just(""))))
    return texts


def read(content: bytes) -> list[Text]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "my.jsonl"
        path.write_bytes(content)
        return read_texts(path)


def message(content: str | bytes) -> str:
    """The one line that reading ``content`` fails with, from the file's name on."""
    with pytest.raises(TwinprobeError) as caught:
        read(content.encode() if isinstance(content, str) else content)
    said = str(caught.value)
    assert "\n" not in said
    return said[said.index("my.jsonl") :]


@given(some_texts())
@settings(max_examples=60)
def test_what_is_written_is_read_back(texts: list[Text]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_texts(Path(folder) / "my.jsonl", texts)
        assert read_texts(Path(folder) / "my.jsonl") == texts


@given(st.data())
@settings(max_examples=150)
def test_a_damaged_value_is_refused_by_line_or_accepted(data: st.DataObject) -> None:
    """Whatever JSON a field holds, the answer is a text or one line that names file and line."""
    raw: dict[str, Any] = json.loads(json.dumps(VALID))
    target = data.draw(st.sampled_from([raw, raw["spans"][0]]))
    target[data.draw(st.sampled_from(sorted(target)) | st.text(max_size=5))] = data.draw(JSON)
    try:
        (text,) = read(json.dumps(raw).encode())
    except TwinprobeError as error:
        assert "my.jsonl:1: " in str(error)
        assert "\n" not in str(error)
    else:
        with tempfile.TemporaryDirectory() as folder:  # what was accepted can be written and read again
            write_texts(Path(folder) / "again.jsonl", [text])
            assert read_texts(Path(folder) / "again.jsonl") == [text]


@given(st.data())
@settings(max_examples=150)
def test_a_damaged_byte_is_refused_by_line_or_accepted(data: st.DataObject) -> None:
    good = json.dumps(VALID, ensure_ascii=False).encode()
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(bad) - 1))
        bad[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    try:
        read(good.replace(b'"a1"', b'"another"') + b"\n" + bytes(bad))
    except TwinprobeError as error:
        assert "my.jsonl:" in str(error)
        assert "\n" not in str(error)
        # a new line among the damage may have cut the second line in two or three
        assert any(f"my.jsonl:{number}: " in str(error) for number in range(2, 9))


@given(st.text())
@settings(max_examples=100)
def test_any_line_raises_nothing_else(line: str) -> None:
    with pytest.raises(TwinprobeError, match=r"^here:7: "):
        parse_text(line, "here:7")


@pytest.mark.parametrize(
    "line", ["[" * 100_000, '{"id": ' + "9" * 5000 + ', "text": "x"}'], ids=["deep", "long number"]
)
def test_json_beyond_python_s_limits_is_refused(line: str) -> None:
    said = message(line)
    assert said.startswith("my.jsonl:1: not readable JSON (")
    assert len(said) < 200


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"text": None}, "'text' must be a non-empty string, got None"),
        ({"text": ""}, "'text' must be a non-empty string"),
        ({"text": "lone \ud800"}, "half of a surrogate pair"),
        ({"id": None}, "'id' must be a string or a whole number, got None"),
        ({"id": True}, "'id' must be a string or a whole number, got True"),
        ({"group": ["a"]}, "'group' must be a string or a whole number, got ['a']"),
        ({"txt": "x"}, "unknown key 'txt' (did you mean 'text'?); known: id, text, group, spans"),
        ({"spans": {}}, "'spans' must be a list, got dict"),
        ({"spans": [3]}, "a span must be an object with name, start and end, got 3"),
        ({"spans": [{"start": 0, "end": 1}]}, "a span needs a non-empty string 'name'"),
        ({"spans": [{"name": "r", "start": 0.0, "end": 1}]}, "needs whole numbers 'start' and 'end', got 0.0 and 1"),
        ({"spans": [{"name": "r", "start": 0, "end": 15}]}, "covers characters 0 to 15, but the text has 14"),
        ({"spans": [{"name": "r", "start": 3, "end": 3}]}, "covers characters 3 to 3"),
        ({"spans": [{"name": "r", "start": -1, "end": 3}]}, "covers characters -1 to 3"),
        ({"spans": [{"name": "r", "start": 0, "end": 1, "lable": "x"}]}, "unknown span key 'lable'"),
        ({"spans": [{"name": "r", "start": 0, "end": 1, "label": {}}]}, "'label' must be a string or a number, got {}"),
    ],
)
def test_a_bad_line_is_named(change: dict[str, Any], expected: str) -> None:
    lines = [json.dumps({"id": 0, "text": "fine"}), "", json.dumps({**VALID, **change})]
    said = message("\n".join(lines))
    assert said.startswith("my.jsonl:3: ")
    assert expected in said


def test_a_bad_file_is_named(tmp_path: Path) -> None:
    assert message("") == "my.jsonl: no texts found; expected one JSON object per line with 'id' and 'text'"
    assert message('{"id": 1, "text": "x"}\n{"id": 1').startswith("my.jsonl:2: not valid JSON (")
    assert message(b'{"id": 1, "text": "\xff"}') == "my.jsonl:1: not UTF-8 (byte 19); save the file as UTF-8"
    repeated = '{"id": 1, "text": "x"}\n{"id": "1", "text": "y"}'
    assert message(repeated) == "my.jsonl:2: id '1' was already used on line 1; ids must be unique"
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(TwinprobeError, match="no such file; expected a JSONL file"):
            read_texts(path)


def test_defaults_and_conversions() -> None:
    (text,) = read(
        b'{"id": 7, "text": "x = 1", "group": null, "spans": [{"name": "v", "start": 4, "end": 5, "label": 1}]}'
    )
    assert text == Text("7", "x = 1", (Span("v", 4, 5, "1"),), "7")
    assert to_dict(text) == {
        "id": "7",
        "text": "x = 1",
        "group": "7",
        "spans": [{"name": "v", "start": 4, "end": 5, "label": "1"}],
    }


def test_labels_of_keeps_order_and_skips_unlabelled() -> None:
    texts = [Text("a", "xyz", (Span("r", 0, 1, "B"), Span("q", 0, 1, "no"), Span("r", 1, 2))), Text("b", "x")]
    texts.append(Text("c", "x", (Span("r", 0, 1, "A"),)))
    assert labels_of(texts, "r") == ["B", "A"]


def test_the_documented_example_is_valid() -> None:
    documented = Path(__file__).parents[2] / "docs" / "FORMATS.md"
    block = documented.read_text(encoding="utf-8").split("```jsonl\n")[1].split("```")[0]
    texts = read(block.encode())
    assert [text.id for text in texts] == ["a1", "a2"]
    assert [text.text[span.start : span.end] for text in texts for span in text.spans] == ["total", "width"]


def test_the_hash_of_a_text_set_sees_every_field_and_the_order() -> None:
    text = Text("a", "xyz", (Span("s", 0, 1, "l", "c"),), "g")
    other = Text("b", "xyz")
    variants = [
        [text, other],
        [other, text],
        [text],
        [Text("c", "xyz", text.spans, "g"), other],
        [Text("a", "xyw", text.spans, "g"), other],
        [Text("a", "xyz", text.spans, "h"), other],
        *([Text("a", "xyz", (span,), "g"), other] for span in (
            Span("t", 0, 1, "l", "c"), Span("s", 1, 2, "l", "c"), Span("s", 0, 2, "l", "c"), Span("s", 0, 1, None, "c"),
            Span("s", 0, 1, "l", None),
        )),
    ]  # fmt: skip
    assert len({text_set_hash(variant) for variant in variants}) == len(variants)
    assert text_set_hash([text, other]) == text_set_hash([Text("a", "xyz", (Span("s", 0, 1, "l", "c"),), "g"), other])
