"""Gradients of the logit difference with respect to activations, on the untouched Hugging Face model.

Hooks hand on the very tensors the model goes on with, so one backward pass gives the gradient at every site; of
``resid_mid`` that is the gradient through the MLP and through the stream around it. Only activations are differentiated:
no parameter's ``grad`` or ``requires_grad`` is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from activations.engines.hooks import first_tensor, input_tensor
from activations.engines.places import locate
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import Site
from analyses.prompts import Prompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

Change = Callable[["torch.Tensor"], "torch.Tensor"]


@dataclass(frozen=True)
class Slopes:
    """Each row's logit difference, and each site's activations with the gradient of their own row's difference.

    Activations are what the module gives or takes: in Granite, whose additions to the stream are scaled, they are not
    scaled yet. Products of an activation with its gradient are the same either way.
    """

    differences: Float[torch.Tensor, " batch"]
    activations: dict[Site, Float[torch.Tensor, "batch pos width"]]
    gradients: dict[Site, Float[torch.Tensor, "batch pos width"]]


def differentiate(
    loaded: LoadedModel,
    prompt: Prompt,
    rows: Sequence[Sequence[int]],
    sites: Sequence[Site],
    dropped: int | None = None,
) -> Slopes:
    """Run ``rows`` (token ids, equally many each) together and differentiate the logit difference of ``prompt``.

    No gradient flows through what layer ``dropped`` adds to the residual stream, nor to a site that has no other way on.

    Raises:
        TwinprobeError: the model is quantised or no decoder, or has no such site.
    """
    import torch

    _require_gradients(loaded)
    found: dict[Site, torch.Tensor] = {}
    with ExitStack() as hooks, torch.enable_grad():
        # Where parameters need no gradient, the embedding is the first thing that can ask for one.
        hooks.enter_context(_hook(loaded, Site("embed"), lambda tensor: tensor.detach().requires_grad_()))
        for site in sites:
            hooks.enter_context(_hook(loaded, site, partial(found.setdefault, site)))
        for name in () if dropped is None else ("attn_out", "mlp_out"):
            hooks.enter_context(_hook(loaded, Site(name, dropped), torch.Tensor.detach))
        tokens = torch.tensor([list(row) for row in rows], device=loaded.device)
        logits = loaded.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits[:, -1]
        differences = prompt.logit_difference(logits)
        # Rows do not see each other: the gradient of their sum is each row's own.
        slopes = torch.autograd.grad(differences.sum(), [found[site] for site in sites], materialize_grads=True)
    return Slopes(
        differences.detach(),
        {site: tensor.detach() for site, tensor in found.items()},
        dict(zip(sites, slopes, strict=True)),
    )


def _require_gradients(loaded: LoadedModel) -> None:
    loaded.require_decoder()
    model = loaded.model
    floating = all(parameter.is_floating_point() for parameter in model.parameters())
    if not floating or getattr(model.config, "quantization_config", None) is not None:
        raise TwinprobeError(
            f"{loaded.spec.name} is quantised; attribution needs gradients, which its weights do not give reliably: load "
            "it in float32, float16 or bfloat16, or use exact patching"
        )


@contextmanager
def _hook(loaded: LoadedModel, site: Site, change: Change) -> Iterator[None]:
    """While active, the model goes on with ``change`` of the tensor that carries ``site``."""
    place = locate(loaded, site)
    module = loaded.model.get_submodule(place.path)

    def after(_module: torch.nn.Module, _args: Any, result: Any) -> Any:
        changed = change(first_tensor(result))
        return (changed, *result[1:]) if isinstance(result, tuple) else changed

    def before(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        changed = change(input_tensor(args, kwargs))
        return ((changed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": changed})

    handle = (
        module.register_forward_hook(after)
        if place.output
        else module.register_forward_pre_hook(before, with_kwargs=True)
    )
    try:
        yield
    finally:
        handle.remove()
