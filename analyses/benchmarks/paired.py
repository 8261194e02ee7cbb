"""Is the code model better than its base on a benchmark? Paired tests on the items that both answered.

Both models answer the same questions, so differences are taken item by item, and their standard error is clustered where
questions belong together (Miller 2024, "Adding Error Bars to Evals", arXiv 2411.00640: paired differences, section 4.2, and
clustered standard errors, section 2.2). McNemar's exact test (McNemar 1947) takes every item on its own; the sign-flip
permutation test keeps clusters whole, and is the one to trust where groups hold several items.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import binom

from activations.errors import TwinprobeError
from analyses.benchmarks.per_item import ITEM, check_items, one_model
from analyses.statistics import clustered_standard_error, holm, paired_comparison

By = Literal["task", "subject"]


@dataclass(frozen=True)
class Joined:
    """The items of two models side by side.

    Attributes:
        models: names of base and code model.
        items: columns task, subject, item, group, base and code (scores), in the order of the base model's table.
        missing: columns task, subject, item, missing (``base`` or ``code``: the model that lacks it).
    """

    models: tuple[str, str]
    items: pd.DataFrame
    missing: pd.DataFrame


def join(base: pd.DataFrame, code: pd.DataFrame) -> Joined:
    """Put two per-item tables side by side, by task, subject and item.

    Raises:
        TwinprobeError: a table is not of one model, both are of the same one, they share no item, or an item that both
            have is of another group or (``doc_hash``) another text.
    """
    base, code = check_items(base, "the base model's table"), check_items(code, "the code model's table")
    models = one_model(base, "the base model's table"), one_model(code, "the code model's table")
    if models[0] == models[1]:
        raise TwinprobeError(f"both tables are of model {models[0]!r}; expected a base model and another one")
    keys = list(ITEM)
    hashed = "doc_hash" in base and "doc_hash" in code
    kept = [*keys, "score", "group", *(["doc_hash"] if hashed else [])]
    both = base[kept].merge(code[kept], on=keys, how="outer", suffixes=("", "_code"), indicator=True, sort=False)
    missing = both[both._merge != "both"]
    missing = missing[keys].assign(missing=np.where(missing._merge == "left_only", "code", "base"))
    items = both[both._merge == "both"]
    if items.empty:
        first = [tuple(table[keys].iloc[0]) for table in (base, code)]
        raise TwinprobeError(
            f"the tables share no item: the first of the base model is {first[0]}, of the code model {first[1]}; "
            "expected the same tasks, subjects and items"
        )
    checks = [("group", "clusters")] + ([("doc_hash", "texts")] if hashed else [])
    for column, what in checks:
        different = items[column].astype(str) != items[f"{column}_code"].astype(str)
        if different.any():
            line = items[different].iloc[0]
            raise TwinprobeError(
                f"{int(different.sum())} of {len(items)} items have other {what} in the two tables, first item "
                f"{line['item']!r} of {line.task}: {line[column]!r} and {line[f'{column}_code']!r}; expected the same data"
            )
    order = base[keys].assign(_order=range(len(base)))
    items = items.merge(order, on=keys).sort_values("_order")
    items = items.assign(base=items.score, code=items.score_code)[[*keys, "group", "base", "code"]]
    return Joined(models, items.reset_index(drop=True), missing.reset_index(drop=True))


def mcnemar(base: ArrayLike, code: ArrayLike) -> tuple[int, int, float]:
    """McNemar's exact test: are the items that only one model gets right split evenly?

    Args:
        base: 0 or 1 per item, ``[n]``.
        code: the same items, ``[n]``.

    Returns:
        Items that only the base model gets right, those that only the code model does, and the two-sided p, twice the
        smaller tail of Binomial(discordant items, 1/2) and at most 1.

    Raises:
        TwinprobeError: a score is neither 0 nor 1.
    """
    scores = [np.asarray(values, dtype=np.float64) for values in (base, code)]
    if not all(np.isin(values, (0.0, 1.0)).all() for values in scores):
        raise TwinprobeError("McNemar's test needs scores of 0 and 1; use the permutation test for others")
    only_base = int(((scores[0] == 1) & (scores[1] == 0)).sum())
    only_code = int(((scores[0] == 0) & (scores[1] == 1)).sum())
    tail = float(binom.cdf(min(only_base, only_code), only_base + only_code, 0.5))
    return only_base, only_code, min(1.0, 2 * tail)


def paired_tests(
    items: pd.DataFrame, by: By = "task", *, seed: int = 0, n_resamples: int = 2000, n_flips: int = 10_000
) -> pd.DataFrame:
    """Compare the two models task by task, or subject by subject.

    Args:
        items: as in :class:`Joined`.
        by: what gets a line of its own.
        seed: seed of bootstrap and permutations.
        n_resamples: bootstrap resamples of clusters.
        n_flips: random sign patterns, where there are too many clusters to try all.

    Returns:
        One line per task (and subject): items, clusters, base and code (mean scores), difference (code minus base),
        standard_error (clustered, of the difference), low and high (95%, paired bootstrap over clusters), p_permutation
        (signs of whole clusters flipped), only_base and only_code (items right in one model alone), p_mcnemar (both missing
        unless all scores are 0 or 1), minimum_detectable_effect (80% power, two-sided 5%), correlation (Pearson's, of the
        scores of the two models), and p_permutation_holm and p_mcnemar_holm over all lines. What needs two clusters or more
        is NaN with one; a subject that is a single group is clustered by item when ``by`` is ``subject``.
    """
    keys = ["task"] if by == "task" else ["task", "subject"]
    lines = []
    for names, part in items.groupby(keys, sort=False):
        clusters = part.subject + "\x1f" + part.group
        if by == "subject" and part.group.nunique() == 1:
            clusters = part["item"]
        base, code = part.base.to_numpy(dtype=float), part.code.to_numpy(dtype=float)
        lines.append(dict(zip(keys, names, strict=True)) | _tests(base, code, clusters, seed, n_resamples, n_flips))
    table = pd.DataFrame(lines)
    for test in ("permutation", "mcnemar"):
        table[f"p_{test}_holm"] = holm(table[f"p_{test}"])
    return table


def _tests(
    base: np.ndarray, code: np.ndarray, clusters: pd.Series, seed: int, n_resamples: int, n_flips: int
) -> dict[str, float]:
    comparison = paired_comparison(base, code, clusters.to_numpy(dtype=str), seed, n_resamples, n_flips)
    binary = bool(np.isin(base, (0.0, 1.0)).all() and np.isin(code, (0.0, 1.0)).all())
    only_base, only_code, p_mcnemar = mcnemar(base, code) if binary else (np.nan, np.nan, np.nan)
    varied = len(base) > 1 and base.std() > 0 and code.std() > 0
    return {
        "items": comparison.n_items,
        "clusters": comparison.n_clusters,
        "base": float(base.mean()),
        "code": float(code.mean()),
        "difference": comparison.difference,
        "standard_error": clustered_standard_error(code - base, clusters.to_numpy(dtype=str)),
        "low": comparison.low,
        "high": comparison.high,
        "p_permutation": comparison.p if comparison.n_clusters > 1 else np.nan,
        "only_base": only_base,
        "only_code": only_code,
        "p_mcnemar": p_mcnemar,
        "minimum_detectable_effect": comparison.minimum_detectable_effect,
        "correlation": float(np.corrcoef(base, code)[0, 1]) if varied else np.nan,
    }
