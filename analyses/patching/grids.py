"""Grids: which cells a sweep patches, one run each.

A grid takes one site in every layer (each head alone where the site has heads, each group of neurons where asked for, a
sliding window of layers where asked for), and crosses it with positions, roles or the whole prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from activations.engines.places import locate, width
from activations.errors import TwinprobeError, did_you_mean
from activations.models import LoadedModel
from activations.sites import KV_HEADS, WITH_HEADS, Site
from analyses.patching.cells import SITES
from analyses.prompts import Prompt

BY = ("position", "role", "all")
"""What a cell replaces of a prompt: one position, all positions of a role, or all positions."""


@dataclass(frozen=True)
class Grid:
    """One map of cells.

    ``by`` is one of :data:`BY`. ``window`` is how many neighbouring layers are replaced together. ``neurons`` cuts
    ``mlp_post`` into groups of that many neurons.
    """

    site: str
    by: str = "position"
    window: int = 1
    neurons: int | None = None


@dataclass(frozen=True)
class Unit:
    """What is replaced wherever it is replaced: a site in the layers of a window, or one head or group of neurons of it.

    ``sites`` are without heads; ``columns`` are those of the head or the group.
    """

    grid: Grid
    sites: tuple[Site, ...]
    columns: slice
    head: int | None

    @property
    def layer(self) -> int:
        """The first layer."""
        assert self.sites[0].layer is not None
        return self.sites[0].layer

    @property
    def first_neuron(self) -> int | None:
        """The first neuron of the group, where there are groups."""
        return None if self.grid.neurons is None else int(self.columns.start)


@dataclass(frozen=True)
class Where:
    """Positions of a prompt that are replaced together; ``position`` is None unless it is one alone by itself."""

    role: str
    position: int | None
    positions: tuple[int, ...]


def default_grid(site: str) -> Grid:
    """Layer × head × role for sites with heads, layer × position for all others."""
    return Grid(site, "role" if site in WITH_HEADS else "position")


def check_grid(grid: Grid) -> None:
    """Raise TwinprobeError where a grid makes no sense for any model."""
    if grid.site not in SITES:
        raise TwinprobeError(
            f"site {grid.site!r} can not be patched{did_you_mean(grid.site, SITES)}; expected one of {', '.join(SITES)}"
        )
    if grid.by not in BY:
        raise TwinprobeError(f"a grid by {grid.by!r}{did_you_mean(grid.by, BY)}; expected one of {', '.join(BY)}")
    if grid.window < 1:
        raise TwinprobeError(f"a window of {grid.window} layers; expected 1 or more")
    if grid.neurons is not None and (grid.site != "mlp_post" or grid.neurons < 1):
        raise TwinprobeError(
            f"groups of {grid.neurons} neurons at {grid.site}; expected groups of 1 or more neurons at mlp_post"
        )


def units(loaded: LoadedModel, grid: Grid) -> list[Unit]:
    """Everything that the grid replaces, layer by layer.

    Raises:
        TwinprobeError: the grid makes no sense, its window is longer than the model, or the model has no such site.
    """
    check_grid(grid)
    if grid.window > loaded.n_layers:
        raise TwinprobeError(
            f"a window of {grid.window} layers in {loaded.spec.name}, which has {loaded.n_layers}; give a smaller one"
        )
    found = []
    for layer in range(loaded.n_layers - grid.window + 1):
        for head in _heads(loaded, grid.site):
            sites = tuple(Site(grid.site, layer + step) for step in range(grid.window))
            groups = _groups(loaded, grid, Site(grid.site, layer, head))
            found += [Unit(grid, sites, columns, head) for columns in groups]
    return found


def wheres(prompt: Prompt, by: str) -> list[Where]:
    """The positions of a prompt that its cells replace; roles in order of their first position."""
    if by == "position":
        return [Where(role, position, (position,)) for position, role in enumerate(prompt.roles)]
    if by == "all":
        return [Where("all", None, tuple(range(len(prompt.clean))))]
    return [
        Where(role, None, tuple(position for position, other in enumerate(prompt.roles) if other == role))
        for role in dict.fromkeys(prompt.roles)
    ]


def sites_of(grids: Sequence[Grid], n_layers: int) -> list[Site]:
    """The sites, without heads, that runs are to be recorded at."""
    names = dict.fromkeys(grid.site for grid in grids)
    return [Site(name, layer) for name in names for layer in range(n_layers)]


def _heads(loaded: LoadedModel, site: str) -> Sequence[int | None]:
    if site not in WITH_HEADS:
        return [None]
    return range(loaded.n_kv_heads if site in KV_HEADS else loaded.n_heads)


def _groups(loaded: LoadedModel, grid: Grid, site: Site) -> list[slice]:
    columns = locate(loaded, site).columns
    if grid.neurons is None:
        return [columns]
    total = width(loaded, site)
    return [slice(start, min(start + grid.neurons, total)) for start in range(0, total, grid.neurons)]
