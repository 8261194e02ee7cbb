"""Running a part of one block on residual streams of one's own, with the model's own modules and arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from itertools import groupby
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
    """Raised when the site has been read; the rest of the block is not run."""


def read_block(
    loaded: LoadedModel,
    call: Call,
    states: Float[torch.Tensor, "row pos d_model"],
    site: Site,
    instead: Mapping[Site, Float[torch.Tensor, "row pos width"]],
) -> Float[torch.Tensor, "row pos width"]:
    """Run a block until its activation at ``site`` (without a head) has been read.

    Args:
        loaded: the model; it is left as it was found, also after an error.
        call: the arguments the block was called with, beside the stream, for one prompt.
        states: what enters it.
        site: where to read.
        instead: activations that take the place of its own.
    """
    found: list[torch.Tensor] = []

    def keep(_site: Site, activation: torch.Tensor) -> None:
        found.append(activation)
        raise _Read

    args, kwargs = call
    with ExitStack() as stack:
        for edited, values in instead.items():
            stack.enter_context(editing(loaded, edited, lambda own, values=values: values.to(own)))  # type: ignore[misc]
        stack.enter_context(reading(loaded, [site], keep))
        with suppress(_Read):
            loaded.module(f"blocks.{site.layer}")(states, *args, **kwargs)
    return found[0]


def read_receiver(
    loaded: LoadedModel,
    call: Call,
    site: Site,
    inputs: Float[torch.Tensor, "row pos d_model"],
    beside: Float[torch.Tensor, "pos d_model"],
) -> Float[torch.Tensor, "row pos width"]:
    """What a layer makes at ``site`` (without a head) when the receivers there read ``inputs``.

    ``beside`` enters the block where the inputs come in between attention and MLP; nothing is read of it.
    """
    if site.name == "mlp_out" and not loaded.parallel:
        states = beside.to(inputs.dtype).repeat(len(inputs), 1, 1)
        return read_block(loaded, call, states, site, {replace(site, name="resid_mid"): inputs})
    return read_block(loaded, call, inputs, site, {})


def few(count: int, length: int, tokens: int = MAX_TOKENS) -> Iterator[slice]:
    """Parts of ``count`` rows of ``length`` tokens, each of no more than so many ``tokens``; at least one row."""
    size = max(1, tokens // length)
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def by_site(receivers: Sequence[Receiver]) -> Iterator[tuple[Site | None, list[int]]]:
    """Numbers of neighbouring receivers that are heads of one site; the site without a head."""
    bare = [None if receiver.site is None else replace(receiver.site, head=None) for receiver in receivers]
    for site, same in groupby(range(len(receivers)), key=bare.__getitem__):
        yield site, list(same)


def thawed(value: Any) -> Any:
    """A copy of recorded arguments that gradients may flow by: those made in inference mode do not let them."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.clone()
    if isinstance(value, tuple):
        return tuple(thawed(part) for part in value)
    return {name: thawed(part) for name, part in value.items()} if isinstance(value, dict) else value
