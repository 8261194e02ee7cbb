"""Sites: named points of the forward pass, in TransformerLens' names, and the little language that selects them.

``resid_post.3`` is the residual stream after layer 3, ``z.3.5`` the output of head 5 of layer 3 before W_O,
``resid_post.*`` every layer, ``resid_post.0-11:2`` every second layer from 0 to 11, ``embed`` and ``ln_final`` have no
layer. Models with two stacks need the stack: ``encoder.resid_post.3``, ``decoder.z.3.5``. Any hook of TransformerLens'
bridge is a site too, by its own name: ``blocks.3.attn.hook_attn_scores``, ``blocks.*.ln1.hook_scale``. Several
selections are joined with commas.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from activations.errors import TwinprobeError, did_you_mean

DESCRIPTIONS = {
    "embed": "output of the token embedding, as it enters the residual stream",
    "resid_pre": "residual stream entering a layer",
    "resid_mid": "residual stream between attention and MLP (absent where the two run in parallel)",
    "resid_post": "residual stream leaving a layer",
    "attn_out": "what attention adds to the residual stream",
    "cross_attn_out": "what attention to the encoder adds to the residual stream of a decoder stack",
    "mlp_out": "what the MLP adds to the residual stream",
    "q": "queries as projected, before any normalisation or rotary embedding; one head with q.LAYER.HEAD",
    "k": "keys as projected, before any normalisation or rotary embedding; one key head with k.LAYER.HEAD",
    "v": "values as projected; one value head with v.LAYER.HEAD",
    "rot_q": "queries after the rotary embedding; one head with rot_q.LAYER.HEAD",
    "rot_k": "keys after the rotary embedding; one key head with rot_k.LAYER.HEAD",
    "pattern": "attention probabilities, heads × longest input wide; one head with pattern.LAYER.HEAD",
    "z": "outputs of the attention heads before W_O; one head with z.LAYER.HEAD",
    "mlp_post": "what the MLP's output projection reads (absent in mixtures of experts)",
    "ln_final": "output of the final normalisation, which the unembedding reads",
}
WITHOUT_LAYER = ("embed", "ln_final")
KV_HEADS = ("k", "v", "rot_k")
"""Sites with one head per key, of which grouped-query attention has fewer."""
WITH_HEADS = ("q", "rot_q", "pattern", "z", *KV_HEADS)
STACKS = ("encoder", "decoder")

_NUMBER = "[0-9]{1,9}"
_LAYERS = re.compile(rf"\*|({_NUMBER})(?:-({_NUMBER})(?::({_NUMBER}))?)?")
_HOOK = re.compile(r"(?:[A-Za-z0-9_]+(?:\.\*)?\.)*hook_[A-Za-z0-9_]+(?:\.[A-Za-z0-9_]+)*")
_HOOK_LAYER = re.compile(r"(?:^|(?<=\.))((?:encoder_|decoder_)?blocks)\.(\*|[0-9]+)(?=\.)")
_WITHIN = {
    **{"resid_pre": 0.0, "q": 0.1, "k": 0.1, "v": 0.1, "rot_q": 0.2, "rot_k": 0.2, "pattern": 0.3, "z": 0.4},
    **{"attn_out": 0.45, "cross_attn_out": 0.48, "resid_mid": 0.5, "mlp_post": 0.8, "mlp_out": 0.9, "resid_post": 1.0},
}


@dataclass(frozen=True)
class Shape:
    """How many layers a stack has, how many heads its queries have, and how many its keys and values."""

    layers: int
    heads: int
    kv_heads: int


_ANY = Shape(10**4, 10**4, 10**4)


@dataclass(frozen=True)
class Site:
    """One point of the forward pass.

    ``layer`` is ``None`` for ``embed``, ``ln_final`` and bridge hooks, whose whole name is in ``name``; ``head`` only
    where a site has heads; ``stack`` (``encoder`` or ``decoder``) only in models with two.
    """

    name: str
    layer: int | None = None
    head: int | None = None
    stack: str | None = None

    def __str__(self) -> str:
        return ".".join(str(part) for part in (self.stack, self.name, self.layer, self.head) if part is not None)

    @property
    def is_hook(self) -> bool:
        """Whether this is a hook of TransformerLens' bridge, by its own name."""
        return self.name not in DESCRIPTIONS

    @property
    def dataset(self) -> str:
        """The path of this site's dataset in a store: ``resid_post/3``, ``z/3.5``, ``encoder/resid_post/3``.

        Bridge hooks lie in one folder: ``hook/blocks.3.attn.hook_attn_scores``.
        """
        if self.is_hook:
            return f"hook/{self.name}"
        if self.stack is None:
            return str(self).replace(".", "/", 1)
        return str(self).replace(".", "/", 2)

    def position(self, n_layers: int) -> float:
        """Where the site lies along its stack of ``n_layers``, in layers: 0 for ``embed``, ``n_layers`` for ``ln_final``."""
        if self.layer is not None:
            return self.layer + _WITHIN[self.name]
        if not self.is_hook:
            return 0.0 if self.name == "embed" else float(n_layers)
        if match := _HOOK_LAYER.search(self.name):
            return int(match[2]) + 0.5
        return float(n_layers) if "ln_final" in self.name or "unembed" in self.name else 0.0


def parse_site(text: str) -> Site:
    """Read one written site such as ``resid_post.3``, without a model to check it against."""
    sites = select_sites(text, {None: _ANY, **dict.fromkeys(STACKS, _ANY)})
    if len(sites) != 1:
        raise TwinprobeError(f"site {text!r} names {len(sites)} sites; expected exactly one, such as resid_post.3")
    return sites[0]


def parse_sites(selection: str | Sequence[str], n_layers: int, n_heads: int) -> tuple[Site, ...]:
    """Expand a selection for a model with one stack of ``n_layers`` layers and ``n_heads`` heads; see :func:`select_sites`.

    Where the model is loaded, :meth:`activations.models.LoadedModel.sites` also knows its key heads and its stacks.
    """
    return select_sites(selection, {None: Shape(n_layers, n_heads, n_heads)})


def select_sites(selection: str | Sequence[str], shapes: Mapping[str | None, Shape]) -> tuple[Site, ...]:
    """Expand a selection; duplicates are dropped.

    ``shapes`` describes the model's stacks by name; a model with a single stack has ``None`` for its name.

    Raises:
        TwinprobeError: an unknown site name, a malformed selection, or a stack, layer or head the model does not have.
    """
    patterns = selection.split(",") if isinstance(selection, str) else list(selection)
    sites: dict[Site, None] = {}
    for pattern in (part.strip() for part in patterns):
        sites.update(dict.fromkeys(_expand(pattern, shapes)))
    if not sites:
        raise TwinprobeError("no site was selected; expected for example 'resid_post.*'")
    return tuple(sites)


def _expand(pattern: str, shapes: Mapping[str | None, Shape]) -> list[Site]:
    if _HOOK.fullmatch(pattern):
        return _expand_hook(pattern, shapes)
    first, *rest = pattern.split(".")
    stack, name, rest = (first, rest[0], rest[1:]) if first in STACKS and rest else (None, first, rest)
    if name not in DESCRIPTIONS:
        raise TwinprobeError(
            f"unknown site {pattern!r}{did_you_mean(name, DESCRIPTIONS)}; known: {', '.join(DESCRIPTIONS)}"
        )
    shape = _shape(pattern, stack, shapes, name, rest)
    if name in WITHOUT_LAYER:
        if rest:
            raise TwinprobeError(f"site {pattern!r}: {name} has no layers; write {name!r}")
        return [Site(name, stack=stack)]
    if not rest or len(rest) > (2 if name in WITH_HEADS else 1):
        raise TwinprobeError(f"site {pattern!r}: expected {name}.LAYER, {name}.* or {name}.FIRST-LAST:STEP")
    layers = _layers(pattern, rest[0], shape.layers)
    if len(rest) == 1:
        return [Site(name, layer, stack=stack) for layer in layers]
    if not re.fullmatch(_NUMBER, rest[1]):
        raise TwinprobeError(f"site {pattern!r}: {rest[1]!r} is not a head number; expected for example z.3.5")
    heads, which = (shape.kv_heads, "key heads") if name in KV_HEADS else (shape.heads, "heads")
    if int(rest[1]) >= heads:
        raise TwinprobeError(
            f"site {pattern!r}: head {rest[1]} does not exist; this model has {which} 0 to {heads - 1}"
        )
    return [Site(name, layer, int(rest[1]), stack) for layer in layers]


def _shape(
    pattern: str, stack: str | None, shapes: Mapping[str | None, Shape], name: str, rest: Sequence[str]
) -> Shape:
    if stack in shapes:
        return shapes[stack]
    bare = ".".join((name, *rest))
    if stack is None:
        written = " or ".join(repr(f"{known}.{bare}") for known in shapes)
        raise TwinprobeError(f"site {pattern!r}: this model has two stacks of layers; write {written}")
    raise TwinprobeError(f"site {pattern!r}: this model has a single stack of layers; write {bare!r}")


def _expand_hook(pattern: str, shapes: Mapping[str | None, Shape]) -> list[Site]:
    """Bridge hooks are not known by name here; only their layer is looked at."""
    match = _HOOK_LAYER.search(pattern)
    if match is None:
        if "*" in pattern:
            raise TwinprobeError(f"site {pattern!r}: * stands for a layer only, as in blocks.*.attn.hook_attn_scores")
        return [Site(pattern)]
    stack = match[1].removesuffix("blocks").removesuffix("_") or None
    if stack not in shapes:
        written = " or ".join("blocks" if known is None else f"{known}_blocks" for known in shapes)
        raise TwinprobeError(f"site {pattern!r}: this model has no {match[1]}; expected {written}")
    head, tail = pattern[: match.start(2)], pattern[match.end(2) :]
    if "*" in tail:
        raise TwinprobeError(f"site {pattern!r}: * stands for a layer only, as in blocks.*.attn.hook_attn_scores")
    return [Site(f"{head}{layer}{tail}") for layer in _layers(pattern, match[2], shapes[stack].layers)]


def _layers(pattern: str, text: str, n_layers: int) -> range:
    match = _LAYERS.fullmatch(text)
    if match is None:
        raise TwinprobeError(f"site {pattern!r}: {text!r} is not a layer, a range FIRST-LAST:STEP or *")
    if text == "*":
        return range(n_layers)
    first = int(match[1])
    last = int(match[2]) if match[2] else first
    step = int(match[3]) if match[3] else 1
    if last < first or step < 1:
        raise TwinprobeError(
            f"site {pattern!r}: the range {text!r} is empty; expected FIRST-LAST:STEP with FIRST <= LAST"
        )
    if last >= n_layers:
        raise TwinprobeError(
            f"site {pattern!r}: layer {last} does not exist; this model has layers 0 to {n_layers - 1}"
        )
    return range(first, last + 1, step)
