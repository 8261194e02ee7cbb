"""The pictures of a report: which there are, drawn into files and put into the page with a text beside each."""

from __future__ import annotations

import base64
import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd

Line = dict[str, Any]


def map_name(task: str, form: str) -> str:
    """The name of a patching map; safe as that of a file, whatever a user calls a form."""
    return f"patching-{quote(task, safe='')}-{quote(form, safe='')}"


def draw(folder: Path, tables: dict[str, pd.DataFrame]) -> dict[str, Path]:
    """Draw all figures there is something to draw for; their paths by their names.

    Args:
        folder: where the files go, as PNG.
        tables: the study's tables; absent and empty ones are left out.
    """
    from analyses.report import figures, intervals, transfer_figures
    from analyses.report.difficulty import difficulty

    def table(name: str) -> pd.DataFrame:
        return tables.get(name, pd.DataFrame())

    for old in folder.glob("patching-*.png"):
        old.unlink()  # of a task that may no longer be in the study
    patching = table("patching")
    maps = (
        {} if patching.empty else {map_name(*place): place for place in zip(patching.task, patching.form, strict=True)}
    )
    jobs: dict[str, tuple[Any, ...]] = {
        "layers": (figures.layers, table("probes")),
        "difficulty": (difficulty, table("difficulty")),
        "transfer": (transfer_figures.transfer, table("probes"), table("transfer")),
        "between-layers": (transfer_figures.between_layers, table("probes"), table("layers")),
        **{name: (figures.patching_map, patching, *place) for name, place in maps.items()},
        "interventions": (intervals.interventions, table("interventions"), table("probes")),
        "scores": (intervals.scores, table("scores")),
        "comparisons": (intervals.comparisons, table("comparisons")),
    }
    paths = {name: folder / f"{name}.png" for name in jobs}
    return {name: paths[name] for name, (figure, *data) in jobs.items() if figure(*data, paths[name])}


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
        "interventions": lambda: alternatives.interventions(tables["interventions"]),
        "scores": lambda: alternatives.scores(tables["scores"]),
        "comparisons": lambda: alternatives.comparisons(tables["comparisons"]),
    }
    maps = {map_name(line["task"], line["form"]): (line["task"], line["form"]) for line in tables["patching"]}
    pictures = {}
    for name, path in figures.items():
        data = path.read_bytes()
        width, height = struct.unpack(">II", data[16:24])  # the header of every PNG
        text = (
            alternatives.patching(pd.DataFrame(tables["patching"]), *maps[name]) if name in maps else texts[name]()
        )  # fmt: skip
        pictures[name] = {
            "data": base64.b64encode(data).decode(), "width": width // 2, "height": height // 2, "alt": text
        }  # fmt: skip
    return pictures
