"""The models that a design can train: randomly initialised decoders of three kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyses.pretraining.design import Architecture

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

NAMES = {"llama": "Llama-shaped decoder", "gpt_neox": "GPT-NeoX-shaped decoder", "mamba": "Mamba (a state space model)"}


def vocabulary_of(tokenizer: PreTrainedTokenizerFast) -> dict[str, int | None]:
    """What a configuration says of the tokenizer."""
    return {
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def new_model(shape: Architecture, seed: int, **vocabulary: int | None) -> PreTrainedModel:
    """A randomly initialised decoder with tied embeddings; the same seed gives the same weights.

    Args:
        vocabulary: see :func:`vocabulary_of`.
    """
    import torch
    from transformers import (
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
        LlamaConfig,
        LlamaForCausalLM,
        MambaConfig,
        MambaForCausalLM,
    )

    common = {"tie_word_embeddings": True, **vocabulary}
    torch.manual_seed(seed)
    if shape.kind == "mamba":
        return MambaForCausalLM(MambaConfig(hidden_size=shape.hidden_size, num_hidden_layers=shape.layers, **common))
    sizes = {
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "max_position_embeddings": shape.context,
    }
    if shape.kind == "gpt_neox":
        return GPTNeoXForCausalLM(GPTNeoXConfig(**sizes, **common))
    return LlamaForCausalLM(LlamaConfig(num_key_value_heads=shape.heads, **sizes, **common))
