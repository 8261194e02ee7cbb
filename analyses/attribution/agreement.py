"""Exact effects of chosen cells, and how well estimates agree with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from activations.engines.places import locate
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import WITH_HEADS, Site
from analyses.patching.cells import Patch
from analyses.patching.donors import MAX_CELLS
from analyses.patching.exactness import has_suffixes
from analyses.patching.recording import STREAM, Recording, record
from analyses.patching.suffix import suffix_batches
from analyses.prompts import DIRECTIONS, Prompt

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


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


def exact_effects(
    loaded: LoadedModel, prompt: Prompt, cells: pd.DataFrame, suffixes: bool | None = None
) -> NDArray[np.float64]:
    """The change of the logit difference that each cell's patch makes, in logits, by exact patching.

    Args:
        loaded: a decoder; it is left as it was found.
        prompt: the contrast.
        cells: lines of the table of :func:`analyses.attribution.nodes.attribute` for this prompt, each a patch of its own.
        suffixes: what :func:`analyses.patching.suffix.has_suffixes` says of this model, which is asked if not given.

    Returns:
        One effect per line, in the order of the lines.
    """
    if suffixes is None:
        suffixes = has_suffixes(loaded, prompt.clean)
    lines = [_line(line) for line in cells.itertuples()]
    inside = list(dict.fromkeys(replace(site, head=None) for _, site, _ in lines if site.name not in STREAM))
    runs = [record(loaded, ids, inside, suffixes=suffixes) for ids in (prompt.clean, prompt.corrupted)]
    effects = np.zeros(len(lines))
    for direction, (patched, donor) in DIRECTIONS.items():
        own = prompt.logit_difference(runs[patched].logits)
        chosen = [number for number, line in enumerate(lines) if line[0] == direction]
        for start in range(0, len(chosen), MAX_CELLS):
            part = chosen[start : start + MAX_CELLS]
            patches = [(_patch(loaded, runs[donor], *lines[number][1:]),) for number in part]
            for found, logits in suffix_batches(loaded, runs[patched], patches):
                moved = prompt.logit_difference(logits) - own
                effects[[part[index] for index in found]] = moved.double().cpu().numpy()
    return effects


def _line(line: Any) -> tuple[str, Site, int]:
    head = int(line.head) if line.site in WITH_HEADS else None
    return line.direction, Site(line.site, line.layer, head), line.position


def _patch(loaded: LoadedModel, donor: Recording, site: Site, position: int) -> Patch:
    columns = locate(loaded, site).columns
    return Patch(site, (position,), donor.at(replace(site, head=None))[[position]][:, columns])
