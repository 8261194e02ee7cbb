"""Bits per byte: equal to Hugging Face's own loss, over windows that count every byte once."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import torch
from conftest import CORPUS

from activations.errors import TwinprobeError
from activations.texts import Text
from analyses.benchmarks.bits_per_byte import passages, score
from probes.tasks.identifiers import held_out_sources, python_docs_prose

if TYPE_CHECKING:
    from activations.models import LoadedModel

Tiny = Callable[[str], "LoadedModel"]
LONG = "".join(CORPUS) + "Þorgerður sá 漢字 🙂 e\u0301 " + "".join(reversed(CORPUS))


def ids(loaded: LoadedModel, text: str) -> list[int]:
    return list(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])


def loss_bits(loaded: LoadedModel, window: list[int]) -> float:
    """Bits of all tokens but the first, from the loss that the Hugging Face model computes itself."""
    tokens = torch.tensor([window])
    with torch.no_grad():
        return float(loaded.model(tokens, labels=tokens).loss) * (len(window) - 1) / math.log(2)


def spelled(loaded: LoadedModel, tokens: list[int]) -> int:
    """Bytes that tokens stand for: a byte-level BPE writes one character per byte."""
    return sum(len(token) for token in loaded.tokenizer.convert_ids_to_tokens(tokens))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2"])
def test_it_is_the_loss_of_the_model_itself(tiny: Tiny, architecture: str) -> None:
    loaded = tiny(architecture)
    texts = [Text("a", CORPUS[0], (), "g"), Text("b", "漢字 🙂", (), "g"), Text("c", "x", (), "h")]
    table = score(loaded, texts, bos=True)
    assert table.text.tolist() == ["a", "b", "c"]
    assert table.group.tolist() == ["g", "g", "h"]
    for text, line in zip(texts, table.itertuples(), strict=True):
        bits = loss_bits(loaded, [loaded.tokenizer.bos_token_id, *ids(loaded, text.text)])
        assert line.bits == pytest.approx(bits, rel=1e-4)
        assert line.bytes == len(text.text.encode())
        assert line.tokens == len(ids(loaded, text.text))
        assert line.bits_per_byte == pytest.approx(bits / line.bytes, rel=1e-4)


@pytest.mark.parametrize("bos", [True, False])
def test_a_long_text_is_scored_in_windows(tiny: Tiny, bos: bool) -> None:
    """With BOS every byte counts exactly once; without, the first token of each window is not predicted."""
    loaded = tiny("llama")
    tokens = ids(loaded, LONG)
    size = loaded.context - bos
    assert len(tokens) > 2 * size
    start = [loaded.tokenizer.bos_token_id] if bos else []
    windows = [tokens[at : at + size] for at in range(0, len(tokens), size)]
    (line,) = score(loaded, [Text("long", LONG)], bos=bos).itertuples()
    assert line.bits == pytest.approx(sum(loss_bits(loaded, start + window) for window in windows), rel=1e-4)
    assert line.tokens == len(tokens) - (0 if bos else len(windows))
    skipped = 0 if bos else sum(spelled(loaded, window[:1]) for window in windows)
    assert line.bytes == len(LONG.encode()) - skipped
    assert spelled(loaded, tokens) == len(LONG.encode())


@pytest.mark.parametrize("cut", [1, 2, 3])
def test_a_character_cut_by_a_window_loses_nothing(tiny: Tiny, cut: int) -> None:
    """The last window holds only the rest of an emoji of four tokens; its bits count, and its bytes once."""
    loaded = tiny("llama")
    text = "1" * (loaded.context - 1 - cut) + "🙂"
    tokens = ids(loaded, text)
    assert len(tokens) == loaded.context - 1 - cut + 4
    (line,) = score(loaded, [Text("cut", text)], bos=True).itertuples()
    first, rest = tokens[: loaded.context - 1], tokens[loaded.context - 1 :]
    assert len(rest) == 4 - cut
    bos = loaded.tokenizer.bos_token_id
    assert line.bits == pytest.approx(loss_bits(loaded, [bos, *first]) + loss_bits(loaded, [bos, *rest]), rel=1e-4)
    assert (line.bytes, line.tokens) == (len(text.encode()), len(tokens))


def test_without_bos_the_first_token_s_bytes_do_not_count(tiny: Tiny) -> None:
    loaded = tiny("gpt2")
    (line,) = score(loaded, [Text("a", "x = 1")], bos=False).itertuples()
    tokens = ids(loaded, "x = 1")
    assert loaded.tokenizer.convert_ids_to_tokens(tokens) == ["x", "Ġ=", "Ġ1"]
    assert (line.bytes, line.tokens) == (4, 2)
    assert line.bits == pytest.approx(loss_bits(loaded, tokens), rel=1e-4)
    assert score(loaded, [Text("a", "x = 1"), Text("one", "x")], bos=False).text.tolist() == ["a"]


def test_batches_do_not_matter(tiny: Tiny) -> None:
    loaded = tiny("llama")
    texts = [Text(f"t{i}", text) for i, text in enumerate([*CORPUS, LONG, "x", LONG[:130]])]
    steps: list[tuple[int, int]] = []
    whole = score(loaded, texts, bos=True, progress=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] > len(texts)
    for batch_tokens in (1, 150, 400):
        pd.testing.assert_frame_equal(score(loaded, texts, bos=True, batch_tokens=batch_tokens), whole, rtol=1e-5)
    turned = score(loaded, texts[::-1], bos=True)
    pd.testing.assert_frame_equal(turned[::-1].reset_index(drop=True), whole, rtol=1e-5)


@pytest.mark.parametrize("kind", ["code", "prose"])
def test_passages_come_from_what_python_ships(kind: str) -> None:
    sources = dict(held_out_sources() if kind == "code" else python_docs_prose())
    found = passages(kind, None, 12, 400, seed=0)
    assert found == passages(kind, None, 12, 400, seed=0)
    other = {text.group for text in passages(kind, None, 12, 400, seed=1)}
    assert other != {text.group for text in found}, "another seed takes other documents"
    assert [text.id for text in found] == [f"{kind}-{i}" for i in range(12)]
    assert len({text.group for text in found}) == 12
    for text in found:
        assert len(text.text) == 400
        document = sources[text.group.removeprefix(f"{kind}:")]
        assert document.startswith(text.text) or f"\n{text.text}" in document


def lines_file(path: Path, lengths: dict[str, int]) -> Path:
    rows: list[dict[str, Any]] = [
        {"id": f"{name}-id", "text": (f"{name} line\n" * length)[:length], "group": name}
        for name, length in lengths.items()
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_passages_of_one_s_own_texts(tmp_path: Path) -> None:
    path = lines_file(tmp_path / "texts.jsonl", {"a": 100, "b": 50, "c": 49})
    found = passages("prose", str(path), 5, 50, seed=3)
    assert sorted(text.group for text in found[:2]) == ["prose:a", "prose:b"], "each document once before any twice"
    assert [text.group for text in found[2:4]] == [text.group for text in found[:2]]
    assert all(len(text.text) == 50 and text.text[2:6] == "line" for text in found)
    with pytest.raises(TwinprobeError, match="no prose document has 101 characters; give longer texts or fewer"):
        passages("prose", str(path), 5, 101, seed=3)
    with pytest.raises(TwinprobeError, match=r"absent.jsonl: no such file"):
        passages("code", str(tmp_path / "absent.jsonl"), 5, 50, seed=3)
    assert passages("code", str(path), 0, 50, seed=3) == []
