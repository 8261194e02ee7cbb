"""A model in memory, with its tokenizer, and where its parts are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from activations.architectures import adapter_of, kind_of, longest_input
from activations.errors import TwinprobeError
from activations.fingerprints import fingerprint, offload_hooks
from activations.sites import Shape, Site, select_sites

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TRAINED_LENGTH = 512
"""Tokens a model with relative positions is trusted to read where nothing says how many it was trained on."""


@dataclass(frozen=True)
class ModelSpec:
    """What to load and how.

    ``name`` is a hub name, a local folder, or ``embedded:NAME`` for a twin that ships with the package. ``dtype`` is
    the compute type (``auto``: the checkpoint's own). ``device_map`` (for example ``auto``) spreads a large model over
    devices and overrides ``device``. ``attention`` is the kernel (``sdpa``, ``eager``, ``flash_attention_2``; ``auto``: SDPA
    where the architecture has it, else eager).
    ``random_init`` replaces the weights by freshly initialised ones drawn with that seed. ``quantization`` (``8bit`` or
    ``4bit``) loads the weights through bitsandbytes; checkpoints that are quantised already need none.
    """

    name: str
    revision: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    device_map: str | None = None
    attention: str = "auto"
    allow_pickle: bool = False
    trust_remote_code: bool = False
    random_init: int | None = None
    quantization: str | None = None


@dataclass(frozen=True)
class LoadedModel:
    """An untouched Hugging Face model in evaluation mode, its fast tokenizer, and where its parts are.

    ``commit`` is the one a hub model was loaded from.
    """

    spec: ModelSpec
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    commit: str | None = None

    @cached_property
    def kind(self) -> str:
        """``decoder``, ``encoder`` or ``encoder-decoder``."""
        return kind_of(self.model.config)

    @cached_property
    def _adapter(self) -> Any:
        return adapter_of(self.model)

    @cached_property
    def _paths(self) -> dict[str, str | None]:
        return {}

    def path(self, canonical: str) -> str | None:
        """The module path of a canonical TransformerLens path (``blocks.3.attn.o``); ``None`` where there is none."""
        if canonical not in self._paths:
            try:
                translated = str(self._adapter.translate_transformer_lens_path(canonical))
                self.model.get_submodule(translated)
            except (ValueError, AttributeError, KeyError):
                self._paths[canonical] = None
            else:
                self._paths[canonical] = translated
        return self._paths[canonical]

    def module(self, canonical: str) -> torch.nn.Module:
        """The module at a canonical path.

        Raises:
            TwinprobeError: this architecture has no such part.
        """
        path = self.path(canonical)
        if path is None:
            raise TwinprobeError(f"{self.spec.name} ({type(self.model).__name__}) has no module for {canonical!r}")
        return self.model.get_submodule(path)

    def part(self, stack: str | None = None, name: str = "blocks") -> Any:
        """TransformerLens' description of a top-level part: the blocks of a stack, the embedding."""
        return self._adapter.component_mapping.get(name if stack is None else f"{stack}_{name}")

    @cached_property
    def shapes(self) -> dict[str | None, Shape]:
        """Layers and heads of each stack by its name; a model with a single stack has ``None`` for its name."""
        config = self._adapter.cfg
        heads = int(config.n_heads)
        kv_heads = int(getattr(config, "n_key_value_heads", None) or heads)
        if self.kind != "encoder-decoder":
            return {None: Shape(int(config.n_layers), heads, kv_heads)}
        return {
            stack: Shape(len(self.module(f"{stack}_blocks")), heads, kv_heads)  # type: ignore[arg-type]
            for stack in ("encoder", "decoder")
        }

    def sites(self, selection: str | Sequence[str]) -> tuple[Site, ...]:
        """Expand a selection of sites for this model (see :func:`activations.sites.select_sites`)."""
        return select_sites(selection, self.shapes)

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks, of both stacks together where there are two."""
        return sum(shape.layers for shape in self.shapes.values())

    @property
    def n_heads(self) -> int:
        """Number of query heads per layer."""
        return int(self._adapter.cfg.n_heads)

    @property
    def n_kv_heads(self) -> int:
        """Number of key and value heads per layer."""
        return next(iter(self.shapes.values())).kv_heads

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self._adapter.cfg.d_model)

    @property
    def d_head(self) -> int:
        """Width of one head."""
        return int(self._adapter.cfg.d_head)

    @property
    def parallel(self) -> bool:
        """Whether attention and MLP read the same input, so that there is no ``resid_mid``."""
        return bool(getattr(self._adapter.cfg, "parallel_attn_mlp", False))

    @property
    def context(self) -> int:
        """The longest input in tokens."""
        return longest_input(self.model, int(self.tokenizer.model_max_length), TRAINED_LENGTH)

    @property
    def closing(self) -> int | None:
        """The token that ends an encoder's input (EOS, or in BERT the separator); ``None`` for decoders."""
        if self.kind == "decoder":
            return None
        ends = (self.tokenizer.eos_token_id, self.tokenizer.sep_token_id)
        return next((int(end) for end in ends if end is not None), None)

    @property
    def embedding(self) -> torch.nn.Module:
        """The module that token ids enter first."""
        first = self.model.get_encoder() if self.kind == "encoder-decoder" else self.model
        return first.get_input_embeddings()

    @property
    def device(self) -> torch.device:
        """Where token ids go: where the embedding lives, or is brought in for each call."""
        import torch

        for hook in offload_hooks(self.embedding):
            return torch.device(hook.execution_device)
        weight: torch.Tensor = self.embedding.weight  # type: ignore[assignment]
        return weight.device

    def inputs(self, ids: Int[torch.Tensor, "batch pos"], mask: Int[torch.Tensor, "batch pos"]) -> dict[str, Any]:
        """Keyword arguments of a forward pass over right-padded ``ids``.

        The decoder of an encoder-decoder reads the same ids after its start token, so that its position ``i + 1`` has
        just read token ``i``.
        """
        given = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
        if self.kind != "encoder-decoder":
            return given
        import torch

        start = torch.full_like(ids[:, :1], self.decoder_start)
        return {
            **given,
            "decoder_input_ids": torch.cat([start, ids], dim=1),
            "decoder_attention_mask": torch.cat([torch.ones_like(mask[:, :1]), mask], dim=1),
        }

    @property
    def decoder_start(self) -> int:
        """The token an encoder-decoder's decoder begins with.

        Raises:
            TwinprobeError: the configuration names none.
        """
        config = self.model.config
        named = (getattr(config, "decoder_start_token_id", None), config.pad_token_id, config.bos_token_id)
        for token in named:
            if token is not None:
                return int(token)
        raise TwinprobeError(
            f"{self.spec.name} has no decoder_start_token_id in its config.json; add the one it was trained with"
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the architecture and the weights: equal for equal models wherever they were loaded from.

        Of an encoder, the body alone: no site reads its head, and checkpoints such as CodeBERT's have none.
        """
        return fingerprint(self.model.base_model if self.kind == "encoder" else self.model)

    def require_decoder(self) -> None:
        """Make sure that the model predicts the next token.

        Raises:
            TwinprobeError: it is an encoder or an encoder-decoder.
        """
        if self.kind != "decoder":
            raise TwinprobeError(
                f"{self.spec.name} ({type(self.model).__name__}) is an {self.kind}; patching, scoring and the paired study "
                "need decoders, which predict the next token: twinprobe cache and probe work with it"
            )

    def provenance(self) -> dict[str, Any]:
        """What a manifest records about this model."""
        config = self.model.config
        return {
            **asdict(self.spec),
            "kind": self.kind,
            "architecture": type(self.model).__name__,
            "compute_dtype": str(self.model.dtype).removeprefix("torch."),
            "attention_kernel": config._attn_implementation,
            "commit": self.commit,
            "fingerprint": self.fingerprint,
            "layers": self.n_layers,
            "width": self.d_model,
            "heads": self.n_heads,
            "parameters": self.model.num_parameters(),
            "vocabulary": config.get_text_config().vocab_size,
            "context": self.context,
        }


def wrap(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str) -> LoadedModel:
    """Use a model that is already in memory; it is put into evaluation mode and otherwise left as it is.

    Raises:
        TwinprobeError: the tokenizer gives no offsets, or has more tokens than the model has embeddings.
    """
    if not tokenizer.is_fast:
        raise TwinprobeError(f"{name}: its tokenizer has no offsets (not a fast tokenizer); a tokenizer.json is needed")
    # Tokens added on top of the vocabulary are not counted: published tokenizers have some that no text gives.
    words = tokenizer.backend_tokenizer.get_vocab_size(with_added_tokens=False)
    rows = model.get_input_embeddings().weight.shape[0]
    if words > rows:
        raise TwinprobeError(
            f"{name}: its tokenizer has {words} tokens but the model {rows} embeddings; use the tokenizer it was trained with"
        )
    loaded = LoadedModel(ModelSpec(name, dtype=str(model.dtype).removeprefix("torch.")), model.eval(), tokenizer)
    return replace(loaded, spec=replace(loaded.spec, device=str(loaded.device)))
