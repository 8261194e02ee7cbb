"""AtP*: attribution patching with the two corrections of Kramár et al. 2024 (arXiv 2403.00745).

Queries and keys act through a softmax, whose gradient vanishes where attention is saturated. The QK fix computes the
attention probabilities with the patched query or key and takes only the rest of the way by the gradient. A head's output
z is linear in its probabilities, so that effect is (z with the patched query or key - z) · gradient at z: the model's own
attention is run again, whatever its kernel and positions, and no probabilities need to be read. Heads are taken to be
independent, which a norm over all heads' queries together (OLMo 2) makes them only nearly.

GradDrop finds effects that two paths cancel in the gradient: the estimate is made once per layer with no gradient through
what that layer adds to the stream, and the magnitudes are averaged over the layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pandas as pd

from activations.engines.hooks import editing, reading
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import Site
from analyses.attribution.gradients import Slopes
from analyses.attribution.nodes import (
    MAX_TOKENS,
    NODES,
    Key,
    cells_frame,
    change,
    node_sites,
    per_head,
    run_pair,
)
from analyses.patching.runs import Run, run
from analyses.prompts import DIRECTIONS, Prompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

FIXED = ("q", "k")
STREAM = ("resid_pre", "resid_mid", "resid_post")
"""Sites that a layer's dropped contribution never cuts off altogether."""


def attribute_star(
    loaded: LoadedModel, prompt: Prompt, *, names: Sequence[str] = (*NODES, *FIXED), grad_drop: bool = True
) -> pd.DataFrame:
    """Estimate effects as :func:`analyses.attribution.nodes.attribute` does, with the QK fix for ``q`` and ``k``.

    With ``grad_drop``, ``effect`` and ``recovery`` are magnitudes, as they are means of magnitudes. A layer's own
    components are averaged over the other layers. It costs one backward pass per layer.

    Raises:
        TwinprobeError: as there, or ``grad_drop`` in a model of one layer.
    """
    if grad_drop and loaded.n_layers < 2:
        raise TwinprobeError(
            f"{loaded.spec.name} has one layer; GradDrop averages over the other layers, use grad_drop=False"
        )
    sites = node_sites(loaded, names)
    through = {site: replace(site, name="z") for site in sites if site.name in FIXED}
    needed = tuple(dict.fromkeys([*sites, *through.values()]))
    pair = run_pair(loaded, prompt, needed)
    estimates: dict[Key, list[torch.Tensor]] = {(direction, site): [] for direction in DIRECTIONS for site in sites}
    slopes: dict[Site, list[torch.Tensor]] = {z: [] for z in through.values()}
    for layer in range(loaded.n_layers) if grad_drop else [None]:
        gradients = pair.gradients if layer is None else run_pair(loaded, prompt, needed, layer).gradients
        for direction, site in estimates:
            if site not in through:
                slope = gradients[site][DIRECTIONS[direction][0]].float()
                estimates[direction, site].append(per_head(loaded, site, change(pair, direction, site) * slope))
        for z, found in slopes.items():
            found.append(gradients[z])
    for direction, (patched, _) in DIRECTIONS.items():
        recipient = run(loaded, (prompt.clean, prompt.corrupted)[patched])
        for site, z in through.items():
            at_z = [slope[patched].float() for slope in slopes[z]]
            estimates[direction, site] = _fixed(loaded, recipient, pair, direction, site, at_z)
    frame = cells_frame(
        loaded,
        prompt,
        pair,
        {key: _mean_magnitude(key[1], found) if grad_drop else found[0] for key, found in estimates.items()},
    )
    return frame.assign(recovery=frame["recovery"].abs()) if grad_drop else frame


def _mean_magnitude(site: Site, estimates: Sequence[torch.Tensor]) -> torch.Tensor:
    """Kramár et al. 2024, on GradDrop: the term of a component's own layer is 0 and not counted."""
    total: torch.Tensor = sum(estimate.abs() for estimate in estimates)  # type: ignore[assignment]
    return total / (len(estimates) if site.name in STREAM else len(estimates) - 1)


def _fixed(
    loaded: LoadedModel, recipient: Run, pair: Slopes, direction: str, site: Site, slopes: Sequence[torch.Tensor]
) -> list[Float[torch.Tensor, "pos head"]]:
    """The QK fix for one layer's queries or keys, once per gradient at z ``[pos, width]``."""
    import torch

    own, donor = (pair.activations[site][row] for row in DIRECTIONS[direction])
    if site.name == "q":
        # A query reaches its own position alone: all of them can be patched at once.
        moved = _moved_z(loaded, recipient, site, own, donor[None])[0]
        return [per_head(loaded, site, moved * slope) for slope in slopes]
    rows: list[list[torch.Tensor]] = [[] for _ in slopes]
    for part in torch.arange(len(own), device=own.device).split(max(1, MAX_TOKENS // len(own))):
        keys = own.repeat(len(part), 1, 1)
        keys[range(len(part)), part] = donor[part]
        moved = _moved_z(loaded, recipient, site, own, keys)
        for found, slope in zip(rows, slopes, strict=True):
            # A patched key is felt at every position after it.
            found.append(per_head(loaded, replace(site, name="z"), torch.einsum("kpw,pw->kw", moved, slope)))
    # Every key head serves a group of neighbouring query heads.
    return [torch.cat(found).unflatten(-1, (loaded.n_kv_heads, -1)).sum(-1) for found in rows]


class _Read(Exception):
    """Raised when z has been read; the rest of the block is not run."""


def _moved_z(
    loaded: LoadedModel,
    recipient: Run,
    site: Site,
    own: Float[torch.Tensor, "pos width"],
    patched: Float[torch.Tensor, "batch pos width"],
) -> Float[torch.Tensor, "batch pos z_width"]:
    """How far z of the run ``recipient`` moves when its layer's queries or keys are ``patched`` instead of its ``own``."""
    import torch

    assert site.layer is not None
    found: list[torch.Tensor] = []

    def keep(_site: Site, activation: torch.Tensor) -> None:
        found.append(activation.float())
        raise _Read

    # The run's own z comes from the same batch: what cannot move then differs by no rounding either.
    rows = torch.cat([patched, own[None]])
    args, kwargs = recipient.calls[site.layer]
    entering = recipient.resid_pre[site.layer].expand(len(rows), -1, -1)
    block = loaded.module(f"blocks.{site.layer}")
    with torch.inference_mode(), editing(loaded, site, lambda _: rows):
        with reading(loaded, [replace(site, name="z")], keep), suppress(_Read):
            block(entering, *args, **kwargs)
    return found[0][:-1] - found[0][-1]
