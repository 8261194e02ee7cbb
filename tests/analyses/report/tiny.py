"""A small study's tables and results, made up: every model, two tasks, two forms, two sites.

The tables on what carries over and what is used are in ``tiny_evidence``, those on both models together in ``tiny_across``,
the scores on benchmarks in ``tiny_benchmarks``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
from tiny_across import across, heads
from tiny_benchmarks import benchmarks
from tiny_evidence import evidence

from analyses.study.results import examples, results
from analyses.study.settings import PairTable, Study, TasksTable
from analyses.study.stages import Tables
from analyses.toml_files import to_toml
from probes.tasks import get_task

HOSTILE = "<script>alert(1)</script>"
ROLES = ("base", "code", "second_seed", "random")
PLACES = [("nesting", "depth", form) for form in ("code", "prose")] + [("binding", "value", "code")]


def make_study(out: Path, null: bool = True) -> tuple[dict[str, Any], Tables]:
    """Results and tables as a run hands them to the report, with the study file in ``out``; base is named :data:`HOSTILE`."""
    pair = PairTable(base=HOSTILE, code="org/coder", null="org/other-seed" if null else None)
    study = Study(name="tiny", pair=pair, tasks=TasksTable(names=("nesting", "binding"), items=40))
    (out / "study.toml").write_text(to_toml(study), encoding="utf-8")
    tables = make_tables(null)
    return results(study, study.compared, tables), tables


def make_tables(null: bool = True) -> Tables:
    """The tables alone. Only base was patched; the transfer ratio from prose to code was not formed."""
    roles = [role for role in ROLES if null or role != "second_seed"]
    causal = [role for role in roles if role != "random"]
    models = [_model(role) for role in roles]
    probes = [_probe(role, place, site) for role in roles for place in PLACES for site in ("embed", "resid_post.0")]
    moved = [_transfer(role, source, form) for role in roles for source, form in (("code", "prose"), ("prose", "code"))]
    retention = [_retention(role, form) for role in causal for form in ("code", "prose")]
    patching = [
        {"model": "base", "task": "nesting", "form": "code", "direction": "denoising", "donor": "contrast",
         "site": "resid_pre", "by": "position", "window": 1, "layer": layer, "head": None, "neurons": None, "role": role,
         "recovery": 0.5, "low": 0.4, "high": 0.6, "effect": 1.0, "items": 4, "p_max": 0.125, "threshold": 1.0}
        for layer in range(2) for role in ("last", "opener", "other")
    ]  # fmt: skip
    scores = [
        {"model": role, "form": form, "bits_per_byte": 2.125, "low": 2.0, "high": 2.25, "passages": 6, "documents": 5,
         "bytes": 1234}
        for role in causal for form in ("code", "prose")
    ]  # fmt: skip
    compared = [
        _comparison(against, measure, place)
        for against in causal[1:]
        for measure, place in (("probe", PLACES[0]), ("probe", PLACES[1]), ("bits per byte", (None, None, "code")))
    ]
    shown = examples([(task, task.generate(40, 0)) for task in map(get_task, ("nesting", "binding"))])
    frames = {
        "models": models, "probes": probes, "transfer": moved, "retention": retention, "scores": scores,
        "benchmarks": benchmarks(roles),
        "patching": [*patching, *heads()], "comparisons": compared, **evidence(roles, PLACES), **across(roles),
    }  # fmt: skip
    return {name: pd.DataFrame(lines) for name, lines in frames.items()} | {"examples": shown}


def _model(role: str) -> dict[str, Any]:
    return {
        "model": role, "name": HOSTILE if role == "base" else "org/coder", "revision": None, "parameters": 1_803_904,
        "layers": 2, "width": 8, "heads": 2, "vocabulary": 50, "tokenizer": "Fast", "prepends_bos": True,
        "random_init": 0 if role == "random" else None, "fingerprint": "full:0123456789abcdef", "compute_dtype": "float32",
        "attention_kernel": "sdpa", "device": "cpu",
    }  # fmt: skip


def _probe(role: str, place: tuple[str, str, str], site: str) -> dict[str, Any]:
    score = {"base": 0.5, "code": 0.75, "second_seed": 0.5, "random": 0.25}[role]
    task, target, form = place
    return {
        "model": role, "task": task, "target": target, "form": form, "site": site, "n_train": 20, "n_test": 10,
        "n_classes": 4, "score": score, "low": score - 0.1, "high": score + 0.1, "macro_f1": score, "auroc": 0.8125,
        "r2": 0.4375 if target == "depth" else None, "r2_low": 0.25, "r2_high": 0.5, "spearman": 0.625, "control": 0.3,
        "control_seen": 1.0,
        "selectivity": score - 0.3, "selectivity_low": score - 0.4, "selectivity_high": score - 0.2, "majority": 0.25,
        "bag_of_tokens": 0.5, "token": 0.25, "position": 0.25, "chosen": site != "embed", "embedding": 0.34375,
        "codelength": 41.0, "compression": 1.46, "control_compression": 1.02, "seeds": 1, "seed_spread": None,
    }  # fmt: skip


def _transfer(role: str, source: str, form: str) -> dict[str, Any]:
    formed = source == "code"
    return {
        "model": role, "task": "nesting", "target": "depth", "source": source, "form": form, "source_site": "resid_post.0",
        "n_test": 10, "n_dropped": 0, "score": 0.4, "low": 0.3, "high": 0.5, "recentred": 0.4, "in_form": 0.5,
        "chance": 0.25, "control": 0.3, "ratio": 0.6 if formed else None, "ratio_low": 0.2 if formed else None,
        "ratio_high": 0.9 if formed else None,
    }  # fmt: skip


def _retention(role: str, form: str) -> dict[str, Any]:
    where = {"model": role, "task": "nesting", "form": form}
    if form == "prose":
        return {**where, "prompts": 0, "not_aligned": 7, "why_not_aligned": "token counts differ (7)"}
    kept = 4 if role == "base" else 0
    return {
        **where, "prompts": 10, "clean_right": 6, "corrupted_right": 5, "both_right": 4, "accuracy": 0.4, "low": 0.2,
        "high": 0.6, "chance": 0.25, "gap_too_small": 0, "retained": kept, "patched": kept, "not_aligned": 0,
        "why_not_aligned": None, "checked": 3 if kept else 0, "max_error": 2e-6 if kept else 0.0,
    }  # fmt: skip


def _comparison(against: str, measure: str, place: tuple[str | None, str | None, str]) -> dict[str, Any]:
    task, target, form = place
    clear = against == "code" and task is not None
    return {
        "against": against, "measure": measure, "task": task, "target": target, "source": None, "form": form, "base": 0.5,
        "other": 0.75 if clear else 0.5, "difference": 0.25 if clear else -0.01, "low": 0.1 if clear else -0.2,
        "high": 0.4 if clear else 0.2, "p": 0.0005 if clear else 0.8, "p_holm": 0.002 if clear else 1.0, "n_items": 10,
        "n_clusters": 10, "minimum_detectable_effect": 0.125, "higher_is_better": task is not None, "common": 1.0,
        "null_difference": -0.01 if against == "code" else None,
    }  # fmt: skip
