"""The default engine: plain forward hooks on the untouched Hugging Face model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from activations.engines import Select, whole
from activations.engines.places import Place, locate, width
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import Site

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int

Edit = Callable[["torch.Tensor"], "torch.Tensor"]
Receive = Callable[["torch.Tensor"], None]


@dataclass(frozen=True)
class HooksEngine:
    """Plain hooks on the untouched model, as an :class:`activations.engines.Engine`."""

    loaded: LoadedModel
    name: ClassVar[str] = "hooks"

    def check(self, site: Site) -> None:
        """Raise TwinprobeError where no module of the model carries the site."""
        locate(self.loaded, site)

    def width(self, site: Site) -> int:
        """How many numbers one row of ``site`` has."""
        return width(self.loaded, site)

    def forward(
        self,
        ids: Int[torch.Tensor, "batch pos"],
        mask: Int[torch.Tensor, "batch pos"],
        sites: Sequence[Site],
        select: Select = whole,
    ) -> dict[Site, torch.Tensor]:
        """See :func:`forward`."""
        return forward(self.loaded, ids, mask, sites, select)


class _Stop(Exception):
    """Raised by the hook that has read the last activation asked for; nothing after it runs."""


def forward(
    loaded: LoadedModel,
    ids: Int[torch.Tensor, "batch pos"],
    mask: Int[torch.Tensor, "batch pos"],
    sites: Sequence[Site],
    select: Select = whole,
) -> dict[Site, torch.Tensor]:
    """Run the model until every site has been read and return what ``select`` keeps of the activations.

    Each site's ``[batch, pos, width]`` goes through ``select`` as soon as it exists, on the model's device; what comes
    after the last site is not run. The model is left as it was found: hooks are removed also after an error.

    In an encoder-decoder the decoder reads the same ids after its start token; the rows of a decoder site are the
    states after reading each token, so that they too are ``[batch, pos, width]`` in line with ``ids``.

    Raises:
        TwinprobeError: the model has no such site, or never came to it.
    """
    import torch

    found: dict[Site, torch.Tensor] = {}
    wanted = len(set(sites))

    def keep(site: Site, activation: torch.Tensor) -> None:
        found[site] = select(activation)
        if len(found) == wanted:
            raise _Stop

    with torch.inference_mode(), reading(loaded, sites, keep):
        try:
            run(loaded, loaded.model, ids, mask)
        except _Stop:
            return found
    missed = next(site for site in sites if site not in found)
    raise TwinprobeError(
        f"site {missed}: the forward pass of {loaded.spec.name} never came to {locate(loaded, missed).path}; "
        "this architecture does not use the module that carries it, leave the site out"
    )


def run(
    loaded: LoadedModel, model: Any, ids: Int[torch.Tensor, "batch pos"], mask: Int[torch.Tensor, "batch pos"]
) -> Any:
    """Run the body of ``model`` (``loaded``'s own or a copy of it), without unembedding where that is apart from it."""
    return model.base_model(**loaded.inputs(ids, mask))


@contextmanager
def reading(loaded: LoadedModel, sites: Sequence[Site], keep: Callable[[Site, torch.Tensor], None]) -> Iterator[None]:
    """While active, every forward pass hands the activation ``[batch, pos, width]`` of each site to ``keep``."""
    handles = []
    try:
        for site in dict.fromkeys(sites):
            place = locate(loaded, site)

            def receive(tensor: torch.Tensor, site: Site = site, place: Place = place) -> None:
                keep(site, place.read(tensor))

            handles.append(_observe(loaded.model.get_submodule(place.path), place.output, receive))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _observe(module: torch.nn.Module, output: bool, receive: Receive) -> Any:
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

    ``edit`` receives and returns ``[batch, pos, width]``; it must not change its argument in place. In the decoder of an
    encoder-decoder it does not see the start token, whose activation stays as it is. An edit of the residual stream
    reaches all that reads it: of ``resid_mid`` both the MLP and the stream that leaves the block (the bridge's
    ``hook_resid_mid`` reaches the MLP alone).
    """
    place = locate(loaded, site)
    module = loaded.model.get_submodule(place.path)
    past_mlp = site.name == "resid_mid" and not place.output
    differences: list[torch.Tensor] = []

    def after(_module: torch.nn.Module, _args: Any, result: Any) -> Any:
        return _with_first(result, place.write(first_tensor(result), edit))

    def before(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        activation = input_tensor(args, kwargs)
        changed = place.write(activation, edit)
        if past_mlp:
            differences[:] = [changed - activation]
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    def add(_module: torch.nn.Module, _args: Any, result: Any) -> Any:
        return _with_first(result, first_tensor(result) + differences.pop())

    handles = [
        module.register_forward_hook(after)
        if place.output
        else module.register_forward_pre_hook(before, with_kwargs=True)
    ]
    if past_mlp:
        # The module that is given resid_mid is beside the addition that takes it on; before all else that reads its sum.
        leaving = locate(loaded, replace(site, name="resid_post"))
        handles.append(loaded.model.get_submodule(leaving.path).register_forward_hook(add, prepend=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _with_first(result: Any, changed: torch.Tensor) -> Any:
    return (changed, *result[1:]) if isinstance(result, tuple) else changed
