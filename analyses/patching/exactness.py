"""Patched runs by plain forward passes, to check suffixes against, and whether a model has suffixes at all."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from activations.engines.hooks import Edit, editing
from activations.models import LoadedModel
from activations.sites import Site
from analyses.last_position import KERNELS
from analyses.patching.cells import Cell, Patch, Put, as_put
from analyses.patching.head import check_head
from analyses.patching.recording import NoSuffixes, record
from analyses.patching.suffix import suffix_logits
from analyses.same_logits import same_logits

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float


def full_logits(loaded: LoadedModel, ids: Sequence[int], cell: Cell) -> Float[torch.Tensor, "... vocab"]:
    """Logits at the last position of a prompt with one cell patched, by a plain forward pass over the prompt with hooks."""
    import torch

    tokens = torch.tensor([list(ids)], device=loaded.device)
    with torch.inference_mode(), ExitStack() as stack:
        for patch in cell:
            put = as_put(loaded, patch)
            stack.enter_context(editing(loaded, put.site, _replacing(put)))
        return loaded.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits[0, -1]


def _replacing(put: Put) -> Edit:
    def edit(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed[:, list(put.positions), put.columns] = put.values.to(tensor)
        return changed

    return edit


def check_logits(loaded: LoadedModel, ids: Sequence[int]) -> None:
    """Make sure that this model's logits can be made from what leaves its last block, on one prompt.

    Raises:
        TwinprobeError: see :func:`analyses.patching.head.check_head`.
    """
    recording = record(loaded, ids, suffixes=False)
    check_head(loaded, recording.stream[-1, -1], recording.logits)


def has_suffixes(loaded: LoadedModel, ids: Sequence[int]) -> bool:
    """Whether this model's blocks, run from some position on, give what full forward passes give.

    To be asked with the longest prompt. Where it is false (recurrent layers, attention that goes by where keys lie and not
    by a mask), runs are to be recorded without suffixes, and every cell computes all positions.
    """
    import torch

    if loaded.model.config._attn_implementation not in KERNELS:
        return False
    try:
        shared = record(loaded, ids, suffixes=True)
        last = len(ids) - 1
        places = sorted({min(1, last), len(ids) // 2, last})  # the later two share a lane
        cells = [
            (Patch(Site("resid_pre", layer), (at,), -shared.stream[layer, [at]]),)
            for layer in sorted({0, loaded.n_layers // 2})
            for at in places
        ]
        found = suffix_logits(loaded, shared, cells)
    except (NoSuffixes, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
        return False  # an error that is not of this route's making comes up again in whole runs
    expected = torch.stack([full_logits(loaded, ids, cell) for cell in cells])
    return same_logits(found, expected)
