"""The causal companion of a study's probes: do the answers change when what a probe reads is changed?"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from activations.models import LoadedModel
from activations.store import ActivationStore
from analyses.intervention_cases import Means
from analyses.interventions import intervene
from analyses.study.stages import Tables
from probes.estimators import choose_strength
from probes.rows import Rows
from probes.softmax import decompose, one_blas_thread
from probes.task_rows import target_rows
from probes.tasks.items import Item, Task


def intervene_task(
    loaded: LoadedModel,
    store: ActivationStore,
    task: Task,
    items: Sequence[Item],
    probes: pd.DataFrame,
    *,
    bos: bool,
    strengths: Sequence[float],
    max_prompts: int,
    n_draws: int,
    seed: int,
    n_resamples: int,
    progress: Callable[[int, int], None],
) -> Tables:
    """Remove and steer what the probes of a task read, every target and form at the site chosen on dev.

    Args:
        loaded: the model.
        store: its rows of these items.
        task: a task with answers and contrasts.
        items: the first draw.
        probes: the study's table of probes of this model.
        bos, max_prompts, n_draws, seed, n_resamples: see :func:`analyses.interventions.intervene`.
        strengths: inverse regularisation strengths, chosen on dev as in the sweep.
        progress: called with ``(targets and forms done, in all)``.

    Returns:
        ``interventions`` and ``intervention_rows``, see :func:`analyses.interventions.intervene`.
    """
    chosen = probes[probes.chosen.astype(bool) & (probes.task == task.name)]
    sites = {(line.target, line.form): str(line.site) for line in chosen.itertuples()}
    places = [
        (target, form) for target, forms in task.targets.items() for form in forms if target not in task.relations
    ]
    tables: dict[str, list[pd.DataFrame]] = {}
    for done, (target, form) in enumerate(places, start=1):
        site = sites[target, form]
        rows = target_rows(store, task, items, target)[form].at(site)
        train, dev = rows.split("train"), rows.split("dev")
        with one_blas_thread():
            probe = choose_strength(
                decompose(train.features), train.about.labels, dev.features, dev.about.labels, strengths
            ).probe
        found = intervene(
            loaded, task.name, items, form, target, site, probe, _means(train), bos=bos, clusters=task.clusters,
            max_prompts=max_prompts, n_draws=n_draws, seed=seed, n_resamples=n_resamples,
        )  # fmt: skip
        for name, table in found.items():
            tables.setdefault(name, []).append(table)
        progress(done, len(places))
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}


def _means(train: Rows) -> Means:
    features, labels = train.features.astype(np.float64), train.about.labels
    return Means(
        features.mean(axis=0), {str(label): features[labels == label].mean(axis=0) for label in np.unique(labels)}
    )
