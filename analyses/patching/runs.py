"""One prompt's plain forward pass: what entered each block, and how each block was called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activations.engines.hooks import input_tensor
from activations.models import LoadedModel

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float


@dataclass(frozen=True)
class Run:
    """One prompt's forward pass: what entered each block, how each block was called, the last position's logits."""

    ids: tuple[int, ...]
    resid_pre: Float[torch.Tensor, "layer pos d_model"]
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    logits: Float[torch.Tensor, "... vocab"]


def run(loaded: LoadedModel, ids: Sequence[int]) -> Run:
    """Run one prompt and record what patching needs."""
    import torch

    entering: list[torch.Tensor] = []
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering.append(input_tensor(args, kwargs)[0])
        calls.append((args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}))

    with _pre_hooks([loaded.module(f"blocks.{layer}") for layer in range(loaded.n_layers)], record):
        with torch.inference_mode():
            tokens = torch.tensor([list(ids)], device=loaded.device)
            logits = loaded.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    return Run(
        tuple(ids), torch.stack([tensor.to(entering[0].device) for tensor in entering]), tuple(calls), logits[0, -1]
    )


@contextmanager
def _pre_hooks(modules: Sequence[torch.nn.Module], record: Any) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(record, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
