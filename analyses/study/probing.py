"""The probing part of a study: capture a model's rows for every task, probe them, transfer the probes between forms."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from activations.capturing import capture
from activations.features import SiteFeatures
from activations.models import LoadedModel
from activations.store import ActivationStore
from activations.texts import Text
from analyses.study.stages import Tables
from probes.baselines import Baselines, baselines
from probes.controls import draw_control
from probes.labels import about_rows
from probes.rows import RowLabels, Rows
from probes.sweep import ProbeResult, best_layer, sweep
from probes.tasks import get_task
from probes.tasks.items import Item
from probes.transfer import transfer

BaselineCache = dict[str, Baselines]
"""Surface baselines see tokens only, so models with one tokenizer share them."""


@dataclass(frozen=True, eq=False)
class FormRows:
    """The rows of one target in one form: where they are in the store, what is known of them, a name for each."""

    features: SiteFeatures
    about: RowLabels
    names: npt.NDArray[np.str_]


def labelled_texts(items: Sequence[Item]) -> list[Text]:
    """The texts of all forms of all items, with only the spans that carry a label."""
    texts = [item.as_text(form) for item in items for form in item.forms]
    return [replace(text, spans=tuple(span for span in text.spans if span.label is not None)) for text in texts]


def capture_task(
    loaded: LoadedModel,
    items: Sequence[Item],
    out: Path,
    *,
    bos: bool,
    sites: str,
    pool: str,
    dtype: str,
    progress: Callable[[int, int], None],
) -> ActivationStore:
    """Capture the labelled spans of a task's items, all forms, at ``sites``."""
    chosen = loaded.sites(sites)
    texts = labelled_texts(items)
    return capture(
        loaded, texts, chosen, out, bos=bos, rows="spans", pool=pool, dtype=dtype, progress=progress
    )  # fmt: skip


def form_rows(store: ActivationStore, items: Mapping[str, Item], clusters: str, target: str, form: str) -> FormRows:
    """The rows of ``target`` in ``form``; ``clusters`` says what intervals resample, ``item`` or ``group``."""
    rows = store.rows
    wanted = rows[(rows.span == target) & rows.text.str.endswith(f"/{form}")]
    owners = [items[text.removesuffix(f"/{form}")] for text in wanted.text]
    about = about_rows(
        store,
        wanted,
        items=[owner.id if clusters == "item" else owner.group for owner in owners],
        splits=[owner.split for owner in owners],
    )
    names = np.array(
        [f"{text}:{start}-{end}" for text, start, end in zip(wanted.text, wanted.start, wanted.end, strict=True)]
    )
    return FormRows(SiteFeatures(store, wanted.index.to_numpy()), about, names)


def probe_task(
    store: ActivationStore,
    task_name: str,
    items: Sequence[Item],
    *,
    strengths: Sequence[float],
    seed: int,
    n_resamples: int,
    cache: BaselineCache,
    progress: Callable[[int, int], None],
) -> Tables:
    """Probe every target and form of a task at every captured site, and transfer between the forms of a target.

    Returns:
        ``probes`` (one line per target, form and site; ``chosen`` marks the layer chosen on dev), ``probe_rows`` (per
        test row at the chosen site: correct, control_correct), ``transfer`` and ``transfer_rows`` likewise.
    """
    task, by_id = get_task(task_name), {item.id: item for item in items}
    tables: dict[str, list[pd.DataFrame]] = {"probes": [], "probe_rows": [], "transfer": [], "transfer_rows": []}
    total = sum(len(forms) for forms in task.targets.values()) * len(store.sites)
    done = 0

    def advance(count: int, _total: int) -> None:
        progress(done + count, total)

    for target, forms in task.targets.items():
        rows = {form: form_rows(store, by_id, task.clusters, target, form) for form in forms}
        control = draw_control([part.about for part in rows.values()], seed)
        results: dict[str, list[ProbeResult]] = {}
        for form, part in rows.items():
            results[form] = sweep(
                part.features,
                part.about,
                control=control,
                surface=_surface(part.about, strengths, cache),
                strengths=strengths,
                seed=seed,
                n_resamples=n_resamples,
                progress=advance,
            )
            done += len(store.sites)
            best = best_layer(results[form])
            where = {"task": task_name, "target": target, "form": form}
            lines = [{**where, **result.row(), "chosen": result is best} for result in results[form]]
            tables["probes"].append(pd.DataFrame(lines))
            tables["probe_rows"].append(_outcomes(where, part, best.site, best.correct, best.control_correct))
        for source, goal in permutations(forms, 2):
            best = best_layer(results[source])
            reference = next(result for result in results[goal] if result.site == best.site)
            at = {form: Rows(rows[form].features[best.site], rows[form].about) for form in (source, goal)}
            moved = transfer(best, reference, at[source], at[goal], control, seed=seed, n_resamples=n_resamples)
            where = {"task": task_name, "target": target, "source": source, "form": goal}
            tables["transfer"].append(pd.DataFrame([{**where, **moved.row()}]))
            if not moved.n_dropped:
                tables["transfer_rows"].append(
                    _outcomes(where, rows[goal], best.site, moved.correct, moved.control_correct)
                )
    return {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items() if parts}


def _surface(about: RowLabels, strengths: Sequence[float], cache: BaselineCache) -> Baselines:
    key = str(hash((tuple(about.labels), tuple(map(tuple, about.texts)), tuple(strengths))))
    if key not in cache:
        cache[key] = baselines(about, strengths)
    return cache[key]


def _outcomes(
    where: dict[str, str],
    part: FormRows,
    site: str,
    correct: npt.NDArray[np.bool_],
    control_correct: npt.NDArray[np.bool_],
) -> pd.DataFrame:
    test = part.about.mask("test")
    return pd.DataFrame(
        {
            **where,
            "site": site,
            "row": part.names[test],
            "cluster": part.about.items[test],
            "correct": correct.astype(int),
            "control_correct": control_correct.astype(int),
        }
    )
