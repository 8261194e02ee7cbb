"""Patch every layer × position of the items a model gets right, and keep the values of every item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from activations.models import LoadedModel
from analyses.last_logits import last_logits
from analyses.patching.runs import Cell, Run, check_head, differing_cells, hooked_logits, patched_logits, run
from analyses.prompts import Prompt
from probes.metrics import cluster_bootstrap

MIN_GAP = 0.1
"""Items whose clean-corrupted gap in logit difference is smaller are dropped and counted: recovery divides by it."""


@dataclass(frozen=True)
class Patching:
    """The outcome for one model, task and form.

    ``retention``: one line per prompt (item, group, difficulty, clean_right, corrupted_right, clean, corrupted, gap,
    status). ``cells``: one line per retained item, layer and position (effect in logits, recovery). ``max_error``: the
    largest difference from a plain full forward pass with a hook, over ``checked`` random cells.
    """

    retention: pd.DataFrame
    cells: pd.DataFrame
    checked: int
    max_error: float


def patch_prompts(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    max_items: int,
    check_exact: int = 3,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Patching:
    """Denoise ``resid_pre`` at every layer × position of up to ``max_items`` retained prompts.

    An item is retained when the model prefers the right answer among the candidates in both the clean and the corrupted
    text. Cells where the two runs are equal have an effect of exactly zero and are not recomputed. ``progress`` is called
    with steps done and steps in all: both texts of every prompt are read, then every prompt is patched or passed over.
    """
    generator = np.random.default_rng(seed)
    total = 3 * len(prompts)
    check_head(loaded, run(loaded, prompts[0].clean))
    retention = _retention(loaded, prompts, lambda read: progress(read, total))
    frames, errors = [], [0.0]
    patched = checked = 0
    for number, (prompt, line) in enumerate(zip(prompts, retention, strict=True), 1):
        if line["status"] == "retained" and patched >= max_items:
            line["status"] = "retained, not patched"
        elif line["status"] == "retained":
            clean, corrupted = run(loaded, prompt.clean), run(loaded, prompt.corrupted)
            cells = differing_cells(clean, corrupted)
            frames.append(_patch_item(loaded, prompt, clean, corrupted, cells, line["gap"]))
            patched += 1
            if checked < check_exact and cells:
                cell = cells[int(generator.integers(len(cells)))]
                expected = hooked_logits(loaded, corrupted, clean.resid_pre, cell)
                found = patched_logits(loaded, corrupted, clean.resid_pre, [cell])[0]
                errors.append(float((expected - found).abs().max()))
                checked += 1
        progress(2 * len(prompts) + number, total)
    columns = ["item", "group", "layer", "position", "token", "role", "effect", "recovery"]
    cells_frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    return Patching(pd.DataFrame(retention), cells_frame, checked, max(errors))


def _retention(loaded: LoadedModel, prompts: Sequence[Prompt], advance: Callable[[int], None]) -> list[dict[str, Any]]:
    """How the model answers both texts of every prompt, and whether that makes it one to patch."""
    right: dict[int, bool] = {}
    difference: dict[int, float] = {}
    texts = [*(prompt.clean for prompt in prompts), *(prompt.corrupted for prompt in prompts)]
    for read, (number, logits) in enumerate(last_logits(loaded, texts), 1):
        prompt = prompts[number % len(prompts)]
        right[number] = prompt.right(logits, corrupted=number >= len(prompts))
        difference[number] = float(prompt.logit_difference(logits))
        advance(read)
    lines = []
    for clean, prompt in enumerate(prompts):
        corrupted = clean + len(prompts)
        gap = difference[clean] - difference[corrupted]
        if not (right[clean] and right[corrupted]):
            status = "answered wrongly"
        elif gap < MIN_GAP:
            status = "gap too small"
        else:
            status = "retained"
        lines.append(
            {
                "item": prompt.item,
                "group": prompt.group,
                "difficulty": prompt.difficulty,
                "clean_right": right[clean],
                "corrupted_right": right[corrupted],
                "clean": difference[clean],
                "corrupted": difference[corrupted],
                "gap": gap,
                "status": status,
            }
        )
    return lines


def _patch_item(
    loaded: LoadedModel, prompt: Prompt, clean: Run, corrupted: Run, cells: Sequence[Cell], gap: float
) -> pd.DataFrame:
    effects = np.zeros((loaded.n_layers, len(prompt.clean)))
    before = prompt.logit_difference(corrupted.logits)
    after = prompt.logit_difference(patched_logits(loaded, corrupted, clean.resid_pre, cells))
    for cell, effect in zip(cells, (after - before).float().tolist(), strict=True):
        effects[cell.layer, cell.positions[0]] = effect
    layers, positions = np.indices(effects.shape).reshape(2, -1)
    return pd.DataFrame(
        {
            "item": prompt.item,
            "group": prompt.group,
            "layer": layers,
            "position": positions,
            "token": [prompt.tokens[position] for position in positions],
            "role": [prompt.roles[position] for position in positions],
            "effect": effects.ravel(),
            "recovery": effects.ravel() / gap,
        }
    )


def by_role(cells: pd.DataFrame, seed: int = 0, n_resamples: int = 1000) -> pd.DataFrame:
    """Mean recovery per layer and role: first over an item's tokens of that role, then over items.

    Returns:
        Columns layer, role, recovery, low, high (95% item bootstrap), effect, items.
    """
    if cells.empty:
        return pd.DataFrame(columns=["layer", "role", "recovery", "low", "high", "effect", "items"])
    per_item = cells.groupby(["layer", "role", "item"], as_index=False)[["effect", "recovery"]].mean()
    lines = []
    for (layer, role), part in per_item.groupby(["layer", "role"]):
        interval = cluster_bootstrap(part.recovery.to_numpy(), part["item"].to_numpy(), n_resamples, seed)
        lines.append(
            {
                "layer": layer,
                "role": role,
                "recovery": interval.estimate,
                "low": interval.low,
                "high": interval.high,
                "effect": part.effect.mean(),
                "items": len(part),
            }
        )
    return pd.DataFrame(lines)
