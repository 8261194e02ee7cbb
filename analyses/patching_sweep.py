"""Patch every layer × position of the items a model gets right, and keep the values of every item."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from activations.models import LoadedModel
from analyses.patching import Run, check_head, differing_cells, hooked_logits, patched_logits, run
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
    text. Cells where the two runs are equal have an effect of exactly zero and are not recomputed.
    """
    generator = np.random.default_rng(seed)
    retention, frames, errors = [], [], [0.0]
    patched = checked = 0
    for number, prompt in enumerate(prompts):
        clean, corrupted = run(loaded, prompt.clean), run(loaded, prompt.corrupted)
        if number == 0:
            check_head(loaded, clean)
        line = _retention(prompt, clean, corrupted)
        if line["status"] == "retained" and patched >= max_items:
            line["status"] = "retained, not patched"
        elif line["status"] == "retained":
            frames.append(_patch_item(loaded, prompt, clean, corrupted))
            patched += 1
            cells = differing_cells(clean, corrupted)
            if checked < check_exact and cells:
                cell = cells[int(generator.integers(len(cells)))]
                expected = hooked_logits(loaded, corrupted, clean.resid_pre, cell)
                found = patched_logits(loaded, corrupted, clean.resid_pre, [cell])[0]
                errors.append(float((expected - found).abs().max()))
                checked += 1
        retention.append(line)
        progress(number + 1, len(prompts))
    columns = ["item", "group", "layer", "position", "token", "role", "effect", "recovery"]
    cells_frame = pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
    return Patching(pd.DataFrame(retention), cells_frame, checked, max(errors))


def _retention(prompt: Prompt, clean: Run, corrupted: Run) -> dict[str, object]:
    clean_right, corrupted_right = prompt.right(clean.logits), prompt.right(corrupted.logits, corrupted=True)
    high, low = (float(prompt.logit_difference(of.logits)) for of in (clean, corrupted))
    if not (clean_right and corrupted_right):
        status = "answered wrongly"
    elif high - low < MIN_GAP:
        status = "gap too small"
    else:
        status = "retained"
    return {
        "item": prompt.item,
        "group": prompt.group,
        "difficulty": prompt.difficulty,
        "clean_right": clean_right,
        "corrupted_right": corrupted_right,
        "clean": high,
        "corrupted": low,
        "gap": high - low,
        "status": status,
    }


def _patch_item(loaded: LoadedModel, prompt: Prompt, clean: Run, corrupted: Run) -> pd.DataFrame:
    effects = np.zeros((loaded.n_layers, len(prompt.clean)))
    cells = differing_cells(clean, corrupted)
    before = prompt.logit_difference(corrupted.logits)
    after = prompt.logit_difference(patched_logits(loaded, corrupted, clean.resid_pre, cells))
    for cell, effect in zip(cells, (after - before).float().tolist(), strict=True):
        effects[cell.layer, cell.positions[0]] = effect
    gap = float(prompt.logit_difference(clean.logits) - before)
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
