"""Tiny models beyond the fixtures', prompts for them, and what an analysis could leave traces in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from activations.models import fingerprint

if TYPE_CHECKING:
    from activations.models import LoadedModel

CLEAN = (0, 40, 51, 62, 73, 84, 95, 106, 117)
CORRUPTED = (0, 40, 51, 200, 73, 210, 95, 106, 117)
FIRST_DIFFERENCE = 3
WINDOWED = {"gemma2": {"sliding_window": 4}}
"""So that the layers of one model are called with different masks."""


def state(loaded: LoadedModel) -> tuple[Any, ...]:
    """What patching could leave traces in."""
    modules = dict(loaded.model.named_modules())
    return (
        fingerprint(loaded.model),
        {name: (type(module), sorted(vars(module)), module.training) for name, module in modules.items()},
        {
            (name, kind): list(hooks.items())
            for name, module in modules.items()
            for kind, hooks in vars(module).items()
            if "hook" in kind and isinstance(hooks, dict)
        },
        loaded.model.config.to_json_string(),
        loaded.tokenizer.backend_tokenizer.to_str(),
    )


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 397,
}
REGISTERED = {
    "GemmaConfig": {**SMALL, "num_key_value_heads": 1, "head_dim": 4},
    "GraniteConfig": {
        **SMALL, "logits_scaling": 8.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.7,
        "attention_multiplier": 0.3,
    },
    "Starcoder2Config": {**SMALL, "num_key_value_heads": 2},
    "GPTBigCodeConfig": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 96, "vocab_size": 397},
    "MistralConfig": {**SMALL, "num_key_value_heads": 2, "sliding_window": 4},
}  # fmt: skip


def other_model(tiny: Callable[[str], LoadedModel], name: str, fields: dict[str, Any]) -> LoadedModel:
    import transformers

    from activations.models import wrap

    config = getattr(transformers, name)(**fields, initializer_range=0.2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrap(transformers.AutoModelForCausalLM.from_config(config), tiny("llama").tokenizer, name)
