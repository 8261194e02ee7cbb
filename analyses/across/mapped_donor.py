"""Donors whose residual stream is another space: their activations come across through an orthogonal map.

Two models that were not trained on from one another write in coordinates of their own, and number by number one's
activations are noise to the other. An orthogonal map with means (:mod:`probes.procrustes`) is fitted at every layer on the
tokens of neutral texts, and what it brings is patched in like an activation of the receiver's own, labelled ``mapped``. A
direction that neutral texts do not have in both models can not come across: that nothing arrives does not show that there
was nothing to bring. The control is a random orthogonal map with the same means and spread, ``random_map``.

The models may differ in width and depth but must read texts as the same tokens. A layer is given the donor's layer at
the same relative depth, the last one the last. The first position is neither fitted nor patched: its state depends on one
token alone, in most prompts always BOS, and its size is often out of all proportion to that of the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

import numpy as np

from activations.errors import TwinprobeError
from activations.inputs import encode
from activations.models import LoadedModel
from activations.sites import Site
from activations.texts import Text
from analyses.across.cross_patching import CrossPatching, Way, cross_patch
from analyses.patching.donors import States
from analyses.patching.grids import Grid
from analyses.patching.recording import STREAM, Recording, record
from analyses.prompts import Prompt
from probes.procrustes import Neutral, OrthogonalMap, fit_maps

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

MAPPED, RANDOM_MAP = "mapped", "random_map"
FIRST = 1
"""The first position that is fitted and patched."""


@dataclass(frozen=True, eq=False)
class SiteMap:
    """From the donor's residual stream to one site of the receiver.

    Attributes:
        site: the site of the donor that is mapped.
        fitted, random: the map, and its control.
        tokens: how many tokens of neutral text the map was fitted on.
    """

    site: Site
    fitted: OrthogonalMap
    random: OrthogonalMap
    tokens: int


def fit_donor(
    receiver: LoadedModel,
    donor: LoadedModel,
    texts: Sequence[Text],
    sites: Sequence[str] = ("resid_post",),
    *,
    bos: bool,
    seed: int = 0,
) -> dict[Site, SiteMap]:
    """Fit a map for every layer of the receiver at some sites of its residual stream.

    Args:
        receiver: a decoder.
        donor: a decoder that reads the texts as the same tokens.
        texts: neutral texts, with more tokens in all than either model is wide (see
            :func:`analyses.study.neutral.neutral_texts`); of one longer than a context its beginning.
        sites: ``resid_pre`` or ``resid_post``, or both.
        bos: whether texts begin with BOS.
        seed: seed of the random maps.

    Returns:
        A map for each site of the receiver.

    Raises:
        TwinprobeError: a site that is none of the residual stream, texts that the models read as different tokens, too few
            of them, or rows that no map can be fitted on.
    """
    for name in sites or ("none",):
        if name not in STREAM:
            raise TwinprobeError(
                f"site {name!r} can not be mapped; expected {' or '.join(STREAM)}, the residual stream"
            )
    origins = _origins(receiver, donor, sites)
    own: dict[Site, list[torch.Tensor]] = {site: [] for site in origins}
    given: dict[Site, list[torch.Tensor]] = {site: [] for site in origins}
    pairs = zip(*(encode(each.tokenizer, texts, bos, sys.maxsize) for each in (receiver, donor)), strict=True)
    for mine, theirs in pairs:
        if mine.ids != theirs.ids:
            raise TwinprobeError(
                f"{receiver.spec.name} and {donor.spec.name} do not read neutral text {mine.text.id!r} as the same tokens; "
                "expected a pair with one tokenizer"
            )
        ids = mine.ids[: min(receiver.context, donor.context)]
        runs = [record(each, ids, suffixes=False) for each in (receiver, donor)]
        for site, origin in origins.items():
            own[site].append(runs[0].at(site)[FIRST:])
            given[site].append(runs[1].at(origin)[FIRST:])
    widest = max(receiver.d_model, donor.d_model)
    tokens = sum(map(len, next(iter(own.values()))))
    if tokens <= widest:
        raise TwinprobeError(
            f"{tokens} tokens of neutral text to map a space of width {widest}; expected more tokens than that"
        )
    maps = {}
    for site, origin in origins.items():
        rows = [np.concatenate([_numbers(part) for part in side.pop(site)]) for side in (own, given)]
        found = fit_maps(Neutral(rows[0], rows[1], np.full(tokens, "neutral")), n_draws=1, seed=seed)
        maps[site] = SiteMap(origin, found.fitted, found.random[0], tokens)
    return maps


def mapped_patch(
    receiver: LoadedModel,
    donor: LoadedModel,
    prompts: Sequence[Prompt],
    grids: Sequence[Grid],
    maps: Mapping[Site, SiteMap],
    *,
    names: tuple[str, str],
    random_items: int | None = None,
    check_exact: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> CrossPatching:
    """Patch mapped activations of the donor model into the receiver; see :func:`analyses.across.cross_patching.cross_patch`.

    Args:
        prompts: the same for both models (:func:`analyses.across.compatibility.same_prompts`), of other documents than the
            neutral texts.
        maps: from :func:`fit_donor`, at the sites of the grids.

    Returns:
        The same, with the donors ``mapped``, ``random_map``, ``identity`` and ``random`` (another item's, mapped).

    Raises:
        TwinprobeError: a grid's site has no map, or as there.
    """
    for grid in grids:
        if Site(grid.site, 0) not in maps:
            have = ", ".join(dict.fromkeys(site.name for site in maps)) or "none"
            raise TwinprobeError(f"no map was fitted for {grid.site!r}; there are maps for: {have}")
    return cross_patch(
        receiver, donor, prompts, grids, names=names, ways=_ways(maps), first=FIRST, random_items=random_items,
        check_exact=check_exact, seed=seed, progress=progress,
    )  # fmt: skip


def _origins(receiver: LoadedModel, donor: LoadedModel, sites: Sequence[str]) -> dict[Site, Site]:
    """The donor's site at the same relative depth as each of the receiver's."""
    found = {}
    for name in sites:
        for layer in range(receiver.n_layers):
            passed = (layer + (name == "resid_post")) * donor.n_layers / receiver.n_layers
            origin = floor(passed + 0.5) - (name == "resid_post")
            found[Site(name, layer)] = Site(name, min(max(origin, 0), donor.n_layers - 1))
    return found


def _ways(maps: Mapping[Site, SiteMap]) -> dict[str, Way]:
    def through(which: Callable[[SiteMap], OrthogonalMap]) -> Way:
        def way(run: Recording) -> States:
            def states(site: Site) -> torch.Tensor:
                import torch

                found = maps[site]
                return torch.from_numpy(which(found).apply(_numbers(run.at(found.site))))

            return states

        return way

    return {MAPPED: through(lambda found: found.fitted), RANDOM_MAP: through(lambda found: found.random)}


def _numbers(states: torch.Tensor) -> NDArray[np.float64]:
    return np.asarray(states.double().cpu().numpy(), dtype=np.float64)
