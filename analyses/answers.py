"""How a model answers both texts of contrast prompts, and which prompts that makes ones to patch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from activations.models import LoadedModel
from analyses.last_logits import last_logits
from analyses.prompts import Prompt

MIN_GAP = 0.1
"""Prompts whose clean-corrupted gap in logit difference is smaller are dropped and counted: recovery divides by it."""
WRONG, SMALL, RETAINED = "answered wrongly", "gap too small", "retained"


def answers(
    loaded: LoadedModel, prompts: Sequence[Prompt], advance: Callable[[int], None] = lambda read: None
) -> pd.DataFrame:
    """How a model answers both texts of every prompt, one line per prompt; ``advance`` is told of texts read.

    Returns:
        item, group, difficulty; of each text whether the model prefers its answer among the candidates (clean_right,
        corrupted_right) and the logit of the clean answer minus that of the contrast (clean, corrupted); right: whether
        it is right in both; logit_difference: in favour of the text's own answer, mean of the two texts.
    """
    frame = pd.DataFrame(
        {name: [getattr(prompt, name) for prompt in prompts] for name in ("item", "group", "difficulty")}
    )
    # In one call, as both texts of a prompt have one length and run together.
    texts = [*(prompt.clean for prompt in prompts), *(prompt.corrupted for prompt in prompts)]
    right, difference = {}, {}
    for read, (number, logits) in enumerate(last_logits(loaded, texts), 1):
        prompt = prompts[number % len(prompts)]
        right[number] = prompt.right(logits, corrupted=number >= len(prompts))
        difference[number] = float(prompt.logit_difference(logits))
        advance(read)
    for start, name in ((0, "clean"), (len(prompts), "corrupted")):
        numbers = range(start, start + len(prompts))
        frame[f"{name}_right"] = [right[number] for number in numbers]
        frame[name] = [difference[number] for number in numbers]
    return frame.assign(
        right=frame.clean_right & frame.corrupted_right, logit_difference=(frame.clean - frame.corrupted) / 2
    )


def retention(
    loaded: LoadedModel, prompts: Sequence[Prompt], advance: Callable[[int], None] = lambda read: None
) -> pd.DataFrame:
    """Which prompts can be patched: those that the model gets right in both texts, with a gap of :data:`MIN_GAP` or more.

    Returns:
        item, group, difficulty, clean_right, corrupted_right, clean, corrupted (see :func:`answers`), gap (clean minus
        corrupted, in logits) and status: ``retained``, ``answered wrongly`` or ``gap too small``.
    """
    found = answers(loaded, prompts, advance)
    gap = found.clean - found.corrupted
    status = np.where(~found.right, WRONG, np.where(gap < MIN_GAP, SMALL, RETAINED))
    return found.drop(columns=["right", "logit_difference"]).assign(gap=gap, status=status)
