"""Fingerprints: one hash of a model's architecture and weights, wherever the weights lie."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

FULL_HASH_BYTES = 512 * 2**20
"""Weights up to this size are hashed whole; larger ones by 4,096 evenly spaced elements of each tensor."""


def fingerprint(model: PreTrainedModel) -> str:
    """SHA-256 over the names, shapes, types and values of all weights (a sample of the values in large models).

    It opens with how much was read: ``full``, ``sampled``, or ``partial`` where some weights are not there to be read.
    Weights that accelerate has moved out to the processor's memory or to disk are read from there.
    """
    state = {name: tensor for name, tensor in model.state_dict().items() if hasattr(tensor, "numel")}
    size = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    digest = hashlib.sha256(type(model).__name__.encode())
    extent = "sampled" if size > FULL_HASH_BYTES else "full"
    for name in sorted(state):
        digest.update(f"{name}{tuple(state[name].shape)}{state[name].dtype}".encode())
        tensor = _offloaded(model, name) if state[name].is_meta else state[name]
        if tensor is None:
            extent = "partial"
            continue
        flat = tensor.detach().reshape(-1)
        if size > FULL_HASH_BYTES and flat.numel() > 4096:
            flat = flat[:: flat.numel() // 4096]
        digest.update(_bytes(flat))
    return f"{extent}:{digest.hexdigest()[:32]}"


def offload_hooks(module: torch.nn.Module) -> Iterator[Any]:
    """The hooks by which accelerate brings a module's weights in for each call."""
    hook = getattr(module, "_hf_hook", None)
    for each in getattr(hook, "hooks", [hook]):
        if getattr(each, "weights_map", None) is not None:
            yield each


def _offloaded(model: PreTrainedModel, name: str) -> torch.Tensor | None:
    """The value of a weight that is not in the model itself; the innermost module around it knows where it is."""
    parts = name.split(".")
    for depth in range(len(parts) - 1, -1, -1):
        for hook in offload_hooks(model.get_submodule(".".join(parts[:depth]))):
            try:
                value: torch.Tensor = hook.weights_map[".".join(parts[depth:])]
            except KeyError:
                continue
            return None if value.is_meta else value
    return None


def _bytes(flat: torch.Tensor) -> bytes:
    import torch

    return flat.cpu().contiguous().view(torch.uint8).numpy().tobytes() if flat.numel() else b""
