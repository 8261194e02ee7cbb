"""Tokenised inputs: one explicit rule for BOS, no silent truncation, character spans mapped to token positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activations.errors import TwinprobeError
from activations.texts import Span, Text

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int
    from transformers import PreTrainedTokenizerBase

BOS_RULES = ("auto", "always", "never")


@dataclass(frozen=True)
class Encoded:
    """A text as token ids, with the character range of each token (BOS covers nothing: ``(0, 0)``).

    Leading white space is left out of a token's range, so that ranges mean the same whether a tokenizer counts the
    space into the word (Llama 3, Qwen2) or trims it (GPT-2).
    """

    text: Text
    ids: tuple[int, ...]
    offsets: tuple[tuple[int, int], ...]

    def positions(self, span: Span) -> list[int]:
        """Positions of the tokens that share at least one character with ``span``.

        Raises:
            TwinprobeError: no token does (a tokenizer that drops characters).
        """
        found = [i for i, (start, end) in enumerate(self.offsets) if start < span.end and end > span.start]
        if not found:
            raise TwinprobeError(
                f"text {self.text.id!r}: no token covers span {span.name!r} ({self.text.text[span.start : span.end]!r})"
            )
        return found


def resolve_bos(rule: str, tokenizers: Sequence[PreTrainedTokenizerBase]) -> bool:
    """Whether to prepend BOS, one answer for all ``tokenizers``: ``auto`` does so when every one of them has a BOS.

    Raises:
        TwinprobeError: an unknown rule, or ``always`` where a tokenizer has no BOS token.
    """
    if rule not in BOS_RULES:
        raise TwinprobeError(f"BOS rule {rule!r} is not known; expected one of {', '.join(BOS_RULES)}")
    has = [tokenizer.bos_token_id is not None for tokenizer in tokenizers]
    if rule == "always" and not all(has):
        raise TwinprobeError("BOS rule 'always', but a tokenizer has no BOS token; use 'auto' or 'never'")
    return rule != "never" and all(has)


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[Text], bos: bool, context: int) -> list[Encoded]:
    """Tokenise ``texts`` without any special tokens of the tokenizer's own, after BOS where asked for.

    Raises:
        TwinprobeError: a text is longer than ``context`` tokens or gives no tokens.
    """
    if not texts:
        return []
    with _whole_offsets(tokenizer):
        batch = tokenizer(
            [text.text for text in texts], add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
    encoded = []
    for text, ids, offsets in zip(texts, batch["input_ids"], batch["offset_mapping"], strict=True):
        trimmed = [_trim(text.text, start, end) for start, end in offsets]
        if bos:
            ids, trimmed = [tokenizer.bos_token_id, *ids], [(0, 0), *trimmed]
        if not ids:
            raise TwinprobeError(f"text {text.id!r} gives no tokens")
        if len(ids) > context:
            raise TwinprobeError(
                f"text {text.id!r} has {len(ids)} tokens{' with BOS' if bos else ''}, but the model's context is "
                f"{context}; shorten or split the text"
            )
        encoded.append(Encoded(text, tuple(ids), tuple(trimmed)))
    return encoded


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


def batches(lengths: Sequence[int], max_tokens: int) -> Iterator[list[int]]:
    """Group indices of similar length so that no padded batch exceeds ``max_tokens`` (one text may, alone)."""
    order = sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    batch: list[int] = []
    for index in order:
        if batch and lengths[index] * (len(batch) + 1) > max_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch


def pad(
    ids: Sequence[Sequence[int]], pad_id: int, device: torch.device
) -> tuple[Int[torch.Tensor, "batch pos"], Int[torch.Tensor, "batch pos"]]:
    """Right-pad to a rectangle; return token ids and attention mask (1 for real tokens)."""
    import torch

    width = max(len(row) for row in ids)
    padded = torch.full((len(ids), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(ids), width), dtype=torch.long)
    for index, row in enumerate(ids):
        padded[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    return padded.to(device), mask.to(device)


def pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """Any valid id serves as padding: it is masked and lies to the right of everything that is read."""
    return next((i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id) if i is not None), 0)
