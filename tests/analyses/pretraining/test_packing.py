"""One tokenizer, blocks of one context, and a mixture that holds its share at every point."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import CORPUS
from hypothesis import given, settings
from hypothesis import strategies as st

from analyses.pretraining import packing
from analyses.pretraining.corpora import Document
from analyses.pretraining.design import Kind
from analyses.pretraining.packing import mixture, read_tokens, sample, train_tokenizer, write_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PROSE = ["The captain put the coin into the red box, and the girl who saw it smiled. " * 6] * 8
DOCUMENTS = [Document("code", f"c{i}", text) for i, text in enumerate(CORPUS * 5)] + [
    Document("prose", f"p{i}", f"{i} {text}") for i, text in enumerate(PROSE)
]
CONTEXT = 32


def texts_of(documents: list[Document]) -> list[str]:
    return [document.text for document in documents]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(texts_of(DOCUMENTS), 320)


def test_the_tokenizer_is_trained_to_the_same_every_time(tokenizer: PreTrainedTokenizerFast) -> None:
    again = train_tokenizer(texts_of(DOCUMENTS), 320)
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
    sizes: dict[Kind, list[int]] = {
        "code": [len(document.text) for document in code], "prose": [len(document.text) for document in prose],
    }  # fmt: skip
    fair, crowded = (
        train_tokenizer(texts_of([code[i] for i in chosen["code"]] + [prose[i] for i in chosen["prose"]]), 340)
        for chosen in (sample(sizes, limit, seed=0) for limit in (size, 10**9))
    )
    assert sum(sizes["code"]) > 10 * size
    assert all(len(fair(f" {word}")["input_ids"]) == 1 for word in words)
    assert all(len(crowded(f" {word}")["input_ids"]) > 3 for word in words)


@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=20), st.lists(st.integers(0, 30), max_size=20),
    st.integers(1, 300), st.integers(0, 3),
)  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_a_sample_has_the_bytes_or_all_there_are_and_no_document_too_many(
    prose: list[int], code: list[int], limit: int, seed: int
) -> None:
    sizes: dict[Kind, list[int]] = {"prose": prose, "code": code}
    chosen = sample(sizes, limit, seed)
    assert chosen == sample(sizes, limit, seed)
    for kind, indices in chosen.items():
        of_kind = sizes[kind]
        total = sum(of_kind[index] for index in indices)
        assert total >= min(limit, sum(of_kind))
        assert total - max((of_kind[index] for index in indices), default=0) < limit


def written(documents: list[Document], tokenizer: PreTrainedTokenizerFast, folder: Path) -> dict[Kind, int]:
    folder.mkdir(exist_ok=True)
    return write_tokens(iter(documents), tokenizer, CONTEXT, folder / "part-")


def test_blocks_are_the_documents_joined_and_cut(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    counts = written(DOCUMENTS, tokenizer, tmp_path)
    blocks = read_tokens(tmp_path / "part-", CONTEXT)
    assert set(blocks) == {"prose", "code"}
    assert counts == {kind: len(rows) for kind, rows in blocks.items()}
    for kind, rows in blocks.items():
        stream: list[int] = []
        for document in DOCUMENTS:
            if document.kind == kind:
                stream += [tokenizer.eos_token_id, *tokenizer(document.text)["input_ids"]]
        expected = [stream[at : at + CONTEXT] for at in range(0, len(stream) - CONTEXT + 1, CONTEXT)]
        assert rows.dtype == np.uint16
        assert rows.tolist() == expected


def test_how_documents_are_grouped_to_be_tokenised_changes_nothing(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "TOGETHER", 100)
    groups = list(packing._batches(DOCUMENTS))
    assert [document for group in groups for document in group] == DOCUMENTS
    assert len(groups) > 10
    assert all(sum(len(document.text) for document in group[:-1]) < 100 for group in groups)
    few = written(DOCUMENTS, tokenizer, tmp_path / "few")
    monkeypatch.undo()
    assert written(DOCUMENTS, tokenizer, tmp_path / "many") == few
    for kind in few:
        name = f"part-{kind}.tokens"
        assert (tmp_path / "few" / name).read_bytes() == (tmp_path / "many" / name).read_bytes()


def test_a_kind_that_fills_no_block_is_not_there(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    assert set(written([*DOCUMENTS[:10], Document("prose", "p", "Hi.")], tokenizer, tmp_path)) == {"code"}
    assert set(read_tokens(tmp_path / "part-", CONTEXT)) == {"code"}


@given(st.integers(0, 100), st.integers(0, 500), st.integers(1, 40), st.integers(1, 40), st.integers(0, 3))
@settings(max_examples=150, deadline=None)
def test_the_share_of_code_holds_at_every_point(percent: int, count: int, prose: int, code: int, seed: int) -> None:
    order = mixture({"prose": prose, "code": code}, percent / 100, count, seed)
    assert len(order) == count
    seen = 0
    for index, (kind, _) in enumerate(order, start=1):
        seen += kind == "code"
        assert abs(seen - Fraction(percent, 100) * index) <= 1


@given(st.floats(0, 0.99), st.integers(1, 200), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_runs_of_one_seed_read_the_same_of_each_kind_first(share: float, count: int, seed: int) -> None:
    """Each kind is read in an order of its own, whatever the share of the other; all of it before any comes again."""
    blocks: dict[Kind, int] = {"prose": 7, "code": 5}
    order = mixture(blocks, share, count, seed)
    for kind, size in blocks.items():
        rows = [row for of, row in order if of == kind]
        alone = mixture({kind: size}, float(kind == "code"), len(rows), seed)
        assert rows == [row for _, row in alone]
        for start in range(0, len(rows) - size + 1, size):
            assert sorted(rows[start : start + size]) == list(range(size))


def test_every_time_over_has_an_order_of_its_own() -> None:
    rows = [row for _, row in mixture({"prose": 50}, 0.0, 150, seed=0)]
    times = [rows[:50], rows[50:100], rows[100:]]
    assert len({tuple(time) for time in times}) == 3
    assert list(range(50)) not in times
    assert rows[:50] != [row for _, row in mixture({"prose": 50}, 0.0, 50, seed=1)]


def test_a_run_of_one_kind_needs_no_other() -> None:
    assert {kind for kind, _ in mixture({"prose": 3}, 0.0, 4, 0)} == {"prose"}
    assert {kind for kind, _ in mixture({"code": 3}, 1.0, 4, 0)} == {"code"}
