"""A sweep that keeps every finished site on disk and goes on after the last one when it is run again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from activations.errors import TwinprobeError
from activations.files import write_whole
from activations.store import ActivationStore
from probes.problems import sweep_store
from probes.seeds import pool_seeds
from probes.sweep import Problem
from probes.tables import read_table

SCORES = (("score", "low", "high"), ("selectivity", "selectivity_low", "selectivity_high"), ("r2", "r2_low", "r2_high"))
"""The estimates of a probes table with their bounds."""
RECORD = "sweep.json"


def run_sweep(
    store: ActivationStore,
    problems: Sequence[Problem],
    *,
    sites: Sequence[str],
    out: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **effort: Any,
) -> pd.DataFrame:
    """Probe ``sites`` of a store for all problems.

    Args:
        store: the rows.
        problems: from :mod:`probes.problems`.
        sites: sites of the store, in the order of the table.
        out: folder that keeps ``sites/SITE.csv`` for every finished site; None keeps nothing.
        settings: all that the lines depend on besides the store and ``effort``; a folder is only taken up again
            by a sweep with the same.
        progress: called with ``(probes done, probes in all)``; probes of sites that were done before count as done.
        effort: see :func:`probes.sweep.sweep_problems`.

    Returns:
        One line per site and problem: the columns of ``Problem.where``, then those of
        :class:`probes.result.ProbeResult`.

    Raises:
        TwinprobeError: ``out`` holds another sweep or foreign files; see also :func:`probes.sweep.sweep_problems`.
    """
    parts = (
        {} if out is None else _claim(out, {"store": store.provenance, "settings": settings, "effort": effort}, sites)
    )
    before, total = len(parts) * len(problems), len(sites) * len(problems)
    progress(before, total)
    todo = [site for site in sites if site not in parts]
    found = sweep_store(
        store, problems, sites=todo, progress=lambda done, _total: progress(before + done, total), **effort
    ) if todo else iter(())  # fmt: skip
    for site, results in found:
        lines = [{**problem.where, **result.row()} for problem, result in zip(problems, results, strict=True)]
        parts[site] = pd.DataFrame(lines)
        if out is not None:
            write_whole(_part(out, site), parts[site].to_csv(index=False).encode())
            parts[site] = read_table(_part(out, site))
    return pd.concat([parts[site] for site in sites], ignore_index=True)


def _claim(out: Path, record: dict[str, Any], sites: Sequence[str]) -> dict[str, pd.DataFrame]:
    """Make the folder this sweep's, and read what it holds already."""
    text = json.dumps(record, indent=1, sort_keys=True, default=str) + "\n"
    known = out / RECORD
    if known.exists():
        if known.read_text() != text:
            different = _differences(json.loads(known.read_text()), json.loads(text))
            raise TwinprobeError(
                f"{out} holds another sweep ({different}); choose another --out, or remove the folder to begin anew"
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise TwinprobeError(f"{out} is not empty and holds no sweep; choose another --out")
    (out / "sites").mkdir(parents=True, exist_ok=True)
    write_whole(known, text.encode())
    return {site: read_table(_part(out, site)) for site in sites if _part(out, site).exists()}


def _differences(held: Any, wanted: Any) -> str:
    """The names of the entries that differ."""
    names = [name for part in sorted({*held, *wanted}) for name in _named(part, held.get(part), wanted.get(part))]
    return "different " + ", ".join(names)


def _named(part: str, held: Any, wanted: Any) -> list[str]:
    if held == wanted:
        return []
    if not isinstance(held, dict) or not isinstance(wanted, dict):
        return [part]
    return [name for name in sorted({*held, *wanted}) if held.get(name) != wanted.get(name)]


def _part(out: Path, site: str) -> Path:
    return out / "sites" / f"{site}.csv"


def pooled(table: pd.DataFrame) -> pd.DataFrame:
    """One line per site and place, over all draws, and ``chosen`` where the mean dev score of a place is highest."""
    by = [name for name in ("task", "target", "form") if name in table]
    lines = pool_seeds(table, [*by, "site"], SCORES)
    best = lines.groupby(by, sort=False).dev_score.idxmax()
    return lines.assign(chosen=lines.index.isin(best))
