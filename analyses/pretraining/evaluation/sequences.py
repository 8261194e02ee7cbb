"""Examples as token sequences for a decoder, in batches of about the same length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from activations.errors import TwinprobeError
from analyses.pretraining.evaluation.transformations import Example
from analyses.pretraining.prompted import Prompted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

POOL = 50
"""Batches whose examples are sorted by length together: little padding, and an order that stays random."""


def encode(tokenizer: PreTrainedTokenizerBase, examples: Sequence[Example], separator: str) -> list[Prompted]:
    """Each example as beginning of text, source, separator, target, end of text, the last two scored.

    Source and target begin with a space, so that a word is the same tokens anywhere.

    Raises:
        TwinprobeError: the tokenizer has no token for the end of a text.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise TwinprobeError(
            f"the tokenizer of {tokenizer.name_or_path} has no end-of-text token; a target needs an end"
        )
    begin = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else end
    between = _tokens(tokenizer, [separator])[0]
    sources = _tokens(tokenizer, [f" {example.source}" for example in examples])
    targets = _tokens(tokenizer, [f" {example.target}" for example in examples])
    return [
        Prompted(np.array([begin, *source, *between, *target, end], dtype=np.int32), 1 + len(source) + len(between))
        for source, target in zip(sources, targets, strict=True)
    ]


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    return ids


def training_order(lengths: Sequence[int], batch: int, epochs: float, seed: int) -> list[npt.NDArray[np.int64]]:
    """The examples of each step: every example once an epoch, at random, those of a batch about equally long.

    Returns:
        An array of at most ``batch`` places in ``lengths`` for each of the ``epochs * len(lengths) / batch`` steps.
    """
    generator = np.random.default_rng(seed)
    per_epoch = -(-len(lengths) // batch)
    steps = max(1, round(epochs * per_epoch))
    order: list[npt.NDArray[np.int64]] = []
    while len(order) < steps:
        order += _epoch(np.asarray(lengths), batch, generator)
    return order[:steps]


def _epoch(lengths: npt.NDArray[np.int64], batch: int, generator: np.random.Generator) -> list[npt.NDArray[np.int64]]:
    shuffled = generator.permutation(len(lengths))
    batches = []
    for start in range(0, len(shuffled), POOL * batch):
        pool = shuffled[start : start + POOL * batch]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches += [pool[first : first + batch] for first in range(0, len(pool), batch)]
    return [batches[place] for place in generator.permutation(len(batches))]


def by_length(sequences: Sequence[Prompted], tokens: int) -> Iterator[list[int]]:
    """Places of the sequences from short to long, as many at once as fill ``tokens`` tokens (one at least)."""
    chosen: list[int] = []
    for place in sorted(range(len(sequences)), key=lambda place: len(sequences[place].ids)):
        if chosen and (len(chosen) + 1) * len(sequences[place].ids) > tokens:
            yield chosen
            chosen = []
        chosen.append(place)
    if chosen:
        yield chosen
