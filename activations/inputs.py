"""Tokenised inputs: one explicit rule for BOS, no silent truncation, character spans mapped to token positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from activations.errors import TwinprobeError
from activations.texts import Span, Text

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int
    from transformers import PreTrainedTokenizerBase

BOS_RULES = ("auto", "always", "never")
_AT_ONCE = 512
"""Texts per call of the tokenizer, whose own lists of Python numbers are many times larger than the arrays."""
BATCH_COST = 128
"""What one more forward pass costs, in tokens: about what a small model on a CPU or a large one on a GPU lose by it."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """A text as token ids ``[tokens]``, with the character range of each token ``[tokens, 2]``.

    Arrays, because a text set may have many millions of tokens. Leading white space is left out of a token's range, so
    that ranges mean the same whether a tokenizer counts the space into the word (Llama 3, Qwen2) or trims it (GPT-2).
    ``own`` are the positions of the text's own tokens; BOS before them and what closes an encoder's input after them
    cover nothing: ``(0, 0)``.
    """

    text: Text
    tokens: npt.NDArray[np.int32]
    ranges: npt.NDArray[np.int32]
    own: range

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def ids(self) -> tuple[int, ...]:
        """The token ids as plain numbers."""
        return tuple(self.tokens.tolist())

    @property
    def offsets(self) -> tuple[tuple[int, int], ...]:
        """The character ranges as plain numbers."""
        return tuple((start, end) for start, end in self.ranges.tolist())

    def positions(self, span: Span) -> list[int]:
        """Positions of the tokens that share at least one character with ``span``.

        Raises:
            TwinprobeError: no token does (a tokenizer that drops characters).
        """
        found = np.flatnonzero((self.ranges[:, 0] < span.end) & (self.ranges[:, 1] > span.start)).tolist()
        if not found:
            raise TwinprobeError(
                f"text {self.text.id!r}: no token covers span {span.name!r} ({self.text.text[span.start : span.end]!r})"
            )
        return list(found)


def resolve_bos(rule: str, tokenizers: Sequence[PreTrainedTokenizerBase]) -> bool:
    """Whether to prepend BOS, one answer for all ``tokenizers``: ``auto`` does so when every one of them has a BOS.

    Raises:
        TwinprobeError: an unknown rule, or ``always`` where a tokenizer has no BOS token.
    """
    if rule not in BOS_RULES:
        raise TwinprobeError(f"BOS rule {rule!r} is not known; expected one of {', '.join(BOS_RULES)}")
    has = [opening_token(tokenizer) is not None for tokenizer in tokenizers]
    if rule == "always" and not all(has):
        raise TwinprobeError("BOS rule 'always', but a tokenizer has no BOS token; use 'auto' or 'never'")
    return rule != "never" and all(has)


def encode(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], bos: bool, context: int, closing: int | None = None
) -> list[Encoded]:
    """Tokenise ``texts`` without any special tokens of the tokenizer's own, after BOS where asked for.

    ``closing`` is a token to put after each text (encoders: see :attr:`activations.models.LoadedModel.closing`).

    Raises:
        TwinprobeError: a text is longer than ``context`` tokens or gives no tokens.
    """
    opening = [opening_token(tokenizer)] if bos else []
    ending = [] if closing is None else [closing]
    encoded = []
    for start in range(0, len(texts), _AT_ONCE):
        for text, ids, ranges in _tokenise(tokenizer, texts[start : start + _AT_ONCE]):
            tokens = np.array([*opening, *ids, *ending], dtype=np.int32)
            if not ids:
                raise TwinprobeError(f"text {text.id!r} gives no tokens")
            if len(tokens) > context:
                specials = f" with {_specials(bos, closing)}" if opening or ending else ""
                raise TwinprobeError(
                    f"text {text.id!r} has {len(tokens)} tokens{specials}, but the model's context is {context}; "
                    "shorten or split the text (--overlong truncate or split does it)"
                )
            own = range(len(opening), len(opening) + len(ids))
            covered = np.zeros((len(tokens), 2), dtype=np.int32)
            covered[own.start : own.stop] = ranges
            encoded.append(Encoded(text, tokens, covered, own))
    return encoded


def opening_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that opens a text: BOS, or in encoders such as BERT the classification token."""
    return tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.cls_token_id


def _specials(bos: bool, closing: int | None) -> str:
    return " and ".join(word for word, used in (("BOS", bos), ("EOS", closing is not None)) if used)


def _tokenise(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text]
) -> Iterator[tuple[Text, list[int], list[tuple[int, int]]]]:
    with _whole_offsets(tokenizer):
        batch = tokenizer(
            [text.text for text in texts], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
    for text, ids, offsets in zip(texts, batch["input_ids"], batch["offset_mapping"], strict=True):
        yield text, ids, [_trim(text.text, start, end) for start, end in offsets]


@contextmanager
def _whole_offsets(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """While active, offsets are not trimmed, so that a token of white space keeps its characters.

    GPT-2's post-processor would leave it none. The truncation and padding a caller has set come back afterwards too:
    Hugging Face switches them off for good on a call that asks for neither.
    """
    backend = tokenizer.backend_tokenizer
    truncation, padding, processor = backend.truncation, backend.padding, backend.post_processor
    backend.post_processor = None
    try:
        yield
    finally:
        backend.post_processor = processor
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)


def _trim(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return (start + len(piece) - len(piece.lstrip()), end) if piece.strip() else (start, end)


def batches(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Group indices of similar length so that no padded batch exceeds ``max_tokens`` (one text may, alone).

    Of all ways to cut the texts, sorted by length, into batches, this is the one with the fewest padded tokens, where
    each batch counts as :data:`BATCH_COST` tokens more (dynamic programming over where the last batch begins).
    """
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    begins = [0] * len(order)
    cost = np.zeros(len(order) + 1, dtype=np.int64)
    for end, index in enumerate(order, start=1):
        fits = max(1, max_tokens // lengths[index])
        first = max(0, end - fits)
        sizes = np.arange(end - first, 0, -1)
        total = cost[first:end] + lengths[index] * sizes
        best = int(total.argmin())
        begins[end - 1] = first + best
        cost[end] = total[best] + BATCH_COST
    found = []
    end = len(order)
    while end:
        found.append(order[begins[end - 1] : end])
        end = begins[end - 1]
    return found[::-1]


def pad(
    ids: Sequence[Sequence[int] | npt.NDArray[np.int32]], pad_id: int, device: torch.device
) -> tuple[Int[torch.Tensor, "batch pos"], Int[torch.Tensor, "batch pos"]]:
    """Right-pad to a rectangle; return token ids and attention mask (1 for real tokens)."""
    import torch

    lengths = np.array([len(row) for row in ids])
    padded = np.full((len(ids), lengths.max()), pad_id, dtype=np.int64)
    for line, row in enumerate(ids):
        padded[line, : len(row)] = row
    mask = (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)
    return torch.from_numpy(padded).to(device), torch.from_numpy(mask).to(device)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Any valid id serves as padding: it is masked and lies to the right of everything that is read."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
