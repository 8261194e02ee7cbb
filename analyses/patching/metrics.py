"""What a run's logits say about the answer: four metrics, with the logit difference first (Zhang & Nanda 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from analyses.answers import MIN_GAP
from analyses.prompts import Prompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

MIN_GAPS = {"logit_difference": MIN_GAP, "probability": 0.01, "rank": 1.0, "kl": 0.01}
"""The metrics; recovery is left out where clean and corrupted run differ by less, as it divides by that gap."""


def measure(
    prompt: Prompt, logits: Float[torch.Tensor, "cell vocab"], clean: Float[torch.Tensor, "... vocab"]
) -> dict[str, torch.Tensor]:
    """The metrics of some runs, ``[cell]`` each.

    Returns:
        logit_difference: logit of the clean answer minus that of the contrast; probability of the clean answer; its
        rank in the whole vocabulary (1 is the highest); kl: divergence of the clean run's distribution from the run's
        own, KL(clean ‖ run), in nats.
    """
    scores = logits.float().log_softmax(-1)
    reference = clean.float().log_softmax(-1)
    return {
        "logit_difference": prompt.logit_difference(logits).float(),
        "probability": scores[:, prompt.answer].exp(),
        "rank": 1.0 + (logits > logits[:, prompt.answer, None]).sum(-1),
        # Rounding can take it below 0, where no divergence is.
        "kl": (reference.exp() * (reference - scores)).sum(-1).clamp(min=0),
    }
