"""What a sweep costs, before it is run: how many runs are patched, and how much of them has to be computed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from activations.models import LoadedModel
from analyses.patching.grids import Grid, Where, units, wheres
from analyses.prompts import Prompt


@dataclass(frozen=True)
class Effort:
    """``cells``: patched runs. ``passes``: their cost in plain forward passes over the whole prompt."""

    cells: int
    passes: float


def effort(loaded: LoadedModel, prompt: Prompt, grids: Sequence[Grid], directions: Sequence[str], donor: str) -> Effort:
    """The effort for one prompt, where suffixes can be run (see :func:`analyses.patching.suffix.has_suffixes`).

    A cell at layer ``l`` of ``n`` that changes position ``p`` of ``t`` first costs ``(n - l) / n`` of the layers for
    ``(t - p) / t`` of the positions. Up to the first token in which the two texts differ, a contrast has nothing to change,
    and the identity nowhere.

    Raises:
        TwinprobeError: a grid makes no sense for this model.
    """
    length = len(prompt.clean)
    differ = [at for at in range(length) if prompt.clean[at] != prompt.corrupted[at]]
    since = {"contrast": min(differ, default=length), "identity": length}.get(donor, 0)
    cells, passes = 0, 0.0
    for grid in grids:
        by_layer = Counter(unit.layer for unit in units(loaded, grid))
        places = wheres(prompt, grid.by)
        share = sum(_share(where, since, length) for where in places)
        cells += by_layer.total() * len(places)
        passes += share * sum(count * (1 - layer / loaded.n_layers) for layer, count in by_layer.items())
    return Effort(cells * len(directions), passes * len(directions))


def _share(where: Where, since: int, length: int) -> float:
    changed = [position for position in where.positions if position >= since]
    return (length - min(changed)) / length if changed else 0.0
