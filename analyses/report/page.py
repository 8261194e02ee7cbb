"""The report of a study: one page that opens offline, with every picture inside it.

The page shows what ``results.json`` holds and computes nothing but counts of its lines.
"""

from __future__ import annotations

import hashlib
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
    from analyses.report.pictures import draw

    figures = draw(out / "figures", tables)
    page = out / "report.html"
    page.write_text(render(results, (out / "study.toml").read_text(encoding="utf-8"), figures), encoding="utf-8")
    return [*figures.values(), page]


def render(results: dict[str, Any], study: str, figures: dict[str, Path]) -> str:
    """The page as HTML.

    Args:
        results: what ``results.json`` holds.
        study: text of the resolved study file.
        figures: picture files by name, as :func:`write_report` draws them.
    """
    import jinja2

    from analyses.report import (
        words,
        words_across,
        words_alike,
        words_benchmarks,
        words_causal,
        words_decodable,
        words_patching,
    )
    from analyses.report.pictures import embedded
    from analyses.study.manifest import versions
    from analyses.study.results import ALPHA
    from probes.transfer import MIN_GAIN

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"number": words.number, "signed": words.signed, "p": _p, "short": _short_fingerprint}
    environment.globals |= {
        "interval": words.interval, "what": words.what, "by_place": _by_place, "by_family": _by_family,
        "over_controls": words_decodable.over_controls,
    }  # fmt: skip
    tables = {name: results["tables"].get(name, []) for name in _TABLES}
    chosen = [line for line in tables["probes"] if line["chosen"]]
    order = list(dict.fromkeys((line["task"], line["form"]) for line in [*tables["retention"], *tables["patching"]]))
    forms = {line["form"] for line in chosen}
    return environment.get_template("report.html.jinja").render(
        results=results,
        tables=tables,
        chosen=chosen,
        several_draws=any(line["seeds"] > 1 for line in chosen),
        code_and_prose=forms <= {"code", "prose"},
        written=words.written(forms),
        comparisons=_by_measure(tables["comparisons"]),
        maps=_maps(tables["retention"], figures),
        verdict=words.verdict(results),
        findings=[(words.MEASURES.get(entry["measure"]), entry, words.finding(entry)) for entry in results["findings"]],
        calibration=words.calibration(results["calibration"]),
        floors=words_decodable.probes_over_floor(tables["probes"]),
        transfers=words_decodable.transfers(tables["transfer"]),
        left_out=words_decodable.left_out(tables["left_out"]),
        between_models=words_decodable.between_models(tables["mapped"]),
        similarity_sites=_by_site([dict(line) for line in words_alike.same_site(tables["similarity"])]),
        similarity_measures=words_alike.MEASURES,
        decided=words_patching.decided(tables["patching"]),
        tops=sorted(
            words_patching.top_cells(tables["patching"]), key=lambda cell: order.index((cell["task"], cell["form"]))
        ),
        refused=words_across.refused(tables["cross_refused"]),
        retained_across=words_across.retained_across(tables["cross_retention"]),
        brought=words_across.brought(tables["cross"]),
        brought_last=words_across.brought(tables["cross"], ("last",)),
        across_tops=words_across.top_cells(tables["cross"]),
        identity=words_across.identity(tables["cross"]),
        overlaps=words_across.overlaps(tables["overlap"]),
        alike=words_alike.alike(tables["similarity"]),
        not_here=_not_here(tables),
        benchmark_tasks=words_benchmarks.by_task(tables["benchmarks"]),
        benchmark_reading=words_benchmarks.read(tables["benchmarks"]),
        benchmark_bits=words_benchmarks.bits(tables["scores"]),
        like_big_bench=words_benchmarks.like_big_bench(tables["benchmarks"]),
        retained=words_causal.retained(tables["retention"]),
        used=words_causal.used(tables["interventions"], tables["probes"]),
        telling=words_causal.telling(tables["interventions"], tables["probes"]),
        without_prompt=words_causal.without_prompt(tables["interventions"]),
        edits=words_causal.EDITS,
        models=words.MODELS,
        pictures=embedded(figures, tables),
        style=(HERE / "style.css").read_text(encoding="utf-8"),
        study=tomllib.loads(study),
        study_file=study,
        versions=versions(),
        alpha=ALPHA,
        min_gain=MIN_GAIN,
        min_gap=_min_gap(),
        min_fooled=words_causal.MIN_FOOLED,
    )


_TABLES = (
    "models", "probes", "difficulty", "capacity", "transfer", "layers", "left_out", "mapped", "interventions", "retention",
    "patching", "cross_refused", "cross_retention", "cross", "overlap", "similarity", "scores", "benchmarks",
    "comparisons", "examples",
)  # fmt: skip


def _min_gap() -> float:
    from analyses.answers import MIN_GAP

    return MIN_GAP


def _maps(retention: list[Line], figures: dict[str, Path]) -> list[Line]:
    """Every task and form that has prompts, whether any model was patched, and the names of its maps (``None``: no map)."""
    from analyses.report.pictures import MAPS, map_name

    patched = {(line["task"], line["form"]) for line in retention if line["prompts"] and line["patched"]}
    return [
        {
            "task": place[0], "form": place[1], "patched": place in patched,
            **{kind: name if (name := map_name(kind, *place)) in figures else None for kind in MAPS},
        }
        for place in dict.fromkeys((line["task"], line["form"]) for line in retention)
    ]  # fmt: skip


def _not_here(tables: dict[str, list[Line]]) -> list[str]:
    """What a reader may look for in vain."""
    directions = {line["direction"] for line in tables["patching"]}
    absent = [
        ("patching from one model into the other (Prakash et al. 2024)", not tables["cross"]),
        ("noising", "noising" not in directions),
        ("single heads", all(line["head"] is None for line in tables["patching"])),
    ]
    return [
        "attribution patching (Kramár et al. 2024)",
        "paths between heads",
        "circuits",
        *(name for name, is_absent in absent if is_absent),
    ]


def _by_measure(comparisons: list[Line]) -> list[tuple[str, list[Line]]]:
    """The lines of code by measure; each already holds the null pair's difference."""
    return _grouped([line for line in comparisons if line["against"] == "code"], lambda line: str(line["measure"]))


def _by_place(lines: list[Line]) -> list[tuple[str, list[Line]]]:
    """The lines about one set of items together, so that the models stand under one another."""
    from analyses.report.words import what

    return _grouped(lines, what)


def _by_family(lines: list[Line]) -> list[tuple[str, dict[str, Line]]]:
    """The lines about one set of items by model, and of each model by the family of the probe."""
    grouped = _grouped(lines, lambda line: str(line["model"]))
    return [(model, {line["family"]: line for line in own}) for model, own in grouped]


def _by_site(lines: list[Line]) -> list[tuple[tuple[str, str], list[tuple[str, dict[str, Line]]]]]:
    """The lines of similarity by kind of text and site, of these by model, and of each model by measure."""
    places: dict[tuple[str, str], dict[str, dict[str, Line]]] = {}
    for line in lines:
        models = places.setdefault((str(line["kind"]), str(line["site_a"])), {})
        models.setdefault(str(line["model_b"]), {})[line["measure"]] = line
    return [(place, list(models.items())) for place, models in places.items()]


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
