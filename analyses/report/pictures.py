"""The pictures of a report: which there are, drawn into files and put into the page with a text beside each."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

Line = dict[str, Any]


MAPS = ("patching", "heads")
"""The kinds of patching map: the residual stream denoised, heads denoised."""


def map_name(kind: str, task: str, form: str) -> str:
    """The name of a patching map of one of :data:`MAPS`; safe as that of a file, whatever a user calls a form."""
    return f"{kind}-{quote(task, safe='')}-{quote(form, safe='')}"


def draw(folder: Path, tables: dict[str, pd.DataFrame]) -> dict[str, Path]:
    """Draw all figures there is something to draw for; their paths by their names.

    Args:
        folder: where the files go, as PNG.
        tables: the study's tables; absent and empty ones are left out.
    """
    from analyses.report import across_figures, benchmark_figures, figures, intervals, transfer_figures
    from analyses.report.difficulty import difficulty

    def table(name: str) -> pd.DataFrame:
        return tables.get(name, pd.DataFrame())

    for old in [old for kind in MAPS for old in folder.glob(f"{kind}-*.png")]:
        old.unlink()  # of a task that may no longer be in the study
    jobs: dict[str, tuple[Any, ...]] = {
        "layers": (figures.layers, table("probes")),
        "difficulty": (difficulty, table("difficulty")),
        "transfer": (transfer_figures.transfer, table("probes"), table("transfer")),
        "between-layers": (transfer_figures.between_layers, table("probes"), table("layers")),
        **_maps(table("patching")),
        "across": (across_figures.brought, table("cross")),
        "alike": (across_figures.alike, table("similarity")),
        "interventions": (intervals.interventions, table("interventions"), table("probes")),
        "scores": (intervals.scores, table("scores")),
        "benchmarks": (benchmark_figures.bars, table("benchmarks")),
        "benchmarks-radar": (benchmark_figures.radar, table("benchmarks")),
        "comparisons": (intervals.comparisons, table("comparisons")),
    }
    paths = {name: folder / f"{name}.png" for name in jobs}
    return {name: paths[name] for name, (figure, *data) in jobs.items() if figure(*data, paths[name])}


def _maps(patching: pd.DataFrame) -> dict[str, tuple[Any, ...]]:
    """The patching maps of every task and form: what draws each, and of what."""
    from analyses.report.patching_figures import head_map, patching_map, studied

    if patching.empty:
        return {}
    jobs: dict[str, tuple[Any, ...]] = {}
    chosen = studied(patching)
    for task, form in dict.fromkeys(zip(chosen.task, chosen.form, strict=True)):
        jobs[map_name("patching", task, form)] = (patching_map, patching, task, form)
    own = _heads(patching)
    for task, form in dict.fromkeys(zip(own.task, own.form, strict=True)):
        part = own[(own.task == task) & (own.form == form)]
        jobs[map_name("heads", task, form)] = (head_map, part, f"denoising head by head ({task}, {form} form)")
    return jobs


def _heads(patching: pd.DataFrame) -> pd.DataFrame:
    chosen = (patching.direction == "denoising") & (patching.donor == "contrast")
    return patching[chosen & (patching.site == "z") & (patching.by == "role") & (patching.window == 1)]


def embedded(figures: dict[str, Path], tables: dict[str, list[Line]]) -> dict[str, dict[str, Any]]:
    """For each figure its data, its size in CSS pixels and its text for those who can not see it.

    Args:
        figures: as :func:`draw` returns them.
        tables: the tables of ``results.json``.
    """
    from analyses.report import alternatives

    texts = {
        "layers": lambda: alternatives.layers(pd.DataFrame(tables["probes"])),
        "difficulty": lambda: alternatives.difficulty(tables["difficulty"]),
        "transfer": lambda: alternatives.transfer(tables["transfer"]),
        "between-layers": lambda: alternatives.between_layers(tables["layers"]),
        "across": lambda: alternatives.brought(tables["cross"]),
        "alike": lambda: alternatives.alike(tables["similarity"]),
        "interventions": lambda: alternatives.interventions(tables["interventions"]),
        "scores": lambda: alternatives.scores(tables["scores"]),
        "benchmarks": lambda: alternatives.benchmarks(tables["benchmarks"]),
        "benchmarks-radar": lambda: alternatives.radar(tables["benchmarks"]),
        "comparisons": lambda: alternatives.comparisons(tables["comparisons"]),
    } | _map_texts(tables["patching"])
    pictures = {}
    for name, path in figures.items():
        data = path.read_bytes()
        width, height = struct.unpack(">II", data[16:24])  # the header of every PNG
        pictures[name] = {
            "data": base64.b64encode(data).decode(), "width": width // 2, "height": height // 2, "alt": texts[name]()
        }  # fmt: skip
    return pictures


def _map_texts(patching: list[Line]) -> dict[str, Callable[[], str]]:
    """What makes the text of every patching map that there may be."""
    from analyses.report import alternatives
    from analyses.report.patching_figures import studied

    if not patching:
        return {}
    table = pd.DataFrame(patching)
    stream, heads = studied(table), _heads(table)
    texts: dict[str, Callable[[], str]] = {}
    for place in dict.fromkeys((line["task"], line["form"]) for line in patching):
        texts[map_name("patching", *place)] = partial(alternatives.patching, stream, *place)
        texts[map_name("heads", *place)] = partial(alternatives.heads, heads, *place)
    return texts
