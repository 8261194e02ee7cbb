"""Published scores of many models, as counts per level of difficulty, compared pair by pair.

The question is Kim, Schuster & Toshniwal's (2024, arXiv 2405.21068): which code-trained models do better than their base,
and on how hard items. Their file of accuracies by number of operations is read as it is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError, did_you_mean
from activations.pairs import Pair
from analyses.benchmarks.pairs.stratified import common_odds_ratio, count_tables, difference, homogeneity
from analyses.statistics import holm, wilson
from analyses.text_tables import read_text_table

COUNTS = ("model", "stratum", "right", "items")
"""Columns of the general layout."""
PERCENTAGES = {"model_name": "model", "num_ops": "stratum", "accuracy": "accuracy", "count": "items"}
"""Columns of Kim et al.'s layout, and what they are here; the model's id stands in brackets at the end of its name."""


@dataclass(frozen=True)
class Published:
    """Scores that were read: ``scores`` with the columns :data:`COUNTS`, and how many lines said what one had said before."""

    scores: pd.DataFrame
    repeated: int


def read_published(path: Path) -> Published:
    """Read right answers and items per model and stratum (level of difficulty), in the order of the file.

    Two layouts are known: ``model,stratum,right,items``, and Kim et al.'s ``model_name,num_ops,accuracy,count`` with the
    accuracy in percent, from which the right answers are worked out. Other columns are left out.

    Raises:
        TwinprobeError: the file is absent, empty or no CSV, has other columns, or a line can not be used; the line is named.
    """
    table = read_text_table(path, ", ".join(COUNTS))
    as_percentages = set(PERCENTAGES) <= set(table.columns)
    if not as_percentages and not set(COUNTS) <= set(table.columns):
        raise TwinprobeError(
            f"{path} has the columns {', '.join(table.columns)}; expected {', '.join(COUNTS)} "
            f"(or {', '.join(PERCENTAGES)}, with the accuracy in percent)"
        )
    names = PERCENTAGES if as_percentages else {name: name for name in COUNTS}
    table = table[list(names)].rename(columns=names)
    table = table[(table != "").any(axis=1)]
    if table.empty:
        raise TwinprobeError(f"{path} has a header and no scores; expected a line per model and stratum")
    if as_percentages:
        table["model"] = [_id(name) for name in table.model]
    for name in ("model", "stratum"):
        if (table[name] == "").any():
            line = table.index[table[name] == ""][0]
            raise TwinprobeError(f"{path}, line {line}: {name} is empty; fill it in on every line")
    items = _counts(path, table["items"])
    right = _right(path, table["accuracy"], items) if as_percentages else _counts(path, table["right"])
    scores = table[["model", "stratum"]].assign(right=right, items=items)
    bad = (scores["items"] < 1) | (scores.right > scores["items"])
    if bad.any():
        line = bad.index[bad][0]
        raise TwinprobeError(
            f"{path}, line {line}: {right[line]} right answers of {items[line]} items; expected 1 item at least and no more "
            "right answers than items"
        )
    kept = scores.drop_duplicates()
    again = kept.duplicated(["model", "stratum"])
    if again.any():
        line = again.index[again][0]
        model, stratum = kept.model[line], kept.stratum[line]
        raise TwinprobeError(
            f"{path}, line {line}: {model} has another score at stratum {stratum} further up; keep one of the two"
        )
    return Published(kept.reset_index(drop=True), len(scores) - len(kept))


def compare_published(
    scores: pd.DataFrame, pairs: Iterable[Pair], chance: str | None = None
) -> Mapping[str, pd.DataFrame]:
    """Compare the two models of each pair on the strata that both have, unpaired (see :mod:`.stratified`).

    Args:
        scores: columns :data:`COUNTS`, one line per model and stratum.
        pairs: pairs whose models both have scores (:func:`.matching.match_pairs`).
        chance: id of the "model" whose accuracy is what guessing gives; it fills the columns ``chance``.

    Returns:
        ``published_pairs``, a line per pair, and ``published_levels``, a line per pair and stratum (docs/BENCHMARKS.md).

    Raises:
        TwinprobeError: there is no pair, a pair has no stratum in common, or ``chance`` has no score at a stratum.
    """
    by_model = {str(model).casefold(): part.set_index("stratum") for model, part in scores.groupby("model", sort=False)}
    guessing = _guessing(by_model, chance)
    lines, levels = [], []
    for pair in pairs:
        base, code = (by_model[name.casefold()] for name in (pair.base, pair.code))
        strata = [stratum for stratum in base.index if stratum in code.index]
        if not strata:
            raise TwinprobeError(
                f"{pair.base} and {pair.code} have no stratum in common ({', '.join(base.index)} and "
                f"{', '.join(code.index)}); name the strata alike"
            )
        left_out = len(set(base.index) ^ set(code.index))
        base, code = base.loc[strata], code.loc[strata]
        lines.append(_overall(pair, base, code, guessing) | {"levels_left_out": left_out})
        levels += [_level(pair, stratum, base.loc[stratum], code.loc[stratum], guessing) for stratum in strata]
    if not lines:
        raise TwinprobeError(
            "no pair has scores of both its models; expected hub ids as `twinprobe show pairs` lists them, or name two models "
            "with --pair"
        )
    overall, single = pd.DataFrame(lines), pd.DataFrame(levels)
    overall["p_holm"] = holm(overall.p)
    overall["p_same_holm"] = holm(overall.p_same)
    single["p_holm_pairs"] = single.groupby("stratum", sort=False)["p"].transform(lambda p: holm(p))
    single["p_holm"] = holm(single.p)
    return {"published_pairs": overall, "published_levels": single}


def _overall(pair: Pair, base: pd.DataFrame, code: pd.DataFrame, guessing: pd.Series | None) -> dict[str, object]:
    """The line of a pair over all its strata."""
    tables = count_tables(code.right, code["items"], base.right, base["items"])
    same, gap = homogeneity(tables), difference(tables)
    weights = code["items"].to_numpy(float)
    return {
        "pair": pair.name, "base": pair.base, "code": pair.code, "size_ratio": pair.size_ratio, "levels": len(tables),
        "base_items": int(base["items"].sum()), "code_items": int(code["items"].sum()),
        "base_accuracy": base.right.sum() / base["items"].sum(), "code_accuracy": code.right.sum() / code["items"].sum(),
        "chance": None if guessing is None else float(np.average(_at(guessing, list(code.index)), weights=weights)),
        **asdict(gap), **_odds(tables), "same_statistic": same.statistic, "same_df": same.degrees_of_freedom,
        "p_same": same.p, "same_smallest_expected": same.smallest_expected,
    }  # fmt: skip


def _level(pair: Pair, stratum: str, base: pd.Series, code: pd.Series, guessing: pd.Series | None) -> dict[str, object]:
    """The line of a pair at one stratum."""
    tables = count_tables(code.right, code["items"], base.right, base["items"])
    low, high = wilson([base.right, code.right], [base["items"], code["items"]])
    return {
        "pair": pair.name, "stratum": stratum,
        "base_right": int(base.right), "base_items": int(base["items"]), "code_right": int(code.right),
        "code_items": int(code["items"]), "base_accuracy": base.right / base["items"], "base_low": low[0],
        "base_high": high[0], "code_accuracy": code.right / code["items"], "code_low": low[1], "code_high": high[1],
        "chance": None if guessing is None else float(_at(guessing, [stratum])[0]),
        **asdict(difference(tables)), **_odds(tables),
    }  # fmt: skip


def _odds(tables: np.ndarray) -> dict[str, object]:
    found = common_odds_ratio(tables)
    return {
        "odds_ratio": found.odds_ratio, "odds_low": found.low, "odds_high": found.high, "method": found.method, "p": found.p,
    }  # fmt: skip


def _guessing(by_model: Mapping[str, pd.DataFrame], chance: str | None) -> pd.Series | None:
    """Accuracy of guessing by stratum."""
    if chance is None:
        return None
    if chance.casefold() not in by_model:
        guess = did_you_mean(chance.casefold(), by_model)
        raise TwinprobeError(
            f"chance {chance!r} is no model of the file{guess}; expected one of its {len(by_model)} models"
        )
    table = by_model[chance.casefold()]
    return table.right / table["items"]


def _at(guessing: pd.Series, strata: list[str]) -> np.ndarray:
    missing = [stratum for stratum in strata if stratum not in guessing.index]
    if missing:
        raise TwinprobeError(
            f"chance has no score at stratum {missing[0]}; expected one at every stratum that is compared"
        )
    return guessing.loc[strata].to_numpy(float)


def _id(name: str) -> str:
    """``Gemma 2B (google/gemma-2b)`` is ``google/gemma-2b``; a name without brackets is the id itself."""
    match = re.fullmatch(r".*\(([^()]+)\)", name)
    return match[1].strip() if match else name


def _counts(path: Path, column: pd.Series) -> pd.Series:
    """Whole numbers from text."""
    bad = ~column.str.fullmatch(r"[0-9]{1,15}(\.0+)?")
    if bad.any():
        line = column.index[bad][0]
        raise TwinprobeError(
            f"{path}, line {line}: {column.name} {column[line]!r} is no count; expected a whole number"
        )
    return column.astype(float).astype(np.int64)


def _right(path: Path, accuracy: pd.Series, items: pd.Series) -> pd.Series:
    """Right answers from percentages: the nearest whole number, which must be what the accuracy was rounded from."""
    percent = pd.to_numeric(accuracy, errors="coerce").astype(float)
    outside = ~percent.between(0, 100)
    if outside.any():
        line = percent.index[outside][0]
        raise TwinprobeError(f"{path}, line {line}: accuracy {accuracy[line]!r} is no percentage from 0 to 100")
    right = (percent * items / 100).round()
    decimals = accuracy.str.partition(".")[2].str.len()
    off = (right / items * 100 - percent).abs() > 0.5 * 10.0**-decimals + 1e-9
    if off.any():
        line = off.index[off][0]
        raise TwinprobeError(
            f"{path}, line {line}: no whole number of {items[line]} items is {accuracy[line]}%; check accuracy and count"
        )
    return right.astype(np.int64)
