"""Whether a model's greedy answer is the target, decided by one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from analyses.pretraining.evaluation.sequences import by_length
from analyses.pretraining.loop import UNSCORED
from analyses.pretraining.prompted import Prompted, pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKENS_AT_ONCE = 8192


def exact_matches(model: PreTrainedModel, sequences: Sequence[Prompted]) -> npt.NDArray[np.bool_]:
    """Whether greedy decoding after the separator gives the target's tokens and then the end of the text, ``bool [sequences]``.

    Greedy decoding takes the likeliest next token after each of its own. It gives the target if and only if the likeliest
    token after every prefix of the target is the target's next, which a single forward pass over the target tells. A sequence
    with more tokens than the model's context counts as wrong.
    """
    import torch

    matches = np.zeros(len(sequences), dtype=bool)
    with torch.inference_mode():
        for places in by_length(sequences, TOKENS_AT_ONCE):
            fitting = [place for place in places if fits(model, sequences[place])]
            if not fitting:
                continue
            batch = pad([sequences[place] for place in fitting])
            likeliest = model(input_ids=batch.ids.to(model.device), use_cache=False).logits[:, :-1].argmax(-1).cpu()
            wanted = batch.labels[:, 1:]
            matches[fitting] = ((likeliest == wanted) | (wanted == UNSCORED)).all(-1).numpy()
    return matches


def fits(model: PreTrainedModel, sequence: Prompted) -> bool:
    """Whether the model's context is long enough, where it has one."""
    context = getattr(model.config, "max_position_embeddings", None)
    return context is None or len(sequence.ids) <= context
