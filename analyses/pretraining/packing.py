"""One tokenizer for all runs, and documents packed into blocks of one context length."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, get_args

import numpy as np
import numpy.typing as npt

from analyses.pretraining.corpora import Document
from analyses.pretraining.design import Kind

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT, PAD = "<|endoftext|>", "<|pad|>"
TOGETHER = 1_000_000
"""Characters of the documents that are tokenised at once, on all cores."""
Blocks = npt.NDArray[np.uint16]


def sample(sizes: dict[Kind, list[int]], bytes_per_kind: int, seed: int) -> dict[Kind, set[int]]:
    """Which documents of each kind to train the tokenizer on: a random choice with ``bytes_per_kind`` bytes or just more.

    Args:
        sizes: bytes of each document, in the order they are read.
    """
    generator = np.random.default_rng(seed)
    chosen: dict[Kind, set[int]] = {}
    for kind in sorted(sizes):
        order = generator.permutation(len(sizes[kind]))
        before = np.cumsum([0, *np.array(sizes[kind])[order]])[:-1]
        chosen[kind] = set(order[before < bytes_per_kind].tolist())
    return chosen


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE with digits split."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, pad_token=PAD, padding_side="right"
    )


def write_tokens(
    documents: Iterable[Document], tokenizer: PreTrainedTokenizerFast, context: int, stem: Path
) -> dict[Kind, int]:
    """Tokenise documents one after the other into ``<stem><kind>.tokens``, each after an end-of-text, cut to whole blocks.

    Returns:
        Blocks of ``context`` tokens of each kind that fills one; the tokens left over are dropped.
    """
    files: dict[Kind, BinaryIO] = {}
    backend = tokenizer.backend_tokenizer
    with ExitStack() as stack:
        for some in _batches(documents):
            encodings = backend.encode_batch_fast([document.text for document in some], add_special_tokens=False)
            for document, encoding in zip(some, encodings, strict=True):
                if document.kind not in files:
                    files[document.kind] = stack.enter_context(_tokens_file(stem, document.kind).open("wb"))
                np.array([tokenizer.eos_token_id, *encoding.ids], dtype=np.uint16).tofile(files[document.kind])
    counts: dict[Kind, int] = {}
    for kind in files:
        path = _tokens_file(stem, kind)
        counts[kind] = path.stat().st_size // (2 * context)
        os.truncate(path, counts[kind] * 2 * context)
    return {kind: count for kind, count in counts.items() if count}


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    """Documents in groups, each just large enough."""
    some: list[Document] = []
    characters = 0
    for document in documents:
        some.append(document)
        characters += len(document.text)
        if characters >= TOGETHER:
            yield some
            some, characters = [], 0
    if some:
        yield some


def read_tokens(stem: Path, context: int) -> dict[Kind, Blocks]:
    """The blocks that :func:`write_tokens` wrote, ``uint16 [blocks, context]`` for each kind, mapped from the disk."""
    kinds: tuple[Kind, ...] = get_args(Kind)
    paths = {kind: _tokens_file(stem, kind) for kind in kinds}
    return {
        kind: np.memmap(path, dtype=np.uint16, mode="r").reshape(-1, context)
        for kind, path in paths.items()
        if path.exists() and path.stat().st_size
    }


def _tokens_file(stem: Path, kind: Kind) -> Path:
    return stem.with_name(f"{stem.name}{kind}.tokens")


def mixture(blocks: dict[Kind, int], code_share: float, count: int, seed: int) -> list[tuple[Kind, int]]:
    """The order of blocks of a run: ``(kind, row)`` for each of ``count`` blocks.

    Code blocks are spread evenly, so that their share holds at every point. Each kind is read in an order of its own, shuffled
    anew every time over and a function of ``seed`` alone: runs of one seed see the same prose first, whatever their share.

    Args:
        blocks: how many there are of each kind.
    """
    orders = {kind: _shuffled(blocks[kind], seed) for kind in blocks}
    order: list[tuple[Kind, int]] = []
    for index in range(count):
        kind: Kind = "code" if int((index + 1) * code_share) > int(index * code_share) else "prose"
        order.append((kind, next(orders[kind])))
    return order


def _shuffled(count: int, seed: int) -> Iterator[int]:
    """Rows in random order, all of them before any comes again."""
    for time_over in itertools.count():
        yield from np.random.default_rng([seed, time_over]).permutation(count).tolist()
