"""The default engine: plain forward hooks on the untouched Hugging Face model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import Site

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float, Int

Edit = Callable[["torch.Tensor"], "torch.Tensor"]


class _Stop(Exception):
    """Raised by the hook on the last block needed; the blocks above it never run."""


def locate(loaded: LoadedModel, site: Site) -> tuple[torch.nn.Module, bool]:
    """The module that carries ``site``, and whether the site is its output (or else its input).

    Raises:
        TwinprobeError: the architecture has no such site.
    """
    block = f"blocks.{site.layer}"
    if site.name == "resid_mid" and loaded.parallel:
        raise TwinprobeError(
            f"site {site}: {loaded.spec.name} runs attention and MLP in parallel, so it has no resid_mid"
        )
    # Post-norm architectures (Gemma2) normalise what attention and MLP add, so the norm's output is what is added.
    canonical, output = {
        "embed": ("embed", True),
        "ln_final": ("ln_final", True),
        "resid_pre": (block, False),
        "resid_post": (block, True),
        "resid_mid": (f"{block}.ln2", False),
        "attn_out": (f"{block}.ln1_post" if loaded.path(f"{block}.ln1_post") else f"{block}.attn", True),
        "mlp_out": (f"{block}.ln2_post" if loaded.path(f"{block}.ln2_post") else f"{block}.mlp", True),
        "z": (f"{block}.attn.o", False),
    }[site.name]
    if loaded.path(canonical) is None:
        raise TwinprobeError(f"site {site}: {type(loaded.model).__name__} has no module for {canonical!r}")
    return loaded.module(canonical), output


def width(loaded: LoadedModel, site: Site) -> int:
    """How many numbers one row of ``site`` has."""
    if site.name != "z":
        return loaded.d_model
    return loaded.d_head if site.head is not None else loaded.d_head * loaded.n_heads


def forward(
    loaded: LoadedModel,
    ids: Int[torch.Tensor, "batch pos"],
    mask: Int[torch.Tensor, "batch pos"],
    sites: Sequence[Site],
) -> dict[Site, Float[torch.Tensor, "batch pos width"]]:
    """Run the model's body (no unembedding) and return the activations at ``sites``, on the model's device.

    Blocks above the highest site are not run. The model is left as it was found: hooks are removed also after an error.
    """
    import torch

    found: dict[Site, torch.Tensor] = {}
    last = (
        None if any(site.name == "ln_final" for site in sites) else max((site.layer or 0 for site in sites), default=0)
    )
    with torch.inference_mode(), _reading(loaded, sites, found, last):
        try:
            loaded.model.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
        except _Stop:
            pass
    return found


@contextmanager
def _reading(
    loaded: LoadedModel, sites: Sequence[Site], found: dict[Site, torch.Tensor], last: int | None
) -> Iterator[None]:
    handles = []
    try:
        for site in sites:
            module, output = locate(loaded, site)
            handles.append(_observe(module, output, _keep(loaded, site, found)))
        if last is not None:
            # Registered after the reading hooks, so that it fires after them.
            handles.append(loaded.module(f"blocks.{last}").register_forward_hook(_stop))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _keep(loaded: LoadedModel, site: Site, found: dict[Site, torch.Tensor]) -> Callable[[torch.Tensor], None]:
    def keep(tensor: torch.Tensor) -> None:
        if site.head is not None:
            start = site.head * loaded.d_head
            tensor = tensor[..., start : start + loaded.d_head]
        found[site] = tensor

    return keep


def _stop(module: torch.nn.Module, args: Any, output: Any) -> None:
    raise _Stop


def _observe(module: torch.nn.Module, output: bool, receive: Callable[[torch.Tensor], None]) -> Any:
    if output:
        return module.register_forward_hook(lambda _module, _args, result: receive(first_tensor(result)))
    return module.register_forward_pre_hook(
        lambda _module, args, kwargs: receive(input_tensor(args, kwargs)), with_kwargs=True
    )


def first_tensor(result: Any) -> torch.Tensor:
    """The activation among a module's outputs: modules return it alone or first in a tuple."""
    return result[0] if isinstance(result, tuple) else result


def input_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The activation among a module's inputs: first by position, or by the name Hugging Face gives it."""
    return args[0] if args else kwargs["hidden_states"]


@contextmanager
def editing(loaded: LoadedModel, site: Site, edit: Edit) -> Iterator[None]:
    """While active, every forward pass of ``loaded.model`` sees ``edit(activation)`` at ``site``.

    ``edit`` receives and returns ``[batch, pos, width]``; it must not change its argument in place.
    """
    module, output = locate(loaded, site)

    def apply(tensor: torch.Tensor) -> torch.Tensor:
        if site.head is None:
            return edit(tensor)
        start = site.head * loaded.d_head
        changed = tensor.clone()
        changed[..., start : start + loaded.d_head] = edit(tensor[..., start : start + loaded.d_head])
        return changed

    def after(_module: torch.nn.Module, _args: Any, result: Any) -> Any:
        return (apply(result[0]), *result[1:]) if isinstance(result, tuple) else apply(result)

    def before(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (apply(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": apply(kwargs["hidden_states"])}

    handle = (
        module.register_forward_hook(after) if output else module.register_forward_pre_hook(before, with_kwargs=True)
    )
    try:
        yield
    finally:
        handle.remove()
