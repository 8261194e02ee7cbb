"""The causal part of a study: which items a model gets right, and where patching restores the answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import pandas as pd

from activations.models import LoadedModel
from analyses.patching.grids import Grid
from analyses.patching.summaries import summarise
from analyses.patching.sweep import patch_prompts
from analyses.prompts import prompts
from analyses.study.stages import Tables
from probes.metrics import cluster_bootstrap
from probes.tasks.items import Item


def patch_task(
    loaded: LoadedModel,
    task: str,
    items: Sequence[Item],
    forms: Sequence[str],
    *,
    grids: Sequence[Grid],
    directions: Sequence[str] = ("denoising",),
    donor: str = "contrast",
    bos: bool,
    max_prompts: int,
    max_items: int,
    check_exact: int,
    seed: int,
    n_resamples: int,
    progress: Callable[[int, int], None],
) -> Tables:
    """Patch the test items of a task, form by form.

    Returns:
        ``behaviour`` (one line per prompt), ``retention`` (one line per form, with every count), ``patching`` (see
        :func:`analyses.patching.summaries.summarise`), ``patching_cells`` (one line per patched item and cell).
    """
    tables: dict[str, list[pd.DataFrame]] = {"behaviour": [], "retention": [], "patching": [], "patching_cells": []}
    test = [item for item in items if item.split == "test"]
    for number, form in enumerate(forms):
        usable, dropped = prompts(loaded, test, form, bos)
        chosen = usable[:max_prompts]
        if not chosen:
            tables["retention"].append(pd.DataFrame([{"task": task, "form": form, "prompts": 0, **_drops(dropped)}]))
            continue

        def advance(done: int, total: int, before: int = number) -> None:
            progress(before * total + done, len(forms) * total)

        found = patch_prompts(
            loaded, chosen, grids=grids, directions=directions, donor=donor, max_items=max_items, check_exact=check_exact,
            seed=seed, progress=advance,
        )  # fmt: skip
        status = found.retention.status
        right = (found.retention.clean_right & found.retention.corrupted_right).astype(float)
        accuracy = cluster_bootstrap(right.to_numpy(), found.retention["item"].to_numpy(), n_resamples, seed)
        summary = {
            "task": task,
            "form": form,
            "prompts": len(chosen),
            "clean_right": int(found.retention.clean_right.sum()),
            "corrupted_right": int(found.retention.corrupted_right.sum()),
            "both_right": int(right.sum()),
            "accuracy": accuracy.estimate,
            "low": accuracy.low,
            "high": accuracy.high,
            "chance": _chance([len(prompt.candidates) for prompt in chosen]),
            "gap_too_small": int((status == "gap too small").sum()),
            "retained": int(status.str.startswith("retained").sum()),
            "patched": int((status == "retained").sum()),
            **_drops(dropped),
            "checked": found.checked,
            "max_error": found.max_error,
        }
        where = {"task": task, "form": form}
        tables["retention"].append(pd.DataFrame([summary]))
        tables["behaviour"].append(found.retention.assign(right=right, **where))
        tables["patching_cells"].append(found.cells.assign(**where))
        tables["patching"].append(summarise(found.cells, seed, n_resamples).assign(**where))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items() if parts}


def _drops(dropped: Counter[str]) -> dict[str, object]:
    """How many items could not be made into prompts, and why."""
    reasons = ", ".join(f"{reason} ({count})" for reason, count in sorted(dropped.items()))
    return {"not_aligned": sum(dropped.values()), "why_not_aligned": reasons}


def _chance(candidates: Sequence[int]) -> float:
    """How often a guess among the candidates would be right in both texts."""
    return sum(1 / count**2 for count in candidates) / len(candidates)
