"""Tables of calibration: models on tasks by size, their bins, and the two models of a pair on the same items."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from activations.errors import TwinprobeError
from activations.pairs import Pair
from analyses.benchmarks.calibration import SCORES, Answers, SquaredError, binned, calibration, equal_mass, scored
from analyses.benchmarks.paired import join
from analyses.benchmarks.pairs.sizes import add_sizes
from analyses.benchmarks.per_item import ITEM, read_items
from analyses.statistics import holm, paired_comparison
from probes.metrics import bootstrap_means, percentile_interval

COLUMNS = ("model", *ITEM, "group", "confidence", "score")
SQUARED = "squared_calibration_error"


@dataclass(frozen=True)
class Read:
    """Answers with confidences.

    Attributes:
        answers: columns :data:`COLUMNS`, the score 1 for right and 0 for wrong.
        parameters: sizes that the files give, by model in lower case.
        unsure: items left out because they have no confidence, as written answers have none.
    """

    answers: pd.DataFrame
    parameters: Mapping[str, float]
    unsure: int


def read_answers(paths: Iterable[Path]) -> Read:
    """Read per-item tables with a column confidence; ``acc`` says what is right where there is one, else ``score``.

    Raises:
        TwinprobeError: a file can not be used (:func:`.per_item.read_items`) or has no confidences, one is not from 0 to 1, an
            answer is neither right nor wrong, or an item of a model is there twice.
    """
    tables, unsure = [], 0
    sizes: dict[str, float] = {}
    for path in paths:
        table = read_items(path)
        add_sizes(sizes, table, path)
        if "confidence" not in table:
            raise TwinprobeError(
                f"{path} lacks the column confidence, the picked choice's share of the probability; `twinprobe bench run` "
                "writes it for tasks answered by a choice (a result of an older version has none: run it into another --out)"
            )
        blank = table.confidence == ""
        unsure += int(blank.sum())
        tables.append(_right_or_wrong(table[~blank], path))
    answers = pd.concat(tables, ignore_index=True)
    if answers.empty:
        raise TwinprobeError("no item has a confidence; expected tasks that are answered by a choice")
    again = answers.duplicated(["model", *ITEM])
    if again.any():
        item = answers[again].iloc[0]
        raise TwinprobeError(
            f"item {item['item']!r} of {item.task} is in two files for {item.model}; give each table once"
        )
    return Read(answers, sizes, unsure)


def _right_or_wrong(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """The columns :data:`COLUMNS` with numbers, checked."""
    for name in [name for name in ("confidence", "acc") if name in table]:
        numbers = pd.to_numeric(table[name], errors="coerce").astype(float)
        outside = ~numbers.between(0, 1)
        if outside.any():
            item = table[outside].iloc[0]
            raise TwinprobeError(
                f"{path}: {name} {item[name]!r} of item {item['item']!r} of {item.task} is no number from 0 to 1"
            )
        table = table.assign(**{name: numbers})
    table = table.assign(score=table.acc if "acc" in table else table.score)
    between = ~table.score.isin((0.0, 1.0))
    if between.any():
        item = table[between].iloc[0]
        raise TwinprobeError(
            f"{path}: score {item.score} of item {item['item']!r} of {item.task} is neither right (1) nor wrong (0); "
            "expected a column acc that says which"
        )
    return table[list(COLUMNS)]


def by_model(
    answers: pd.DataFrame,
    sizes: Mapping[str, float],
    bins: int | None = None,
    *,
    n_resamples: int = 2000,
    seed: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Calibration of every model on every task, the smallest model first.

    Returns:
        A line per task and model: task, model, parameters (NaN where unknown) and the figures of
        :func:`.calibration.calibration`; and a line per bin: task, model, bin, items, confidence, accuracy, standard_error (of
        their difference, clustered).
    """
    lines, shown = [], []
    for (task, model), part in answers.groupby(["task", "model"], sort=False):
        one = _answers(part)
        about = {"task": task, "model": model, "parameters": sizes.get(str(model).casefold(), np.nan)}
        lines.append(about | calibration(one, bins, n_resamples=n_resamples, seed=seed))
        table = binned(one, equal_mass(one.confidence, bins))
        shown.append(
            pd.DataFrame({
                "task": task, "model": model, "bin": np.arange(1, len(table.items) + 1), "items": table.items.astype(int),
                "confidence": table.confidence, "accuracy": table.accuracy, "standard_error": table.error,
            })
        )  # fmt: skip
    found = pd.DataFrame(lines)
    order = {task: place for place, task in enumerate(dict.fromkeys(answers.task))}
    found = found.assign(_task=found.task.map(order)).sort_values(
        ["_task", "parameters"], kind="stable", ignore_index=True
    )
    return found.drop(columns="_task"), pd.concat(shown, ignore_index=True)


def by_pair(
    answers: pd.DataFrame, pairs: Iterable[Pair], bins: int | None = None, *, n_resamples: int = 2000, seed: int = 0
) -> pd.DataFrame:
    """Code minus base on the items that both answered with a confidence.

    Returns:
        A line per pair, task and measure (:data:`.calibration.SCORES` and the squared calibration error, which may be
        negative): pair, task, measure, items, clusters, base, code, difference, low, high (95%, whole clusters resampled), p
        (signs of clusters flipped; missing for the squared error) and p_holm over all lines of a measure.

    Raises:
        TwinprobeError: an item is of another group in the two models' tables.
    """
    lines: list[dict[str, object]] = []
    named = answers.model.str.casefold()
    for pair in pairs:
        sides = [answers[named == name.casefold()].assign(model=name) for name in (pair.base, pair.code)]
        for task in [task for task in dict.fromkeys(sides[0].task) if task in set(sides[1].task)]:
            own = [side[side.task == task] for side in sides]
            if own[0].merge(own[1], on=list(ITEM)).empty:
                continue
            keys = join(own[0], own[1]).items[list(ITEM)]
            both = [_answers(keys.merge(side, on=list(ITEM))) for side in own]
            about = {"pair": pair.name, "task": task}
            lines += [about | line for line in _compared(both[0], both[1], bins, n_resamples, seed)]
    table = pd.DataFrame(lines)
    if len(table):
        table["p_holm"] = table.groupby("measure", sort=False).p.transform(lambda p: holm(p.to_numpy(float)))
    return table


def _answers(part: pd.DataFrame) -> Answers:
    return Answers.of(part.confidence, part.score, (part.subject + "\x1f" + part.group).to_numpy(dtype=str))


def _compared(base: Answers, code: Answers, bins: int | None, n_resamples: int, seed: int) -> list[dict[str, object]]:
    clusters = int(base.clusters.max()) + 1
    about = {"items": len(base.correct), "clusters": clusters}
    lines: list[dict[str, object]] = []
    for place, name in enumerate(SCORES):
        ours, theirs = scored(base)[:, place], scored(code)[:, place]
        line = {"measure": name, **about, "base": ours.mean(), "code": theirs.mean()}
        if np.isnan(ours).any() or np.isnan(theirs).any():
            continue
        found = paired_comparison(ours, theirs, base.clusters, seed, n_resamples)
        p = found.p if clusters > 1 else np.nan
        lines.append({**line, "difference": found.difference, "low": found.low, "high": found.high, "p": p})
    squares = []
    for answers in (base, code):
        places = equal_mass(answers.confidence, bins)
        squares.append(SquaredError.of(answers, places, binned(answers, places)))
    low = high = np.nan
    difference = squares[1].estimate - squares[0].estimate
    if clusters > 1 and np.isfinite(difference):
        means = [bootstrap_means(square.columns, base.clusters, n_resamples, seed) for square in squares]
        replicates = [square.replicates(mean) for square, mean in zip(squares, means, strict=True)]
        interval = percentile_interval(difference, replicates[1] - replicates[0])
        low, high = interval.low, interval.high
    ends = {"difference": difference, "low": low, "high": high, "p": np.nan}
    lines.append({"measure": SQUARED, **about, "base": squares[0].estimate, "code": squares[1].estimate, **ends})
    return lines
