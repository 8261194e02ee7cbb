"""Sites: named points of the forward pass, in TransformerLens' names, and the little language that selects them.

``resid_post.3`` is the residual stream after layer 3, ``z.3.5`` the output of head 5 of layer 3 before W_O,
``resid_post.*`` every layer, ``resid_post.0-11:2`` every second layer from 0 to 11, ``embed`` and ``ln_final`` have no
layer. Several selections are joined with commas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from activations.errors import TwinprobeError, did_you_mean

DESCRIPTIONS = {
    "embed": "output of the token embedding",
    "resid_pre": "residual stream entering a layer",
    "resid_mid": "residual stream between attention and MLP (absent where the two run in parallel)",
    "resid_post": "residual stream leaving a layer",
    "attn_out": "what attention adds to the residual stream",
    "mlp_out": "what the MLP adds to the residual stream",
    "z": "outputs of the attention heads before W_O; one head with z.LAYER.HEAD",
    "ln_final": "output of the final normalisation, which the unembedding reads",
}
WITHOUT_LAYER = ("embed", "ln_final")

_NUMBER = "[0-9]{1,9}"
_LAYERS = re.compile(rf"\*|({_NUMBER})(?:-({_NUMBER})(?::({_NUMBER}))?)?")


@dataclass(frozen=True)
class Site:
    """One point of the forward pass: a name, a layer (``None`` for ``embed`` and ``ln_final``), a head (``z`` only)."""

    name: str
    layer: int | None = None
    head: int | None = None

    def __str__(self) -> str:
        return ".".join(str(part) for part in (self.name, self.layer, self.head) if part is not None)

    @property
    def dataset(self) -> str:
        """The path of this site's dataset in a store: ``resid_post/3``, ``z/3.5``."""
        return str(self).replace(".", "/", 1)

    def position(self, n_layers: int) -> float:
        """Where the site lies along the network, in layers: 0 for ``embed``, ``n_layers`` for ``ln_final``."""
        if self.layer is None:
            return 0.0 if self.name == "embed" else float(n_layers)
        within = {"resid_pre": 0.0, "attn_out": 0.5, "z": 0.5, "resid_mid": 0.5, "mlp_out": 0.9, "resid_post": 1.0}
        return self.layer + within[self.name]


def parse_site(text: str) -> Site:
    """Read one written site such as ``resid_post.3``, without a model to check it against."""
    sites = parse_sites(text, n_layers=10**4, n_heads=10**4)
    if len(sites) != 1:
        raise TwinprobeError(f"site {text!r} names {len(sites)} sites; expected exactly one, such as resid_post.3")
    return sites[0]


def parse_sites(selection: str | Sequence[str], n_layers: int, n_heads: int) -> tuple[Site, ...]:
    """Expand a selection for a model of ``n_layers`` layers and ``n_heads`` heads; duplicates are dropped.

    Raises:
        TwinprobeError: an unknown site name, a malformed selection, or a layer or head the model does not have.
    """
    patterns = selection.split(",") if isinstance(selection, str) else list(selection)
    sites: dict[Site, None] = {}
    for pattern in (part.strip() for part in patterns):
        sites.update(dict.fromkeys(_expand(pattern, n_layers, n_heads)))
    if not sites:
        raise TwinprobeError("no site was selected; expected for example 'resid_post.*'")
    return tuple(sites)


def _expand(pattern: str, n_layers: int, n_heads: int) -> list[Site]:
    name, *rest = pattern.split(".")
    if name not in DESCRIPTIONS:
        raise TwinprobeError(
            f"unknown site {pattern!r}{did_you_mean(name, DESCRIPTIONS)}; known: {', '.join(DESCRIPTIONS)}"
        )
    if name in WITHOUT_LAYER:
        if rest:
            raise TwinprobeError(f"site {pattern!r}: {name} has no layers; write {name!r}")
        return [Site(name)]
    if not rest or len(rest) > (2 if name == "z" else 1):
        raise TwinprobeError(f"site {pattern!r}: expected {name}.LAYER, {name}.* or {name}.FIRST-LAST:STEP")
    layers = _layers(pattern, rest[0], n_layers)
    if len(rest) == 1:
        return [Site(name, layer) for layer in layers]
    if not re.fullmatch(_NUMBER, rest[1]):
        raise TwinprobeError(f"site {pattern!r}: {rest[1]!r} is not a head number; expected for example z.3.5")
    if int(rest[1]) >= n_heads:
        raise TwinprobeError(
            f"site {pattern!r}: head {rest[1]} does not exist; this model has heads 0 to {n_heads - 1}"
        )
    return [Site(name, layer, int(rest[1])) for layer in layers]


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
