"""Texts that are too long: an error, cut off or split, each piece a text that fits and is what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from activations.overlong import fit
from activations.texts import Span, Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

WORDS = "the value of total = width * height\n    return name if name in seen else 漢字 🙂 "


@given(
    st.text(alphabet="ab xyz=(\n\t漢🙂é", min_size=1, max_size=300),
    st.integers(6, 40),
    st.booleans(),
    st.booleans(),
)
def test_the_pieces_of_a_split_are_the_text(
    tokenizer: PreTrainedTokenizerFast, writing: str, context: int, bos: bool, close: bool
) -> None:
    closing = 1 if close else None
    fitted = fit(tokenizer, [Text("t", writing, group="g")], bos, context, "split", closing)
    assert "".join(item.text.text for item in fitted.encoded) == writing
    assert all(len(item) <= context for item in fitted.encoded)
    assert all(item.text.group == "g" for item in fitted.encoded)
    names = [item.text.id for item in fitted.encoded]
    assert names == (["t"] if not fitted.overlong else [f"t#{i}" for i in range(len(names))])
    assert fitted.overlong == (len(tokenizer(writing, add_special_tokens=False).input_ids) + bos + close > context)
    if fitted.overlong:
        (start,) = fit(tokenizer, [Text("t", writing, group="g")], bos, context, "truncate", closing).encoded
        assert start.text.text == fitted.encoded[0].text.text
        assert start.text.id == "t"


def test_pieces_are_as_long_as_fits(tokenizer: PreTrainedTokenizerFast) -> None:
    pieces = fit(tokenizer, [Text("t", WORDS * 40)], True, 50, "split").encoded
    assert all(len(item) >= 47 for item in pieces[:-1])


def test_spans_go_with_their_piece_or_are_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    writing = WORDS * 10
    spans = tuple(Span(f"s{i}", i, i + 9, "label") for i in range(0, len(writing) - 9, 10))
    for rule in ("truncate", "split"):
        fitted = fit(tokenizer, [Text("t", writing, spans), Text("short", "x", (Span("one", 0, 1),))], True, 40, rule)
        kept = [(item.text, span) for item in fitted.encoded for span in item.text.spans]
        assert fitted.overlong == 1
        assert fitted.lost_spans == len(spans) + 1 - len(kept) > 0
        for text, span in kept:
            if span.name != "one":
                begin = int(span.name[1:])
                assert text.text[span.start : span.end] == writing[begin : begin + 9]
                assert span.label == "label"
        assert fitted.encoded[-1].text.id == "short"


def test_too_long_is_an_error_unless_asked_otherwise(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(
        TwinprobeError, match=r"text 't' has \d+ tokens with BOS, but the model's context is 20.*--overlong"
    ):
        fit(tokenizer, [Text("t", WORDS)], True, 20)
    with pytest.raises(
        TwinprobeError, match="overlong rule 'chop' is not known; expected one of error, truncate, split"
    ):
        fit(tokenizer, [Text("t", "x")], True, 20, "chop")


@pytest.mark.parametrize("rule", ["truncate", "split"])
def test_a_context_that_nothing_fits_into_is_an_error(tokenizer: PreTrainedTokenizerFast, rule: str) -> None:
    with pytest.raises(TwinprobeError, match="not one token fits into the model's context of 1"):
        fit(tokenizer, [Text("t", "the value")], True, 1, rule)
