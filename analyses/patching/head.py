"""From what leaves the last block to logits, as the model itself does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from activations.errors import TwinprobeError
from activations.models import LoadedModel
from analyses.same_logits import same_logits

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float


def head_logits(loaded: LoadedModel, states: torch.Tensor) -> torch.Tensor:
    """Logits of states that leave the last block, with the model's own scaling and soft cap."""
    logits: torch.Tensor = loaded.module("unembed")(loaded.module("ln_final")(states))
    config = loaded.model.config.get_text_config()
    logits = logits / getattr(config, "logits_scaling", 1.0)  # Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma2
    return logits if cap is None else (logits / cap).tanh() * cap


def check_head(
    loaded: LoadedModel, state: Float[torch.Tensor, "... d_model"], logits: Float[torch.Tensor, "... vocab"]
) -> None:
    """Make sure that a state that leaves the last block is turned into the model's own logits.

    Raises:
        TwinprobeError: this architecture does something to its logits that is not accounted for here.
    """
    import torch

    with torch.inference_mode():
        again = head_logits(loaded, state[None, None])[0, 0]
    if not same_logits(again, logits):
        raise TwinprobeError(
            f"patching {type(loaded.model).__name__} is not exact: recomputed logits are off by "
            f"{float((again - logits).abs().max()):.2g}; this architecture is not supported"
        )
