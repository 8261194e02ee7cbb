"""What a study found inside the models of a pair, in a few numbers per pair: transfer of probes, overlap of heads.

Taken from ``results.json`` of ``twinprobe compare``. Every number is over all tasks, forms and directions of the study; its
interval resamples tasks, so it says how much hangs on the choice of tasks, not on the choice of items; with few tasks it is too
narrow, and below :data:`FEWEST_TASKS` there is none.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError, did_you_mean
from activations.pairs import Pair, custom_pair
from analyses.text_tables import read_text_table
from probes.metrics import Interval, bootstrap_means, cluster_bootstrap, percentile_interval
from probes.transfer import MIN_GAIN, gain_ratio

COLUMNS = ("pair", "measure", "value", "low", "high")
MEASURES = {
    "transfer_ratio": "code model: what a probe of one form keeps in another of what a probe of that form gains over chance",
    "transfer_ratio_difference": "the same, code model minus base",
    "mapped_ratio": "what the base's probes keep of the code model's own gain when they read it through the map",
    "overlap_denoising": "Spearman's correlation of the heads' effects in base and code, mean over maps",
    "overlap_noising": "the same, noising",
}
"""What is taken from a study."""
FEWEST_TASKS = 5
"""Tasks below which there is no interval."""
TAKEN = (
    "pair", "benchmark", "base_score", "code_score", "gain", "low", "high", "items", "clusters", "left_out", "family", "base",
    "code", "parameters", "code_parameters", "size_ratio", "same_architecture",
)  # fmt: skip
"""What no measure may be called: columns of the table that they are put into."""
RATIO = ["task", "form", "target", "source", "score", "in_form", "chance"]


def read_runs(
    folders: Iterable[Path], pairs: Iterable[Pair], *, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """The measures of :data:`MEASURES` of run folders of ``twinprobe compare``, one per pair.

    The transfer ratio is pooled, ``sum(score - chance) / sum(in form - chance)`` over all directions, so that those in which a
    ratio of their own can not be formed count as well (:func:`probes.transfer.gain_ratio`; missing where the pooled gain is
    too small). A pair of models that is not among ``pairs`` gets the name of :func:`activations.pairs.custom_pair`.

    Returns:
        Columns :data:`COLUMNS`, and lines and tasks (how many of the study's lines and tasks a value is over).

    Raises:
        TwinprobeError: a folder holds no finished run, or two are of one pair.
    """
    known = {(pair.base.casefold(), pair.code.casefold()): pair.name for pair in pairs}
    lines: list[dict[str, Any]] = []
    seen: dict[str, Path] = {}
    for folder in folders:
        results = _results(folder)
        models = [str(results["pair"][role]) for role in ("base", "code")]
        name = known.get((models[0].casefold(), models[1].casefold())) or custom_pair(*models).name
        if name in seen:
            raise TwinprobeError(f"{folder} and {seen[name]} are both of the pair {name}; give one run of each pair")
        seen[name] = folder
        tables = {key: pd.DataFrame(table) for key, table in results["tables"].items() if table}
        lines += [{"pair": name, **line} for line in _measured(tables, n_resamples, seed)]
    return pd.DataFrame(lines, columns=[*COLUMNS, "lines", "tasks"])


def read_internals(path: Path, pairs: Iterable[Pair]) -> pd.DataFrame:
    """Read measures from a CSV with the columns pair, measure and value, and low and high where there are intervals.

    Returns:
        Columns :data:`COLUMNS`.

    Raises:
        TwinprobeError: a column is missing, a pair is unknown, a value is no number, or a measure has the name of another
            column or is there twice for a pair.
    """
    table = read_text_table(path, ", ".join(COLUMNS[:3]))
    if missing := [name for name in COLUMNS[:3] if name not in table]:
        raise TwinprobeError(
            f"{path} lacks the column {missing[0]}; expected {', '.join(COLUMNS)} (the last two may be absent)"
        )
    if table.empty:
        raise TwinprobeError(f"{path} has a header and no values; expected a line per pair and measure")
    names = {pair.name for pair in pairs}
    for line, name in table["pair"].items():
        if name not in names:
            raise TwinprobeError(
                f"{path}, line {line}: unknown pair {name!r}{did_you_mean(name, names)}; `twinprobe show pairs` lists the "
                "known ones, --pair adds others"
            )
    if (table.measure == "").any():
        raise TwinprobeError(
            f"{path}, line {table.index[table.measure == ''][0]}: measure is empty; name it on every line"
        )
    taken = table.measure.isin(TAKEN) | table.measure.str.endswith(("_low", "_high"))
    if taken.any():
        line = taken.index[taken][0]
        raise TwinprobeError(
            f"{path}, line {line}: a measure can not be called {table.measure[line]!r}, as a column of pairs.csv is; rename it"
        )
    again = table.duplicated(["pair", "measure"])
    if again.any():
        line = again.index[again][0]
        raise TwinprobeError(
            f"{path}, line {line}: {table.measure[line]} of {table['pair'][line]} is there a second time; keep one of them"
        )
    found = table.reindex(columns=COLUMNS, fill_value="")
    for name in COLUMNS[2:]:
        numbers = pd.to_numeric(found[name].where(found[name] != ""), errors="coerce").astype(float)
        bad = ~numbers.map(np.isfinite) & ((found[name] != "") | (name == "value"))
        if bad.any():
            line = bad.index[bad][0]
            raise TwinprobeError(
                f"{path}, line {line}: {name} {found.at[line, name]!r} is no number; leave out what is unknown"
            )
        found[name] = numbers
    return found.reset_index(drop=True)


def join_internals(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All measures under one another; raises TwinprobeError where a pair has one twice."""
    table = pd.concat([part for part in parts if len(part)] or [pd.DataFrame(columns=COLUMNS)], ignore_index=True)
    again = table[table.duplicated(["pair", "measure"])]
    if len(again):
        first = again.iloc[0]
        raise TwinprobeError(
            f"{first.measure} of {first['pair']} comes from two places; give a run folder or a line, not both"
        )
    return table


def _results(folder: Path) -> Mapping[str, Any]:
    path = folder / "results.json"
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if {"pair", "tables"} <= set(found) and {"base", "code"} <= set(found["pair"]):
            return found
    except (FileNotFoundError, NotADirectoryError):
        raise TwinprobeError(
            f"{folder} has no results.json; expected the run folder of a finished `twinprobe compare`"
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError):
        pass
    raise TwinprobeError(f"{path} was not written by `twinprobe compare`; expected a run folder of it")


def _measured(tables: Mapping[str, pd.DataFrame], n_resamples: int, seed: int) -> list[dict[str, Any]]:
    lines = []
    if "transfer" in tables:
        moved = tables["transfer"]
        sides = [moved.loc[moved.model == role, RATIO] for role in ("base", "code")]
        lines.append(_line("transfer_ratio", sides[1], _pooled(sides[1], n_resamples, seed)))
        both = sides[0].merge(sides[1], on=RATIO[:4], suffixes=("_base", "_code"))
        lines.append(_line("transfer_ratio_difference", both, _difference(both, n_resamples, seed)))
    if "mapped" in tables and {"source_model", "left_out"} <= set(tables["mapped"]):
        mapped = tables["mapped"]
        mapped = mapped[(mapped.source_model == "base") & (mapped.target_model == "code") & mapped.left_out.isna()]
        mapped = mapped.rename(columns={"own": "in_form"}).assign(chance=mapped.floor)
        lines.append(_line("mapped_ratio", mapped, _pooled(mapped, n_resamples, seed)))
    if "overlap" in tables:
        alike = tables["overlap"]
        alike = alike[(alike.measure == "spearman") & (alike.other == "code") & alike.estimate.notna()]
        for direction, part in alike.groupby("direction", sort=False):
            found = cluster_bootstrap(part.estimate.to_numpy(float), part.task.to_numpy(str), n_resamples, seed)
            lines.append(_line(f"overlap_{direction}", part, found))
    return [line for line in lines if line]


def _line(measure: str, part: pd.DataFrame, found: Interval | None) -> dict[str, Any]:
    if found is None:
        return {}
    tasks = part.task.nunique()
    low, high = (found.low, found.high) if tasks >= FEWEST_TASKS else (np.nan, np.nan)
    return {"measure": measure, "value": found.estimate, "low": low, "high": high, "lines": len(part), "tasks": tasks}


def _pooled(part: pd.DataFrame, n_resamples: int, seed: int) -> Interval | None:
    if part.empty:
        return None
    table = part[["score", "in_form", "chance"]].to_numpy(float)
    return gain_ratio(table, part.task.to_numpy(str), MIN_GAIN, n_resamples, seed)


def _difference(both: pd.DataFrame, n_resamples: int, seed: int) -> Interval | None:
    """Pooled ratio of code minus that of base, on the directions that both models have, over the same resampled tasks."""
    if both.empty:
        return None
    tasks = both.task.to_numpy(str)
    names = [f"{name}_{side}" for side in ("base", "code") for name in ("score", "in_form", "chance")]
    table = both[names].to_numpy(float)
    if any(gain_ratio(part, tasks, MIN_GAIN, n_resamples, seed) is None for part in (table[:, :3], table[:, 3:])):
        return None
    estimate = float(_ratio_difference(table.mean(axis=0)[None])[0])
    if len(set(tasks)) == 1:
        return Interval(estimate, np.nan, np.nan)
    replicates = bootstrap_means(table, tasks, n_resamples, seed)
    replicates = replicates[(replicates[:, 1] > replicates[:, 2]) & (replicates[:, 4] > replicates[:, 5])]
    return percentile_interval(estimate, _ratio_difference(replicates))


def _ratio_difference(means: np.ndarray) -> np.ndarray:
    base, code = ((part[:, 0] - part[:, 2]) / (part[:, 1] - part[:, 2]) for part in (means[:, :3], means[:, 3:]))
    return np.asarray(code - base, dtype=np.float64)
