"""Patch every cell of some grids in the items a model gets right, and keep the values of every item.

Denoising puts a donor's activation into the corrupted run, noising into the clean run (Heimersheim & Nanda 2024). The
effect is the change of the logit difference between the clean and the contrast answer in the run that is patched, the
recovery that change divided by the clean-corrupted gap (Zhang & Nanda 2024): 1 where denoising restores the answer, -1
where noising destroys it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError, did_you_mean
from activations.models import LoadedModel
from activations.sites import Site
from analyses.answers import RETAINED, retention
from analyses.patching.cells import Cell
from analyses.patching.donors import (
    DONORS,
    MAX_CELLS,
    States,
    cell_of,
    from_means,
    from_other_item,
    from_run,
    role_means,
)
from analyses.patching.exactness import check_logits, full_logits, has_suffixes
from analyses.patching.grids import Grid, Unit, Where, sites_of, units, wheres
from analyses.patching.metrics import MIN_GAPS, measure
from analyses.patching.recording import STREAM, Recording, record
from analyses.patching.suffix import suffix_batches
from analyses.prompts import DIRECTIONS, Prompt

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Patching:
    """The outcome for one model, task and form.

    ``retention``: one line per prompt (item, group, difficulty, clean_right, corrupted_right, clean, corrupted, gap,
    status; for patched ones also the other metrics of both runs, such as probability_clean). ``cells``: one line per
    patched item, direction and cell (site, by, window, layer, head, neurons, role, position and token where it is one;
    the metrics of the patched run, effect in logits, recovery). ``max_error``: the largest difference of any logit from
    a plain full forward pass with a hook, over ``checked`` random cells.
    """

    retention: pd.DataFrame
    cells: pd.DataFrame
    checked: int
    max_error: float


def patch_prompts(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    grids: Sequence[Grid] = (Grid("resid_pre"),),
    directions: Sequence[str] = ("denoising",),
    donor: str = "contrast",
    max_items: int,
    check_exact: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Patching:
    """Patch the cells of every grid in up to ``max_items`` retained prompts.

    An item is retained when the model prefers the right answer among the candidates in both the clean and the corrupted
    text. Cells whose donor has what the run has there anyway have an effect of exactly zero and are not recomputed.
    ``progress`` is called with steps done and steps in all: both texts of every prompt are read, then every prompt is
    patched or passed over.

    Raises:
        TwinprobeError: no prompts, an unknown direction or donor, a grid that the model does not have, a random donor
            with a single retained item, or an architecture whose logits can not be recomputed.
    """
    _check(directions, donor)
    if not prompts:
        raise TwinprobeError("no prompts to patch; expected 1 or more, see the reasons for which items were dropped")
    generator = np.random.default_rng(seed)
    total = 3 * len(prompts)
    chosen = [unit for grid in grids for unit in units(loaded, grid)]
    check_logits(loaded, prompts[0].clean)
    answered = retention(loaded, prompts, lambda read: progress(read, total))
    lines: list[dict[Any, Any]] = answered.to_dict("records")
    patched = [number for number, line in enumerate(lines) if line["status"] == RETAINED][:max_items]
    donors = _Donors(loaded, prompts, patched, sites_of(grids, loaded.n_layers), donor, generator)
    frames, errors = [], []
    for number, (prompt, line) in enumerate(zip(prompts, lines, strict=True)):
        if number in patched:
            share = _share(check_exact, len(patched), patched.index(number))
            item = _Item(loaded, prompt, *donors.runs(number))
            for direction in directions:
                frame, found = item.patch(direction, donors.states(number, direction, item), chosen, share, generator)
                frames.append(frame.assign(donor=donor, recovery=frame.effect / line["gap"]))
                errors += found
            line |= item.metrics()
        elif line["status"] == RETAINED:
            line["status"] = "retained, not patched"
        progress(2 * len(prompts) + number + 1, total)
    cells = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=COLUMNS)
    return Patching(pd.DataFrame(lines), cells[COLUMNS], len(errors), max(errors, default=0.0))


COLUMNS = [
    "item", "group", "direction", "donor", "site", "by", "window", "layer", "head", "neurons", "role", "position", "token",
    *MIN_GAPS, "effect", "recovery",
]  # fmt: skip
"""Of the table of cells."""
WHOLE_NUMBERS = ("layer", "window", "head", "neurons", "position")


def _check(directions: Sequence[str], donor: str) -> None:
    for direction in directions:
        if direction not in DIRECTIONS:
            raise TwinprobeError(
                f"direction {direction!r} is not known{did_you_mean(direction, tuple(DIRECTIONS))}; expected denoising or "
                "noising"
            )
    if donor not in DONORS:
        raise TwinprobeError(
            f"donor {donor!r} is not known{did_you_mean(donor, DONORS)}; expected one of {', '.join(DONORS)}"
        )


def _share(count: int, parts: int, part: int) -> int:
    """How many of ``count`` things fall to one of ``parts`` equal parts."""
    return count * (part + 1) // parts - count * part // parts


class _Donors:
    """Runs of the retained prompts, recorded when needed, and what is put into them."""

    def __init__(
        self, loaded: LoadedModel, prompts: Sequence[Prompt], patched: Sequence[int], sites: Sequence[Site], kind: str,
        generator: np.random.Generator,
    ) -> None:  # fmt: skip
        self.loaded, self.prompts, self.kind = loaded, prompts, kind
        self.sites = [site for site in sites if site.name not in STREAM]
        longest = max((prompts[number].clean for number in patched), key=len, default=())
        self.suffixes = bool(patched) and has_suffixes(loaded, longest)
        self.others: dict[int, int] = {}
        if kind == "random" and patched:
            if len(patched) < 2:
                raise TwinprobeError(
                    "a random donor needs 2 retained items or more, and 1 is retained; give more items"
                )
            shift = int(generator.integers(1, len(patched)))
            self.others = dict(zip(patched, np.roll(patched, shift).tolist(), strict=True))
        self.means = role_means(loaded, [prompts[number] for number in patched], sites) if kind == "mean" else {}

    def runs(self, number: int) -> tuple[Recording, Recording]:
        """The clean and the corrupted run of a prompt."""
        prompt = self.prompts[number]
        clean, corrupted = (
            record(self.loaded, ids, self.sites, suffixes=self.suffixes) for ids in (prompt.clean, prompt.corrupted)
        )
        return clean, corrupted

    def states(self, number: int, direction: str, item: _Item) -> States:
        """What is put into the run that ``direction`` patches."""
        patched, other = DIRECTIONS[direction]
        roles = self.prompts[number].roles
        if self.kind == "mean":
            return from_means(self.means, roles)
        if self.kind == "random":
            donor = self.prompts[self.others[number]]
            ids = (donor.clean, donor.corrupted)[other]
            return from_other_item(record(self.loaded, ids, self.sites, suffixes=False), donor.roles, roles)
        return from_run(item.runs[patched if self.kind == "identity" else other])


class _Item:
    """The two runs of one retained prompt."""

    def __init__(self, loaded: LoadedModel, prompt: Prompt, clean: Recording, corrupted: Recording) -> None:
        self.loaded, self.prompt, self.runs = loaded, prompt, (clean, corrupted)
        self.own = [
            {name: float(value[0]) for name, value in measure(prompt, run.logits[None], clean.logits).items()}
            for run in self.runs
        ]

    def metrics(self) -> dict[str, float]:
        """The metrics of both runs but the logit difference."""
        return {
            f"{name}_{text}": own[name]
            for text, own in zip(("clean", "corrupted"), self.own, strict=True)
            for name in MIN_GAPS
            if name != "logit_difference"
        }

    def patch(
        self, direction: str, donor: States, chosen: Sequence[Unit], checked: int, generator: np.random.Generator
    ) -> tuple[pd.DataFrame, list[float]]:
        """The table of cells without donor and recovery, and the errors of ``checked`` random cells."""
        patched = DIRECTIONS[direction][0]
        run, own = self.runs[patched], self.own[patched]
        places = {by: wheres(self.prompt, by) for by in {unit.grid.by for unit in chosen}}
        described = [(unit, where) for unit in chosen for where in places[unit.grid.by]]
        values = {name: np.full(len(described), own[name]) for name in MIN_GAPS}
        lots = generator.permutation(len(described))
        drawn: list[tuple[int, Cell, torch.Tensor]] = []
        for start in range(0, len(described), MAX_CELLS):
            cells = [cell_of(donor, unit, where) for unit, where in described[start : start + MAX_CELLS]]
            for numbers, logits in suffix_batches(self.loaded, run, cells):
                for name, found in measure(self.prompt, logits, self.runs[0].logits).items():
                    values[name][[start + number for number in numbers]] = found.double().cpu().numpy()
                rows = sorted(range(len(numbers)), key=lambda row: lots[start + numbers[row]])[:checked]
                drawn += [(lots[start + numbers[row]], cells[numbers[row]], logits[row].clone()) for row in rows]
            drawn = sorted(drawn, key=lambda one: one[0])[:checked]
        errors = [float((full_logits(self.loaded, run.ids, cell) - found).abs().max()) for _, cell, found in drawn]
        frame = pd.DataFrame([_description(self.prompt, unit, where) for unit, where in described])
        about = {"item": self.prompt.item, "group": self.prompt.group, "direction": direction}
        effect = values["logit_difference"] - own["logit_difference"]
        return frame.assign(**about, **values, effect=effect).astype(dict.fromkeys(WHOLE_NUMBERS, "Int64")), errors


def _description(prompt: Prompt, unit: Unit, where: Where) -> dict[str, Any]:
    return {
        "site": unit.grid.site, "by": unit.grid.by, "window": unit.grid.window, "layer": unit.layer, "head": unit.head,
        "neurons": unit.first_neuron, "role": where.role, "position": where.position,
        "token": None if where.position is None else prompt.tokens[where.position],
    }  # fmt: skip
