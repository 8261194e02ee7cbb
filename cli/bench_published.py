"""``twinprobe bench published``: published scores of many models, tested pair by pair and level by level."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.contrasts import check_folder
from cli.options import PATH, json_option
from cli.output import interval, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

    from analyses.benchmarks.pairs.matching import Matched

TABLES = ("published_pairs", "published_levels")
PER_TABLE = 9
"""Levels side by side on the screen."""
UNPAIRED = (
    "Unpaired tests of published counts: conservative where both models answered the same items and tend to be right on the "
    "same ones; too ready to reject where items belong together in groups, which counts do not tell."
)


@click.command(
    epilog="""\b
Examples:
  twinprobe bench published scores.csv
  twinprobe bench published scores.csv --out runs/published
  twinprobe bench published scores.csv --pair meta-llama/Llama-2-7b-hf EleutherAI/llemma_7b

FILE.csv has a line per model and level of difficulty with the columns model (hub id), stratum, right and items, or Kim et
al.'s columns model_name, num_ops, accuracy (percent) and count. docs/BENCHMARKS.md explains them, and every test."""
)
@click.argument("scores_file", metavar="FILE.csv", type=PATH)
@click.option(
    "--pair", "named", nargs=2, multiple=True, metavar="BASE CODE",
    help="Compare these two models of the file as well; may be repeated. They are corrected for together with the others.",
)  # fmt: skip
@click.option("--chance", metavar="MODEL", default=None, help="The file's model that is what guessing scores.")
@click.option("--out", type=PATH, default=None, metavar="FOLDER", help="Folder for the tables, as CSV.")
@json_option
def published(
    scores_file: Path, named: tuple[tuple[str, str], ...], chance: str | None, out: Path | None, as_json: bool
) -> None:
    """Published scores of many models: which code models do better than their base, and on how hard items."""
    from activations.errors import TwinprobeError

    if out:
        check_folder(out, (".csv",))
        if scores_file.resolve() in {(out / f"{name}.csv").resolve() for name in TABLES}:
            raise TwinprobeError(f"{scores_file} would be overwritten by the tables in {out}; choose another --out")
    from analyses.benchmarks.pairs.matching import known_pairs, match_pairs, require_scores
    from analyses.benchmarks.pairs.published import compare_published, read_published

    read = read_published(scores_file)
    models = list(dict.fromkeys(read.scores.model))
    require_scores(named, models, str(scores_file))
    matched = match_pairs(models, known_pairs(named).values())
    if out:
        out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    tables = dict(compare_published(read.scores, matched.pairs, chance))
    if out:
        from cli.form_tables import write_tables

        write_tables(tables, out, TABLES, ())
    if as_json:
        from probes.tables import records

        print_json({
            **{name: records(table) for name, table in tables.items()},
            "half": [{"pair": pair.name, "without_scores": absent} for pair, absent in matched.half],
            "unpaired": list(matched.unpaired), "repeated_lines": read.repeated, **({"out": str(out)} if out else {}),
        })  # fmt: skip
        return
    _show_pairs(tables)
    _show_levels(tables["published_levels"], chance)
    click.echo("\n".join([UNPAIRED, *_said(matched, read.repeated, tables["published_pairs"])]))
    if out:
        click.echo(f"tables in {out}")


def _show_pairs(tables: dict[str, pd.DataFrame]) -> None:
    """A line per pair, all levels together."""
    levels = tables["published_levels"]
    rows = []
    for line in _lines(tables["published_pairs"]):
        clear = levels[(levels.pair == line["pair"]) & (levels.p_holm < 0.05)]
        rows.append([
            line["pair"], line["base_accuracy"], line["code_accuracy"], f"{line['difference']:+.3f}",
            interval(line["low"], line["high"], "+.3f"), f"{line['odds_ratio']:.2f}",
            interval(line["odds_low"], line["odds_high"], ".2f"), line["p_holm"], line["p_same_holm"],
            ", ".join(clear.stratum[clear.difference > 0]), ", ".join(clear.stratum[clear.difference < 0]),
        ])  # fmt: skip
    print_table(
        "Code model against base, stratified by level",
        ("pair", "base", "code", "difference", "95%", "odds ratio", "95%", "p", "p same", "better at", "worse at"),
        rows,
        caption="p: no difference at any level (Mantel-Haenszel, exact where counts are small), Holm over pairs. p same: one "
        "odds ratio at all levels (Breslow-Day, Tarone), Holm over pairs; where it is small, read the levels. Better, worse "
        "at: levels with p below 0.05, Holm over all pairs and levels.",
    )


def _lines(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of a table, missing values as ``None``."""
    from cli.form_tables import known

    return [{str(name): known(value) for name, value in line.items()} for line in table.to_dict("records")]


def _show_levels(levels: pd.DataFrame, chance: str | None) -> None:
    """Differences, pairs by levels, in percentage points."""
    strata = list(dict.fromkeys(levels.stratum))
    for start in range(0, len(strata), PER_TABLE):
        shown = strata[start : start + PER_TABLE]
        rows = []
        for pair, lines in levels.groupby("pair", sort=False):
            found = {line["stratum"]: _cell(line) for line in _lines(lines)}
            rows.append([pair, *(found.get(stratum) for stratum in shown)])
        print_table(
            "Code minus base by level, percentage points",
            ["pair", *shown],
            rows,
            caption="* p below 0.05 by Holm over pairs at this level, ** over all pairs and levels"
            + ("; ~ the code model's 95% interval is not above chance" if chance else ""),
        )


def _cell(line: dict[str, Any]) -> str:
    stars = "**" if line["p_holm"] < 0.05 else "*" if line["p_holm_pairs"] < 0.05 else ""
    guessed = line["chance"] is not None and line["code_low"] <= line["chance"]
    return f"{100 * line['difference']:+.1f}{stars}{'~' if guessed else ''}"


def _said(matched: Matched, repeated: int, overall: pd.DataFrame) -> list[str]:
    """What else a reader must know: sizes that differ, models without a partner, lines that were left out."""
    said = []
    for line in _lines(overall):
        name, ratio = line["pair"], line["size_ratio"]
        if ratio is not None and abs(ratio - 1) > 0.02:
            said.append(f"Sizes differ in {name}: the code model has {ratio:.2f} times the parameters of the base.")
        if line["levels_left_out"]:
            said.append(f"{name}: levels left out that only one of the models has: {line['levels_left_out']}.")
    if matched.half:
        pairs = ", ".join(f"{pair.name} ({absent})" for pair, absent in matched.half)
        said.append(f"Registered pairs left out, for want of scores: {pairs}")
    if matched.unpaired:
        said.append(f"Models of no pair: {', '.join(matched.unpaired)}")
    if repeated:
        said.append(f"Lines left out that repeat earlier ones: {repeated}")
    return said
