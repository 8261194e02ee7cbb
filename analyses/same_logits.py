"""When two ways to a model's logits count as the same: they differ by no more than rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

TOLERANCE = {4: 1e-4, 2: 3e-2}
"""Largest difference from the full pass by bytes per number of the logits, in units of the largest logit (at least 1)."""


def same_logits(found: Float[torch.Tensor, "... vocab"], expected: Float[torch.Tensor, "... vocab"]) -> bool:
    """Whether no logit is further off than rounding explains; both tensors are on one device."""
    scale = max(1.0, float(expected.abs().max()))
    return float((found - expected).abs().max()) <= scale * TOLERANCE[min(4, expected.dtype.itemsize)]
