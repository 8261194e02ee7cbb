"""Exact effects of chosen cells by plain hooked forward passes, and how well estimates agree with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from activations.engines.hooks import editing, forward
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import WITH_HEADS, Site
from analyses.prompts import DIRECTIONS, Prompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Int
    from numpy.typing import ArrayLike, NDArray

MAX_TOKENS = 2048
"""Tokens of one forward pass; bounds memory however many cells are checked."""


@dataclass(frozen=True)
class Agreement:
    """How estimates agree with exact effects over ``cells`` cells.

    ``spearman``: rank correlation of the signed effects (missing where one side is constant). ``sign``: share of cells
    with the right sign, among those with an exact effect other than 0. ``false_negatives``: share of the ``top`` cells
    of largest exact magnitude that are not among the ``top`` of largest estimated magnitude.
    """

    cells: int
    spearman: float
    sign: float
    false_negatives: float
    top: int


def agreement(exact: ArrayLike, estimated: ArrayLike, top: int = 10) -> Agreement:
    """Compare estimated with exact effects of the same cells (Kramár et al. 2024 on false negatives).

    Give one direction at a time: denoising and noising mirror each other, which alone would correlate. Against
    magnitudes (GradDrop) give the exact magnitudes; signs then say nothing.

    Raises:
        TwinprobeError: the two are not of one length, or there are no more than ``top`` cells, or ``top`` is below 1.
    """
    from scipy.stats import rankdata

    true, guess = np.asarray(exact, dtype=float), np.asarray(estimated, dtype=float)
    if true.shape != guess.shape or true.ndim != 1:
        raise TwinprobeError(
            f"{true.shape} exact effects, {guess.shape} estimates; expected one list each, of the same cells"
        )
    if not 1 <= top < len(true):
        raise TwinprobeError(
            f"the top {top} of {len(true)} cells were asked for; expected at least 1 and fewer than all"
        )
    ranks = np.stack([rankdata(true), rankdata(guess)])
    centred = ranks - ranks.mean(1, keepdims=True)
    spread = float(np.sqrt((centred**2).sum(1).prod()))
    real = true != 0
    largest, found = (set(np.argsort(-np.abs(values), kind="stable")[:top]) for values in (true, guess))
    return Agreement(
        cells=len(true),
        spearman=float(centred.prod(0).sum()) / spread if spread else float("nan"),
        sign=float((np.sign(true) == np.sign(guess))[real].mean()) if real.any() else float("nan"),
        false_negatives=len(largest - found) / top,
        top=top,
    )


def sample_cells(cells: pd.DataFrame, n_cells: int, seed: int) -> pd.DataFrame:
    """Draw ``n_cells`` of the cells where the two runs differ (all, where there are fewer).

    Elsewhere estimate and effect are both exactly 0, which would flatter the agreement.
    """
    different = cells[cells["differs"]]
    return different.sample(min(n_cells, len(different)), random_state=seed)


def exact_effects(loaded: LoadedModel, prompt: Prompt, cells: pd.DataFrame) -> NDArray[np.float64]:
    """The change of the logit difference that each cell's patch makes, in logits, by plain forward passes with a hook.

    Args:
        loaded: a decoder; it is left as it was found.
        prompt: the contrast.
        cells: lines of the table of :func:`analyses.attribution.nodes.attribute` for this prompt, each a patch of its own.

    Returns:
        One effect per line, in the order of the lines.
    """
    import torch

    pair = torch.tensor([prompt.clean, prompt.corrupted], device=loaded.device)
    plain = _differences(loaded, prompt, pair)
    sites = {_site(line) for line in cells.itertuples()}
    donors = forward(loaded, pair, torch.ones_like(pair), sorted(sites, key=str)) if sites else {}
    effects = np.empty(len(cells))
    size = max(1, MAX_TOKENS // len(prompt.clean))
    lines = list(enumerate(cells.itertuples()))
    for site in sites:
        for direction, (patched, donor) in DIRECTIONS.items():
            chosen = [
                (number, line.position) for number, line in lines if (_site(line), line.direction) == (site, direction)
            ]
            for part in (chosen[start : start + size] for start in range(0, len(chosen), size)):
                positions = torch.tensor([position for _, position in part], device=loaded.device)
                rows = pair[patched].expand(len(part), -1)
                with editing(loaded, site, _putting(donors[site][donor], positions)):
                    after = _differences(loaded, prompt, rows)
                effects[[number for number, _ in part]] = (after - plain[patched]).double().cpu().numpy()
    return effects


def _site(line: Any) -> Site:
    site = Site(line.site, line.layer)
    return replace(site, head=int(line.head)) if line.site in WITH_HEADS else site


def _putting(donor: torch.Tensor, positions: torch.Tensor) -> Any:
    """An edit that gives row ``i`` of a batch the donor's activation at the ``i``-th of ``positions``."""

    def put(activation: torch.Tensor) -> torch.Tensor:
        changed = activation.clone()
        rows, columns = range(len(positions)), positions.to(activation.device)
        changed[list(rows), columns] = donor.to(activation.device)[columns]
        return changed

    return put


def _differences(loaded: LoadedModel, prompt: Prompt, rows: Int[torch.Tensor, "batch pos"]) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        logits = loaded.model(input_ids=rows, attention_mask=torch.ones_like(rows), use_cache=False).logits
    return prompt.logit_difference(logits[:, -1]).float()
