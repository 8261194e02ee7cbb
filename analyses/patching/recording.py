"""One prompt's forward pass, recorded so that blocks can be run again from any position on.

Kept are the activations at the sites asked for, the arguments every block was called with, and the keys and values that
every layer's attention read. To run a block over suffixes of the prompt, it is called with those arguments for the
suffixes' positions and is handed the earlier keys and values the way the model would hand it a cache. The model itself is
told of no cache, so that its masks are those of a plain forward pass, windows included.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any

from activations.engines.hooks import first_tensor, input_tensor, reading
from activations.models import LoadedModel
from activations.sites import Site
from analyses.patching.lanes import Lanes, at_positions, lane_mask
from analyses.patching.runs import run

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

CACHE_NAMES = ("past_key_values", "layer_past")
"""What Hugging Face's blocks call the argument that keeps keys and values."""
STREAM = ("resid_pre", "resid_post")

Call = tuple[tuple[Any, ...], dict[str, Any]]


class NoSuffixes(Exception):
    """Some block attends in a way that can not be taken up at a position."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A forward pass.

    ``stream[i]`` enters block ``i``; the last entry leaves the last block. ``states`` are the activations
    ``[pos, width]`` at the other sites, heads side by side. ``past`` has the keys and values of every layer; it is empty
    where only whole prompts can be run again.
    """

    ids: tuple[int, ...]
    stream: Float[torch.Tensor, "layer pos d_model"]
    states: dict[Site, Float[torch.Tensor, "pos width"]]
    calls: tuple[Call, ...]
    past: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    logits: Float[torch.Tensor, "... vocab"]

    def at(self, site: Site) -> Float[torch.Tensor, "pos width"]:
        """The activation at a site without a head; of the sites beside the residual stream, one that was recorded."""
        if site.name in STREAM and site.layer is not None:
            return self.stream[site.layer + (site.name == "resid_post")]
        return self.states[site]

    def block(
        self, loaded: LoadedModel, layer: int, states: Float[torch.Tensor, "lane slot d_model"], lanes: Lanes
    ) -> Float[torch.Tensor, "lane slot d_model"]:
        """Run a block over copies of the prompt, or over suffixes of it where keys and values were kept."""
        args, kwargs = self.calls[layer]
        if self.past:
            mask = self._mask(layer, lanes.positions.device)
            kwargs = {name: _spread(value, lanes, len(self.ids)) for name, value in kwargs.items()}
            kwargs["attention_mask"] = lane_mask(mask, lanes)
            kwargs[_slot(kwargs)] = _Prefix(*self.past[layer], lanes.before)
        return first_tensor(loaded.module(f"blocks.{layer}")(states, *args, **kwargs))

    def _mask(self, layer: int, device: torch.device) -> torch.Tensor:
        """By which a position of the prompt reads others; a kernel that was given none reads all earlier ones."""
        import torch

        mask, length = self.calls[layer][1]["attention_mask"], len(self.ids)
        if mask is None:
            return torch.ones(length, length, dtype=torch.bool, device=device).tril()
        if mask.shape != (1, 1, length, length):
            raise NoSuffixes
        return mask[0, 0]


def record(loaded: LoadedModel, ids: Sequence[int], sites: Sequence[Site] = (), *, suffixes: bool) -> Recording:
    """Run one prompt (token ids) and keep what entered and left every block, and the activations at ``sites``.

    Args:
        loaded: a decoder; it is left as it was found, also after an error.
        ids: the prompt.
        sites: sites without heads.
        suffixes: also keep keys and values (see :func:`analyses.patching.suffix.has_suffixes`).

    Raises:
        NoSuffixes: there are no keys and values of every position to keep.
        TwinprobeError: no module of the model carries a site.
    """
    import torch

    final = Site("resid_post", loaded.n_layers - 1)
    states: dict[Site, torch.Tensor] = {}
    kept = [_Kept() for _ in range(loaded.n_layers)]
    with ExitStack() as stack:
        stack.enter_context(reading(loaded, [*sites, final], lambda site, found: states.update({site: found[0]})))
        stack.enter_context(_unembedding_last(loaded))
        if suffixes:
            stack.enter_context(_handing_in(loaded, kept))
        done = run(loaded, ids)
    stream = torch.cat([done.resid_pre, states.pop(final)[None].to(done.resid_pre.device)])
    if not suffixes:
        return Recording(done.ids, stream, states, done.calls, (), done.logits)
    calls = tuple(((), {**kwargs, **dict.fromkeys(CACHE_NAMES & kwargs.keys())}) for _, kwargs in done.calls)
    return Recording(done.ids, stream, states, calls, tuple(one.pair(len(done.ids)) for one in kept), done.logits)


@contextmanager
def _unembedding_last(loaded: LoadedModel) -> Iterator[None]:
    """While active, a forward pass has the logits of the last position only, by the model's own way to them."""

    def keep_last(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (args[0][:, -1:], *args[1:])

    handle = loaded.module("unembed").register_forward_pre_hook(keep_last)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _handing_in(loaded: LoadedModel, kept: Sequence[_Kept]) -> Iterator[None]:
    """While active, each block is given one of ``kept`` for its cache, and all its arguments by name."""

    def before(layer: int) -> Any:
        def name(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            states = input_tensor(args, kwargs)
            named = _named(module, args[1:], kwargs)
            return (states,), {**named, _slot(_parameters(module)): kept[layer]}

        return name

    modules = [loaded.module(f"blocks.{layer}") for layer in range(loaded.n_layers)]
    handles = [
        module.register_forward_pre_hook(before(layer), with_kwargs=True) for layer, module in enumerate(modules)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _named(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """All arguments but the first by name."""
    parameters = list(_parameters(module).values())[1 : len(args) + 1]
    if any(parameter.kind is Parameter.VAR_POSITIONAL for parameter in parameters):
        raise NoSuffixes
    names = (parameter.name for parameter in parameters)
    return {**dict(zip(names, args, strict=True)), **{k: v for k, v in kwargs.items() if k != "hidden_states"}}


def _parameters(module: torch.nn.Module) -> Mapping[str, Parameter]:
    """What a module's forward pass takes; a wrapper of its own, such as accelerate puts on it, may take other things."""
    return (
        signature(module.forward).parameters if "forward" in vars(module) else _later_parameters(type(module).forward)
    )


@lru_cache(maxsize=64)
def _later_parameters(method: Callable[..., Any]) -> Mapping[str, Parameter]:
    """Those after ``self``; kept, as every block of every prompt asks for them."""
    _, *parameters = signature(method).parameters.values()
    return {parameter.name: parameter for parameter in parameters}


class _Kept:
    """Stands in for a layer's cache: keeps what a block's attention gives it and gives it back."""

    def __init__(self) -> None:
        self.given: list[tuple[torch.Tensor, torch.Tensor]] = []

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        self.given.append((keys, values))
        return keys, values

    def pair(self, length: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The keys and values ``[1, heads, pos, d_head]`` of all positions."""
        if len(self.given) != 1 or any(each.ndim != 4 or each.shape[2] != length for each in self.given[0]):
            raise NoSuffixes
        return self.given[0]


class _Prefix:
    """Stands in for a layer's cache: the first positions' keys and values, the same for every row of a batch."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        self.pair = keys[:, :, :length], values[:, :, :length]

    def update(self, keys: torch.Tensor, values: torch.Tensor, *_: Any, **__: Any) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        earlier_keys, earlier_values = (past.expand(len(keys), -1, -1, -1) for past in self.pair)
        return torch.cat([earlier_keys, keys], dim=2), torch.cat([earlier_values, values], dim=2)


def _spread(value: Any, lanes: Lanes, length: int) -> Any:
    """What a block was given for each position (positions, rotary tables), for each slot."""
    if isinstance(value, tuple):
        return tuple(_spread(part, lanes, length) for part in value)
    return at_positions(value, lanes) if getattr(value, "shape", ())[:2] == (1, length) else value


def _slot(names: Collection[str]) -> str:
    """The name under which a block takes its cache."""
    for name in CACHE_NAMES:
        if name in names:
            return name
    raise NoSuffixes
