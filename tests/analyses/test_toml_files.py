"""TOML files: one line naming file and field for anything wrong, and an exact way back to text."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from activations.errors import TwinprobeError
from analyses.toml_files import read_toml, to_toml


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    pool: Literal["last", "mean"] = "last"
    rates: tuple[float, ...] = (0.1, 1e-05)
    words: dict[str, float] = Field(default_factory=dict)
    nothing: str | None = None


class Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    title: str
    marks: tuple[str, ...] = ()


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str
    size: int = Field(3, ge=1)
    ready: bool = True
    share: float = 0.5
    inner: Inner = Inner()
    entry: tuple[Entry, ...] = ()


GOOD = """
name = "a # \\"b\\""
size = 7
[inner]
pool = "mean"
words = { "*/x y/*" = 0.1 }
[[entry]]
title = "one"
marks = ["a", "b"]
[[entry]]
title = "two"
"""


def read(content: str | bytes) -> Outer:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "my.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_toml(path, Outer)


def message(content: str | bytes) -> str:
    with pytest.raises(TwinprobeError) as caught:
        read(content)
    said = str(caught.value)
    assert "\n" not in said
    return said[said.index("my.toml") :]


def test_a_file_is_read() -> None:
    read_back = read(GOOD)
    assert (read_back.name, read_back.size, read_back.inner.pool) == ('a # "b"', 7, "mean")
    assert read_back.inner.words == {"*/x y/*": 0.1}
    assert read_back.entry == (Entry(title="one", marks=("a", "b")), Entry(title="two"))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('name = "a', "not valid TOML ("),
        ("", "field 'name' is required"),
        ('name = "a"\nsizes = 3', "unknown field 'sizes' (did you mean 'size'?); known here: name, size, ready"),
        ('name = "a"\n[inner]\npol = "last"', "unknown field 'inner.pol' (did you mean 'pool'?); known here: pool, rates"),
        ('name = "a"\n[[entry]]\ntitel = "x"', "field 'entry.0.title' is required"),
        ('name = "a"\n[[entry]]\ntitle = "x"\nmark = 1', "unknown field 'entry.0.mark' (did you mean 'marks'?); known"),
        ('name = "a"\nsize = 0', "field 'size': Input should be greater than or equal to 1, got 0"),
        ('name = "a"\nsize = "x"', "field 'size': Input should be a valid integer"),
        ('name = "a"\n[inner]\npool = "max"', "field 'inner.pool': Input should be 'last' or 'mean', got 'max'"),
        ('name = "a"\ninner = 3', "field 'inner': "),
        ('name = "a"\nname = "b"', "not valid TOML (Cannot overwrite a value"),
        (b'name = "\xff"', "not valid TOML ("),
        ("name = " + "[" * 3000, "not valid TOML ("),
        ("name = 1\nsize = " + "9" * 5000, "not valid TOML ("),
        ("name = 1\nsize = 2020-13-45", "not valid TOML ("),
    ],
)  # fmt: skip
def test_a_bad_file_gets_one_line(content: str | bytes, expected: str) -> None:
    said = message(content)
    assert said.startswith(f"my.toml: {expected}")
    assert len(said) < 400


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.toml", tmp_path):
        with pytest.raises(TwinprobeError, match="no such file; expected a TOML file") as caught:
            read_toml(path, Outer)
        assert str(path) in str(caught.value)


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_refused_in_one_line_or_accepted(data: st.DataObject) -> None:
    bad = bytearray(GOOD.encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(bad) - 1))
        bad[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=3) | st.sampled_from([b"[", b'"']))
    try:
        read(bytes(bad))
    except TwinprobeError as error:
        assert "my.toml: " in str(error)
        assert "\n" not in str(error)


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
NUMBERS = st.floats(allow_nan=False, width=64)


@given(
    st.builds(
        Outer,
        name=WORDS,
        size=st.integers(1, 2**62),
        ready=st.booleans(),
        share=NUMBERS,
        inner=st.builds(
            Inner,
            pool=st.sampled_from(["last", "mean"]),
            rates=st.lists(NUMBERS, max_size=3).map(tuple),
            words=st.dictionaries(WORDS, NUMBERS, max_size=3),
            nothing=st.none() | WORDS,
        ),
        entry=st.lists(st.builds(Entry, title=WORDS, marks=st.lists(WORDS, max_size=2).map(tuple)), max_size=2).map(
            tuple
        ),
    )
)
@settings(max_examples=150, deadline=None)
def test_what_is_written_is_read_back(given_model: Outer) -> None:
    assert read(to_toml(given_model)) == given_model


def test_what_is_written_shows_defaults_and_no_absent_fields() -> None:
    text = to_toml(Outer(name="x"))
    assert "size = 3\n" in text
    assert 'pool = "last"' in text
    assert "nothing" not in text
    assert math.isclose(read(text).inner.rates[1], 1e-05)
