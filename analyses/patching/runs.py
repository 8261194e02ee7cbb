"""Exact activation patching of the residual stream: denoising over layer × position, one item at a time.

The corrupted run is repeated with one activation taken from the clean run; the effect is the change of the logit
difference between the clean and the contrast answer, the recovery that change divided by the clean-corrupted gap (Zhang
& Nanda 2024; Heimersheim & Nanda 2024).

Only what a patch can change is computed: blocks above the patched one, and the unembedding of the last position. Each
patched copy of the prompt joins a growing batch at its layer, so that all cells of an item go up through the network
together. The blocks are called with the very arguments the model's own forward pass gave them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from activations.engines.hooks import editing, first_tensor, input_tensor
from activations.errors import TwinprobeError
from activations.models import LoadedModel
from activations.sites import Site

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

HEAD_TOLERANCE = 1e-3
MAX_ROW_TOKENS = 16_384
"""Padded tokens in one block call; bounds memory however many cells are asked for."""


@dataclass(frozen=True)
class Cell:
    """One patch: the residual stream entering ``layer`` is replaced at ``positions``."""

    layer: int
    positions: tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """One prompt's forward pass: what entered each block, how each block was called, the last position's logits."""

    ids: tuple[int, ...]
    resid_pre: Float[torch.Tensor, "layer pos d_model"]
    calls: tuple[tuple[tuple[Any, ...], dict[str, Any]], ...]
    logits: Float[torch.Tensor, "... vocab"]


def run(loaded: LoadedModel, ids: Sequence[int]) -> Run:
    """Run one prompt and record what patching needs."""
    import torch

    entering: list[torch.Tensor] = []
    calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def record(_module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entering.append(input_tensor(args, kwargs)[0])
        calls.append((args[1:], {name: value for name, value in kwargs.items() if name != "hidden_states"}))

    with _pre_hooks([loaded.module(f"blocks.{layer}") for layer in range(loaded.n_layers)], record):
        with torch.inference_mode():
            tokens = torch.tensor([list(ids)], device=loaded.device)
            logits = loaded.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits
    return Run(
        tuple(ids), torch.stack([tensor.to(entering[0].device) for tensor in entering]), tuple(calls), logits[0, -1]
    )


@contextmanager
def _pre_hooks(modules: Sequence[torch.nn.Module], record: Any) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(record, with_kwargs=True) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def patched_logits(
    loaded: LoadedModel, corrupted: Run, donor: Float[torch.Tensor, "layer pos d_model"], cells: Sequence[Cell]
) -> Float[torch.Tensor, "cell vocab"]:
    """Logits at the last position of the corrupted prompt, once per cell with the donor's activations put in.

    Args:
        loaded: the model.
        corrupted: the run that is patched.
        donor: what entered each block in the run the activations come from, for a prompt of the same length.
        cells: the patches; each is a run of its own.

    Raises:
        TwinprobeError: donor and corrupted run differ in shape.
    """
    import torch

    if donor.shape != corrupted.resid_pre.shape:
        received, expected = (
            "{} layers × {} tokens × width {}".format(*shape) for shape in (donor.shape, corrupted.resid_pre.shape)
        )
        raise TwinprobeError(
            f"the donor run has {received}, the corrupted run {expected}; patching needs prompts with the same number of "
            "tokens and models of one shape"
        )
    out = torch.empty(
        (len(cells), corrupted.logits.shape[-1]), device=corrupted.logits.device, dtype=corrupted.logits.dtype
    )
    order = sorted(range(len(cells)), key=lambda index: cells[index].layer)
    size = max(1, MAX_ROW_TOKENS // len(corrupted.ids))
    with torch.inference_mode():
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            out[chosen] = _climb(loaded, corrupted, donor, [cells[index] for index in chosen])
    return out


def _climb(loaded: LoadedModel, corrupted: Run, donor: torch.Tensor, cells: Sequence[Cell]) -> torch.Tensor:
    """Take patched copies through the blocks; ``cells`` are in order of layer, and so are the rows that come back."""
    import torch

    states = corrupted.resid_pre[:0]
    for layer in range(cells[0].layer, loaded.n_layers):
        joining = [cell for cell in cells if cell.layer == layer]
        if joining:
            fresh = corrupted.resid_pre[layer].expand(len(joining), -1, -1).clone()
            rows = [row for row, cell in enumerate(joining) for _ in cell.positions]
            positions = [position for cell in joining for position in cell.positions]
            fresh[rows, positions] = donor[layer, positions]
            states = torch.cat([states, fresh]) if len(states) else fresh
        args, kwargs = corrupted.calls[layer]
        states = first_tensor(loaded.module(f"blocks.{layer}")(states, *args, **kwargs))
    return head_logits(loaded, states[:, -1:])[:, 0]


def head_logits(loaded: LoadedModel, states: torch.Tensor) -> torch.Tensor:
    """Logits of states that leave the last block, with the model's own scaling and soft cap."""
    logits: torch.Tensor = loaded.module("unembed")(loaded.module("ln_final")(states))
    config = loaded.model.config.get_text_config()
    logits = logits / getattr(config, "logits_scaling", 1.0)  # Granite
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma2
    return logits if cap is None else (logits / cap).tanh() * cap


def check_head(loaded: LoadedModel, reference: Run) -> None:
    """Make sure that recomputing from the last block on gives the model's own logits.

    Raises:
        TwinprobeError: this architecture does something to its logits that is not accounted for here.
    """
    last = loaded.n_layers - 1
    again = patched_logits(loaded, reference, reference.resid_pre, [Cell(last, ())])[0]
    error = float((again - reference.logits).abs().max())
    scale = max(1.0, float(reference.logits.abs().max()))
    if error > HEAD_TOLERANCE * scale * (1 if reference.logits.dtype.itemsize == 4 else 30):
        raise TwinprobeError(
            f"patching {type(loaded.model).__name__} is not exact: recomputed logits are off by {error:.2g}; "
            "this architecture is not supported"
        )


def hooked_logits(loaded: LoadedModel, corrupted: Run, donor: torch.Tensor, cell: Cell) -> torch.Tensor:
    """The same as :func:`patched_logits` for one cell by a plain full forward pass with a hook, to check against."""
    import torch

    def put(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed[:, list(cell.positions)] = donor[cell.layer, list(cell.positions)].to(tensor.device)
        return changed

    tokens = torch.tensor([list(corrupted.ids)], device=loaded.device)
    with torch.inference_mode(), editing(loaded, Site("resid_pre", cell.layer), put):
        return loaded.model(input_ids=tokens, attention_mask=torch.ones_like(tokens), use_cache=False).logits[0, -1]


def differing_cells(clean: Run, corrupted: Run) -> list[Cell]:
    """One cell per layer and position where the two runs differ at all; elsewhere a patch changes nothing."""
    different = (clean.resid_pre != corrupted.resid_pre).any(-1).cpu().numpy()
    return [Cell(int(layer), (int(position),)) for layer, position in np.argwhere(different)]
