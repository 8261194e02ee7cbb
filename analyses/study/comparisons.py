"""Code minus base on the same rows, for everything the study measured; base against its second seed as the calibration."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import pandas as pd

from analyses.statistics import holm, paired_comparison
from analyses.study.stages import Tables

MIN_ROWS = 5
"""A comparison over fewer common rows is left out."""


@dataclass(frozen=True)
class Measure:
    """Something that both models were scored on, row by row.

    ``table`` holds it; ``by`` are the columns that tell one comparison from another; the columns
    ``row`` name what is paired, ``cluster`` what is resampled, ``value`` the score.
    """

    name: str
    table: str
    by: tuple[str, ...]
    row: tuple[str, ...]
    cluster: str
    value: str
    higher_is_better: bool = True


MEASURES = (
    Measure("probe", "probe_rows", ("task", "target", "form"), ("row",), "cluster", "correct"),
    Measure("transfer", "transfer_rows", ("task", "target", "source", "form"), ("row",), "cluster", "correct"),
    Measure("behaviour", "behaviour", ("task", "form"), ("item",), "item", "right"),
    Measure("arrival", "arrival", ("task", "form"), ("item",), "item", "recovery"),
    Measure("bits per byte", "score_rows", ("form",), ("text",), "group", "bits_per_byte", higher_is_better=False),
    Measure("benchmark", "benchmark_items", ("task",), ("subject", "item"), "group", "score"),
)


def arrival(cells: pd.DataFrame) -> pd.DataFrame:
    """Per item: recovery when only the last position is patched, averaged over layers.

    High when the answer reaches the last token early on the way up, 0 when it never is there before the last layer.
    """
    stream = (cells.site == "resid_pre") & (cells.by == "position") & (cells.direction == "denoising")
    last = cells[stream & (cells.role == "last")]
    return last.groupby(["task", "form", "item"], as_index=False)[["recovery"]].mean()


def compare(per_role: dict[str, Tables], *, seed: int, n_resamples: int, n_flips: int) -> pd.DataFrame:
    """All comparisons of code with base, and of second_seed with base where the study has one (the null pair).

    Args:
        per_role: the tables of each model by its role (``base``, ``code``, ``second_seed``).
        seed: seed of bootstrap and sign flips.
        n_resamples: bootstrap resamples.
        n_flips: sign-flip permutations.

    Returns:
        Columns against (``code`` or ``second_seed``), measure, task, target, source, form, base, other (the two means),
        difference (other minus base), low, high, p, p_holm (over all comparisons of that pair), n_items, n_clusters,
        minimum_detectable_effect, higher_is_better, common (share of base's rows that both models have),
        null_difference (on the lines of code: what the same comparison gives between two seeds of base).
    """
    frames = []
    for role in ("code", "second_seed"):
        if role not in per_role:
            continue
        lines = [
            line
            for measure in MEASURES
            for line in _compare_measure(measure, per_role["base"], per_role[role], seed, n_resamples, n_flips)
        ]
        frame = pd.DataFrame(lines)
        if len(frame):
            frame.insert(0, "against", role)
            frame["p_holm"] = holm(frame.p.to_numpy())
            frames.append(frame)
    return _beside_null(pd.concat(frames, ignore_index=True)) if frames else pd.DataFrame()


def _beside_null(comparisons: pd.DataFrame) -> pd.DataFrame:
    """Set the null pair's difference beside each of code's.

    The tests ask whether these two models differ on more such items; two seeds of one model may well do so. Only a
    difference beyond the one between seeds speaks about the training text.
    """
    key = [column for column in ("measure", "task", "target", "source", "form") if column in comparisons]
    # An absent entry is NaN, which equals nothing, itself included; as text it can be looked up.
    names = comparisons[key].fillna("").agg("/".join, axis=1)
    is_null = comparisons.against == "second_seed"
    null = dict(zip(names[is_null], comparisons.difference[is_null], strict=True))
    return comparisons.assign(null_difference=names.map(null).astype(float).where(~is_null))


def _compare_measure(
    measure: Measure, base: Tables, other: Tables, seed: int, n_resamples: int, n_flips: int
) -> list[dict[str, object]]:
    if measure.table not in base or measure.table not in other:
        return []
    by = list(measure.by)
    joined = base[measure.table].merge(other[measure.table], on=[*by, *measure.row], suffixes=("_base", "_other"))
    sizes = {_as_tuple(key): len(part) for key, part in base[measure.table].groupby(by)}
    lines = []
    for key, part in joined.groupby(by, sort=False):
        if len(part) < MIN_ROWS:
            continue
        # A column that is joined on keeps its name.
        cluster = measure.cluster if measure.cluster in part else f"{measure.cluster}_base"
        ours, theirs = (part[f"{measure.value}_{side}"].to_numpy(dtype=float) for side in ("base", "other"))
        result = paired_comparison(ours, theirs, part[cluster].astype(str).to_numpy(), seed, n_resamples, n_flips)
        lines.append(
            {
                "measure": measure.name,
                **dict(zip(by, _as_tuple(key), strict=True)),
                "base": ours.mean(),
                "other": theirs.mean(),
                **asdict(result),
                "higher_is_better": measure.higher_is_better,
                "common": len(part) / sizes[_as_tuple(key)],
            }
        )
    return lines


def _as_tuple(key: object) -> tuple[object, ...]:
    return key if isinstance(key, tuple) else (key,)
