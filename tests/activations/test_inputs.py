"""Tokenised inputs: spans find their tokens in any script, BOS by one rule, nothing cut, nothing changed."""

from __future__ import annotations

import string
from itertools import pairwise, product
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from activations.inputs import BATCH_COST, batches, encode, pad, pad_id, resolve_bos
from activations.texts import Span, Text

if TYPE_CHECKING:
    from conftest import MakeTokenizer
    from transformers import PreTrainedTokenizerFast

SPACES = ["  ", "    ", "\n", "\t", "\u00a0", "\u2003"]
BITS = [*SPACES, "the", "name", "return", "(", "_", "9", "é", "e\u0301", "漢字", "🙂", "👩\u200d👧"]
WRITING = st.lists(st.sampled_from(BITS) | st.characters(exclude_categories=["Cs"]), min_size=1).map("".join)


@pytest.fixture(scope="session")
def tokenizers(make_tokenizer: MakeTokenizer) -> tuple[PreTrainedTokenizerFast, PreTrainedTokenizerFast]:
    """The same vocabulary with offsets as in Llama 3 or Qwen2 (whole) and as in GPT-2 (trimmed)."""
    return make_tokenizer(trim_offsets=False), make_tokenizer(trim_offsets=True)


@pytest.fixture(scope="session")
def byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for, as GPT-2 defined it."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


@given(WRITING, st.data())
@settings(max_examples=150)
def test_the_tokens_of_a_span_hold_its_characters(
    tokenizers: tuple[PreTrainedTokenizerFast, ...], byte_of: dict[str, int], writing: str, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(writing) - 1))
    span = Span("s", start, data.draw(st.integers(start + 1, len(writing))))
    covered = writing[span.start : span.end]
    found = []
    for tokenizer in tokenizers:
        (encoded,) = encode(tokenizer, [Text("t", writing, (span,))], bos=True, context=10_000)
        assert encoded.ids[1:] == tuple(tokenizer(writing, add_special_tokens=False).input_ids)
        try:
            positions = encoded.positions(span)
        except TwinprobeError:
            assert not covered.strip(), "only white space before a word may have no token of its own"
            continue
        assert positions == list(range(positions[0], positions[-1] + 1))
        found.append(positions)
        # by the offsets: every character that is not white space lies in some token found, and every token touches
        characters = {i for position in positions for i in range(*encoded.offsets[position])}
        assert {i for i in range(span.start, span.end) if not writing[i].isspace()} <= characters
        assert all(encoded.offsets[p][0] < span.end and encoded.offsets[p][1] > span.start for p in positions)
        # without the offsets: the bytes that the tokens found stand for hold the span's own
        pieces = tokenizer.convert_ids_to_tokens([encoded.ids[position] for position in positions])
        held = bytes(byte_of[character] for piece in pieces for character in piece)
        assert covered.strip().encode() in held
    assert len(found) in (0, 2), "one tokenizer found the span and the other did not"
    assert not found or found[0] == found[1]


@given(WRITING)
@example("def f():\n        return  x\n\n")
@settings(max_examples=100)
def test_offsets_do_not_depend_on_the_tokenizer_s_trimming(
    tokenizers: tuple[PreTrainedTokenizerFast, ...], writing: str
) -> None:
    whole, trimmed = (encode(t, [Text("t", writing)], bos=False, context=10_000)[0] for t in tokenizers)
    assert (whole.ids, whole.offsets, whole.own) == (trimmed.ids, trimmed.offsets, trimmed.own)
    assert all(start < end for start, end in whole.offsets)
    assert all(first[0] <= second[0] and first[1] <= second[1] for first, second in pairwise(whole.offsets))


def test_indentation_has_tokens_under_both(tokenizers: tuple[PreTrainedTokenizerFast, ...]) -> None:
    text = Text("t", "if x:\n        name", (Span("indent", 6, 13), Span("name", 14, 18)))
    for tokenizer in tokenizers:
        (encoded,) = encode(tokenizer, [text], bos=False, context=100)
        assert encoded.positions(text.spans[0])
        (name,) = encoded.positions(text.spans[1])
        assert tokenizer.convert_ids_to_tokens([encoded.ids[name]]) == ["Ġname"]
        assert encoded.offsets[name] == (14, 18)


def test_bos_covers_nothing(tokenizer: PreTrainedTokenizerFast) -> None:
    text = Text("t", "x = 1", (Span("all", 0, 5),))
    (without,), (having,) = (encode(tokenizer, [text], bos=bos, context=10) for bos in (False, True))
    assert having.ids == (tokenizer.bos_token_id, *without.ids)
    assert having.offsets == ((0, 0), *without.offsets)
    assert having.positions(text.spans[0]) == [position + 1 for position in without.positions(text.spans[0])]


def test_a_text_longer_than_the_context_is_refused_not_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    text = Text("long\none", "a b c d")
    count = len(tokenizer(text.text).input_ids)
    assert len(encode(tokenizer, [text], bos=False, context=count)[0].ids) == count
    for bos, context, shown in (
        (False, count - 1, f"has {count} tokens,"),
        (True, count, f"{count + 1} tokens with BOS"),
    ):
        with pytest.raises(TwinprobeError) as caught:
            encode(tokenizer, [Text("fine", "a"), text], bos=bos, context=context)
        assert shown in str(caught.value)
        assert str(caught.value).startswith("text 'long\\none' has ")
        assert f"context is {context}; shorten or split" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_no_texts_give_nothing_and_no_tokens_are_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode(tokenizer, [], bos=True, context=10) == []
    with pytest.raises(TwinprobeError, match="text 'empty' gives no tokens"):
        encode(tokenizer, [Text("empty", "")], bos=False, context=10)


@pytest.mark.parametrize("fails", [False, True])
def test_the_tokenizer_is_left_as_it_was(make_tokenizer: MakeTokenizer, fails: bool) -> None:
    """Also the truncation and padding that its owner switched on, which Hugging Face itself would switch off."""
    tokenizer = make_tokenizer(trim_offsets=True)
    tokenizer.padding_side = "left"
    for switch_on in (False, True):
        if switch_on:
            tokenizer(["a", "b c"], padding=True, truncation=True, max_length=3)
        before = tokenizer.backend_tokenizer.to_str(), tokenizer.padding_side, dict(tokenizer.special_tokens_map)
        if fails:
            with pytest.raises((TypeError, UnicodeEncodeError)):
                encode(tokenizer, [Text("t", "\ud800")], bos=True, context=50)
        else:
            assert len(encode(tokenizer, [Text("t", "the name and the value")], bos=True, context=50)[0].ids) > 4
        assert (
            tokenizer.backend_tokenizer.to_str(),
            tokenizer.padding_side,
            dict(tokenizer.special_tokens_map),
        ) == before


def test_one_bos_rule_for_both_models(make_tokenizer: MakeTokenizer, tokenizer: PreTrainedTokenizerFast) -> None:
    bare = make_tokenizer()
    bare.bos_token = None
    for models, auto in (([tokenizer, tokenizer], True), ([tokenizer, bare], False), ([bare, tokenizer], False)):
        assert resolve_bos("auto", models) is auto
        assert resolve_bos("never", models) is False
    assert resolve_bos("always", [tokenizer]) is True
    with pytest.raises(TwinprobeError, match="BOS rule 'always', but a tokenizer has no BOS token"):
        resolve_bos("always", [tokenizer, bare])
    with pytest.raises(TwinprobeError, match="BOS rule 'sometimes' is not known; expected one of auto, always, never"):
        resolve_bos("sometimes", [tokenizer])


@given(st.lists(st.integers(1, 60)), st.integers(1, 200))
def test_batches_partition_the_texts_within_the_bound(lengths: list[int], bound: int) -> None:
    found = list(batches(lengths, bound))
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[index] for index in batch) <= bound
    inside = [[lengths[index] for index in batch] for batch in found]
    assert [length for batch in inside for length in batch] == sorted(lengths)


@given(st.lists(st.integers(1, 400), min_size=1, max_size=8), st.integers(1, 2000))
def test_batches_cost_least(lengths: list[int], bound: int) -> None:
    """Against every way to cut the sorted lengths."""

    def cost(parts: list[list[int]]) -> float:
        fits = all(len(part) == 1 or len(part) * max(part) <= bound for part in parts)
        return sum(len(part) * max(part) + BATCH_COST for part in parts) if fits else float("inf")

    ordered = sorted(lengths)
    found = [[lengths[index] for index in batch] for batch in batches(lengths, bound)]
    ways = []
    for cuts in product([False, True], repeat=len(ordered) - 1):
        edges = [0, *(place for place, cut in enumerate(cuts, start=1) if cut), len(ordered)]
        ways.append([ordered[start:end] for start, end in pairwise(edges)])
    assert cost(found) == min(cost(way) for way in ways)


@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=7), min_size=1, max_size=5))
def test_padding_is_on_the_right_and_masked(rows: list[list[int]]) -> None:
    ids, mask = pad(rows, 99, torch.device("cpu"))
    assert ids.shape == mask.shape == (len(rows), max(map(len, rows)))
    for row, padded, real in zip(rows, ids.tolist(), mask.tolist(), strict=True):
        assert padded == row + [99] * (len(padded) - len(row))
        assert real == [1] * len(row) + [0] * (len(padded) - len(row))


def test_any_tokenizer_has_some_padding(make_tokenizer: MakeTokenizer, tokenizer: PreTrainedTokenizerFast) -> None:
    assert pad_id(tokenizer) == tokenizer.pad_token_id == 2
    bare = make_tokenizer()
    bare.pad_token = None
    assert pad_id(bare) == bare.eos_token_id == 1
    bare.eos_token = None
    assert pad_id(bare) == 0


def test_letters_of_one_token_are_one_position(tokenizer: PreTrainedTokenizerFast) -> None:
    """A span inside a token, or over several, finds exactly them."""
    writing = "def area(width, height)"
    (encoded,) = encode(tokenizer, [Text("t", writing)], bos=False, context=100)
    for position, (start, end) in enumerate(encoded.offsets):
        assert writing[start:end].strip(string.whitespace) == writing[start:end]
        assert encoded.positions(Span("whole", start, end)) == [position]
        assert encoded.positions(Span("inside", end - 1, end)) == [position]
