"""The training loop of every stage: seeded, checkpointed, resumed after a kill to the same loss curve."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analyses.pretraining.processes import Processes, processes

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from analyses.pretraining.design import Optimisation

Report = Callable[[str, int, int, str], None]
"""Progress: what is done, steps done, steps in all, a short note."""

Loss = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Ids and labels, both ``int64 [row, position]``, to their mean loss."""

UNSCORED = -100
"""The label of a token that no loss is taken on."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Token ids and labels, both ``int64 [row, position]``; the label of a token is the token itself or UNSCORED."""

    ids: torch.Tensor
    labels: torch.Tensor


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Linear warm-up over the first ``warmup`` share of the steps, then cosine decay to a tenth of ``peak``."""
    rise = max(1, int(steps * warmup))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * (0.1 + 0.45 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise))))


def optimise(
    model: PreTrainedModel,
    batch_at: Callable[[int], Batch],
    steps: int,
    settings: Optimisation,
    checkpoint: Path,
    name: str,
    report: Report,
) -> list[float]:
    """Train ``model`` in place on the batches of ``steps`` steps; return the loss of every step, in nats per token.

    A checkpoint is written every ``settings.checkpoint_every`` steps under a temporary name and renamed. Where there is one,
    training goes on from it; as ``batch_at`` is a function of the step alone, the losses continue as if nothing had happened.
    With several processes (see :mod:`analyses.pretraining.processes`) each computes its rows of every batch.
    """
    import torch

    crowd = processes()
    model.to(crowd.device)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=settings.learning_rate, betas=(0.9, 0.95), weight_decay=settings.weight_decay, fused=True
    )
    start, losses = 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=crowd.device, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start, losses = state["step"], state["losses"]
    loss_of = loss_function(model, settings.precision)
    step_loss = torch.compile(loss_of) if settings.compile else loss_of
    began = time.monotonic()
    for step in range(start, steps):
        batch = batch_at(step)
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, steps, settings.learning_rate, settings.warmup)
        if crowd.count == 1:
            loss = step_loss(batch.ids, batch.labels)
            loss.backward()
        else:
            loss = _loss_of_all(step_loss, batch, model, crowd)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss.item())
        if (step + 1) % settings.checkpoint_every == 0 and crowd.first:
            _write_checkpoint(
                checkpoint,
                {"model": model.state_dict(), "optimiser": optimiser.state_dict(), "step": step + 1, "losses": losses},
            )
        left = (time.monotonic() - began) / (step + 1 - start) * (steps - step - 1)
        report(name, step + 1, steps, f"loss {np.mean(losses[-50:]):.3f}, {left / 60:.1f} min left")
    return losses


def _loss_of_all(step_loss: Loss, batch: Batch, model: PreTrainedModel, crowd: Processes) -> torch.Tensor:
    """The loss of the whole batch; every process is left with the whole batch's gradients."""
    rows = slice(crowd.rank, None, crowd.count)
    ids, labels = batch.ids[rows], batch.labels[rows]
    scored = int((labels[:, 1:] != UNSCORED).sum())
    if not scored:  # a mean over nothing is not a number, which times zero is none either
        ids = labels = batch.ids[:1]
    loss = step_loss(ids, labels) * (scored / int((batch.labels[:, 1:] != UNSCORED).sum()))
    loss.backward()
    crowd.sum_gradients(model)
    return crowd.sum(loss.detach())


def loss_function(model: PreTrainedModel, precision: str) -> Loss:
    """Mean cross-entropy per scored token, in nats, of ids and labels ``[row, position]``, on the model's device."""
    import torch

    device = model.device

    def loss(ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        ids, labels = ids.to(device), labels.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            logits = model(input_ids=ids, use_cache=False).logits
        flat = logits[:, :-1].reshape(-1, logits.shape[-1]).float()
        return torch.nn.functional.cross_entropy(flat, labels[:, 1:].reshape(-1), ignore_index=UNSCORED)

    return loss


def _write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    import torch

    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as handle:
        torch.save(state, handle)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(path)
