"""Donors: where the activations come from that a patch puts in.

- ``contrast``: the same position of the other text of the item, the patch itself;
- ``mean``: the mean over all retained items' two texts at positions of the same role (mean ablation);
- ``random``: another item, at the same occurrence of the same role: a control, of the right kind but the wrong content;
- ``identity``: the run's own, whose effect must be exactly 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from activations.models import LoadedModel
from activations.sites import Site
from analyses.patching.cells import Cell, Patch, rows_at
from analyses.patching.grids import Unit, Where
from analyses.patching.recording import STREAM, Recording, record
from analyses.prompts import Prompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

MAX_CELLS = 4096
"""Cells whose donated activations are held at a time; bounds memory however many are asked for."""
DONORS = ("contrast", "mean", "random", "identity")
States = Callable[[Site], "torch.Tensor"]
"""A donor's activation ``[pos, width]`` at a site without a head, one row per position of the run that is patched."""
Means = Mapping[tuple[Site, str], "torch.Tensor"]


def from_run(donor: Recording) -> States:
    """The activations of a run of the same length, position by position."""
    return donor.at


def from_other_item(donor: Recording, donor_roles: Sequence[str], roles: Sequence[str]) -> States:
    """The activations of another item's run, matched by :func:`matched`."""
    rows = matched(donor_roles, roles)
    return lambda site: donor.at(site)[rows]


def matched(donor_roles: Sequence[str], roles: Sequence[str]) -> list[int]:
    """For each position the donor's position of the same role and occurrence.

    Where the donor has the role less often, its occurrences are used again; where it never has it, the position as far
    from the end (its first one, where it is shorter).
    """
    by_role: dict[str, list[int]] = {}
    for position, role in enumerate(donor_roles):
        by_role.setdefault(role, []).append(position)
    seen: Counter[str] = Counter()
    rows = []
    for position, role in enumerate(roles):
        same = by_role.get(role)
        from_end = max(0, len(donor_roles) - len(roles) + position)
        rows.append(same[seen[role] % len(same)] if same else from_end)
        seen[role] += 1
    return rows


def role_means(loaded: LoadedModel, prompts: Iterable[Prompt], sites: Sequence[Site]) -> Means:
    """Mean activation at every site and role, over the positions of both texts of all prompts."""
    inside = [site for site in sites if site.name not in STREAM]
    sums: dict[tuple[Site, str], torch.Tensor] = {}
    counts: Counter[str] = Counter()
    for prompt in prompts:
        for ids in (prompt.clean, prompt.corrupted):
            found = record(loaded, ids, inside, suffixes=False)
            for role in set(prompt.roles):
                rows = [position for position, other in enumerate(prompt.roles) if other == role]
                counts[role] += len(rows)
                for site in sites:
                    total = found.at(site)[rows].double().sum(0)
                    sums[site, role] = sums[site, role] + total if (site, role) in sums else total
    return {(site, role): total / counts[role] for (site, role), total in sums.items()}


def from_means(means: Means, roles: Sequence[str]) -> States:
    """The mean activation of each position's role."""
    import torch

    def states(site: Site) -> Float[torch.Tensor, "pos width"]:
        return torch.stack([means[site, role] for role in roles])

    return states


def cell_of(donor: States, unit: Unit, where: Where) -> Cell:
    """The cell in which a donor gives what a grid replaces."""
    return tuple(
        Patch(site, where.positions, rows_at(donor(site), where.positions)[:, unit.columns], unit.columns)
        for site in unit.sites
    )
