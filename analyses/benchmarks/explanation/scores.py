"""How close explanations of code come to those that people gave: BLEU, ROUGE, METEOR, and tests between systems.

All scores run from 0 to 1 (sacrebleu's BLEU is divided by 100). Where an item has several references,
BLEU counts an n-gram that any of them has, and the others take the best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError, did_you_mean
from analyses.benchmarks.explanation.items import Explained
from analyses.benchmarks.explanation.meteor import meteor, words
from analyses.benchmarks.explanation.paired import Floats, Score, compare_scores, mean_score
from analyses.statistics import holm

METRICS = ("bleu", "rouge1", "rouge2", "rougeL", "meteor")
ALPHA = 0.05


@dataclass(frozen=True, eq=False)
class Measured:
    """A metric of one system: its score on every item ``[n]``, and what the corpus score is computed from ``[n, k]``."""

    name: str
    items: Floats
    statistics: Floats
    score: Score

    @property
    def corpus(self) -> float:
        """The score of all items together."""
        return float(self.score(self.statistics.sum(0, keepdims=True))[0])


def averaged(name: str, values: Sequence[float] | Floats) -> Measured:
    """A metric whose corpus score is the mean over the items ``[n]``."""
    items = np.asarray(values, dtype=np.float64)
    return Measured(name, items, np.stack([items, np.ones_like(items)], axis=1), mean_score)


def measure(texts: Sequence[str], items: Sequence[Explained], metrics: Sequence[str] = METRICS) -> list[Measured]:
    """Score one text per item.

    BLEU is sacrebleu's (tokenizer 13a, exponential smoothing; of one item with effective order), ROUGE is rouge-score's F1
    without stemming, METEOR is :mod:`analyses.benchmarks.explanation.meteor`.

    Raises:
        TwinprobeError: an unknown metric, or a package that a metric needs is not installed.
    """
    for name in metrics:
        if name not in METRICS:
            raise TwinprobeError(
                f"metric {name!r} is not known{did_you_mean(name, METRICS)}; expected {', '.join(METRICS)}"
            )
    found = {}
    if "bleu" in metrics:
        found["bleu"] = _bleu(texts, items)
    if rouges := [name for name in metrics if name.startswith("rouge")]:
        found.update(_rouge(texts, items, rouges))
    if "meteor" in metrics:
        scores = [
            meteor(words(text), [words(reference) for reference in item.references])
            for text, item in zip(texts, items, strict=True)
        ]
        found["meteor"] = averaged("meteor", scores)
    return [found[name] for name in dict.fromkeys(metrics)]


def bleu_from_statistics(totals: Floats) -> Floats:
    """Corpus BLEU ``[m]`` from ``[m, 10]``: length, reference length, n-grams matched and n-grams, both for n from 1 to 4.

    Papineni et al. 2002 with sacrebleu's defaults: every n without a match counts half a match, a quarter, ... ("exp").
    """
    length, wanted, matched, grams = totals[:, 0], totals[:, 1], totals[:, 2:6], totals[:, 6:10]
    scores = np.zeros(len(totals))
    usable = (grams > 0).all(1) & (matched > 0).any(1)
    missed = matched == 0
    smoothed = np.where(missed, 0.5 ** np.cumsum(missed, axis=1), matched)
    precision = np.log(smoothed[usable] / grams[usable]).mean(1)
    scores[usable] = np.exp(precision + np.minimum(0.0, 1 - wanted[usable] / length[usable]))
    return scores


def per_item(model: str, task: str, measured: Sequence[Measured], items: Sequence[Explained]) -> pd.DataFrame:
    """One line per metric and item: model, task, subject (the metric), item, score, chance (none), group."""
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "model": model, "task": task, "subject": one.name, "item": [item.id for item in items],
                    "score": one.items, "chance": np.nan, "group": [item.group for item in items],
                }
            )
            for one in measured
        ],
        ignore_index=True,
    )  # fmt: skip


def compare(
    systems: Mapping[str, Sequence[Measured]], items: Sequence[Explained], *, seed: int = 0, n_resamples: int = 10_000
) -> pd.DataFrame:
    """Every system against the first, metric by metric (see :func:`analyses.benchmarks.explanation.paired.compare_scores`).

    Returns:
        Columns base, model, metric, first, second, difference, low, high, better, p_bootstrap, p_randomisation, items, groups,
        p_bootstrap_holm and p_randomisation_holm (over all lines), significant (both Holm-adjusted p values below 0.05).
    """
    (base, measured), *others = systems.items()
    groups = [item.group for item in items]
    lines = [
        {
            "base": base, "model": model, "metric": own.name,
            **asdict(
                compare_scores(
                    first.statistics, own.statistics, own.score, groups, seed=seed, n_resamples=n_resamples,
                    n_shuffles=n_resamples,
                )
            ),
        }
        for model, theirs in others
        for first, own in zip(measured, theirs, strict=True)
    ]  # fmt: skip
    table = pd.DataFrame(lines)
    if not lines:
        return table
    for column in ("p_bootstrap", "p_randomisation"):
        table[f"{column}_holm"] = holm(table[column])
    return table.assign(significant=(table[["p_bootstrap_holm", "p_randomisation_holm"]] < ALPHA).all(axis=1))


def _bleu(texts: Sequence[str], items: Sequence[Explained]) -> Measured:
    metric = _required("sacrebleu.metrics", "sacrebleu", "bleu").BLEU(effective_order=True)
    found = [metric.sentence_score(text, list(item.references)) for text, item in zip(texts, items, strict=True)]
    statistics = [[one.sys_len, one.ref_len, *one.counts, *one.totals] for one in found]
    return Measured(
        "bleu",
        np.array([one.score / 100 for one in found]),
        np.array(statistics, dtype=np.float64),
        bleu_from_statistics,
    )


def _rouge(texts: Sequence[str], items: Sequence[Explained], names: Sequence[str]) -> dict[str, Measured]:
    scorer = _required("rouge_score.rouge_scorer", "rouge-score", names[0]).RougeScorer(list(names), use_stemmer=False)
    found = [scorer.score_multi(list(item.references), text) for text, item in zip(texts, items, strict=True)]
    return {name: averaged(name, [one[name].fmeasure for one in found]) for name in names}


def _required(module: str, package: str, metric: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError:
        raise TwinprobeError(
            f'metric {metric} needs {package}, which is not installed; pip install "twinprobe[bench]", or leave the metric out '
            "(--metric meteor needs nothing)"
        ) from None
