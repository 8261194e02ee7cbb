"""Hooks after the rotary embedding where TransformerLens has the hook points but never reaches them (seen in 4.3).

That is so in architectures that project queries, keys and values in one matrix: GPT-NeoX, Phi-3, CodeGen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def fire_rotary_hooks(bridge: Any) -> None:
    """Make ``hook_rot_q`` and ``hook_rot_k`` of such a bridge show the rotated queries and keys."""
    from transformer_lens.model_bridge.generalized_components import (
        CodeGenAttentionBridge,
        JointQKVPositionEmbeddingsAttentionBridge,
    )

    for part in bridge.modules():
        if isinstance(part, CodeGenAttentionBridge):
            _show_rotated(part)
        elif isinstance(part, JointQKVPositionEmbeddingsAttentionBridge) and hasattr(part, "hook_rot_q"):
            _pass_rotated(part)


def _pass_rotated(attention: Any) -> None:
    rotate = attention._apply_rotary_pos_emb

    def rotated(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        query, key = rotate(*args, **kwargs)
        return attention.hook_rot_q(query), attention.hook_rot_k(key)

    attention._apply_rotary_pos_emb = rotated


def _show_rotated(attention: Any) -> None:
    """CodeGen rotates in the middle of a longer method, so its rotation is done once more, for the hooks alone."""
    split = attention._reshape_qkv_to_heads

    def shown(*args: Any, **kwargs: Any) -> Any:
        found = split(*args, **kwargs)
        for point, heads in ((attention.hook_rot_q, found[0]), (attention.hook_rot_k, found[1])):
            if point.has_hooks():
                point(_rotate(attention.original_component, heads))
        return found

    attention._reshape_qkv_to_heads = shown


def _rotate(attention: Any, heads: torch.Tensor) -> torch.Tensor:
    """Rotate ``[batch, heads, pos, d_head]`` as CodeGen does for positions counted from 0."""
    import torch
    from transformers.models.codegen.modeling_codegen import apply_rotary_pos_emb

    positions = attention.embed_positions.to(heads.device)[None, : heads.shape[2]]
    sin, cos = positions.chunk(2, dim=-1)
    size = heads.shape[-1] if attention.rotary_dim is None else attention.rotary_dim
    turned = apply_rotary_pos_emb(heads[..., :size].transpose(1, 2), sin, cos).transpose(1, 2)
    return torch.cat([turned, heads[..., size:]], dim=-1)
