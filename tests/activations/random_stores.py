"""Small stores of random rows, written as a capture writes them; what they should give back is plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from activations.sites import parse_site
from activations.store import INPUT_COLUMNS, ROW_COLUMNS
from activations.texts import Span, Text, text_set_hash
from activations.writer import Shard, StoreWriter

SITES = {"resid_post.0": 4, "resid_post.1": 4, "z.1.2": 3, "ln_final": 5}
MODEL = {
    "name": "tiny", "fingerprint": "full:0", "commit": None, "architecture": "LlamaForCausalLM", "layers": 3, "width": 16,
    "compute_dtype": "float32", "attention_kernel": "sdpa", "device": "cpu",
}  # fmt: skip
LABELS = ("def", "use", None)


@dataclass(frozen=True)
class Expected:
    """What a store should hold: its texts, integer columns, and values as stored (bfloat16 as its bits)."""

    texts: list[Text]
    rows: dict[str, np.ndarray]
    inputs: dict[str, np.ndarray]
    raw: dict[str, np.ndarray]

    def read(self, site: str) -> np.ndarray:
        """The values as float32; every value of 16 bits has one that is equal."""
        raw = self.raw[site]
        return (raw.astype(np.uint32) << 16).view(np.float32) if raw.dtype == np.uint16 else raw.astype(np.float32)


def make_texts(numbers: Sequence[int]) -> list[Text]:
    """One text per number, which alone decides what it is: three letters, and none, one or two spans."""
    texts = []
    for number in numbers:
        spans = (Span("role", 0, 1, LABELS[number % 3]), Span("value", 1, 3, "v", f"key {number}"))[: number % 4 % 3]
        texts.append(Text(f"text {number}", "abé", spans, f"group {number // 2}"))
    return texts


def write_store(
    path: Path,
    numbers: Sequence[int] = range(7),
    cuts: Sequence[int] = (2, 3),
    *,
    dtype: str = "float32",
    rows: str = "tokens",
    sites: Mapping[str, int] = SITES,
    shift: int = 0,
    **record: Any,
) -> Expected:
    """Write the store of the texts called ``numbers``, its shards ending before the texts at ``cuts`` and after the last.

    The rows of a text depend on its number only, so that two stores agree on the texts they share; ``shift`` is added to
    the token ids.
    """
    texts = make_texts(numbers)
    shards = []
    for first, end in pairwise([0, *cuts, len(texts)]):
        parts = [
            _text(number, place, rows, dtype, sites, shift) for place, number in enumerate(numbers[first:end], first)
        ]
        shards.append(
            tuple({key: np.concatenate([part[i][key] for part in parts]) for key in parts[0][i]} for i in range(3))
        )
    provenance = {
        "model": MODEL,
        "engine": "hooks",
        "attention_kernel": "sdpa",
        "texts": text_set_hash(texts),
        "overlong": {"rule": "truncate", "texts": len(texts), "lost_spans": 1},
        "sites": list(sites),
        "rows": rows,
        "pool": "last",
        "positions": [],
        "bos": True,
        "closing": None,
        "storage_dtype": dtype,
        "shard_bytes": 64,
        **record,
    }
    with StoreWriter(path, provenance, texts, len(shards)) as writer:
        for number, (columns, inputs, values) in enumerate(shards):
            writer.write(number, Shard(columns, {parse_site(site): value for site, value in values.items()}, inputs))
        writer.finish()
    whole = [{key: np.concatenate([shard[i][key] for shard in shards]) for key in shards[0][i]} for i in range(3)]
    return Expected(texts, *whole)


def _text(
    number: int, place: int, rows: str, dtype: str, sites: Mapping[str, int], shift: int
) -> tuple[dict[str, np.ndarray], ...]:
    """Row columns, input columns and values of one text: BOS, and its three letters as tokens."""
    inputs = {
        "text": [place] * 4,
        "token": [shift, *(number * 10 + np.arange(3) + shift)],
        "start": [0, 0, 1, 2],
        "end": [0, 1, 2, 3],
    }
    if rows == "tokens":
        table = [(place, position, inputs["token"][position], position - 1, position, -1) for position in (1, 2, 3)]
    else:
        [text] = make_texts([number])
        spans = enumerate(text.spans)
        table = [(place, span.end, inputs["token"][span.end], span.start, span.end, i) for i, span in spans]
    columns = np.array(table, dtype=np.int64).reshape(-1, len(ROW_COLUMNS)).T
    values = {}
    for site, width in sites.items():
        rng = np.random.default_rng([number, *site.encode()])
        bits = rng.integers(0, 2**16, (len(table), width), dtype=np.uint16)
        values[site] = {
            "bfloat16": bits,
            "float16": bits.view(np.float16),
            "float32": rng.standard_normal(bits.shape).astype(np.float32),
        }[dtype]
    integers = {name: np.array(inputs[name], dtype=np.int64) for name in INPUT_COLUMNS}
    return dict(zip(ROW_COLUMNS, columns, strict=True)), integers, values
