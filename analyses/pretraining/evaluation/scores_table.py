"""The scores of a family in the table that ``twinprobe slopes`` reads (docs/FORMATS.md, Scores)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from activations.files import write_whole
from analyses.pretraining.evaluation.run import Unit

COLUMNS = ("setting", "task", "category", "group", "share", "seed", "score", "model", "items")
NO_SETTING = "other"
"""The setting of models that serve none, beside models that do."""


def scores_table(done: Sequence[Unit], out: Path) -> pd.DataFrame:
    """One line per task of each finished unit and setting that its model serves; no column ``setting`` if there are none.

    A task that some model of a setting has no score on (a patching score where a model answers nothing) is left out of that
    setting (:func:`left_out` names it): a slope over the models that happen to have one would compare other models.
    """
    everything = _lines(done, out)
    table = everything[everything.models == everything.scored].drop(columns=["evaluation", "models", "scored"])
    table = table.sort_values(["setting", "task", "share", "seed"], kind="stable", ignore_index=True)
    if (table.setting == "").all():
        return table.drop(columns="setting")
    return table.replace({"setting": {"": NO_SETTING}})


def left_out(done: Sequence[Unit], out: Path) -> list[str]:
    """A sentence for each task and setting that :func:`scores_table` leaves out."""
    everything, wanted = _lines(done, out), ("task", "setting", "scored", "models")
    partly = everything[everything.models != everything.scored].drop_duplicates(["setting", "task"])
    return [
        f"{task}{f' ({setting})' if setting else ''}: {scored} of {models} models have a score; left out of scores.csv"
        for task, setting, scored, models in zip(*(partly[name] for name in wanted), strict=True)
    ]


def _lines(done: Sequence[Unit], out: Path) -> pd.DataFrame:
    """Every score, with how many ``models`` of its setting were evaluated on its evaluation and how many are ``scored``."""
    lines = []
    points: dict[tuple[str, str], set[tuple[float, int, str]]] = {}
    for unit in done:
        scores = json.loads(unit.place(out).read_text(encoding="utf-8"))["scores"]
        for point in unit.model.points():
            where = {"setting": point.setting, "share": point.share, "seed": unit.model.run["seed"]}
            key = (point.setting, unit.table.name)
            points.setdefault(key, set()).add((point.share, where["seed"], unit.model.name))
            for score in scores:
                line = {name: score[name] for name in ("task", "category", "group", "score", "items")}
                lines.append({**line, **where, "model": unit.model.name, "evaluation": unit.table.name})
    table = pd.DataFrame(lines, columns=[*COLUMNS, "evaluation"])
    asked = [len(points[key]) for key in zip(table.setting, table.evaluation, strict=True)]
    return table.assign(models=asked, scored=table.groupby(["setting", "task"])["score"].transform("size"))


def write_scores(done: Sequence[Unit], out: Path) -> Path:
    """Write ``out/scores.csv`` anew from the scores of the finished units; return its path."""
    path = out / "scores.csv"
    write_whole(path, scores_table(done, out).to_csv(index=False).encode())
    return path
