"""Run prompts with the activation of their last position edited, in several variants of each at once.

An edit of the last position leaves all earlier positions as they were. Their keys and values are therefore computed once
per prompt, and all variants of the last token are run as if they followed them side by side, none seeing another. Where
an architecture does not lend itself to that (windows shorter than a prompt, recurrent layers, ALiBi), every prompt is run
in full; two prompts that are run both ways decide it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Any

from activations.engines.hooks import editing
from activations.inputs import batches, pad, pad_id
from activations.models import LoadedModel
from activations.sites import Site
from analyses.same_logits import same_logits

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int

MAX_TOKENS = 2048
"""Padded tokens of the prompts that are run together; bounds memory, and with it the logits of all their variants."""
KERNELS = ("sdpa", "eager")
"""Attention kernels that take a mask of their own for every query."""


@dataclass(frozen=True, eq=False)
class Edit:
    """What is done to the last position of a prompt at ``site``.

    ``variants(states, numbers)`` makes ``count`` variants ``[prompt, count, width]`` of the ``states [prompt, width]``
    that the prompts with these numbers have there.
    """

    site: Site
    count: int
    variants: Callable[[torch.Tensor, Sequence[int]], torch.Tensor]


@dataclass(frozen=True, eq=False)
class EditedRuns:
    """Some of the prompts, by number: what their variants were at the site, and the logits that followed."""

    numbers: list[int]
    states: Float[torch.Tensor, "prompt variant width"]
    logits: Float[torch.Tensor, "prompt variant vocab"]


def edited_runs(loaded: LoadedModel, prompts: Sequence[Sequence[int]], edit: Edit) -> Iterator[EditedRuns]:
    """Logits at the last position of every prompt (token ids), once per variant of its state.

    ``loaded`` is a decoder; it is left as it was found, also after an error.

    Raises:
        TwinprobeError: no module of the model carries the site.
    """
    lengths = [len(ids) for ids in prompts]
    if prompts and shares_prefix(loaded, prompts, edit):
        for numbers in batches(lengths, MAX_TOKENS):
            yield _shared(loaded, prompts, edit, numbers)
    else:
        for number in range(len(prompts)):
            yield _full(loaded, prompts, edit, number)


def shares_prefix(loaded: LoadedModel, prompts: Sequence[Sequence[int]], edit: Edit) -> bool:
    """Whether the shortest and the longest prompt, run together on shared keys and values, give what full passes give."""
    ends = (min(prompts, key=len), max(prompts, key=len))
    numbers = sorted({prompts.index(ids) for ids in ends})
    kernel, accepted = loaded.model.config._attn_implementation, signature(loaded.model.forward).parameters
    if kernel not in KERNELS or "position_ids" not in accepted or len(ends[0]) < 2:
        return False
    try:
        together = _shared(loaded, prompts, edit, numbers).logits
    except (_NotKeysAndValues, AttributeError, RuntimeError, TypeError, ValueError):
        return False  # an error that is not of this route's making comes up again in the full pass
    return all(
        same_logits(logits, _full(loaded, prompts, edit, number).logits[0])
        for logits, number in zip(together, numbers, strict=True)
    )


def _shared(loaded: LoadedModel, prompts: Sequence[Sequence[int]], edit: Edit, numbers: list[int]) -> EditedRuns:
    """Read the prompts up to their last token, then all variants of that in one pass."""
    import torch

    # Padded on the left, so that last tokens are in line and distances within a prompt stay what they are.
    backwards = pad([prompts[number][::-1] for number in numbers], pad_id(loaded.tokenizer), loaded.device)
    tokens, mask = (tensor.flip(1) for tensor in backwards)
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    states: list[torch.Tensor] = []

    def put(tensor: torch.Tensor) -> torch.Tensor:
        states.append(edit.variants(tensor[:, 0], numbers))  # up to the site all variants are the same
        return states[-1]

    with torch.inference_mode():
        cache = loaded.model.base_model(
            input_ids=tokens[:, :-1], attention_mask=mask[:, :-1], position_ids=positions[:, :-1], use_cache=True
        ).past_key_values
        _check_cache(cache, tokens.shape[1])
        with editing(loaded, edit.site, put):
            logits = loaded.model(
                input_ids=tokens[:, -1:].expand(-1, edit.count),
                attention_mask=_own_and_earlier(mask[:, :-1], edit.count, loaded.model.dtype),
                position_ids=positions[:, -1:].expand(-1, edit.count),
                past_key_values=cache,
                use_cache=True,
            ).logits
    return EditedRuns(numbers, states[0], logits)


def _own_and_earlier(
    earlier: Int[torch.Tensor, "batch pos"], count: int, dtype: torch.dtype
) -> Float[torch.Tensor, "batch 1 count seen"]:
    """A mask to add to attention scores, by which each of ``count`` variants sees the earlier tokens and itself."""
    import torch

    own = torch.eye(count, dtype=torch.bool, device=earlier.device).expand(len(earlier), -1, -1)
    seen = torch.cat([earlier.bool()[:, None].expand(-1, count, -1), own], dim=2)[:, None]
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)


class _NotKeysAndValues(Exception):
    """Some layer keeps something other than the keys and values of every position."""


def _check_cache(cache: Any, length: int) -> None:
    # Recurrent layers would run the variants one after the other; an untrained one need not show it in the logits.
    from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

    if not isinstance(cache, DynamicCache) or not all(
        type(layer) is DynamicLayer or (type(layer) is DynamicSlidingWindowLayer and length <= layer.sliding_window)
        for layer in cache.layers
    ):
        raise _NotKeysAndValues


def _full(loaded: LoadedModel, prompts: Sequence[Sequence[int]], edit: Edit, number: int) -> EditedRuns:
    """One prompt, all of it once per variant."""
    import torch

    states: list[torch.Tensor] = []

    def put(tensor: torch.Tensor) -> torch.Tensor:
        states.append(edit.variants(tensor[:1, -1], [number]))
        changed = tensor.clone()
        changed[:, -1] = states[-1][0]
        return changed

    tokens = torch.tensor([list(prompts[number])], device=loaded.device).expand(edit.count, -1)
    last_only = {"logits_to_keep": 1} if "logits_to_keep" in signature(loaded.model.forward).parameters else {}
    with torch.inference_mode(), editing(loaded, edit.site, put):
        logits = loaded.model(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False, **last_only
        ).logits
    return EditedRuns([number], states[0], logits[None, :, -1])
