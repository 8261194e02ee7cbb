"""Attribution patching: an estimate of every cell's effect from a few gradients, for one contrast prompt.

The effect of a patch is estimated by (donor activation - own activation) · gradient of the logit difference (AtP: Nanda
2023; Syed et al. 2023, arXiv 2310.10348). Denoising patches the corrupted run with the clean one, noising the clean run
with the corrupted one; each takes the gradient of the run it patches. Where that gradient is flat the estimate misses an
effect; the integrated variants average the gradient over a path between the runs:

- ``ig-inputs``: all of what enters the first layer goes from one run to the other (EAP-IG: Hanna et al. 2024, arXiv
  2403.17806, for nodes instead of edges);
- ``ig-activations``: the site itself goes from one run to the other at all positions, the rest of the run follows
  (Marks et al. 2024, arXiv 2403.19647). Then the estimates of a site's cells add up to the effect of patching them all.

Every estimate is to be reported beside its agreement with exact effects, see :mod:`analyses.attribution.agreement`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from activations.engines.hooks import editing
from activations.engines.places import locate
from activations.errors import TwinprobeError, did_you_mean
from activations.models import LoadedModel
from activations.sites import KV_HEADS, WITH_HEADS, Site
from analyses.attribution.gradients import Slopes, differentiate
from analyses.prompts import CLEAN, CORRUPTED, DIRECTIONS, Prompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

NODES = ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out", "z")
METHODS = ("atp", "ig-inputs", "ig-activations")
MAX_TOKENS = 2048
"""Tokens whose gradients are taken together; bounds memory however many steps are asked for."""

Key = tuple[str, Site]
"""A direction and a site."""


def attribute(
    loaded: LoadedModel, prompt: Prompt, *, names: Sequence[str] = NODES, method: str = "atp", steps: int = 10
) -> pd.DataFrame:
    """Estimate the effect of patching each cell alone: site × position, or × head × position where the site has heads.

    Args:
        loaded: a decoder; it is left as it was found, also after an error.
        prompt: the contrast.
        names: sites, of which every layer is taken. Models with parallel blocks have no ``resid_mid``; it is left out.
        method: one of ``METHODS``.
        steps: gradients averaged by the integrated methods, at the middles of as many equal parts of the path.

    Returns:
        One line per direction and cell: item, group, direction, site, layer, head (missing where the site has none),
        position, token, role, differs (whether the two runs differ there; elsewhere the effect is exactly 0), effect
        (logits) and recovery (effect divided by the clean-corrupted gap; negative for noising that does harm).

    Raises:
        TwinprobeError: the model is quantised, is no decoder or lacks a site, an unknown method, or no steps.
    """
    if method not in METHODS:
        raise TwinprobeError(
            f"attribution method {method!r} is not known{did_you_mean(method, METHODS)}; known: {', '.join(METHODS)}"
        )
    if steps < 1:
        raise TwinprobeError(f"integrated gradients over {steps} steps; expected 1 or more")
    sites = node_sites(loaded, names)
    entering = Site("resid_pre", 0)
    pair = run_pair(loaded, prompt, tuple(dict.fromkeys([entering, *sites])))
    averaged = _along_path(loaded, prompt, pair, CORRUPTED, entering, sites, steps) if method == "ig-inputs" else {}
    effects: dict[Key, torch.Tensor] = {}
    for direction, (patched, _) in DIRECTIONS.items():
        for site in sites:
            if method == "atp":
                slope = pair.gradients[site][patched].float()
            elif method == "ig-inputs":
                slope = averaged[site]
            else:
                slope = _along_path(loaded, prompt, pair, patched, site, [site], steps)[site]
            effects[direction, site] = per_head(loaded, site, change(pair, direction, site) * slope)
    return cells_frame(loaded, prompt, pair, effects)


def node_sites(loaded: LoadedModel, names: Sequence[str]) -> tuple[Site, ...]:
    """Every layer of the sites ``names``, without ``resid_mid`` where the model's blocks are parallel."""
    return loaded.sites([f"{name}.*" for name in names if name != "resid_mid" or not loaded.parallel])


def run_pair(loaded: LoadedModel, prompt: Prompt, sites: Sequence[Site], dropped: int | None = None) -> Slopes:
    """Activations and gradients of the clean and the corrupted run, in one batch; see :func:`differentiate`."""
    return differentiate(loaded, prompt, [prompt.clean, prompt.corrupted], sites, dropped)


def change(pair: Slopes, direction: str, site: Site) -> Float[torch.Tensor, "pos width"]:
    """What a patch of the whole site would add to its activation."""
    patched, donor = DIRECTIONS[direction]
    activations = pair.activations[site].float()
    return activations[donor] - activations[patched]


def per_head(
    loaded: LoadedModel, site: Site, products: Float[torch.Tensor, "... width"]
) -> Float[torch.Tensor, "... head"]:
    """Sums over the width of each head of the site; over the whole width where it has no heads."""
    return products.unflatten(-1, (_n_heads(loaded, site), -1)).sum(-1)


def _n_heads(loaded: LoadedModel, site: Site) -> int:
    if site.name not in WITH_HEADS:
        return 1
    return loaded.n_kv_heads if site.name in KV_HEADS else loaded.n_heads


def _along_path(
    loaded: LoadedModel, prompt: Prompt, pair: Slopes, patched: int, moved: Site, sites: Sequence[Site], steps: int
) -> dict[Site, torch.Tensor]:
    """Mean gradient at ``sites`` in the run ``patched`` while ``moved`` goes from the corrupted to the clean run."""
    import torch

    place = locate(loaded, moved)
    clean, corrupted = (place.read(row) for row in pair.activations[moved])
    ids = (prompt.clean, prompt.corrupted)[patched]
    middles = ((torch.arange(steps, device=clean.device) + 0.5) / steps).to(clean.dtype)
    totals: dict[Site, torch.Tensor] = {}
    for shares in middles.split(max(1, MAX_TOKENS // len(ids))):
        path = torch.lerp(corrupted, clean, shares[:, None, None]).requires_grad_()
        with editing(loaded, moved, partial(_instead, path)):
            found = differentiate(loaded, prompt, [ids] * len(shares), sites).gradients
        for site in sites:
            total = found[site].float().sum(0)
            totals[site] = totals[site] + total if site in totals else total
    return {site: total / steps for site, total in totals.items()}


def _instead(path: torch.Tensor, _activation: torch.Tensor) -> torch.Tensor:
    return path


def cells_frame(
    loaded: LoadedModel, prompt: Prompt, pair: Slopes, effects: Mapping[Key, Float[torch.Tensor, "pos head"]]
) -> pd.DataFrame:
    """The table that :func:`attribute` describes; ``pair`` is the two plain runs."""
    gap = float(pair.differences[CLEAN] - pair.differences[CORRUPTED])
    frames = []
    for (direction, site), values in effects.items():
        differs = per_head(loaded, site, (change(pair, direction, site) != 0).float()) > 0
        n_positions, n_heads = values.shape
        positions = [position for position in range(n_positions) for _ in range(n_heads)]
        columns: dict[str, Any] = {
            "item": prompt.item,
            "group": prompt.group,
            "direction": direction,
            "site": site.name,
            "layer": site.layer,
            "head": pd.array(
                [head if site.name in WITH_HEADS else None for _ in range(n_positions) for head in range(n_heads)],
                dtype="Int64",
            ),
            "position": positions,
            "token": [prompt.tokens[position] for position in positions],
            "role": [prompt.roles[position] for position in positions],
            "differs": differs.flatten().cpu().numpy(),
            "effect": values.double().flatten().cpu().numpy(),
        }
        frames.append(pd.DataFrame(columns))
    cells = pd.concat(frames, ignore_index=True)
    return cells.assign(recovery=cells["effect"] / gap)
