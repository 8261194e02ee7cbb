"""Running a part of one block on residual streams of one's own, with the model's own modules and arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from activations.engines.hooks import editing, reading
from activations.models import LoadedModel
from activations.sites import Site
from analyses.circuits.graph import Receiver
from analyses.patching.recording import Call

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

MAX_TOKENS = 8192
"""Tokens in one call of a block; bounds memory however many receivers are run."""


class _Read(Exception):
    """Raised when all sites have been read; the rest of the block is not run."""


def read_block(
    loaded: LoadedModel,
    layer: int,
    call: Call,
    states: Float[torch.Tensor, "row pos d_model"],
    sites: Sequence[Site],
    instead: Mapping[Site, Float[torch.Tensor, "row pos width"]],
) -> dict[Site, Float[torch.Tensor, "row pos width"]]:
    """Run a block until its activations at ``sites`` (without heads) have been read.

    Args:
        loaded: the model; it is left as it was found, also after an error.
        layer: which block.
        call: the arguments it was called with, beside the stream, for one prompt.
        states: what enters it.
        sites: where to read; all of this layer.
        instead: activations that take the place of its own.
    """
    found: dict[Site, torch.Tensor] = {}

    def keep(site: Site, activation: torch.Tensor) -> None:
        found[site] = activation
        if len(found) == len(sites):
            raise _Read

    args, kwargs = call
    with ExitStack() as stack:
        for site, values in instead.items():
            stack.enter_context(editing(loaded, site, lambda _, values=values: values))  # type: ignore[misc]
        stack.enter_context(reading(loaded, sites, keep))
        with suppress(_Read):
            loaded.module(f"blocks.{layer}")(states, *args, **kwargs)
    return found


def read_receiver(
    loaded: LoadedModel,
    call: Call,
    sites: Sequence[Site],
    inputs: Float[torch.Tensor, "row pos d_model"],
    beside: Float[torch.Tensor, "pos d_model"],
) -> dict[Site, Float[torch.Tensor, "row pos width"]]:
    """What receivers of one kind make of ``inputs``: ``sites`` are those of one layer's attention, or its ``mlp_out``.

    ``beside`` enters the block where the inputs enter it between attention and MLP; nothing is read of it.
    """
    layer = sites[0].layer
    assert layer is not None
    if sites[0].name == "mlp_out" and not loaded.parallel:
        states = beside.to(inputs.dtype).expand(len(inputs), -1, -1)
        return read_block(loaded, layer, call, states, sites, {replace(sites[0], name="resid_mid"): inputs})
    return read_block(loaded, layer, call, inputs, sites, {})


def few(count: int, length: int, tokens: int = MAX_TOKENS) -> Iterator[slice]:
    """Parts of ``count`` rows of ``length`` tokens, each of no more than so many ``tokens``; at least one row."""
    size = max(1, tokens // length)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def site_of(receiver: Receiver) -> Site:
    """The site of a receiver that is not the logits."""
    assert receiver.site is not None
    return receiver.site


def layer_of(receiver: Receiver) -> int:
    """The layer of a receiver that is not the logits."""
    layer = site_of(receiver).layer
    assert layer is not None
    return layer


def kind_of(receiver: Receiver) -> tuple[int, str]:
    """Layer and kind of a receiver: the ``attention`` receivers of a layer are computed together."""
    if receiver.site is None:
        return -1, "logits"
    return layer_of(receiver), "mlp_out" if receiver.site.name == "mlp_out" else "attention"


def thawed(value: Any) -> Any:
    """A copy of recorded arguments that gradients may flow by: those made in inference mode do not let them."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, tuple):
        return tuple(thawed(part) for part in value)
    return {name: thawed(part) for name, part in value.items()} if isinstance(value, dict) else value
