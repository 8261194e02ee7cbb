"""Bits per byte on held-out passages: how well a model predicts text, comparable across tokenizers.

The cross-entropy of the tokens after the first, in bits, over the UTF-8 bytes those tokens stand for (with BOS, over the
whole passage).
"""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from activations.errors import TwinprobeError
from activations.inputs import batches, encode, pad, pad_id
from activations.models import LoadedModel
from activations.texts import Text, read_texts
from probes.tasks.identifiers import held_out_sources, python_docs_prose


def passages(kind: str, path: str | None, count: int, characters: int, seed: int) -> list[Text]:
    """``count`` passages of ``characters`` characters, each from another document as far as there are enough.

    ``path`` is a JSONL file of texts; without it, ``code`` comes from standard library modules that the embedded twins
    have not seen and ``prose`` from the documentation that ships with Python.

    Raises:
        TwinprobeError: no document is long enough.
    """
    if path:
        documents = [(text.group, text.text) for text in read_texts(Path(path))]
    else:
        documents = held_out_sources() if kind == "code" else python_docs_prose()
    return drawn_passages(kind, documents, count, characters, seed)


def drawn_passages(
    kind: str, documents: Sequence[tuple[str, str]], count: int, characters: int, seed: int
) -> list[Text]:
    """``count`` passages of ``characters`` characters out of ``documents`` (name and text); see :func:`passages`."""
    generator = random.Random(f"passages-{kind}-{seed}")
    documents = [(name, text) for name, text in sorted(documents) if len(text) >= characters]
    if not documents:
        raise TwinprobeError(f"no {kind} document has {characters} characters; give longer texts or fewer characters")
    generator.shuffle(documents)
    found = []
    for number in range(count):
        name, text = documents[number % len(documents)]
        start = generator.randrange(len(text) - characters + 1)
        # Begin at a line so that passages look like the start of something; the first line always qualifies.
        start = text.rfind("\n", 0, start) + 1
        found.append(Text(f"{kind}-{number}", text[start : start + characters], (), f"{kind}:{name}"))
    return found


def score(
    loaded: LoadedModel,
    texts: Sequence[Text],
    *,
    bos: bool,
    batch_tokens: int = 4096,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> pd.DataFrame:
    """Bits and bytes of every passage; one longer than the context is scored in consecutive windows.

    Returns:
        Columns text, group, tokens, bytes, bits, bits_per_byte.
    """
    loaded.require_decoder()
    windows = [window for text in texts for window in _windows(loaded, text, bos)]
    done = 0
    for batch in batches([len(window.ids) for window in windows], batch_tokens):
        for index, bits in zip(batch, _bits(loaded, [windows[i].ids for i in batch]), strict=True):
            windows[index] = replace(windows[index], bits=bits)
        done += len(batch)
        progress(done, len(windows))
    table = pd.DataFrame(
        [
            {"text": of.text.id, "group": of.text.group, "tokens": len(of.ids) - 1, "bytes": of.bytes, "bits": of.bits}
            for of in windows
        ]
    )
    table = table.groupby(["text", "group"], as_index=False, sort=False).sum()
    return table.assign(bits_per_byte=table.bits / table.bytes)


@dataclass(frozen=True)
class _Window:
    """Tokens scored together, and the bytes that the predicted ones stand for."""

    text: Text
    ids: tuple[int, ...]
    bytes: int
    bits: float = 0.0


def _windows(loaded: LoadedModel, text: Text, bos: bool) -> list[_Window]:
    encoded = encode(loaded.tokenizer, [text], False, sys.maxsize)[0]
    size = loaded.context - int(bos)
    found = []
    for start in range(0, len(encoded.ids), size):
        ids = encoded.ids[start : start + size]
        if not bos and len(ids) == 1:
            continue  # nothing is predicted
        # Without BOS the first token of a window is not predicted, so its bytes do not count either.
        first = start if bos else start + 1
        begin = encoded.offsets[first - 1][1] if first else 0
        counted = len(text.text[begin : encoded.offsets[start + len(ids) - 1][1]].encode())
        found.append(_Window(text, (loaded.tokenizer.bos_token_id, *ids) if bos else ids, counted))
    return found


def _bits(loaded: LoadedModel, ids: Sequence[Sequence[int]]) -> list[float]:
    """Bits of all tokens after the first, per row."""
    import torch

    tokens, mask = pad(ids, pad_id(loaded.tokenizer), loaded.device)
    with torch.inference_mode():
        logits = loaded.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    target, kept = tokens[:, 1:].to(logits.device), mask[:, 1:].to(logits.device)
    nats = torch.nn.functional.cross_entropy(logits.transpose(1, 2), target, reduction="none")
    bits: list[float] = ((nats * kept).sum(1) / math.log(2)).tolist()
    return bits
