"""Load a language model with its tokenizer, from the Hugging Face hub, a local folder or the embedded twins."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activations.architectures import auto_class, kind_of
from activations.errors import TwinprobeError
from activations.fingerprints import fingerprint as fingerprint
from activations.loaded import LoadedModel as LoadedModel
from activations.loaded import ModelSpec as ModelSpec
from activations.loaded import wrap as wrap

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

DTYPES = ("float32", "bfloat16", "float16", "auto")
TWINS_FOLDER = Path(__file__).parent / "twins"
QUANTIZATIONS = ("8bit", "4bit")


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


def load_model(spec: ModelSpec | str, check: bool = True) -> LoadedModel:
    """Load a model and its fast tokenizer, and check that its sites are where they are thought to be.

    Safetensors only unless ``spec.allow_pickle``; no remote code unless ``spec.trust_remote_code``. ``check`` runs
    :func:`activations.checking.self_check`.

    Raises:
        TwinprobeError: nothing usable at that name, an unknown dtype, a device that is not there, a slow tokenizer, a
            library that is not installed, options that exclude each other, or a failed check.
    """
    spec = ModelSpec(spec) if isinstance(spec, str) else spec
    _check_options(spec)
    source = resolve(spec)

    from transformers import AutoConfig

    check_device(spec.device)
    tokenizer = load_tokenizer(spec)
    common = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **common)
        kind = kind_of(config)
        if spec.random_init is None:
            placed = _placement(spec, config)
            model, info = auto_class(kind).from_pretrained(
                source,
                dtype=_dtype(spec),
                attn_implementation=_kernel(spec),
                use_safetensors=None if spec.allow_pickle else True,
                output_loading_info=True,
                **placed,
                **common,
            )
        else:
            placed = {}
            model, info = _random_model(config, spec), {"missing_keys": ()}
    except TwinprobeError:
        raise
    except Exception as error:  # SafetensorError, UnpicklingError and tokenizers' own have no class in common
        raise _not_loaded("model", spec, error) from None
    if missing := [name for name in sorted(info["missing_keys"]) if _is_read(name, model, kind)]:
        raise TwinprobeError(
            f"the weights of {spec.name!r} lack {len(missing)} of the model's tensors ({missing[0]}), which would be "
            f"random; expected a complete {type(model).__name__} checkpoint"
        )
    if not placed:
        model = model.to(spec.device)
    loaded = replace(wrap(model, tokenizer, spec.name), spec=spec, commit=_commit(source, spec.revision))
    if check:
        from activations.checking import self_check

        self_check(loaded)
    return loaded


def _check_options(spec: ModelSpec) -> None:
    if spec.dtype not in DTYPES:
        raise TwinprobeError(f"dtype {spec.dtype!r} is not known; expected one of {', '.join(DTYPES)}")
    if spec.quantization not in (None, *QUANTIZATIONS):
        raise TwinprobeError(
            f"quantization {spec.quantization!r} is not known; expected one of {', '.join(QUANTIZATIONS)}"
        )
    placing = f"quantization {spec.quantization}" if spec.quantization else f"device_map {spec.device_map!r}"
    if spec.random_init is not None and (spec.quantization or spec.device_map):
        raise TwinprobeError(f"random_init can not be combined with {placing}; leave one of them out")
    if spec.quantization and find_spec("bitsandbytes") is None:
        raise TwinprobeError(
            f"{placing} needs bitsandbytes, which is not installed; pip install bitsandbytes accelerate"
        )
    if (spec.quantization or spec.device_map) and find_spec("accelerate") is None:
        raise TwinprobeError(f"{placing} needs accelerate, which is not installed; pip install accelerate")


def _dtype(spec: ModelSpec) -> Any:
    import torch

    return spec.dtype if spec.dtype == "auto" else getattr(torch, spec.dtype)


def _placement(spec: ModelSpec, config: PretrainedConfig) -> dict[str, Any]:
    """What from_pretrained is told where it has to put the weights itself: they can not be moved afterwards."""
    quantised = spec.quantization or getattr(config, "quantization_config", None)
    placed: dict[str, Any] = {}
    if spec.device_map or quantised:
        placed["device_map"] = spec.device_map or {"": spec.device}
    if spec.quantization:
        import torch
        from transformers import BitsAndBytesConfig

        compute = _dtype(spec) if spec.dtype != "auto" else torch.bfloat16
        placed["quantization_config"] = (
            BitsAndBytesConfig(load_in_8bit=True)
            if spec.quantization == "8bit"
            else BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=compute)
        )
    return placed


def _is_read(name: str, model: PreTrainedModel, kind: str) -> bool:
    """Whether any site depends on a weight; none does on an encoder's head or pooler, which CodeBERT comes without."""
    return kind != "encoder" or (name.startswith(f"{model.base_model_prefix}.") and ".pooler." not in name)


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

    with torch.random.fork_rng():
        torch.manual_seed(spec.random_init or 0)
        model = auto_class(kind_of(config)).from_config(
            config, attn_implementation=_kernel(spec), trust_remote_code=spec.trust_remote_code
        )
    return model if spec.dtype == "auto" else model.to(getattr(torch, spec.dtype))


def check_device(name: str) -> None:
    """Raise :class:`TwinprobeError` unless torch knows the device and it is there."""
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise TwinprobeError(f"device {name!r} is not known; expected cpu, cuda, cuda:0 or mps") from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise TwinprobeError(
            f"device {name!r} is not there: {torch.cuda.device_count()} CUDA devices were found"
        ) from None


def _kernel(spec: ModelSpec) -> str | None:
    """The attention kernel as transformers wants it: ``None`` for the architecture's own choice."""
    return None if spec.attention == "auto" else spec.attention
