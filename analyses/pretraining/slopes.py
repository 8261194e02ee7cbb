"""How scores change with the share of code in pretraining: a slope per task, and tests of the slopes of many tasks.

After Petty et al. 2024 ("How Does Code Pretraining Affect Language Model Task Performance?", arXiv 2409.04556):
a line of best fit through the scores of each task, and permutation tests with 10,000 trials of how the slopes of all tasks
are distributed: mean, variance, quartiles. Seeds, intervals, the null of permuted models and the correction are added.

**Slope.** Least squares of score on share, with an intercept per seed: seeds differ in level, and that is no effect of the
share. Where every seed has the same shares this is the plain line of best fit.

**Interval.** Student's t over the slopes of the single seeds, exact for normal noise where all seeds have the same shares;
otherwise with as many degrees of freedom as the seeds' weights are worth (``1 / sum(weight**2) - 1``), a little wide in
simulations. A bootstrap over seeds would be too narrow: with three seeds it has ten different resamples, and its percentiles
lie inside the three slopes.

**Two-sided.** Twice the smaller tail, for each statistic. The null distribution of a variance is skewed, and those of the
quartiles do not centre on zero. Distance from the null's median would give a skewed distribution's short tail no chance
(slopes more alike than chance would never be found) and would judge a variance and its square root differently; the two
tails do neither. The observed value counts among the trials, so each tail is ``(1 + hits) / (1 + trials)`` (Phipson & Smyth
2010).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.stats import t as student

from analyses.pretraining.scores import KINDS
from analyses.statistics import holm

Array = NDArray[np.float64]

STATISTICS = ("mean", "variance", "lower quartile", "median", "upper quartile")
TRIALS = 10_000
SHUFFLED = ("tasks", "models")
"""What is permuted: the scores of each task on their own, or the shares over models, for all tasks alike."""


@dataclass(frozen=True, eq=False)
class Block:
    """One seed's scores on one task, in order of share; both arrays are ``[model]`` and centred on their means."""

    seed: str
    shares: Array
    scores: Array


@dataclass(frozen=True, eq=False)
class Scored:
    """One task in one setting: its line in the table of slopes, and the blocks that the line was fitted to."""

    line: dict[str, object]
    blocks: tuple[Block, ...]

    @property
    def spread(self) -> float:
        """Sum of squares of the centred shares."""
        return float(sum(block.shares @ block.shares for block in self.blocks))


def slopes(scores: pd.DataFrame) -> pd.DataFrame:
    """The slope of every task, per setting where there are settings.

    Args:
        scores: as :func:`analyses.pretraining.scores.read_scores` returns them.

    Returns:
        A line per setting and task: ``setting``, ``task``, ``category``, ``group`` (those that ``scores`` has), ``slope``
        (change of the score from no code to nothing but code), ``low``, ``high`` (95%, over seeds; NaN with one seed),
        ``intercept``, ``points``, ``seeds``. A seed that has one share only says nothing of the slope and is left out of
        ``points`` and ``seeds``; where all seeds are like that, all lines count as one seed.
    """
    return pd.DataFrame([each.line for family in _families(scores).values() for each in family])


def slope_tests(scores: pd.DataFrame, trials: int = TRIALS, seed: int = 0) -> pd.DataFrame:
    """Two-sided permutation tests of how the slopes of the tasks are distributed, per setting and kind of task.

    The null: the share changes no score. Within every seed scores are permuted over shares and all slopes fitted again.
    ``tasks`` permutes each task on its own; the p values hold if the scores of different tasks on one model are independent.
    A model that happens to be good is good on many tasks, though, and then the mean of the slopes strays more than these
    permutations do. ``models`` permutes the models' shares, the same way for all tasks, and holds whatever tasks have in
    common; it has fewer different permutations, and needs every task of a setting on the same models, which need a seed each
    where a share has several; its lines are missing where that is not so.

    Returns:
        A line per setting, kind (``by``: ``all``, ``category`` or ``group``; ``name``: which), statistic and ``shuffled``
        (:data:`SHUFFLED`): ``tasks`` (how many), ``value``, ``null_low``, ``null_median``, ``null_high`` (2.5%, 50% and 97.5%
        of the trials), ``p``, ``p_holm`` (over the lines of the table with the same ``by`` and ``shuffled``), ``trials``.
        The variance of a single task is NaN.
    """
    rng = np.random.default_rng(seed)
    lines: list[dict[str, object]] = []
    for setting, family in _families(scores).items():
        fitted = np.array([each.line["slope"] for each in family], dtype=np.float64)
        about = {"setting": setting} if "setting" in scores else {}
        for shuffled in SHUFFLED:
            null = _by_task(family, trials, rng) if shuffled == "tasks" else _by_model(family, trials, rng)
            if null is None:
                continue
            for by, name, which in _kinds(family):
                chosen = {**about, "by": by, "name": name, "tasks": len(which), "shuffled": shuffled}
                lines += [{**chosen, **found} for found in _tested(fitted[which], null[:, which])]
    table = pd.DataFrame(lines).assign(trials=trials)
    adjusted = table.groupby(["by", "shuffled"], sort=False)["p"].transform(lambda p: holm(p.to_numpy()))
    table.insert(list(table.columns).index("p") + 1, "p_holm", adjusted)
    return table


def two_sided(observed: float, null: Array) -> float:
    """Twice the smaller tail of ``null [trial]`` at ``observed``, the observed value counted in; ties count in both tails."""
    if np.isnan(observed):
        return float("nan")
    tolerance = 1e-9 * max(float(np.abs(null).max()), abs(observed))
    hits = min(int((null <= observed + tolerance).sum()), int((null >= observed - tolerance).sum()))
    return min(1.0, 2 * (1 + hits) / (1 + len(null)))


def distribution(slopes: Array) -> dict[str, Array]:
    """Every one of :data:`STATISTICS` of ``slopes [..., task]``, each ``[...]``; the variance of one task is NaN."""
    many = slopes.shape[-1] > 1
    variance = slopes.var(axis=-1, ddof=1) if many else np.full(slopes.shape[:-1], np.nan)
    values = (slopes.mean(axis=-1), variance, *np.quantile(slopes, (0.25, 0.5, 0.75), axis=-1))
    return dict(zip(STATISTICS, map(np.asarray, values), strict=True))


def _tested(fitted: Array, null: Array) -> list[dict[str, object]]:
    """The tests of ``fitted [task]`` against ``null [trial, task]``."""
    observed, expected = distribution(fitted), distribution(null)
    found = []
    for statistic, value in observed.items():
        low, median, high = np.quantile(expected[statistic], (0.025, 0.5, 0.975))
        within = {"null_low": low, "null_median": median, "null_high": high}
        p = two_sided(float(value), expected[statistic])
        found.append({"statistic": statistic, "value": float(value), **within, "p": p})
    return found


def _by_task(family: Sequence[Scored], trials: int, rng: Generator) -> Array:
    """Slopes ``[trial, task]`` with the scores of each task permuted on their own, within seeds."""
    null = np.empty((trials, len(family)))
    for place, each in enumerate(family):
        null[:, place] = sum(_permuted(block, trials, rng) @ block.scores for block in each.blocks) / each.spread
    return null


def _by_model(family: Sequence[Scored], trials: int, rng: Generator) -> Array | None:
    """Slopes ``[trial, task]`` with the shares permuted over models, within seeds; None if tasks are of different models."""
    first = family[0]
    for each in family:
        if [block.seed for block in each.blocks] != [block.seed for block in first.blocks]:
            return None
        for block, expected in zip(each.blocks, first.blocks, strict=True):
            if not np.array_equal(block.shares, expected.shares) or (np.diff(block.shares) == 0).any():
                return None
    null = np.zeros((trials, len(family)))
    for place, block in enumerate(first.blocks):
        null += _permuted(block, trials, rng) @ np.stack([each.blocks[place].scores for each in family], axis=1)
    return null / first.spread


def _permuted(block: Block, trials: int, rng: Generator) -> Array:
    """The shares ``[trial, model]``, in a random order in each trial."""
    return rng.permuted(np.tile(block.shares, (trials, 1)), axis=1)


def _kinds(family: Sequence[Scored]) -> list[tuple[str, str, list[int]]]:
    """What is tested together: all tasks, and those of each category and group."""
    kinds: dict[tuple[str, str], list[int]] = {("all", "all"): list(range(len(family)))}
    for by in KINDS:
        for place, each in enumerate(family):
            if each.line.get(by):
                kinds.setdefault((by, str(each.line[by])), []).append(place)
    return [(by, name, which) for (by, name), which in kinds.items()]


def _families(scores: pd.DataFrame) -> dict[str, list[Scored]]:
    """The tasks of each setting, fitted; settings and tasks in the order of the table."""
    by = [name for name in ("setting", "task", *KINDS) if name in scores]
    families: dict[str, list[Scored]] = {}
    for names, part in scores.groupby(by, sort=False):
        about: dict[str, object] = {name: str(value) for name, value in zip(by, names, strict=True)}
        families.setdefault(str(about.get("setting", "")), []).append(_fitted(about, part))
    return families


def _fitted(about: dict[str, object], part: pd.DataFrame) -> Scored:
    """The line of best fit of one task, with an intercept per seed."""
    seeds = part["seed"].to_numpy(str) if "seed" in part else np.full(len(part), "")
    shares, scores = part["share"].to_numpy(np.float64), part["score"].to_numpy(np.float64)
    used = np.isin(seeds, [name for name in np.unique(seeds) if len(np.unique(shares[seeds == name])) > 1])
    if not used.any():
        seeds, used = np.full(len(part), ""), np.full(len(part), True)
    seeds, shares, scores = seeds[used], shares[used], scores[used]
    blocks = []
    for name in np.unique(seeds):
        x, y = shares[seeds == name], scores[seeds == name]
        order = np.argsort(x, kind="stable")
        centred = y[order] - y.mean() if np.ptp(y) else np.zeros_like(y)  # rounding is no slope to be tested
        blocks.append(Block(str(name), x[order] - x.mean(), centred))
    spread = np.array([block.shares @ block.shares for block in blocks])
    single = np.array([block.shares @ block.scores for block in blocks]) / spread
    weights, count = spread / spread.sum(), len(blocks)
    slope, half = float(weights @ single), float("nan")
    if count > 1:
        # Seeds with few shares weigh less, and several such count for less than their number. Equal weights make this the
        # standard error of a mean.
        effective = 1 / (weights @ weights)
        error = np.sqrt((weights**2 @ (single - slope) ** 2) * effective / (effective - 1))
        half = float(student.ppf(0.975, effective - 1) * error)
    line = {
        **about, "slope": slope, "low": slope - half, "high": slope + half,
        "intercept": float(scores.mean() - slope * shares.mean()), "points": len(scores), "seeds": count,
    }  # fmt: skip
    return Scored(line, tuple(blocks))
