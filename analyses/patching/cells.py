"""Cells: what is replaced in a run, and from where on the run then departs from what it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from activations.engines.places import locate
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import Site
from analyses.patching.recording import Recording

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

SITES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z", "q", "k", "v", "mlp_post")
READ_LATER = ("resid_pre", "k", "v")
"""Sites that the last position of the same layer reads at earlier positions; others of the last layer nothing reads."""


@dataclass(frozen=True, eq=False)
class Patch:
    """The activation at ``site`` is replaced at ``positions`` by ``values``.

    Of a site with a head, only that head's columns are; ``columns`` chooses other ones, such as a group of neurons. Patches
    of one cell do not overlap.
    """

    site: Site
    positions: tuple[int, ...]
    values: Float[torch.Tensor, "pos width"]
    columns: slice | None = None


Cell = tuple[Patch, ...]
"""What is replaced in one run; several patches where a window of layers is replaced together."""


@dataclass(frozen=True, eq=False)
class Put:
    """A patch whose site is without a head, whose columns are ``columns``."""

    site: Site
    columns: slice
    positions: tuple[int, ...]
    values: torch.Tensor

    def only(self, kept: Sequence[int]) -> Put:
        """The patch at some of its positions, by their index."""
        if len(kept) == len(self.positions):
            return self
        return Put(self.site, self.columns, tuple(self.positions[i] for i in kept), rows_at(self.values, kept))

    @property
    def depth(self) -> int:
        """The block that it is felt in, or under which it lies in the residual stream."""
        assert self.site.layer is not None
        return self.site.layer + (self.site.name == "resid_post")


@dataclass(frozen=True, eq=False)
class Climber:
    """What a cell changes, and where its run departs from the patched one: at position ``first``, under block ``depth``."""

    number: int
    puts: tuple[Put, ...]
    first: int
    depth: int


def rows_at(states: torch.Tensor, positions: Sequence[int]) -> torch.Tensor:
    """Some rows of a matrix; a view, where they are neighbours in order."""
    first, stop = (positions[0], positions[0] + len(positions)) if positions else (0, 0)
    return states[first:stop] if tuple(positions) == tuple(range(first, stop)) else states[list(positions)]


def climbers_of(loaded: LoadedModel, patched: Recording, cells: Sequence[Cell]) -> list[Climber]:
    """What the cells change in a run, without those that put in what it has there anyway.

    Raises:
        TwinprobeError: see :func:`analyses.patching.suffix.suffix_batches`.
    """
    puts = [[as_put(loaded, patch) for patch in cell] for cell in cells]
    differing = iter(_differing(patched, [put for cell in puts for put in cell]))
    climbers = []
    for number, cell in enumerate(puts):
        climber = _climber(loaded, patched, number, [(put, next(differing)) for put in cell])
        if climber is not None:
            climbers.append(climber)
    return climbers


def _climber(
    loaded: LoadedModel, patched: Recording, number: int, cell: Sequence[tuple[Put, list[bool]]]
) -> Climber | None:
    """What a cell changes; ``None`` where its last position is that of the patched run.

    With every patch comes at which of its positions it differs from the run.
    """
    last = len(patched.ids) - 1
    puts, changes = [], []
    for put, differs in cell:
        read = put.site.name in READ_LATER or put.site.layer != loaded.n_layers - 1
        changes += [
            (put.depth, at) for at, other in zip(put.positions, differs, strict=True) if other and (read or at == last)
        ]
        puts.append(put if read else put.only([i for i, at in enumerate(put.positions) if at == last]))
    if not changes:
        return None
    depth = min(depth for depth, _ in changes)
    first = min(at for _, at in changes) if patched.past else 0
    # What lies before the suffix or below the depth is as it was.
    kept = (put.only([i for i, at in enumerate(put.positions) if at >= first]) for put in puts if put.depth >= depth)
    return Climber(number, tuple(kept), first, depth)


def _differing(patched: Recording, puts: Sequence[Put]) -> list[list[bool]]:
    """For every position of every patch whether it differs from the run; read from the device once.

    Raises:
        TwinprobeError: see :func:`analyses.patching.suffix.suffix_batches`.
    """
    import torch

    found = []
    for put in puts:
        before = _current(patched, put)
        if put.values.shape != before.shape:
            received, expected = ("{} positions × width {}".format(*each.shape) for each in (put.values, before))
            raise TwinprobeError(f"cell at {put.site}: received values of {received}, expected {expected}")
        found.append((put.values.to(before) != before).any(-1))
    flags = iter(torch.cat(found).tolist() if found else ())
    return [[next(flags) for _ in put.positions] for put in puts]


def as_put(loaded: LoadedModel, patch: Patch) -> Put:
    """A patch by its columns.

    Raises:
        TwinprobeError: no model is patched there.
    """
    site = patch.site if patch.site.head is None else replace(patch.site, head=None)
    if site.layer is None or site.name not in SITES or site.layer >= loaded.n_layers:
        raise TwinprobeError(
            f"cell at {patch.site}: expected {', '.join(SITES)} of one of {loaded.n_layers} layers, such as resid_pre.0"
        )
    return Put(site, patch.columns or locate(loaded, patch.site).columns, patch.positions, patch.values)


def _current(patched: Recording, put: Put) -> torch.Tensor:
    """What the run that is patched has there."""
    length = len(patched.ids)
    if not all(0 <= at < length for at in put.positions):
        raise TwinprobeError(
            f"cell at {put.site}: positions {list(put.positions)} are not all in a prompt of {length} tokens"
        )
    try:
        return rows_at(patched.at(put.site), put.positions)[:, put.columns]
    except KeyError:
        raise TwinprobeError(
            f"cell at {put.site}: the run to patch was not recorded there; add it to its sites"
        ) from None
