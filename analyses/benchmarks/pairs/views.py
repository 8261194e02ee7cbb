"""Across pairs: does what a pair gains on a benchmark go with what was found inside its models, or only with their size?

Larger models gain differently from smaller ones whatever was found inside them, so every correlation over all pairs stands
beside four that size can not make, or not as easily (:data:`VIEWS`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pandas as pd

from activations.pairs import Pair
from analyses.benchmarks.pairs.ranks import FEWEST, RankCorrelation, partial_rank_correlation, rank_correlation
from analyses.statistics import holm

SIZE = "parameters"
"""The measure that is always there: parameters of the base model."""
VIEWS = {
    "all": "all pairs",
    "given size": "the ranks of the base models' parameters taken out of both",
    "size-matched": "gain over base models of the code model's size, of any family",
    "within size": "base models of about one size among themselves, pairs whose two models are alike in size",
    "within family": "pairs of one family among themselves, pairs of one architecture",
}
"""How the pairs are looked at; the last also for every family of :data:`.across_pairs_ranks.FEWEST` pairs or more."""
ALPHA = 0.05


def pair_table(
    gains: pd.DataFrame, internals: pd.DataFrame, pairs: Iterable[Pair], sizes: Mapping[str, float]
) -> pd.DataFrame:
    """A line per pair and benchmark with gain, sizes and all measures.

    Args:
        gains: as :func:`.across_pairs_scores.gains` gives them.
        internals: columns pair, measure, value, low, high.
        pairs: the pairs of ``gains``.
        sizes: parameters by model in lower case.

    Returns:
        The columns of ``gains``; family (missing for pairs that are not registered), base, code, parameters (of the base
        model), code_parameters, size_ratio (code over base), same_architecture (yes, no, unverified), and for every measure
        MEASURE, MEASURE_low and MEASURE_high.
    """
    about = {}
    for pair in pairs:
        base, code = (sizes.get(name.casefold(), np.nan) for name in (pair.base, pair.code))
        about[pair.name] = {
            "family": None if pair.family == "custom" else pair.family, "base": pair.base, "code": pair.code, SIZE: base,
            "code_parameters": code, "size_ratio": code / base, "same_architecture": pair.same_architecture.verdict,
        }  # fmt: skip
    table = gains.merge(
        pd.DataFrame.from_dict(about, orient="index").rename_axis("pair").reset_index(), on="pair", how="left"
    )
    for measure, lines in internals.groupby("measure", sort=False):
        own = lines.set_index("pair")
        for column, name in (("value", str(measure)), ("low", f"{measure}_low"), ("high", f"{measure}_high")):
            table[name] = table["pair"].map(own[column]).astype(float)
    return table


def size_strata(parameters: Sequence[float], factor: float) -> list[int]:
    """Number the sizes by stratum: from the smallest on, what lies within ``factor`` of a stratum's smallest belongs to it."""
    order = np.argsort(parameters, kind="stable")
    strata, start, number = [0] * len(parameters), -np.inf, -1
    for place in order:
        if parameters[place] > start * factor or number < 0:
            start, number = parameters[place], number + 1
        strata[place] = number
    return strata


def correlations(
    table: pd.DataFrame,
    measures: Sequence[str],
    matched: pd.DataFrame,
    factor: float,
    *,
    trials: int = 10_000,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlations of the gain with every measure and with size, benchmark by benchmark and view by view.

    Args:
        table: as :func:`pair_table` gives it.
        measures: which of its columns; :data:`SIZE` is added.
        matched: as :func:`.across_pairs_scores.size_matched_gains` gives it.
        factor: sizes that lie this far apart or less are about the same.
        trials: random arrangements where there are too many to try all.
        seed: of these.

    Returns:
        A line per benchmark, measure and view: points, spearman, p_spearman, kendall, p_kendall, low, high, arrangements,
        all_tried, smallest_p, reason (:class:`.across_pairs_ranks.RankCorrelation`); size_spearman, the correlation of gain and
        size on the same points; p_holm, of p_spearman over all benchmarks and measures but size in the same view.
    """
    lines = []
    for benchmark, part in table.groupby("benchmark", sort=False):
        own = matched[matched.benchmark == benchmark]
        part = part.assign(matched_gain=part["pair"].map(own.groupby("pair").gain.mean()).astype(float))
        for measure in [*measures, SIZE]:
            for view, found, points in _views(part, measure, factor, trials, seed):
                size = (
                    rank_correlation(points.gain, points[SIZE], trials=1)
                    if points[SIZE].notna().all()
                    else RankCorrelation(0)
                )
                about = {"benchmark": benchmark, "measure": measure, "view": view, **asdict(found)}
                lines.append(about | {"size_spearman": size.spearman})
    related = pd.DataFrame(lines)
    tested = related[related.measure != SIZE]
    related["p_holm"] = (
        tested.groupby("view", sort=False).p_spearman.transform(lambda p: holm(p.to_numpy())) if len(tested) else np.nan
    )
    return related


def _views(
    part: pd.DataFrame, measure: str, factor: float, trials: int, seed: int
) -> Iterable[tuple[str, RankCorrelation, pd.DataFrame]]:
    """Every view's name, correlation, and the points that it is over."""
    settings = {"trials": trials, "seed": seed}
    points = part[part[measure].notna()]
    yield "all", rank_correlation(points.gain, points[measure], **settings), points
    sized = points[points[SIZE].notna()]
    if measure != SIZE:
        yield "given size", partial_rank_correlation(sized.gain, sized[measure], sized[SIZE], **settings), sized
        over = points[points.matched_gain.notna()]
        over = over.assign(gain=over.matched_gain)
        yield "size-matched", rank_correlation(over.gain, over[measure], **settings), over
        alike = sized[sized.size_ratio.between(1 / factor, factor)]
        strata = size_strata(alike[SIZE].tolist(), factor)
        yield "within size", rank_correlation(alike.gain, alike[measure], strata, **settings), alike
    related = points[points.family.notna() & (points.same_architecture == "yes")]
    yield (
        "within family",
        rank_correlation(related.gain, related[measure], related.family.to_numpy(str), **settings),
        related,
    )
    families = related.groupby("family", sort=False)
    for family, members in families:
        if len(members) >= FEWEST and len(families) > 1:
            yield f"family {family}", rank_correlation(members.gain, members[measure], **settings), members


def said(found: pd.DataFrame, table: pd.DataFrame) -> list[str]:
    """What the correlations allow to be said, in sentences: first of all whether size explains the gain as well."""
    sentences = []
    for (benchmark, measure), lines in found.groupby(["benchmark", "measure"], sort=False):
        views: dict[str, Any] = {str(line["view"]): line for line in lines.to_dict("records")}
        every, given = views["all"], views.get("given size")
        opening = f"{benchmark}, {measure}"
        if every["reason"]:
            sentences.append(f"{opening}: {every['reason']}.")
        elif measure == SIZE:
            verdict = "goes" if every["p_spearman"] < ALPHA else "was not shown to go"
            sentences.append(f"{benchmark}: the gain {verdict} with the base model's size ({_told(every)}).")
        else:
            sentences.append(f"{opening}: {_verdict(every, given)}")
    shared = Counter(model for models in _models(table) for model in models)
    several = [model for model, count in shared.items() if count > 1]
    if several:
        sentences.append(
            f"Not independent: {', '.join(several)} in several pairs; the p values take pairs as independent and may be too "
            "small."
        )
    return sentences


def _verdict(every: Mapping[str, Any], given: Mapping[str, Any] | None) -> str:
    size = every["size_spearman"]
    goes = every["p_spearman"] < ALPHA
    told = f"{'goes' if goes else 'was not shown to go'} with the gain ({_told(every)})"
    if every["smallest_p"] >= ALPHA:
        told += f"; with so few pairs no p is below {every['smallest_p']:.3f}"
    if np.isnan(size):
        return f"{told}; what size alone explains is not known, as sizes are missing."
    if abs(size) >= abs(every["spearman"]):
        return f"{told}. Size alone explains the gain as well: on the same pairs its rho is {size:+.2f}."
    if not goes or given is None:
        return f"{told}."
    if np.isnan(given["p_spearman"]):
        return f"{told}; size can not be taken out ({given['reason']})."
    if given["p_spearman"] >= ALPHA:
        return f"{told}. Given size, no correlation is shown ({_told(given)}): size may explain the gain as well."
    return f"{told}, also given size ({_told(given)})."


def _told(line: Mapping[str, Any]) -> str:
    n, rho, p, tried = line["points"], line["spearman"], line["p_spearman"], line["arrangements"]
    return (
        f"rho {rho:+.2f}, p {p:.3g} over {tried:,} arrangements, {'all' if line['all_tried'] else 'at random'}; n {n}"
    )


def _models(table: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    """The models of each pair."""
    return table.drop_duplicates("pair")[["base", "code"]].itertuples(index=False, name=None)
