"""One tokenizer, blocks of one context, and a mixture that holds its share at every point."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import CORPUS
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses.pretraining.corpora import Document
from analyses.pretraining.design import Kind
from analyses.pretraining.packing import Blocks, mixture, pack, train_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROSE = ["The captain put the coin into the red box, and the girl who saw it smiled. " * 6] * 8
DOCUMENTS = [Document("code", f"c{i}", text) for i, text in enumerate(CORPUS * 5)] + [
    Document("prose", f"p{i}", f"{i} {text}") for i, text in enumerate(PROSE)
]
CONTEXT = 32


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(DOCUMENTS, 320, 2000, seed=0)


def blocks_of(prose: int, code: int) -> dict[Kind, Blocks]:
    return {"prose": np.zeros((prose, 4), dtype=np.uint16), "code": np.zeros((code, 4), dtype=np.uint16)}


def test_the_tokenizer_is_trained_to_the_same_every_time(tokenizer: PreTrainedTokenizerFast) -> None:
    again = train_tokenizer(DOCUMENTS, 320, 2000, seed=0)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert len(again) == 320


def test_any_text_survives_the_tokenizer(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "x = 1234\n\tþð 漢字 🙂  <|end|>"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("17 2048")["input_ids"])
    assert [piece for piece in pieces if len(piece) > 1 and any(sign.isdigit() for sign in piece)] == []
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|endoftext|>",
        "<|endoftext|>",
        "<|pad|>",
    )
    assert tokenizer.padding_side == "right"


def test_the_tokenizer_sees_equal_bytes_of_each_kind() -> None:
    """Ten times more code must not crowd out prose: the words of prose are still single tokens."""
    words = ["wonderful", "captain", "yesterday"]
    prose = [Document("prose", f"p{i}", "".join(f" {word}" for word in words) * 2) for i in range(30)]
    rng = np.random.default_rng(0)
    names = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 9)) for _ in range(30)]
    code = [Document("code", f"c{i}", " ".join(rng.permutation(names))) for i in range(300)]
    size = sum(len(document.text) for document in prose)
    fair, crowded = (train_tokenizer(code + prose, 340, limit, seed=0) for limit in (size, 10**9))
    assert sum(len(document.text) for document in code) > 10 * size
    assert all(len(fair(f" {word}")["input_ids"]) == 1 for word in words)
    assert all(len(crowded(f" {word}")["input_ids"]) > 3 for word in words)


def test_blocks_are_the_documents_joined_and_cut(tokenizer: PreTrainedTokenizerFast) -> None:
    packed = pack(DOCUMENTS, tokenizer, CONTEXT, seed=3)
    assert set(packed) == {"prose", "code"}
    for kind, blocks in packed.items():
        stream: list[int] = []
        for document in DOCUMENTS:
            if document.kind == kind:
                stream += [tokenizer.eos_token_id, *tokenizer(document.text)["input_ids"]]
        expected = [tuple(stream[at : at + CONTEXT]) for at in range(0, len(stream) - CONTEXT + 1, CONTEXT)]
        assert blocks.dtype == np.uint16
        assert sorted(map(tuple, blocks.tolist())) == sorted(expected)
        assert list(map(tuple, blocks.tolist())) != expected, "the blocks are shuffled"


def test_packing_is_a_function_of_the_seed(tokenizer: PreTrainedTokenizerFast) -> None:
    first, again, other = (pack(DOCUMENTS, tokenizer, CONTEXT, seed) for seed in (0, 0, 1))
    for kind in first:
        assert np.array_equal(first[kind], again[kind])
        assert not np.array_equal(first[kind], other[kind])
        assert sorted(first[kind].tolist()) == sorted(other[kind].tolist())


def test_one_kind_s_blocks_do_not_depend_on_the_other(tokenizer: PreTrainedTokenizerFast) -> None:
    both = pack(DOCUMENTS, tokenizer, CONTEXT, seed=0)
    alone = pack([document for document in DOCUMENTS if document.kind == "prose"], tokenizer, CONTEXT, seed=0)
    assert np.array_equal(both["prose"], alone["prose"])


@given(st.integers(0, 100), st.integers(0, 500), st.integers(1, 40), st.integers(1, 40))
@settings(max_examples=150, deadline=None)
def test_the_share_of_code_holds_at_every_point(percent: int, count: int, prose: int, code: int) -> None:
    order, passes = mixture(blocks_of(prose, code), percent / 100, count)
    assert len(order) == count
    seen = 0
    for index, (kind, _) in enumerate(order, start=1):
        seen += kind == "code"
        assert abs(seen - Fraction(percent, 100) * index) <= 1
    assert passes == {"prose": (count - seen) / prose, "code": seen / code}


@given(st.floats(0, 0.99), st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_runs_of_one_seed_read_the_same_prose_first(share: float, count: int) -> None:
    """Each kind is read in its own order from the start, round and round, whatever the share of the other."""
    blocks = blocks_of(7, 5)
    order, _ = mixture(blocks, share, count)
    for kind, size in (("prose", 7), ("code", 5)):
        rows = [row for of, row in order if of == kind]
        assert rows == [index % size for index in range(len(rows))]


def test_a_run_of_one_kind_needs_no_other() -> None:
    prose = {"prose": blocks_of(3, 0)["prose"]}
    assert mixture(prose, 0.0, 4) == ([("prose", 0), ("prose", 1), ("prose", 2), ("prose", 0)], {"prose": 4 / 3})
