"""Contrast prompts for random models, of which it is known how the model behaves, and a plain way to patch them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from activations.engines.hooks import editing, forward
from analyses.answers import MIN_GAP
from analyses.prompts import Prompt

if TYPE_CHECKING:
    from activations.models import LoadedModel
    from activations.sites import Site

KINDS = ("right", "right", "right", "small gap", "clean wrong", "corrupted wrong", "third wins")
LENGTH = 7
EDITED = (2, 4)
ROLES = ("other", "other", "definition", "other", "definition", "query", "last")


def answers(kind: str, clean: torch.Tensor, corrupted: torch.Tensor) -> tuple[int, int, tuple[int, ...]]:
    """Two answers and a third candidate for which a random model behaves as ``kind`` says."""
    rng = np.random.default_rng(int(abs(clean.sum()) * 1e6) % 2**32)
    while True:
        answer, contrast, third = (int(token) for token in rng.choice(len(clean), 3, replace=False))
        high, low = (float(logits[answer] - logits[contrast]) for logits in (clean, corrupted))
        beaten = all(logits[third] < max(logits[answer], logits[contrast]) for logits in (clean, corrupted))
        fits = {
            "right": high > 0 > low and high - low > 2 * MIN_GAP and beaten,
            "small gap": high > 0 > low and high - low < MIN_GAP and beaten,
            "clean wrong": high < 0 and low < 0 and beaten,
            "corrupted wrong": high > 0 and low > 0 and beaten,
            "third wins": high > 0 > low and clean[third] > clean[answer],
        }
        if fits[kind]:
            return answer, contrast, (answer, contrast, third)


def made_prompts(loaded: LoadedModel, kinds: Sequence[str] = KINDS * 2) -> list[Prompt]:
    rng = np.random.default_rng(0)
    made = []
    for number, kind in enumerate(kinds):
        clean = [0, *rng.integers(3, 390, LENGTH - 1).tolist()]
        corrupted = list(clean)
        for position in EDITED:
            corrupted[position] = int(rng.integers(3, 390))
        with torch.no_grad():
            answer, contrast, candidates = answers(
                kind, *(loaded.model(torch.tensor([ids])).logits[0, -1] for ids in (clean, corrupted))
            )
        made.append(
            Prompt(
                f"{kind} {number}", f"group {number % 3}", number % 4, tuple(clean), tuple(corrupted), answer, contrast,
                candidates, tuple(f"token {token}" for token in clean), ROLES,
            )
        )  # fmt: skip
    return made


def activation(loaded: LoadedModel, ids: Sequence[int], site: Site) -> torch.Tensor:
    """``[pos, width]`` of a plain forward pass; of one head, if the site names one."""
    tokens = torch.tensor([ids])
    return forward(loaded, tokens, torch.ones_like(tokens), [site])[site][0].clone()


Put = tuple["Site", Sequence[int], torch.Tensor]
"""A site, positions, and what is put there, ``[pos, width]``."""


def spliced_logits(loaded: LoadedModel, ids: Sequence[int], puts: Iterable[Put]) -> torch.Tensor:
    """Last logits of one plain forward pass with hooks that put something in."""

    def put(tensor: torch.Tensor, positions: Sequence[int], values: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed[0, list(positions)] = values
        return changed

    with torch.no_grad(), ExitStack() as edits:
        for site, positions, values in puts:
            edits.enter_context(editing(loaded, site, partial(put, positions=positions, values=values)))
        logits: torch.Tensor = loaded.model(torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits
