"""The report of a study: one page that opens offline, with every picture inside it.

The page shows what ``results.json`` holds and computes nothing but counts of its lines.
"""

from __future__ import annotations

import base64
import hashlib
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

Line = dict[str, Any]
HERE = Path(__file__).parent


def look() -> str:
    """A hash of all that shapes the page; a report of another look is rendered anew."""
    digest = hashlib.sha256()
    for path in sorted(HERE.iterdir()):
        if path.suffix in (".py", ".jinja", ".css"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def write_report(out: Path, results: dict[str, Any], tables: dict[str, pd.DataFrame]) -> list[Path]:
    """Write ``figures/*.png`` and ``report.html`` into the run directory.

    Args:
        out: the run directory; holds the resolved ``study.toml``.
        results: what ``results.json`` holds.
        tables: the study's tables, with the columns their writers document; absent and empty ones are left out.

    Returns:
        The files written.
    """
    figures = _draw(out / "figures", tables)
    page = out / "report.html"
    page.write_text(render(results, (out / "study.toml").read_text(encoding="utf-8"), figures), encoding="utf-8")
    return [*figures.values(), page]


def _draw(folder: Path, tables: dict[str, pd.DataFrame]) -> dict[str, Path]:
    """Draw all figures there is something to draw for; their paths by their names."""
    from analyses.report import figures, intervals

    def table(name: str) -> pd.DataFrame:
        return tables.get(name, pd.DataFrame())

    for old in folder.glob("patching-*.png"):
        old.unlink()  # of a task that may no longer be in the study
    patching = table("patching")
    maps = [] if patching.empty else list(dict.fromkeys(zip(patching.task, patching.form, strict=True)))
    jobs: dict[str, tuple[Any, ...]] = {
        "layers": (figures.layers, table("probes")),
        "transfer": (figures.transfer, table("probes"), table("transfer")),
        **{f"patching-{task}-{form}": (figures.patching_map, patching, task, form) for task, form in maps},
        "scores": (intervals.scores, table("scores")),
        "comparisons": (intervals.comparisons, table("comparisons")),
    }
    paths = {name: folder / f"{name}.png" for name in jobs}
    return {name: paths[name] for name, (draw, *data) in jobs.items() if draw(*data, paths[name])}


def render(results: dict[str, Any], study: str, figures: dict[str, Path]) -> str:
    """The page as HTML.

    Args:
        results: what ``results.json`` holds.
        study: text of the resolved study file.
        figures: picture files by name, as :func:`write_report` draws them.
    """
    import jinja2

    from analyses.report import words
    from analyses.study.manifest import versions
    from analyses.study.results import ALPHA
    from probes.transfer import MIN_GAIN

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": words.number, "signed": words.signed, "p": _p, "short": _short_fingerprint}
    environment.globals |= {"interval": words.interval, "what": words.what, "by_place": _by_place}
    tables = {name: results["tables"].get(name, []) for name in _TABLES}
    return environment.get_template("report.html.jinja").render(
        results=results,
        tables=tables,
        chosen=[line for line in tables["probes"] if line["chosen"]],
        comparisons=_by_measure(tables["comparisons"]),
        maps=_maps(tables["retention"], figures),
        verdict=words.verdict(results),
        findings=[(words.MEASURES.get(entry["measure"]), entry, words.finding(entry)) for entry in results["findings"]],
        calibration=words.calibration(results["calibration"]),
        floors=words.probes_over_floor(tables["probes"]),
        transfers=words.transfers(tables["transfer"]),
        retained=words.retained(tables["retention"]),
        models=words.MODELS,
        pictures=_pictures(figures, tables),
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        study=tomllib.loads(study),
        study_file=study,
        versions=versions(),
        alpha=ALPHA,
        min_gain=MIN_GAIN,
        min_gap=_min_gap(),
    )


_TABLES = ("models", "probes", "transfer", "retention", "patching", "scores", "comparisons", "examples")


def _min_gap() -> float:
    from analyses.patching_sweep import MIN_GAP

    return MIN_GAP


def _pictures(figures: dict[str, Path], tables: dict[str, list[Line]]) -> dict[str, dict[str, Any]]:
    """For each figure its data, its size in CSS pixels and its text for those who can not see it."""
    from analyses.report import alternatives

    texts = {
        "layers": lambda: alternatives.layers(pd.DataFrame(tables["probes"])),
        "transfer": lambda: alternatives.transfer(tables["transfer"]),
        "scores": lambda: alternatives.scores(tables["scores"]),
        "comparisons": lambda: alternatives.comparisons(tables["comparisons"]),
    }
    pictures = {}
    for name, path in figures.items():
        data = path.read_bytes()
        width, height = struct.unpack(">II", data[16:24])  # the header of every PNG
        if name in texts:
            text = texts[name]()
        else:
            _, task, form = name.split("-", 2)
            text = alternatives.patching(pd.DataFrame(tables["patching"]), task, form)
        pictures[name] = {
            "data": base64.b64encode(data).decode(), "width": width // 2, "height": height // 2, "alt": text
        }  # fmt: skip
    return pictures


def _maps(retention: list[Line], figures: dict[str, Path]) -> list[Line]:
    """Every task and form that has prompts, with the name of its patching map, ``None`` where nothing was patched."""
    places = dict.fromkeys((line["task"], line["form"]) for line in retention)
    return [
        {"task": task, "form": form, "figure": name if (name := f"patching-{task}-{form}") in figures else None}
        for task, form in places
    ]


def _by_measure(comparisons: list[Line]) -> list[tuple[str, list[Line]]]:
    """The lines of code by measure; each already holds the null pair's difference."""
    return _grouped([line for line in comparisons if line["against"] == "code"], lambda line: str(line["measure"]))


def _by_place(lines: list[Line]) -> list[tuple[str, list[Line]]]:
    """The lines about one set of items together, so that the models stand under one another."""
    from analyses.report.words import what

    return _grouped(lines, what)


def _grouped(lines: list[Line], key: Callable[[Line], str]) -> list[tuple[str, list[Line]]]:
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(key(line), []).append(line)
    return list(groups.items())


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _short_fingerprint(text: str | None) -> str:
    kind, _, digest = (text or "").partition(":")
    return f"{kind}:{digest[:12]}" if digest else kind[:12] or "–"
