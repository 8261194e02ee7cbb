"""The logit lens: what a model would answer if it stopped after a layer (nostalgebraist 2020).

The residual stream that leaves each block is put through the model's own final norm and head at the last position. This
happens within an ordinary forward pass, in front of the unembedding, so that whatever a model does to its logits after it
(scaling, soft caps) is done to these too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from activations.engines.hooks import reading
from activations.errors import TwinprobeError
from activations.inputs import batches, pad, pad_id
from activations.models import LoadedModel
from activations.sites import Site
from analyses.prompts import Prompt
from analyses.same_logits import same_logits
from probes.metrics import cluster_bootstrap

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

MAX_TOKENS = 2048
"""Tokens and layers of the prompts that are run together: each layer gives a row of logits. Bounds memory."""


def lens_logits(
    loaded: LoadedModel, prompts: Sequence[Sequence[int]]
) -> Iterator[tuple[int, Float[torch.Tensor, "layer vocab"]]]:
    """The number of each prompt (token ids) and the logits at its last position after each layer.

    Those after the last layer are the model's own. ``loaded`` is left as it was found, also after an error.

    Raises:
        TwinprobeError: the model is no decoder, or does more between its last layer and its logits than is known here.
    """
    import torch

    loaded.require_decoder()
    sites = [Site("resid_post", layer) for layer in range(loaded.n_layers)]
    norm = loaded.module("ln_final")
    states: dict[Site, torch.Tensor] = {}
    for numbers in batches([len(ids) + len(sites) for ids in prompts], MAX_TOKENS):
        tokens, mask = pad([prompts[number] for number in numbers], pad_id(loaded.tokenizer), loaded.device)
        last = mask.sum(1) - 1

        def keep_last(site: Site, activation: torch.Tensor, last: torch.Tensor = last) -> None:
            states[site] = _at(activation, last)

        def every_layer(
            _module: torch.nn.Module, args: tuple[torch.Tensor, ...], last: torch.Tensor = last
        ) -> tuple[torch.Tensor, ...]:
            own = _at(args[0], last)
            layers = norm(torch.stack([states[site].to(own.device) for site in sites], dim=1))
            return (torch.cat([layers, own[:, None]], dim=1), *args[1:])

        with torch.inference_mode(), reading(loaded, sites, keep_last):
            handle = loaded.module("unembed").register_forward_pre_hook(every_layer)
            try:
                logits = loaded.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits
            finally:
                handle.remove()
        if not same_logits(logits[:, -2], logits[:, -1]):
            raise TwinprobeError(
                f"the logit lens of {type(loaded.model).__name__} is not exact: final norm and unembedding of its last "
                "layer are not its logits; this architecture is not supported"
            )
        yield from zip(numbers, logits[:, :-1], strict=True)


def _at(activation: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
    """The state ``[batch, width]`` of each line's last token in ``[batch, pos, width]``."""
    import torch

    rows = last.to(activation.device)
    return activation[torch.arange(len(rows), device=rows.device), rows]


def logit_lens(loaded: LoadedModel, prompts: Sequence[Prompt]) -> pd.DataFrame:
    """Rank and logit difference of the answer after each layer, in both texts of every prompt.

    Returns:
        item, group, difficulty, text (``clean`` or ``corrupted``), layer; rank of the text's own answer in the whole
        vocabulary (1 is the highest logit); logit_difference: its logit minus that of the other text's answer.

    Raises:
        TwinprobeError: see :func:`lens_logits`.
    """
    lines: list[dict[str, Any]] = []
    texts = [*(prompt.clean for prompt in prompts), *(prompt.corrupted for prompt in prompts)]
    for number, logits in lens_logits(loaded, texts):
        prompt, corrupted = prompts[number % len(prompts)], number >= len(prompts)
        own = prompt.contrast if corrupted else prompt.answer
        ranks = 1 + (logits > logits[:, own, None]).sum(1)
        difference = prompt.logit_difference(logits).float() * (-1 if corrupted else 1)
        about = {"item": prompt.item, "group": prompt.group, "difficulty": prompt.difficulty}
        lines += [
            {
                **about,
                "text": "corrupted" if corrupted else "clean",
                "layer": layer,
                "rank": rank,
                "logit_difference": each,
            }
            for layer, (rank, each) in enumerate(zip(ranks.tolist(), difference.tolist(), strict=True))
        ]
    return pd.DataFrame(lines)


def by_layer(
    rows: pd.DataFrame, *, clusters: Literal["item", "group"], n_resamples: int = 1000, seed: int = 0
) -> pd.DataFrame:
    """Means over prompts and both texts per layer.

    Returns:
        layer, prompts, clusters, logit_difference with low and high (95% interval over resampled clusters), median_rank,
        first (the share of texts whose answer has rank 1).
    """
    lines = []
    for layer, part in rows.groupby("layer"):
        interval = cluster_bootstrap(part.logit_difference.to_numpy(), part[clusters].to_numpy(), n_resamples, seed)
        lines.append(
            {
                "layer": layer,
                "prompts": part["item"].nunique(),
                "clusters": part[clusters].nunique(),
                "logit_difference": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "median_rank": part["rank"].median(),
                "first": (part["rank"] == 1).mean(),
            }
        )
    return pd.DataFrame(lines)
