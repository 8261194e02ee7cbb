"""Tiny models made linear, where what attribution estimates is exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from activations.models import LoadedModel


class _Ones(torch.nn.Module):
    """A gate that is always open."""

    def forward(self, activation: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(activation[..., :1])


def linearise(loaded: LoadedModel) -> LoadedModel:
    """Take norms, curves and gates out of a fresh Llama, Qwen2 or GPT-2, in place; only attention stays as it is.

    Embeddings are made longer, as no norm does so any more.
    """
    with torch.no_grad():
        loaded.embedding.weight.mul_(5)  # type: ignore[operator]
    for parent in list(loaded.model.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__.endswith("Norm") or name in ("act", "act_fn"):
                setattr(parent, name, torch.nn.Identity())
            elif name == "gate_proj":
                setattr(parent, name, _Ones())
    return loaded


def spread_attention(loaded: LoadedModel) -> LoadedModel:
    """Make every query 0, in place: attention is the mean over what came before, whatever that is."""
    with torch.no_grad():
        for name, parameter in loaded.model.named_parameters():
            if ".q_proj." in name:
                parameter.zero_()
            elif ".c_attn." in name:  # GPT-2: queries, keys and values side by side
                parameter[..., : loaded.d_model].zero_()
    return loaded
