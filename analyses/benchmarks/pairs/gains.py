"""What every pair gains on every benchmark: code minus base, from answers per item, published counts or published means."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from activations.errors import TwinprobeError
from activations.pairs import Pair, custom_pair
from analyses.benchmarks.paired import join
from analyses.benchmarks.pairs.published import COUNTS, PERCENTAGES, read_published
from analyses.benchmarks.pairs.sizes import add_sizes
from analyses.benchmarks.pairs.stratified import count_tables, difference
from analyses.benchmarks.per_item import check_items, read_items
from probes.metrics import cluster_bootstrap

PUBLISHED_MEAN = "all"
"""Name of the item of a table that has means only."""


@dataclass(frozen=True)
class Scores:
    """Scores of many models.

    Attributes:
        items: per-item table of all models and tasks (:mod:`.per_item`), empty where none was read.
        counts: benchmarks known by counts alone (columns :data:`.published.COUNTS`), by their name, the file's.
        parameters: sizes that the files give, by model in lower case.
    """

    items: pd.DataFrame
    counts: Mapping[str, pd.DataFrame]
    parameters: Mapping[str, float]

    @property
    def models(self) -> list[str]:
        """All models, once each however they are written."""
        named = [*self.items.model, *(model for table in self.counts.values() for model in table.model)]
        return list({str(model).casefold(): str(model) for model in reversed(named)}.values())[::-1]


def read_scores(paths: Iterable[Path]) -> Scores:
    """Read tables of items, tables of means (no item column) and tables of published counts, told apart by their columns.

    Raises:
        TwinprobeError: a file can not be used (:func:`.per_item.read_items`, :func:`.published.read_published`), an item is in
            two files, two benchmarks have one name, or a model has two sizes.
    """
    tables: list[pd.DataFrame] = []
    counts: dict[str, pd.DataFrame] = {}
    sizes: dict[str, float] = {}
    for path in paths:
        header = _header(path)
        if set(COUNTS) <= header or set(PERCENTAGES) <= header:
            if path.stem in counts:
                raise TwinprobeError(
                    f"two files of counts are called {path.stem}; the name is the benchmark's, rename one"
                )
            counts[path.stem] = read_published(path).scores
            continue
        table = read_items(path, item=PUBLISHED_MEAN)
        add_sizes(sizes, table, path)
        tables.append(table)
    items = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=["model", "task"])
    if tables:
        # The hub takes ids without regard to case, and so does the registry.
        keyed = items.assign(model=items.model.str.casefold())
        check_items(keyed[["model", "task", "subject", "item", "score"]], "the tables together")
    if both := set(items.task) & set(counts):
        raise TwinprobeError(f"{min(both)!r} is a task of one file and the name of another; rename the file of counts")
    return Scores(items, counts, sizes)


def gains(
    scores: Scores, pairs: Iterable[Pair], *, n_resamples: int = 2000, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Code minus base of every pair on every benchmark that both models were scored on.

    Items are paired and whole clusters (groups within subjects) resampled. Counts are compared within their levels, unpaired
    (:func:`.stratified.difference`). A published mean has no interval, and several subjects' means are resampled as if
    they were items.

    Returns:
        A line per pair and benchmark: pair, benchmark, base_score, code_score, gain, low, high (95%), items, clusters (NaN for
        counts), left_out (items or levels that one of them lacks); and what of a model was left out because the other one has
        no item or level in common: pair, benchmark.

    Raises:
        TwinprobeError: an item is of another group or text in the two models' tables.
    """
    by_model = {str(name): part for name, part in scores.items.groupby(scores.items.model.str.casefold(), sort=False)}
    lines: list[dict[str, object]] = []
    apart: list[dict[str, object]] = []
    for pair in pairs:
        base, code = (by_model.get(name.casefold()) for name in (pair.base, pair.code))
        if base is not None and code is not None:
            for task in [task for task in dict.fromkeys(base.task) if task in set(code.task)]:
                sides = [
                    part[part.task == task].assign(model=name) for part, name in ((base, pair.base), (code, pair.code))
                ]
                found = _items_gain(sides[0], sides[1], n_resamples, seed)
                (lines if found else apart).append({"pair": pair.name, "benchmark": task, **found})
        for name, table in scores.counts.items():
            parts = [table[table.model.str.casefold() == model.casefold()] for model in (pair.base, pair.code)]
            if all(len(part) for part in parts):
                found = _counts_gain(parts[0].set_index("stratum"), parts[1].set_index("stratum"))
                (lines if found else apart).append({"pair": pair.name, "benchmark": name, **found})
    columns = ["pair", "benchmark", "base_score", "code_score", "gain", "low", "high", "items", "clusters", "left_out"]
    return pd.DataFrame(lines, columns=columns), pd.DataFrame(apart, columns=["pair", "benchmark"])


def size_matched_gains(
    scores: Scores, pairs: Sequence[Pair], known: Iterable[Pair], sizes: Mapping[str, float], factor: float,
    *, n_resamples: int = 2000, seed: int = 0,
) -> pd.DataFrame:  # fmt: skip
    """Every code model against base models of its own size, whatever their family.

    Base models are those that are base of a known pair and code model of none.

    Args:
        scores: of all models.
        pairs: those whose code models are compared.
        known: all pairs, registered and named.
        sizes: parameters by model in lower case (:func:`.sizes.model_sizes`).
        factor: how far two sizes may lie apart, the larger over the smaller.

    Returns:
        A line per pair, base model and benchmark: pair (whose code model it is), code, base, own (whether it is the pair's own
        base), size_ratio (code over base), and the columns of :func:`gains`.
    """
    known = list(known)
    tuned = {pair.code.casefold() for pair in known}
    scored = {model.casefold(): model for model in scores.models}
    bases = {pair.base.casefold() for pair in known} - tuned
    crossed: list[Pair] = []
    about: dict[str, tuple[str, str, str, bool, float]] = {}
    for pair in pairs:
        code = pair.code.casefold()
        for base in sorted(bases & set(scored) & set(sizes)):
            if code in sizes and 1 / factor <= (ratio := sizes[code] / sizes[base]) <= factor:
                name = str(len(crossed))
                crossed.append(replace(custom_pair(scored[base], pair.code), name=name))
                about[name] = (pair.name, pair.code, scored[base], base == pair.base.casefold(), ratio)
    found, _ = gains(scores, crossed, n_resamples=n_resamples, seed=seed)
    first = ["pair", "code", "base", "own", "size_ratio"]
    own = pd.DataFrame([about[name] for name in found["pair"]], columns=first)
    return pd.concat([own, found.drop(columns="pair")], axis=1)


def _items_gain(base: pd.DataFrame, code: pd.DataFrame, n_resamples: int, seed: int) -> dict[str, object]:
    keys = ["task", "subject", "item"]
    if base.merge(code, on=keys).empty:
        return {}
    joined = join(base, code)
    items = joined.items
    clusters = (items.subject + "\x1f" + items.group).to_numpy(dtype=str)
    found = cluster_bootstrap((items.code - items.base).to_numpy(float), clusters, n_resamples, seed)
    return {
        "base_score": float(items.base.mean()), "code_score": float(items.code.mean()), "gain": found.estimate,
        "low": found.low, "high": found.high, "items": len(items), "clusters": len(set(clusters)),
        "left_out": len(joined.missing),
    }  # fmt: skip


def _counts_gain(base: pd.DataFrame, code: pd.DataFrame) -> dict[str, object]:
    strata = [stratum for stratum in base.index if stratum in code.index]
    if not strata:
        return {}
    left_out = len(set(base.index) ^ set(code.index))
    base, code = base.loc[strata], code.loc[strata]
    gap = difference(count_tables(code.right, code["items"], base.right, base["items"]))
    return {
        "base_score": base.right.sum() / base["items"].sum(), "code_score": code.right.sum() / code["items"].sum(),
        "gain": gap.difference, "low": gap.low, "high": gap.high, "items": int(code["items"].sum()), "clusters": None,
        "left_out": left_out,
    }  # fmt: skip


def _header(path: Path) -> set[str]:
    """The first line's names; whatever is wrong with the file is said when it is read."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as handle:
            return {name.strip() for name in next(csv.reader(handle), [])}
    except IsADirectoryError:
        raise TwinprobeError(f"{path} is a folder; expected a CSV file of scores") from None
    except (OSError, UnicodeDecodeError, csv.Error):
        return set()
