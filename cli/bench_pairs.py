"""``twinprobe bench pairs``: does what pairs gain go with what was found inside them, or with their size?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.contrasts import check_folder
from cli.options import PATH, json_option, seed_option
from cli.output import interval, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

    from analyses.benchmarks.pairs.matching import Matched

TABLES = ("pairs", "size_matched", "correlations", "internals")
PICTURES = ("pairs",)
MEANING = (
    "p: two-sided, all arrangements of the points or random ones, not corrected; Holm: over benchmarks and measures of a view; "
    "interval: 95%, Fisher's z, from 10 pairs on. given size: ranks of the base's parameters taken out; size-matched: gain "
    "over bases of the code model's size; within: among bases of one size, among pairs of one family and architecture"
)


@click.command(
    epilog="""\b
Examples:
  twinprobe bench pairs model_results.csv
  twinprobe bench pairs scores/*.csv --run runs/qwen-7b --run runs/llama-7b --out runs/pairs
  twinprobe bench pairs means.csv --internals internals.csv --parameters org/model=6.7e9

SCORES.csv is a table of items (twinprobe bench run and import write them) or of means (columns model, task, score), in which a
column parameters may give sizes, or a file of counts as twinprobe bench published reads it. INTERNALS.csv has the columns pair,
measure and value, and low and high where there are intervals. docs/BENCHMARKS.md explains every figure."""
)
@click.argument("score_files", metavar="SCORES.csv...", nargs=-1, required=True, type=PATH)
@click.option(
    "--run",
    "runs",
    multiple=True,
    type=PATH,
    metavar="FOLDER",
    help="Run folder of twinprobe compare, one per pair; may be repeated.",
)
@click.option("--internals", type=PATH, default=None, metavar="INTERNALS.csv", help="Measures of pairs from a table.")
@click.option(
    "--pair",
    "named",
    nargs=2,
    multiple=True,
    metavar="BASE CODE",
    help="Take these two models for a pair as well; may be repeated.",
)
@click.option(
    "--parameters", "sizes", multiple=True, metavar="MODEL=7e9",
    help="Size of a model; goes before the files', the registry's and the one in the name.",
)  # fmt: skip
@click.option(
    "--factor", type=click.FloatRange(min=1), default=1.25, show_default=True, help="Sizes this far apart are alike."
)
@click.option(
    "--trials", type=click.IntRange(min=100), default=10_000, show_default=True,
    help="Random arrangements, where there are more than 40,320 (those of 8 pairs, which are all tried).",
)  # fmt: skip
@click.option("--out", type=PATH, default=None, metavar="FOLDER", help="Folder for tables and pictures.")
@seed_option
@json_option
def pairs(
    score_files: tuple[Path, ...], runs: tuple[Path, ...], internals: Path | None, named: tuple[tuple[str, str], ...],
    sizes: tuple[str, ...], factor: float, trials: int, out: Path | None, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Gains of many pairs beside transfer and overlap inside their models: rank correlations, with and without size."""
    from activations.errors import TwinprobeError

    if out:
        check_folder(out, (".csv", ".png"))
        given = {path.resolve() for path in (*score_files, *([internals] if internals else []))}
        if given & {(out / f"{name}.csv").resolve() for name in TABLES}:
            raise TwinprobeError(f"a table given would be overwritten by the tables in {out}; choose another --out")
    from analyses.benchmarks.pairs.gains import gains, read_scores, size_matched_gains
    from analyses.benchmarks.pairs.internals import join_internals, read_internals, read_runs
    from analyses.benchmarks.pairs.matching import known_pairs, match_pairs, require_scores
    from analyses.benchmarks.pairs.sizes import model_sizes, read_sizes
    from analyses.benchmarks.pairs.views import SIZE, correlations, pair_table, said

    scores = read_scores(score_files)
    require_scores(named, scores.models, "the files")
    known = list(known_pairs(named).values())
    matched = match_pairs(scores.models, known)
    if not matched.pairs:
        raise TwinprobeError(
            f"no pair has scores of both its models among the {len(scores.models)} models given; expected hub ids as "
            "`twinprobe show pairs` lists them, or name two models with --pair"
        )
    measured = join_internals([
        read_runs(runs, known, seed=seed), *([read_internals(internals, known)] if internals else []),
    ])  # fmt: skip
    found = model_sizes(scores.models, known, {**scores.parameters, **read_sizes(sizes, scores.models)})
    if out:
        out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    gained, apart = gains(scores, matched.pairs, seed=seed)
    if gained.empty:
        raise TwinprobeError(
            "no pair has a benchmark with items or levels in common; expected both models on the same items"
        )
    names = set(gained["pair"])
    table = pair_table(gained, measured, matched.pairs, found)
    measures = list(dict.fromkeys(measured.measure[measured["pair"].isin(names)]))
    used = [pair for pair in matched.pairs if pair.name in names]
    sized = size_matched_gains(scores, used, known, found, factor, seed=seed)
    related = correlations(table, measures, sized, factor, trials=trials, seed=seed)
    tables = {"pairs": table, "size_matched": sized, "correlations": related, "internals": measured}
    sentences = said(related, table) + _left_out(matched, measured, names, apart, found)
    pictures = _write(tables, [*measures, SIZE], out) if out else []
    if as_json:
        from probes.tables import records

        shown = {name: records(part) for name, part in tables.items()}
        half = [{"pair": pair.name, "without_scores": absent} for pair, absent in matched.half]
        print_json({**shown, "half": half, "said": sentences, "factor": factor, **({"out": str(out)} if out else {})})
        return
    _show_pairs(table, measures)
    _show_matched(sized, factor)
    _show_correlations(related)
    click.echo("\n".join(sentences))
    if out:
        click.echo("\n".join([f"tables in {out}", *pictures]))


def _write(tables: dict[str, pd.DataFrame], measures: list[str], out: Path) -> list[str]:
    """Write tables and pictures in place of an earlier run's; the pictures' paths."""
    from analyses.report.pair_figures import gains_over
    from cli.form_tables import picture_path, write_tables

    write_tables(tables, out, TABLES, PICTURES)
    paths = []
    for benchmark in dict.fromkeys(tables["pairs"].benchmark):
        path = picture_path(out, "pairs", benchmark)
        if gains_over(tables["pairs"], measures, benchmark, path):
            paths.append(str(path))
    return paths


def _show_pairs(table: pd.DataFrame, measures: list[str]) -> None:
    """A table per benchmark, a line per pair, from the smallest base model on."""
    from analyses.benchmarks.pairs.internals import MEASURES

    for benchmark, lines in table.groupby("benchmark", sort=False):
        rows = []
        for line in _lines(lines.sort_values("parameters")):
            size = line["parameters"]
            rows.append([
                line["pair"], line["family"], f"{size / 1e9:.3g}" if size else None, line["base_score"], line["code_score"],
                f"{line['gain']:+.3f}", interval(line["low"], line["high"], "+.3f"),
                *(_cell(line, measure) for measure in measures),
            ])  # fmt: skip
        print_table(
            f"Gain on {benchmark}",
            [
                "pair",
                "family",
                "billions",
                "base",
                "code",
                "gain",
                "95%",
                *(measure.replace("_", " ") for measure in measures),
            ],
            rows,
            caption="; ".join(
                [
                    "billions: parameters of the base model; gain: code minus base; intervals: 95%",
                    *(
                        f"{measure.replace('_', ' ')}: {MEASURES[measure]}"
                        for measure in measures
                        if measure in MEASURES
                    ),
                ]
            ),
        )


def _show_matched(sized: pd.DataFrame, factor: float) -> None:
    """A table per benchmark: code models against base models of their size."""
    for benchmark, lines in sized.groupby("benchmark", sort=False):
        rows = []
        for _, part in lines.groupby("pair", sort=False):
            own = part.gain[part.own]
            rows.append([
                part.code.iloc[0], f"{own.iloc[0]:+.3f}" if len(own) else None, f"{part.gain.mean():+.3f}",
                ", ".join(f"{line.base} ({line.gain:+.3f})" for line in part.itertuples()),
            ])  # fmt: skip
        print_table(
            f"Against base models of the code model's size (within a factor of {factor:g}) on {benchmark}",
            ("code model", "gain over its own base", "over all, mean", "base models"),
            rows,
        )


def _cell(line: dict[str, Any], measure: str) -> str | None:
    if line[measure] is None:
        return None
    shown = interval(line[f"{measure}_low"], line[f"{measure}_high"], ".2f")
    return f"{line[measure]:.2f}" + ("" if shown == "–" else f" ({shown})")


def _show_correlations(related: pd.DataFrame) -> None:
    for benchmark, lines in related.groupby("benchmark", sort=False):
        rows = [
            [
                line["measure"].replace("_", " "), line["view"], line["points"], line["spearman"],
                interval(line["low"], line["high"], "+.2f"), line["p_spearman"], line["p_holm"], line["kendall"],
                line["p_kendall"], line["reason"] or ("all" if line["all_tried"] else "random"),
            ]
            for line in _lines(lines)
        ]  # fmt: skip
        print_table(
            f"Rank correlation with the gain on {benchmark}",
            ("measure", "view", "n", "rho", "95%", "p", "Holm", "tau", "p", "arrangements"),
            rows,
            caption=MEANING,
        )


def _lines(table: pd.DataFrame) -> list[dict[str, Any]]:
    from cli.form_tables import known

    return [{str(name): known(value) for name, value in line.items()} for line in table.to_dict("records")]


def _left_out(
    matched: Matched, measured: pd.DataFrame, names: set[str], apart: pd.DataFrame, sizes: dict[str, float]
) -> list[str]:
    """What could not be used, and why."""
    lines = []
    if matched.half:
        shown = ", ".join(f"{pair.name} ({absent})" for pair, absent in matched.half)
        lines.append(f"Registered pairs left out, for want of scores: {shown}")
    if without := [name for name in dict.fromkeys(measured["pair"]) if name not in names]:
        lines.append(f"Measured, but without scores of both models: {', '.join(without)}")
    if len(apart):
        shown = ", ".join(f"{line.pair} on {line.benchmark}" for line in apart.itertuples())
        lines.append(f"Left out, as the two models have no item or level in common: {shown}")
    models = dict.fromkeys(name for pair in matched.pairs for name in (pair.base, pair.code))
    if unsized := [model for model in models if model.casefold() not in sizes]:
        lines.append(f"Of unknown size, give it with --parameters: {', '.join(unsized)}")
    return lines
