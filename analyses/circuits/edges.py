"""Edge attribution patching: from one gradient, an estimate of what patching every single edge would do.

An edge's effect is estimated as (the donor's output of its sender - the patched run's) · the gradient at the input of its
receiver, summed over positions (EAP: Syed et al. 2023, arXiv 2310.10348). ``eap-ig`` averages that gradient while what
enters the first layer goes from the corrupted to the clean run (Hanna et al. 2024, arXiv 2403.17806; at the middles of
equal parts of the path).

The gradient at one receiver's input is not one that a backward pass comes by, as the receivers of a layer share theirs.
It is pulled back from what the receiver makes of it (queries, keys and values of a head, its z where the three are
computed in one, the MLP's output) through that part of the block alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from activations.engines.hooks import editing
from activations.engines.places import locate
from activations.errors import TwinprobeError, did_you_mean
from activations.models import LoadedModel
from activations.sites import Site
from analyses.attribution.gradients import Slopes, differentiate
from analyses.circuits.graph import Graph, Kept, Scores
from analyses.circuits.outputs import Contributed, contributed, sites_of
from analyses.circuits.parts import by_site, few, read_receiver, thawed
from analyses.patching.recording import Call
from analyses.prompts import DIRECTIONS, Prompt

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

METHODS = ("eap", "eap-ig")
MAX_TOKENS = 2048
"""Tokens whose gradients are taken together; bounds memory however many steps are asked for."""


@dataclass(frozen=True, eq=False)
class Runs:
    """The clean and the corrupted run of a prompt, taken apart, and how far apart their logit differences are."""

    clean: Contributed
    corrupted: Contributed
    gap: float

    def __getitem__(self, row: int) -> Contributed:
        return (self.clean, self.corrupted)[row]


def runs_of(loaded: LoadedModel, graph: Graph, prompt: Prompt, *, suffixes: bool = False) -> Runs:
    """Run both texts of a prompt; ``suffixes``: see :func:`analyses.patching.recording.record`."""
    clean, corrupted = (contributed(loaded, graph, ids, suffixes=suffixes) for ids in (prompt.clean, prompt.corrupted))
    ends = [float(prompt.logit_difference(one.recording.logits)) for one in (clean, corrupted)]
    return Runs(clean, corrupted, ends[0] - ends[1])


def edge_scores(
    loaded: LoadedModel,
    graph: Graph,
    prompt: Prompt,
    *,
    method: str = "eap-ig",
    steps: int = 5,
    direction: str = "noising",
    runs: Runs | None = None,
) -> Scores:
    """Estimate the effect of patching each edge alone, in logits.

    Args:
        loaded: a decoder; it is left as it was found, also after an error.
        graph: its graph.
        prompt: the contrast.
        method: one of ``METHODS``.
        steps: gradients averaged by ``eap-ig``.
        direction: ``noising`` patches the clean run by the corrupted one, which is the direction of circuits;
            ``denoising`` the corrupted by the clean one.
        runs: those of this prompt, where they are known.

    Returns:
        One number per receiver and sender, 0 where there is no edge.

    Raises:
        TwinprobeError: the model is quantised, an unknown method or direction, or no steps.
    """
    check_options(method, direction, steps)
    patched, donor = DIRECTIONS[direction]
    both = runs or runs_of(loaded, graph, prompt)
    gradients = _input_gradients(loaded, graph, prompt, both, patched, steps if method == "eap-ig" else 0)
    changes = (both[donor].outputs - both[patched].outputs).flatten(1)
    found = gradients.flatten(1) @ changes.to(gradients).T
    return np.where(graph.every, found.double().cpu().numpy(), 0.0)


def edge_table(
    graph: Graph, prompt: Prompt, scores: Scores, direction: str, gap: float, kept: Kept | None = None
) -> pd.DataFrame:
    """One line per edge of the graph, or of a circuit of it.

    Columns: item, group, direction, sender, receiver, effect (logits) and recovery (effect / ``gap``). ``gap``
    is the logit difference of the clean minus that of the corrupted run; noising that does harm is negative.
    """
    chosen = graph.every if kept is None else kept
    names, effects = graph.names(chosen), scores[chosen]
    return pd.DataFrame(
        {
            "item": prompt.item,
            "group": prompt.group,
            "direction": direction,
            "sender": [sender for sender, _ in names],
            "receiver": [receiver for _, receiver in names],
            "effect": effects,
            "recovery": effects / gap,
        }
    )


def check_options(method: str, direction: str, steps: int) -> None:
    """Make sure that edges can be scored in this way.

    Raises:
        TwinprobeError: the method or the direction is not known, or there are no steps.
    """
    for value, known, what in ((method, METHODS, "edge attribution method"), (direction, DIRECTIONS, "direction")):
        if value not in known:
            raise TwinprobeError(
                f"{what} {value!r} is not known{did_you_mean(value, known)}; known: {', '.join(known)}"
            )
    if steps < 1:
        raise TwinprobeError(f"integrated gradients over {steps} steps; expected 1 or more")


def _input_gradients(
    loaded: LoadedModel, graph: Graph, prompt: Prompt, runs: Runs, patched: int, steps: int
) -> Float[torch.Tensor, "receiver pos d_model"]:
    """The gradient of the logit difference at every receiver's input, in a run or averaged along the path."""
    import torch

    calls = [thawed(call) for call in runs[patched].recording.calls]
    total = torch.zeros(len(graph.receivers), *runs.clean.outputs.shape[1:], device=runs.clean.outputs.device)
    rows = 0
    for slopes in _slopes(loaded, graph, prompt, runs, patched, steps):
        rows += len(slopes.differences)
        for site, numbers in by_site(graph.receivers):
            if site is None or site.layer is None:
                total[numbers] += slopes.gradients[Site("resid_post", loaded.n_layers - 1)].float().sum(0)
                continue
            heads = [graph.receivers[number].site for number in numbers]
            for pulled in _pulled_back(loaded, graph, calls[site.layer], slopes, site, heads):
                total[numbers] += pulled.to(total.device)
    return total / rows


def _slopes(
    loaded: LoadedModel, graph: Graph, prompt: Prompt, runs: Runs, patched: int, steps: int
) -> Iterator[Slopes]:
    """Activations and gradients in the patched run, or at steps of the path from the corrupted to the clean run."""
    import torch

    layers = range(loaded.n_layers)
    stream = [*(Site("resid_pre", layer) for layer in layers), Site("resid_post", loaded.n_layers - 1)]
    sites = tuple(dict.fromkeys([*stream, *sites_of(graph)]))
    ids = (prompt.clean, prompt.corrupted)[patched]
    if not steps:
        yield differentiate(loaded, prompt, [ids], sites)
        return
    clean, corrupted = (run.recording.stream[0].clone() for run in (runs.clean, runs.corrupted))
    middles = ((torch.arange(steps, device=clean.device) + 0.5) / steps).to(clean.dtype)
    for shares in middles.split(max(1, MAX_TOKENS // len(ids))):
        path = torch.lerp(corrupted, clean, shares[:, None, None]).requires_grad_()
        with editing(loaded, stream[0], partial(_instead, path)):
            slopes = differentiate(loaded, prompt, [ids] * len(shares), sites)
        yield slopes


def _instead(path: torch.Tensor, _activation: torch.Tensor) -> torch.Tensor:
    return path


def _pulled_back(
    loaded: LoadedModel, graph: Graph, call: Call, slopes: Slopes, site: Site, heads: Sequence[Site | None]
) -> Iterator[Float[torch.Tensor, "receiver pos d_model"]]:
    """Gradients at the inputs of the heads of a site, summed over some rows of the slopes."""
    import torch

    name = "resid_mid" if site.name == "mlp_out" and not graph.parallel else "resid_pre"
    inputs, beside = (slopes.activations[replace(site, name=each)] for each in (name, "resid_pre"))
    place, count = locate(loaded, site), len(heads)
    for rows in few(len(inputs), inputs.shape[1] * count, MAX_TOKENS):
        leaf = inputs[rows].repeat_interleave(count, 0).requires_grad_()
        gradient = slopes.gradients[site][rows] / place.scale  # with respect to what is added to the stream
        weights = torch.zeros_like(gradient.repeat_interleave(count, 0))
        for number, head in enumerate(heads):
            columns = slice(None) if head is None else locate(loaded, head).columns
            weights[number::count, :, columns] = gradient[..., columns]
        with torch.enable_grad():
            found = read_receiver(loaded, call, site, leaf, beside[0])
            # Rows do not see each other: the gradient of their sum is each row's own.
            [pulled] = torch.autograd.grad((found * weights).float().sum(), [leaf])
        yield pulled.float().unflatten(0, (-1, count)).sum(0)
