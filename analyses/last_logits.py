"""What a model says after many prompts: the logits of each one's last position, and nothing else.

Prompts of one length run together. No position is padded, so a prompt's logits are those of its own forward pass, up to
what the size of a batch does to rounding. Only last positions are unembedded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from activations.models import LoadedModel

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

MAX_TOKENS = 2048
"""Tokens that are run together; bounds memory, and with it the logits, one row of the vocabulary per prompt."""


def last_logits(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]]
) -> Iterator[tuple[int, Float[torch.Tensor, "... vocab"]]]:
    """The number of each prompt (token ids) and the logits at its last position, shorter prompts first.

    ``loaded`` is a decoder; it is left as it was found, also after an error.
    """
    import torch

    def keep_last(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][:, -1:], *args[1:])

    for numbers in _of_one_length([len(ids) for ids in prompts]):
        tokens = torch.tensor([list(prompts[number]) for number in numbers], device=loaded.device)
        # The model's own way to the logits (scaling, soft caps), over one position instead of all.
        handle = loaded.module("unembed").register_forward_pre_hook(keep_last)
        try:
            with torch.inference_mode():
                logits = loaded.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
        finally:
            handle.remove()
        yield from zip(numbers, logits[:, -1], strict=True)


def _of_one_length(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of equal lengths, as many as ``MAX_TOKENS`` allows; at least one."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    for length, same in groupby(order, key=lengths.__getitem__):
        numbers, size = list(same), max(1, MAX_TOKENS // length)
        yield from (numbers[start : start + size] for start in range(0, len(numbers), size))
