"""What a study found, as one JSON document: every number and sentence of the report is taken from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from activations.pairs import Pair, confounds
from analyses.study.settings import Study
from analyses.study.stages import Tables
from probes.tables import plain, records
from probes.tasks.items import Item, Task

SUMMARISED = (
    "models", "probes", "difficulty", "capacity", "transfer", "layers", "left_out", "mapped", "interventions", "behaviour",
    "retention", "patching", "cross_refused", "cross_retention", "cross", "overlap", "similarity", "scores", "benchmarks",
    "comparisons", "examples",
)  # fmt: skip
ALPHA = 0.05


def results(study: Study, pair: Pair, tables: Tables) -> dict[str, Any]:
    """Collect the summary tables and the sentences drawn from them.

    ``tables`` holds lists of records: ``models``, ``probes`` (every site; ``chosen`` marks the dev-chosen one),
    ``transfer``, ``retention``, ``patching`` (every map's cells), ``cross`` (activations of one model in the other),
    ``overlap``, ``similarity``, ``scores``, ``benchmarks``, ``comparisons`` and ``examples``.
    """
    kept = {name: records(tables[name]) for name in SUMMARISED if name in tables and name != "behaviour"}
    comparisons = tables.get("comparisons", pd.DataFrame())
    return {
        "study": study.name,
        "seed": study.seed,
        "pair": {"name": pair.name, "base": pair.base, "code": pair.code, "null": study.pair.null},
        "confounds": confounds(pair),
        "findings": findings(comparisons),
        "calibration": calibration(comparisons),
        "tables": kept,
    }


def examples(items: Sequence[tuple[Task, Sequence[Item]]]) -> pd.DataFrame:
    """The first test item of every task and form, for readers to see what the models saw.

    Returns:
        Columns task, summary, form, text, answer, contrast, contrast_answer, labels (what probes are asked to name).
    """
    lines = []
    for task, members in items:
        for form in sorted({form for item in members for form in item.forms}):
            shown = next((item.forms[form] for item in members if item.split == "test" and form in item.forms), None)
            if shown is None:
                continue
            contrast, end = shown.contrast, len(shown.text)
            labels = [
                span.name
                + (f" of “{shown.text[span.start : span.end]}”" if span.end < end else "")
                + f" = {span.label}"
                for span in shown.spans
                if span.label is not None
            ]
            lines.append(
                {
                    "task": task.name,
                    "summary": task.summary,
                    "form": form,
                    "text": shown.text,
                    "answer": shown.answer,
                    "contrast": contrast.text if contrast else None,
                    "contrast_answer": contrast.answer if contrast else None,
                    "labels": "; ".join(dict.fromkeys(labels)),
                }
            )
    return pd.DataFrame(lines)


def calibration(comparisons: pd.DataFrame) -> dict[str, Any] | None:
    """How often the null pair, two seeds of one model, looks different at the 5% level; ``None`` without a null."""
    if not len(comparisons) or "second_seed" not in set(comparisons.against):
        return None
    null = comparisons[comparisons.against == "second_seed"]
    return {
        "comparisons": len(null),
        "below_alpha": int((null.p < ALPHA).sum()),
        "below_alpha_after_holm": int((null.p_holm < ALPHA).sum()),
        "alpha": ALPHA,
    }


def findings(comparisons: pd.DataFrame) -> list[dict[str, Any]]:
    """One entry per kind of measure: how many differences there are, how many survive Holm, and which way they go.

    ``clear_beyond_null`` counts those that are also larger than the same difference between two seeds of base.
    """
    if not len(comparisons):
        return []
    found = []
    code = comparisons[comparisons.against == "code"]
    has_null = "second_seed" in set(comparisons.against)
    for measure, part in code.groupby("measure", sort=False):
        clear = part[part.p_holm < ALPHA]
        beyond = clear.difference.abs() > clear.null_difference.abs()
        better = ((clear.difference > 0) == clear.higher_is_better).sum()
        found.append(
            {
                "measure": measure,
                "comparisons": len(part),
                "clear": len(clear),
                "clear_beyond_null": int(beyond.sum()) if has_null and clear.null_difference.notna().all() else None,
                "code_better": int(better),
                "base_better": int(len(clear) - better),
                "mean_difference": float(part.difference.mean()),
                "median_minimum_detectable_effect": plain(part.minimum_detectable_effect.median()),
            }
        )
    return found
