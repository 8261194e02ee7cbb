"""Places: which module of an untouched Hugging Face model carries a site, and how its activation is read and replaced.

The names are TransformerLens' own (its adapters say, for every architecture, which module's input or output ``attn_out``
or ``resid_mid`` is), but for two kinds of block:

- encoders and other blocks that normalise after each addition (BERT, RoBERTa, BART): ``attn_out`` and ``mlp_out`` are
  what is added, before that norm (the bridge's ``hook_attn_out`` is the norm's output), and ``resid_mid`` is the stream
  the MLP reads, the output of the first norm (the bridge's ``hook_resid_mid`` is the input of the second);
- mixtures of experts have no ``mlp_post`` (the bridge's ``hook_post`` is what the mixture gives, ``mlp_out``).

``q`` and ``k`` are what the projections give, before the norms that Qwen3 puts on them, as in the bridge.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activations.errors import TwinprobeError
from activations.loaded import LoadedModel
from activations.sites import DESCRIPTIONS, KV_HEADS, WITH_HEADS, WITHOUT_LAYER, Site

if TYPE_CHECKING:
    import torch

BRIDGE_ONLY = ("rot_q", "rot_k", "pattern")
POST_NORM = ("bert", "roberta", "bart")
"""Model types whose blocks normalise after each addition; nothing in TransformerLens' tables tells them apart."""
FLATTENING = ("opt",)
"""Model types whose blocks run the MLP over all tokens of a batch in one row, with nothing to tell the texts apart."""
_PROJECTIONS = {"q": "queries", "k": "keys", "v": "values"}


@dataclass(frozen=True)
class Place:
    """The output, or else the first input, of the module at ``path``, or a part of it.

    ``columns`` are those of one head. ``scale`` is what the model multiplies the module's output by before it adds it to
    the residual stream (Granite). ``skip`` counts leading positions that belong to no token of the text: the start token
    of a decoder stack.
    """

    path: str
    output: bool
    columns: slice
    scale: float = 1.0
    skip: int = 0

    def read(self, tensor: torch.Tensor) -> torch.Tensor:
        """The site's activation ``[batch, pos, width]`` in what the module gives or takes."""
        part = tensor[..., self.skip :, self.columns]
        return part if self.scale == 1.0 else part * self.scale

    def write(self, tensor: torch.Tensor, edit: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        """``tensor`` with the site's activation edited; a new tensor, unless all of it is the activation."""
        if self.scale == 1.0 and self.skip == 0 and self.columns == slice(None):
            return edit(tensor)
        import torch

        before = self.read(tensor)
        after = edit(before)
        changed = tensor.clone()
        if self.scale != 1.0:
            # What the edit left alone stays as it is to the last bit.
            after = torch.where(after == before, changed[..., self.skip :, self.columns], after / self.scale)
        changed[..., self.skip :, self.columns] = after
        return changed


def locate(loaded: LoadedModel, site: Site) -> Place:
    """Where ``site`` is in the model.

    Raises:
        TwinprobeError: the architecture has no such site, or no module of its own carries it.
    """
    _check_stack(loaded, site)
    if site.is_hook or site.name in BRIDGE_ONLY:
        raise TwinprobeError(f"site {site}: no module gives it; --engine transformer_lens serves it")
    path, output, scale = _embed(loaded, site) if site.name == "embed" else _module(loaded, site)
    size = _head_width(loaded, site)
    columns = slice(None) if site.head is None else slice(site.head * size, (site.head + 1) * size)
    return Place(path, output, columns, scale, skip=int(site.stack == "decoder"))


def width(loaded: LoadedModel, site: Site) -> int:
    """How many numbers one row of ``site`` has.

    Raises:
        TwinprobeError: the architecture has no such site, or no module of its own carries it.
    """
    place = locate(loaded, site)
    if site.head is not None:
        return _head_width(loaded, site)
    if site.name in WITH_HEADS:
        return _head_width(loaded, site) * (loaded.n_kv_heads if site.name in KV_HEADS else loaded.n_heads)
    if site.name == "mlp_post":
        projection = loaded.model.get_submodule(place.path)
        features: Any = getattr(projection, "in_features", None) or projection.nx  # GPT-2's Conv1D
        return int(features)
    return loaded.d_model


def served(loaded: LoadedModel) -> list[Site]:
    """Every site that a module carries, single heads apart."""
    sites = []
    for stack, shape in loaded.shapes.items():
        for name in DESCRIPTIONS:
            for layer in [None] if name in WITHOUT_LAYER else range(shape.layers):
                site = Site(name, layer, stack=stack)
                try:
                    locate(loaded, site)
                except TwinprobeError:
                    continue
                sites.append(site)
    return sites


def _compressed(loaded: LoadedModel) -> bool:
    """Whether attention reads keys and values from a compressed state (DeepSeek's latent attention)."""
    return getattr(loaded.model.config, "kv_lora_rank", None) is not None


def _head_width(loaded: LoadedModel, site: Site) -> int:
    # There, d_head is the rotated part of a query alone; what a head gives is as wide as its values.
    return int(loaded.model.config.v_head_dim) if site.name == "z" and _compressed(loaded) else loaded.d_head


def _check_stack(loaded: LoadedModel, site: Site) -> None:
    if site.is_hook or site.stack in loaded.shapes:
        return
    if site.stack is None:
        raise TwinprobeError(f"site {site}: {loaded.spec.name} has two stacks; write encoder.{site} or decoder.{site}")
    bare = Site(site.name, site.layer, site.head)
    raise TwinprobeError(f"site {site}: {loaded.spec.name} has a single stack; write {bare}")


def _embed(loaded: LoadedModel, site: Site) -> tuple[str, bool, float]:
    # Encoder-decoders give each stack a module of its own around the same weights; the shared one is never called.
    if site.stack is None:
        path = loaded.path("embed")
        scale = float(getattr(loaded.part(name="embed"), "_output_contribution_scale", 1.0))
    else:
        stack = loaded.model.get_encoder() if site.stack == "encoder" else loaded.model.get_decoder()
        module, scale = stack.get_input_embeddings(), 1.0
        named = loaded.model.named_modules(remove_duplicate=False)
        path = next((name for name, known in named if known is module and name.startswith(_root(loaded, stack))), None)
    if path is None:
        raise _absent(loaded, site, "embed")
    return path, True, scale


def _root(loaded: LoadedModel, stack: torch.nn.Module) -> str:
    return next(name for name, module in loaded.model.named_modules() if module is stack)


def _module(loaded: LoadedModel, site: Site) -> tuple[str, bool, float]:
    """Path of the module, whether the site is its output, and what that is multiplied by."""
    canonical, output, scale = _canonical(loaded, site)
    path = loaded.path(canonical)
    if path is None:
        raise _absent(loaded, site, canonical)
    return path, output, scale


def _canonical(loaded: LoadedModel, site: Site) -> tuple[str, bool, float]:
    prefix = "" if site.stack is None else f"{site.stack}_"
    if site.name == "ln_final":
        if loaded.kind == "encoder":
            raise TwinprobeError(f"site {site}: {loaded.spec.name} is an encoder without a final norm; use resid_post")
        return f"{prefix}ln_final", True, 1.0
    block = f"{prefix}blocks.{site.layer}"
    attention = f"{block}.self_attn" if site.stack == "decoder" else f"{block}.attn"
    if site.name in ("resid_mid", "mlp_out", "mlp_post") and loaded.model.config.model_type in FLATTENING:
        raise TwinprobeError(
            f"site {site}: {type(loaded.model).__name__} runs its MLP over a batch without its texts; "
            "--engine transformer_lens serves it"
        )
    if site.name in ("resid_mid", "attn_out", "mlp_out"):
        part, output, scale = _added(loaded, site)
        return f"{block}.{part}", output, scale
    if site.name in _PROJECTIONS:
        fused = loaded.path(f"{attention}.o") is not None and loaded.path(f"{attention}.{site.name}") is None
        if fused or _compressed(loaded):
            how = "compresses keys and values" if _compressed(loaded) else "projects queries, keys and values in one"
            raise TwinprobeError(
                f"site {site}: {type(loaded.model).__name__} {how}, so no module gives its {_PROJECTIONS[site.name]}; "
                "--engine transformer_lens serves them"
            )
        return f"{attention}.{site.name}", True, 1.0
    if site.name == "mlp_post":
        if loaded.path(f"{block}.mlp") is not None and loaded.path(f"{block}.mlp.out") is None:
            raise TwinprobeError(
                f"site {site}: the MLP of {type(loaded.model).__name__} has no single output projection (a mixture of "
                "experts), so it has no mlp_post; use mlp_out"
            )
        return f"{block}.mlp.out", False, 1.0
    if site.name == "cross_attn_out":
        if site.stack != "decoder":
            raise TwinprobeError(f"site {site}: only the decoder stack of an encoder-decoder attends to an encoder")
        return f"{block}.cross_attn", True, 1.0
    return {
        "resid_pre": (block, False, 1.0),
        "resid_post": (block, True, 1.0),
        "z": (f"{attention}.o", False, 1.0),
    }[site.name]


def _added(loaded: LoadedModel, site: Site) -> tuple[str, bool, float]:
    """The part of a block that carries ``resid_mid``, ``attn_out`` or ``mlp_out``."""
    if site.name == "resid_mid" and loaded.parallel:
        raise TwinprobeError(
            f"site {site}: {loaded.spec.name} runs attention and MLP in parallel, so it has no resid_mid"
        )
    decoder = site.stack == "decoder"
    if loaded.model.config.model_type in POST_NORM:
        attention = "self_attn" if decoder else "attn"
        return {
            "resid_mid": ("ln2" if decoder else "ln1", True, 1.0),
            "attn_out": (f"{attention}.o", True, 1.0),
            "mlp_out": ("mlp.out", True, 1.0),
        }[site.name]
    block = loaded.part(site.stack)
    if alias := block.hook_aliases.get(f"hook_{site.name}"):
        part, _, side = alias.rpartition(".")
        return part, side == "hook_out", 1.0
    # T5's table leaves resid_mid out; Granite's scaled additions have no hook of a module.
    part = {
        "resid_mid": "ln3" if decoder else "ln2",
        "attn_out": "self_attn" if decoder else "attn",
        "mlp_out": "mlp",
    }[site.name]
    scale = 1.0 if site.name == "resid_mid" else float(getattr(block, "residual_contribution_scale", 1.0))
    return part, site.name != "resid_mid", scale


def _absent(loaded: LoadedModel, site: Site, canonical: str) -> TwinprobeError:
    return TwinprobeError(f"site {site}: {type(loaded.model).__name__} has no module for {canonical!r}")
