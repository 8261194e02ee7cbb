"""Cross-model activation patching: activations of one model put into the other, cell by cell, while both read one text.

The method is CMAP of Prakash et al. 2024 ("Fine-Tuning Enhances Existing Mechanisms: A Case Study on Entity Tracking"),
for any grid of cells. Where the code model's activation brings the base model the answer, the two models
differ in what arrives at that cell, and the base model can use it from there on. An activation that takes an answer away
need not mean as much: it may only be foreign. Hence three controls: the receiver's own activations, whose effect must be
exactly 0; the donor model on the text of another item, at the same roles; and, in a call of its own, a donor that never
saw code (another seed of the base model).

Both texts of a prompt are run, each with its own answer, and a value of an item is the mean of the two. The text of
another item is the same one for both: an answer that it carries is worth as much to one text as it costs the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError
from activations.models import LoadedModel
from analyses.across.compatibility import check_compatible
from analyses.answers import MIN_GAP
from analyses.patching.donors import MAX_CELLS, States, cell_of, from_run, matched
from analyses.patching.exactness import check_logits, full_logits, has_suffixes
from analyses.patching.grids import Grid, Unit, Where, sites_of, units, wheres
from analyses.patching.recording import STREAM, Recording, record
from analyses.patching.suffix import suffix_batches, suffix_logits
from analyses.prompts import Prompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float
    from numpy.typing import NDArray

Way = Callable[[Recording], States]
"""How a run of the donor model becomes activations for the receiver."""
AS_THEY_ARE: Mapping[str, Way] = {"other": from_run}
"""Number by number, for models of one shape."""
IDENTITY, RANDOM = "identity", "random"
"""The controls among the donors."""
CELL = ["site", "by", "window", "layer", "head", "neurons", "role", "position"]
"""The columns that name a cell, as in the table of :func:`analyses.patching.sweep.patch_prompts`."""
COLUMNS = [
    "item", "group", "receiver", "donor_model", "donor", *CELL, "effect", "gap", "recovery", "right_before", "right_after",
]  # fmt: skip


@dataclass(frozen=True)
class CrossPatching:
    """What a receiver does with a donor's activations.

    ``cells``: one line per item, donor and cell, with :data:`COLUMNS`. ``effect`` is the change, in logits, of the
    logit difference in favour of the text's own answer; ``gap`` the donor model's logit difference minus the receiver's
    on the same texts, whatever the donor; ``recovery`` effect by gap, missing where the gap is below 0.1 either way.
    ``right_before`` and ``right_after`` say whether both texts are answered right among the candidates.
    ``max_error`` is the largest difference of any logit from a plain full forward pass with hooks, over ``checked``
    random cells.
    """

    cells: pd.DataFrame
    checked: int
    max_error: float


def cross_patch(
    receiver: LoadedModel,
    donor: LoadedModel,
    prompts: Sequence[Prompt],
    grids: Sequence[Grid],
    *,
    names: tuple[str, str],
    ways: Mapping[str, Way] = AS_THEY_ARE,
    first: int = 0,
    random_items: int | None = None,
    check_exact: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CrossPatching:
    """Patch the cells of every grid in both texts of every prompt with the donor model's activations.

    The donors of a cell are those of ``ways``, and the two controls: ``identity``, and ``random``, for which the first of
    ``ways`` takes the activations of another prompt (there is none where a single prompt is given).

    Args:
        receiver: the decoder that is patched; it is left as it was found, as the donor is.
        donor: the decoder that the activations come from.
        prompts: the same for both models (see :func:`analyses.across.compatibility.shared_prompts`).
        grids: which cells.
        names: what the receiver and the donor model are called in the table.
        ways: how activations come across; with others than :data:`AS_THEY_ARE` the models may differ in shape.
        first: the first position that is patched; cells that lie before it altogether are left out.
        random_items: how many prompts also get the random donor, the first ones; all where it is None.
        check_exact: cells to check against plain forward passes.
        seed: seed of the other prompts and of the checked cells.
        progress: called with prompts done and prompts in all.

    Raises:
        TwinprobeError: there are no prompts, the models can not exchange activations, a grid is not one of the
            receiver's, or its architecture's logits can not be recomputed.
    """
    if not prompts:
        raise TwinprobeError("no prompts to patch; expected at least one that one of the two models gets right")
    if ways is AS_THEY_ARE:
        check_compatible(receiver, donor)
    chosen = [unit for grid in grids for unit in units(receiver, grid)]
    sites = [site for site in sites_of(grids, receiver.n_layers) if site.name not in STREAM]
    suffixes = _suffixes(receiver, max((prompt.clean for prompt in prompts), key=len))
    generator = np.random.default_rng(seed)
    others = _others(prompts, generator)
    checks = np.bincount(generator.integers(2 * len(prompts), size=check_exact), minlength=2 * len(prompts))
    lines: list[tuple[object, ...]] = []
    errors: list[float] = []
    for number, prompt in enumerate(prompts):
        cells = [(unit, where) for unit in chosen for where in _wheres(prompt, unit.grid.by, first)]
        shared: dict[str, States] = {}
        if others and (random_items is None or number < random_items):
            other, ids = others[number]
            foreign = next(iter(ways.values()))(record(donor, ids, sites, suffixes=False))
            shared[RANDOM] = _at(foreign, matched(other.roles, prompt.roles))
        outcomes: dict[str, list[_Outcome]] = {}
        for corrupted, ids in enumerate((prompt.clean, prompt.corrupted)):
            own = record(receiver, ids, sites, suffixes=suffixes)
            given = record(donor, ids, sites, suffixes=False)
            text = _Text(receiver, prompt, bool(corrupted), own, given.logits, cells)
            donors: dict[str, States] = {name: cache(way(given)) for name, way in ways.items()}
            for name, states in {**donors, IDENTITY: from_run(own), **shared}.items():
                outcomes.setdefault(name, []).append(text.patch(states))
            for _ in range(checks[2 * number + corrupted] if cells else 0):
                errors.append(text.error(donors[next(iter(ways))], int(generator.integers(len(cells)))))
        for name, texts in outcomes.items():
            lines += _lines(prompt, cells, name, texts)
        progress(number + 1, len(prompts))
    table = pd.DataFrame(lines, columns=[name for name in COLUMNS if name not in ("receiver", "donor_model")])
    table = table.astype(dict.fromkeys(("head", "neurons", "position"), "Int64"))
    table = table.assign(receiver=names[0], donor_model=names[1])[COLUMNS]
    return CrossPatching(table, len(errors), max(errors, default=0.0))


@dataclass(frozen=True, eq=False)
class _Outcome:
    """Of every cell of one text: effect and whether the answer is right; and of the text what it was before."""

    effects: NDArray[np.float64]
    right: NDArray[np.bool_]
    right_before: bool
    gap: float


@dataclass(frozen=True, eq=False)
class _Text:
    """One of a prompt's two texts in the receiver, what the donor model says to it, and the cells to patch."""

    receiver: LoadedModel
    prompt: Prompt
    corrupted: bool
    own: Recording
    given: Float[torch.Tensor, "... vocab"]
    cells: Sequence[tuple[Unit, Where]]

    def patch(self, donor: States) -> _Outcome:
        before, right_before = self._judge(self.own.logits[None])
        theirs, _ = self._judge(self.given[None])
        after, right = np.repeat(before, len(self.cells)), np.repeat(right_before, len(self.cells))
        for start in range(0, len(self.cells), MAX_CELLS):
            part = [cell_of(donor, *cell) for cell in self.cells[start : start + MAX_CELLS]]
            for numbers, logits in suffix_batches(self.receiver, self.own, part):
                at = [start + number for number in numbers]
                after[at], right[at] = self._judge(logits)
        return _Outcome(after - before, right, bool(right_before[0]), float(theirs[0] - before[0]))

    def error(self, donor: States, number: int) -> float:
        """How far the logits of one cell are from those of a plain forward pass."""
        cell = cell_of(donor, *self.cells[number])
        [found] = suffix_logits(self.receiver, self.own, [cell])
        return float((found - full_logits(self.receiver, self.own.ids, cell)).abs().max())

    def _judge(self, logits: Float[torch.Tensor, "cell vocab"]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """The logit difference in favour of the text's own answer, and whether that is the highest of the candidates."""
        answer = self.prompt.contrast if self.corrupted else self.prompt.answer
        difference = self.prompt.logit_difference(logits).double().cpu().numpy() * (-1 if self.corrupted else 1)
        best = logits[:, list(self.prompt.candidates)].argmax(-1).cpu().numpy()
        return difference, np.asarray(self.prompt.candidates)[best] == answer


def _suffixes(receiver: LoadedModel, ids: Sequence[int]) -> bool:
    """Whether the receiver's suffixes can be run, after a look at how it makes its logits."""
    check_logits(receiver, ids)
    return has_suffixes(receiver, ids)


def _others(prompts: Sequence[Prompt], generator: np.random.Generator) -> list[tuple[Prompt, tuple[int, ...]]]:
    """For each prompt another one and one of its texts; every prompt is another's once. Empty for a single prompt."""
    if len(prompts) < 2:
        return []
    shift = int(generator.integers(1, len(prompts)))
    others = [prompts[(number + shift) % len(prompts)] for number in range(len(prompts))]
    return [(other, other.corrupted if generator.integers(2) else other.clean) for other in others]


def _at(states: States, rows: Sequence[int]) -> States:
    return cache(lambda site: states(site)[list(rows)])


def _wheres(prompt: Prompt, by: str, first: int) -> list[Where]:
    """The places of a prompt without the positions before ``first``."""
    found = []
    for where in wheres(prompt, by):
        if kept := tuple(position for position in where.positions if position >= first):
            found.append(replace(where, positions=kept))
    return found


def _lines(
    prompt: Prompt, cells: Sequence[tuple[Unit, Where]], donor: str, texts: Sequence[_Outcome]
) -> list[tuple[object, ...]]:
    """One line per cell, its values the means of the two texts: :data:`COLUMNS` without the two models."""
    effects = np.mean([text.effects for text in texts], axis=0)
    gap = float(np.mean([text.gap for text in texts]))
    recovery = effects / gap if abs(gap) >= MIN_GAP else np.full(len(cells), np.nan)
    right_before = all(text.right_before for text in texts)
    right_after = np.all([text.right for text in texts], axis=0)
    return [
        (
            prompt.item, prompt.group, donor, unit.grid.site, unit.grid.by, unit.grid.window, unit.layer, unit.head,
            unit.first_neuron, where.role, where.position, effect, gap, share, right_before, right,
        )
        for (unit, where), effect, share, right in zip(
            cells, effects.tolist(), recovery.tolist(), right_after.tolist(), strict=True
        )
    ]  # fmt: skip
