"""Architectures: what kind of model a configuration describes, and TransformerLens' table of where its parts are.

TransformerLens' adapters are used as a table only; nothing of its bridge is built here. Their builder module is private
and may move: this is the one place that knows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from activations.errors import TwinprobeError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def kind_of(config: PretrainedConfig) -> str:
    """``decoder``, ``encoder`` (a masked language model) or ``encoder-decoder``.

    What counts is how the model attends: a RoBERTa is an encoder unless its configuration has ``is_decoder``.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if getattr(config, "is_encoder_decoder", False):
        return "encoder-decoder"
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    return "encoder" if masked and not getattr(config, "is_decoder", False) else "decoder"


def auto_class(kind: str) -> Any:
    """The class of transformers that loads models of a kind."""
    from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoModelForSeq2SeqLM

    return {
        "decoder": AutoModelForCausalLM,
        "encoder": AutoModelForMaskedLM,
        "encoder-decoder": AutoModelForSeq2SeqLM,
    }[kind]


def adapter_of(model: PreTrainedModel) -> Any:
    """TransformerLens' table of module paths for this model's architecture.

    Raises:
        TwinprobeError: it has none.
    """
    import torch
    from transformer_lens.factories.architecture_adapter_factory import ArchitectureAdapterFactory
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_config_from_hf

    try:
        config = build_bridge_config_from_hf(model.config, type(model).__name__, "any-name", torch.float32)
        return ArchitectureAdapterFactory.select_architecture_adapter(config)
    except ValueError as error:
        raise TwinprobeError(
            f"architecture {type(model).__name__} is not known to TransformerLens ({str(error).splitlines()[0]})"
        ) from None


def longest_input(model: PreTrainedModel, tokenizer_limit: int, fallback: int) -> int:
    """The longest input in tokens.

    Models with relative positions (T5) have no hard limit: theirs is what they were trained on, as the configuration or
    else the tokenizer tells it.
    """
    config = model.config.get_text_config()
    named = (getattr(config, field, None) for field in ("max_position_embeddings", "n_positions", "n_ctx"))
    limit = next((int(value) for value in named if value), None)
    if limit is None:
        # Tokenizers without a limit report an enormous number.
        return tokenizer_limit if tokenizer_limit < 2**24 else fallback
    embeddings: Any = getattr(model.base_model, "embeddings", None)
    if hasattr(embeddings, "create_position_ids_from_input_ids"):  # RoBERTa counts positions from its padding id on
        return limit - int(embeddings.padding_idx) - 1
    # The start token takes a position of the decoder (BART); relative positions (T5) can be one longer.
    starts = getattr(config, "is_encoder_decoder", False) and getattr(config, "max_position_embeddings", None)
    return limit - 1 if starts else limit
