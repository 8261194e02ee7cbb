"""Load a causal language model with its tokenizer, from the Hugging Face hub, a local folder or the embedded twins."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activations.errors import TwinprobeError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16", "auto")
TWINS_FOLDER = Path(__file__).parent / "twins"
FULL_HASH_BYTES = 512 * 2**20
"""Weights up to this size are hashed whole; larger ones by 4,096 evenly spaced elements of each tensor."""


@dataclass(frozen=True)
class ModelSpec:
    """What to load and how.

    ``name`` is a hub name, a local folder, or ``embedded:NAME`` for a twin that ships with the package. ``dtype`` is
    the compute type (``auto``: the checkpoint's own). ``device_map`` (for example ``auto``) spreads a large model over
    devices and overrides ``device``. ``attention`` is the kernel (``sdpa``, ``eager``, ``flash_attention_2``).
    ``random_init`` replaces the weights by freshly initialised ones drawn with that seed.
    """

    name: str
    revision: str | None = None
    dtype: str = "float32"
    device: str = "cpu"
    device_map: str | None = None
    attention: str = "sdpa"
    allow_pickle: bool = False
    trust_remote_code: bool = False
    random_init: int | None = None


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
    def _adapter(self) -> Any:
        return _architecture_adapter(self.model)

    def path(self, canonical: str) -> str | None:
        """The module path of a canonical TransformerLens path (``blocks.3.attn.o``); ``None`` where there is none."""
        try:
            translated = self._adapter.translate_transformer_lens_path(canonical)
            self.model.get_submodule(translated)
        except (ValueError, AttributeError, KeyError):
            return None
        return str(translated)

    def module(self, canonical: str) -> torch.nn.Module:
        """The module at a canonical path.

        Raises:
            TwinprobeError: this architecture has no such part.
        """
        path = self.path(canonical)
        if path is None:
            raise TwinprobeError(f"{self.spec.name} ({type(self.model).__name__}) has no module for {canonical!r}")
        return self.model.get_submodule(path)

    @property
    def n_layers(self) -> int:
        """Number of transformer blocks."""
        return int(self._adapter.cfg.n_layers)

    @property
    def n_heads(self) -> int:
        """Number of query heads per layer."""
        return int(self._adapter.cfg.n_heads)

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
        config = self.model.config.get_text_config()
        for field in ("max_position_embeddings", "n_positions", "n_ctx"):
            if getattr(config, field, None):
                return int(getattr(config, field))
        return int(self._adapter.cfg.n_ctx)

    @property
    def device(self) -> torch.device:
        """Where the embedding lives, and so where token ids go."""
        return self.model.get_input_embeddings().weight.device

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the architecture and the weights: equal for equal models wherever they were loaded from."""
        return fingerprint(self.model)

    def provenance(self) -> dict[str, Any]:
        """What a manifest records about this model."""
        config = self.model.config
        return {
            **asdict(self.spec),
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


def _architecture_adapter(model: PreTrainedModel) -> Any:
    """TransformerLens' table of module paths for this architecture; the builder module is private and may move."""
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
    dtype = str(model.dtype).removeprefix("torch.")
    return LoadedModel(ModelSpec(name, dtype=dtype, device=str(model.device)), model.eval(), tokenizer)


def embedded_twins() -> list[str]:
    """Names of the checkpoints that ship with the package."""
    return sorted(folder.parent.name for folder in TWINS_FOLDER.glob("*/config.json"))


def resolve(spec: ModelSpec) -> str:
    """The folder or hub name that ``spec.name`` stands for, after checking what can be checked without loading.

    Raises:
        TwinprobeError: an unknown twin, a folder without a configuration or weights, or with pickle weights only.
    """
    if spec.name.startswith("embedded:"):
        name = spec.name.removeprefix("embedded:")
        if name not in embedded_twins():
            raise TwinprobeError(f"no embedded twin {name!r}; there are {', '.join(embedded_twins())}")
        return str(TWINS_FOLDER / name)
    folder = Path(spec.name).expanduser()
    if not folder.is_dir():
        if folder.exists() or spec.name.startswith((".", "/", "~")) or spec.name.count("/") > 1:
            raise TwinprobeError(
                f"model {spec.name!r} is not a folder; expected a model folder or a hub name like org/name"
            )
        return spec.name
    if not (folder / "config.json").exists():
        raise TwinprobeError(
            f"{folder} holds no config.json; expected a Hugging Face model folder (model.save_pretrained)"
        )
    if spec.random_init is not None or any(folder.glob("*.safetensors")):
        return str(folder)
    if not any(folder.glob("pytorch_model*.bin")):
        raise TwinprobeError(f"{folder} holds no weights; expected model.safetensors (model.save_pretrained writes it)")
    if not spec.allow_pickle:
        raise TwinprobeError(
            f"{folder} holds pickle weights only (pytorch_model.bin), which can run code when loaded; "
            "convert them to safetensors, or pass --allow-pickle if you trust them"
        )
    return str(folder)


def load_model(spec: ModelSpec | str) -> LoadedModel:
    """Load a model and its fast tokenizer.

    Safetensors only unless ``spec.allow_pickle``; no remote code unless ``spec.trust_remote_code``.

    Raises:
        TwinprobeError: nothing usable at that name, an unknown dtype, a device that is not there, a slow tokenizer.
    """
    spec = ModelSpec(spec) if isinstance(spec, str) else spec
    if spec.dtype not in DTYPES:
        raise TwinprobeError(f"dtype {spec.dtype!r} is not known; expected one of {', '.join(DTYPES)}")
    source = resolve(spec)

    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    _check_device(spec)
    tokenizer = load_tokenizer(spec)
    common = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    try:
        if spec.random_init is None:
            model, info = AutoModelForCausalLM.from_pretrained(
                source,
                dtype=spec.dtype if spec.dtype == "auto" else getattr(torch, spec.dtype),
                attn_implementation=spec.attention,
                use_safetensors=None if spec.allow_pickle else True,
                device_map=spec.device_map,
                output_loading_info=True,
                **common,
            )
        else:
            config = AutoConfig.from_pretrained(source, **common)
            model, info = _random_model(config, spec), {"missing_keys": ()}
    except Exception as error:  # SafetensorError, UnpicklingError and tokenizers' own have no class in common
        raise _not_loaded("model", spec, error) from None
    if missing := sorted(info["missing_keys"]):
        raise TwinprobeError(
            f"the weights of {spec.name!r} lack {len(missing)} of the model's tensors ({missing[0]}), which would be "
            f"random; expected a complete {type(model).__name__} checkpoint"
        )
    if spec.device_map is None:
        model = model.to(spec.device)
    return replace(wrap(model, tokenizer, spec.name), spec=spec, commit=_commit(source, spec.revision))


def load_tokenizer(spec: ModelSpec) -> PreTrainedTokenizerBase:
    """Load the tokenizer alone.

    Raises:
        TwinprobeError: there is none at that name.
    """
    from transformers import AutoTokenizer

    source = resolve(spec)
    try:
        return AutoTokenizer.from_pretrained(source, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
    except Exception as error:
        raise _not_loaded("tokenizer of model", spec, error) from None


def load_config(spec: ModelSpec) -> PretrainedConfig:
    """Load the configuration of the text model alone.

    Raises:
        TwinprobeError: there is none at that name.
    """
    from transformers import AutoConfig

    source = resolve(spec)
    try:
        config = AutoConfig.from_pretrained(source, revision=spec.revision, trust_remote_code=spec.trust_remote_code)
    except Exception as error:
        raise _not_loaded("configuration of model", spec, error) from None
    return config.get_text_config()


def _commit(source: str, revision: str | None) -> str | None:
    """The commit that a hub model, now in the local cache, is at; transformers 5 no longer notes it."""
    from transformers.utils import cached_file

    if Path(source).is_dir():
        return None
    return Path(str(cached_file(source, "config.json", revision=revision, local_files_only=True))).parent.name


def _not_loaded(what: str, spec: ModelSpec, error: Exception) -> TwinprobeError:
    reason = " ".join(str(error).split())
    hub = not (spec.name.startswith("embedded:") or Path(spec.name).expanduser().exists())
    hint = " (there is no folder of that name here, so it was taken for a hub name)" if hub else ""
    return TwinprobeError(f"{what} {spec.name!r} could not be loaded: {reason[:300]}{hint}")


def _random_model(config: Any, spec: ModelSpec) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(spec.random_init or 0)
        model = AutoModelForCausalLM.from_config(
            config, attn_implementation=spec.attention, trust_remote_code=spec.trust_remote_code
        )
    return model if spec.dtype == "auto" else model.to(getattr(torch, spec.dtype))


def _check_device(spec: ModelSpec) -> None:
    import torch

    try:
        device = torch.device(spec.device)
    except RuntimeError:
        raise TwinprobeError(f"device {spec.device!r} is not known; expected cpu, cuda, cuda:0 or mps") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise TwinprobeError(
            f"device {spec.device!r} is not there: {torch.cuda.device_count()} CUDA devices were found"
        ) from None


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over the names, shapes, types and values of all weights (a sample of the values in large models)."""
    state = {name: tensor for name, tensor in model.state_dict().items() if hasattr(tensor, "numel")}
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    digest = hashlib.sha256(type(model).__name__.encode())
    for name in sorted(state):
        flat = state[name].detach().reshape(-1)
        if size > FULL_HASH_BYTES and flat.numel() > 4096:
            flat = flat[:: flat.numel() // 4096]
        digest.update(f"{name}{tuple(state[name].shape)}{state[name].dtype}".encode())
        digest.update(_bytes(flat))
    return f"{'sampled' if size > FULL_HASH_BYTES else 'full'}:{digest.hexdigest()[:32]}"


def _bytes(flat: torch.Tensor) -> bytes:
    import torch

    return flat.cpu().contiguous().view(torch.uint8).numpy().tobytes() if flat.numel() else b""
