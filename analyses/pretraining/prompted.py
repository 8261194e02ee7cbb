"""A prompt and the response to it as tokens, scored on the response only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from analyses.pretraining.loop import UNSCORED, Batch

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, eq=False)
class Prompted:
    """Token ids ``[position]``; those from ``scored_from`` on are what the model is to say."""

    ids: npt.NDArray[np.int32]
    scored_from: int


def encode(prompt: str, response: str, tokenizer: PreTrainedTokenizerBase) -> Prompted:
    """End-of-text, prompt, response, end-of-text; the last two parts are scored.

    Documents begin with an end-of-text in pretraining too. Prompt and response are tokenised apart, so that no token has a
    part in both and a model is asked just what it was trained on.
    """
    before, after = (
        tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"] for part in (prompt, response)
    )
    ids = [tokenizer.eos_token_id, *before, *after, tokenizer.eos_token_id]
    return Prompted(np.array(ids, dtype=np.int32), 1 + len(before))


def pad(examples: Sequence[Prompted]) -> Batch:
    """A batch as long as its longest example, filled on the right with token 0.

    Neither a mask nor a token of its own is needed: in a causal model, nothing that is scored sees what comes after it.
    """
    import torch

    shape = len(examples), max(len(example.ids) for example in examples)
    ids, labels = np.zeros(shape, np.int64), np.full(shape, UNSCORED, np.int64)
    for row, example in enumerate(examples):
        end = len(example.ids)
        ids[row, :end] = example.ids
        labels[row, example.scored_from : end] = example.ids[example.scored_from :]
    return Batch(torch.from_numpy(ids), torch.from_numpy(labels))
