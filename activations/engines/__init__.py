"""Engines: ways to run a model and read its activations. Three, behind one small protocol, equal in what they give.

``hooks`` serves every site that is the input or output of a module, on the untouched model; ``transformer_lens`` what
only its bridge can see (attention patterns, queries and keys after the rotary embedding, any bridge hook);
``nnsight`` models that run elsewhere (several GPUs, NDIF).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from activations.errors import TwinprobeError, did_you_mean

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int

    from activations.loaded import LoadedModel
    from activations.sites import Site

ENGINES = ("auto", "hooks", "transformer_lens", "nnsight")

Select = Callable[["torch.Tensor"], "torch.Tensor"]
"""What is kept of an activation ``[batch, pos, width]``; called on the model's device, in inference mode."""


def whole(activation: torch.Tensor) -> torch.Tensor:
    """Keep all of it, as a copy: some models go on to write into what a module gave (Falcon)."""
    return activation.clone()


class Engine(Protocol):
    """Runs a model's body over padded batches and hands out activations, one vector of ``width`` per token."""

    @property
    def name(self) -> str:
        """How ``--engine`` calls it."""

    def check(self, site: Site) -> None:
        """Raise TwinprobeError where this engine can not serve ``site`` for this model."""

    def width(self, site: Site) -> int:
        """How many numbers one row of ``site`` has."""

    def forward(
        self,
        ids: Int[torch.Tensor, "batch pos"],
        mask: Int[torch.Tensor, "batch pos"],
        sites: Sequence[Site],
        select: Select = whole,
    ) -> dict[Site, torch.Tensor]:
        """What ``select`` keeps of the activations ``[batch, pos, width]`` at ``sites``.

        ``ids`` are right-padded; ``mask`` is 1 for real tokens.
        """


def make_engine(
    loaded: LoadedModel, sites: Sequence[Site], name: str = "auto", *, longest: int, remote: bool = False
) -> Engine:
    """The engine called ``name``; ``auto`` is ``hooks`` where it can serve every site, else ``transformer_lens``.

    ``longest`` is the length of the longest input in tokens: rows of ``pattern`` are that wide per head.
    ``remote`` runs the nnsight engine on NDIF; ``auto`` is then ``nnsight``.

    Raises:
        TwinprobeError: an unknown engine, or one that can not serve a site.
    """
    from activations.engines.hooks import HooksEngine
    from activations.engines.nnsight import NnsightEngine
    from activations.engines.places import BRIDGE_ONLY
    from activations.engines.transformer_lens import TransformerLensEngine

    if name not in ENGINES:
        raise TwinprobeError(
            f"engine {name!r} is not known{did_you_mean(name, ENGINES)}; expected {', '.join(ENGINES)}"
        )
    if remote and name not in ("auto", "nnsight"):
        raise TwinprobeError(f"engine {name!r} runs on this machine only; --remote goes with --engine nnsight")
    if remote or name == "nnsight":
        return _checked(NnsightEngine(loaded, remote), sites)
    hooks, bridge = HooksEngine(loaded), TransformerLensEngine(loaded, longest)
    if name != "auto":
        return _checked(hooks if name == "hooks" else bridge, sites)
    refused = [site for site in sites if _refusal(hooks, site)]
    if not refused:
        return hooks
    for site in sites:
        unseen = _refusal(bridge, site)
        if unseen and site not in refused:
            raise TwinprobeError(f"no engine serves both {site} and {refused[0]}; capture them into two stores")
        if unseen:
            # What hooks say is about the model; of a site that only the bridge could show, the bridge knows more.
            raise unseen if site.is_hook or site.name in BRIDGE_ONLY else _refusal(hooks, site) or unseen
    return bridge


def _checked(engine: Engine, sites: Sequence[Site]) -> Engine:
    for site in sites:
        engine.check(site)
    return engine


def _refusal(engine: Engine, site: Site) -> TwinprobeError | None:
    try:
        engine.check(site)
    except TwinprobeError as error:
        return error
    return None
