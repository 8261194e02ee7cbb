"""The tables of the join: per task and site, and per item and site."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from activations.sites import parse_site
from analyses.benchmarks.joining.association import Pair, odds_ratio, permutation_p, ratio_of_odds_ratios, tables
from analyses.benchmarks.joining.beside import standardised_coefficients
from analyses.benchmarks.joining.probing import Flags, Integers, Scores, best_rows, margins
from analyses.benchmarks.joining.questions import Questions
from analyses.statistics import holm
from probes.metrics import Interval, cluster_bootstrap


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known about a task's items.

    Attributes:
        asked: the items.
        own: answers of the model whose activations were read (:func:`analyses.benchmarks.joining.asking.answers`).
        other: answers of another model to the same items, if there is one.
        control: the labels of the control probe, ``[rows]``.
        folds: fold of every item, ``[items]``.
        scores: by site the out-of-fold scores of the probe and of the control probe, ``[rows, 2]``.
        cut: whether the text of some choice has lost its beginning, ``[items]``.
    """

    asked: Questions
    own: pd.DataFrame
    other: pd.DataFrame | None
    control: Flags
    folds: Integers
    scores: Mapping[str, Scores]
    cut: Flags


@dataclass(frozen=True, eq=False)
class _Reading:
    """What the probes of one site say; truth values and numbers ``[items]``."""

    picked: Integers
    right: Flags
    control_right: Flags
    margin: Scores
    support: Scores


def _read(evidence: Evidence, scores: Scores) -> _Reading:
    asked = evidence.asked
    best, control_best = (best_rows(column, asked.owners) for column in scores.T)
    of_model = np.zeros(len(asked.owners), dtype=bool)
    of_model[asked.firsts + evidence.own.pick.to_numpy()] = True
    return _Reading(
        picked=best - asked.firsts,
        right=asked.right[best],
        control_right=evidence.control[control_best],
        margin=margins(scores[:, 0], asked.owners, asked.right),
        support=margins(scores[:, 0], asked.owners, of_model),
    )


def join_table(
    evidence: Evidence, seed: int = 0, n_permutations: int = 10_000, n_resamples: int = 1000
) -> pd.DataFrame:
    """One line per site.

    Returns:
        task, site, layer (missing at ``embed``), items, clusters, cut (items that lost their beginning), written (items left
        out), chance, model_accuracy; probe_accuracy, probe_low, probe_high; both_right, probe_only, model_only, both_wrong;
        odds_ratio, low, high, method, p, p_holm (over the sites of the task); control_accuracy, control_odds_ratio,
        control_low, control_high; confidence_alone, support_alone, confidence_beside and support_beside, each with _low and
        _high; and with another model other_accuracy, other_odds_ratio, other_low, other_high, ratio, ratio_low, ratio_high.
    """
    asked, own, clusters = evidence.asked, evidence.own.right.to_numpy(bool), evidence.asked.clusters
    strata, control_strata = asked.strata(asked.right), asked.strata(evidence.control)
    readings = {site: _read(evidence, scores) for site, scores in evidence.scores.items()}
    p_values = permutation_p(
        [reading.right for reading in readings.values()], own, strata, clusters, seed, n_permutations
    )
    confidence = evidence.own.confidence.to_numpy(float)
    [confidence_alone] = standardised_coefficients([confidence], own, clusters)
    shares = np.bincount(asked.owners, weights=asked.right) / np.bincount(asked.owners)
    lines = []
    for (site, reading), p, p_holm in zip(readings.items(), p_values, holm(p_values), strict=True):
        accuracy = cluster_bootstrap(reading.right, clusters, n_resamples, seed)
        [[both, probe_only], [model_only, neither]] = tables(reading.right, own, np.zeros(len(own)))[0].tolist()
        found = odds_ratio(reading.right, own, strata, clusters)
        control = odds_ratio(reading.control_right, own, control_strata, clusters)
        [alone] = standardised_coefficients([reading.support], own, clusters)
        beside = standardised_coefficients([confidence, reading.support], own, clusters)
        lines.append(
            {
                "task": asked.task, "site": site, "layer": parse_site(site).layer, "items": len(own),
                "clusters": int(clusters.max()) + 1, "cut": int(evidence.cut.sum()), "written": asked.left_out,
                "chance": float(shares.mean()), "model_accuracy": float(own.mean()),
                **_named("probe", accuracy, "probe_accuracy"),
                "both_right": both, "probe_only": probe_only, "model_only": model_only, "both_wrong": neither,
                "odds_ratio": found.odds_ratio, "low": found.low, "high": found.high, "method": found.method,
                "p": float(p), "p_holm": float(p_holm),
                "control_accuracy": float(reading.control_right.mean()), "control_odds_ratio": control.odds_ratio,
                "control_low": control.low, "control_high": control.high,
                **_named("confidence_alone", confidence_alone), **_named("support_alone", alone),
                **_named("confidence_beside", beside[0]), **_named("support_beside", beside[1]),
                **_against(reading.right, evidence, strata),
            }
        )  # fmt: skip
    return pd.DataFrame(lines).astype({"layer": "Int64"})


def _against(right: Flags, evidence: Evidence, strata: Integers) -> dict[str, Any]:
    """The same probe beside the answers of the other model: what is as large there is the items' difficulty."""
    if evidence.other is None:
        return {}
    own, other = (answers.right.to_numpy(bool) for answers in (evidence.own, evidence.other))
    clusters = evidence.asked.clusters
    found = odds_ratio(right, other, strata, clusters)
    ratio = ratio_of_odds_ratios(Pair(right, own, strata), Pair(right, other, strata), clusters)
    return {
        "other_accuracy": float(other.mean()), "other_odds_ratio": found.odds_ratio, "other_low": found.low,
        "other_high": found.high, **_named("ratio", ratio),
    }  # fmt: skip


def _named(name: str, found: Interval, estimate: str | None = None) -> dict[str, float]:
    return {estimate or name: found.estimate, f"{name}_low": found.low, f"{name}_high": found.high}


def item_table(evidence: Evidence) -> pd.DataFrame:
    """One line per site and item.

    Returns:
        task, site, subject, item, group, fold, stratum, model_pick, model_right, confidence; probe_pick, probe_right,
        probe_margin (highest score of the right choices minus that of the wrong ones), support (score of the model's pick
        minus the highest other), control_right, cut; and other_right with another model.
    """
    asked = evidence.asked
    about = pd.DataFrame(
        {
            "subject": [item.subject for item in asked.items], "item": [item.id for item in asked.items],
            "group": [unit.replace("\x1f", "/") for unit in asked.units], "fold": evidence.folds,
            "stratum": asked.strata(asked.right), "model_pick": evidence.own.pick, "model_right": evidence.own.right,
            "confidence": evidence.own.confidence,
        }
    )  # fmt: skip
    if evidence.other is not None:
        about["other_right"] = evidence.other.right.to_numpy(bool)
    parts = []
    for site, scores in evidence.scores.items():
        reading = _read(evidence, scores)
        part = about.assign(
            probe_pick=reading.picked, probe_right=reading.right, probe_margin=reading.margin, support=reading.support,
            control_right=reading.control_right, cut=evidence.cut,
        )  # fmt: skip
        part.insert(0, "task", asked.task)
        part.insert(1, "site", site)
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
