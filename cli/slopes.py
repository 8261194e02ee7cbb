"""``twinprobe slopes``: how anyone's scores change with the share of code in pretraining."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.contrasts import check_folder
from cli.options import PATH, json_option, seed_option
from cli.output import interval, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("slopes", "slope_tests")
PICTURES = ("slopes",)
PER_PICTURE = 40
"""Tasks in one picture of lines of best fit."""
MEANING = (
    "p: two-sided, twice the smaller tail, not corrected (slope_tests.csv has p_holm); chance: 95% of the permutations. "
    "tasks: each task's scores permuted on their own, right if tasks are independent; models: shares permuted over models, "
    "for all tasks alike"
)


@click.command(
    epilog="""\b
Examples:
  twinprobe slopes scores.csv
  twinprobe slopes scores.csv --out runs/slopes

SCORES.csv has a line per model and task with the columns task, share (of code in pretraining, 0 to 1) and score; optional
columns are setting (such as competitive and additive), seed, category and group. docs/FORMATS.md explains them, and every
figure. The statistics follow Petty et al. 2024."""
)
@click.argument("scores_file", metavar="SCORES.csv", type=PATH)
@click.option(
    "--trials", type=click.IntRange(min=100), default=10_000, show_default=True, help="Permutations per test."
)
@click.option("--out", type=PATH, default=None, metavar="FOLDER", help="Folder for tables and pictures.")
@seed_option
@json_option
def slopes(scores_file: Path, trials: int, out: Path | None, seed: int, as_json: bool) -> None:
    """Slope of every task's score against the share of code, and permutation tests of the slopes of all tasks."""
    from activations.errors import TwinprobeError

    if out:
        check_folder(out, (".csv", ".png"))
        if scores_file.resolve() in {(out / f"{name}.csv").resolve() for name in TABLES}:
            raise TwinprobeError(f"{scores_file} would be overwritten by the tables in {out}; choose another --out")
    from analyses.pretraining.scores import read_scores
    from analyses.pretraining.slopes import slope_tests
    from analyses.pretraining.slopes import slopes as fitted_slopes

    scores = read_scores(scores_file)
    if out:
        out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    tables = {"slopes": fitted_slopes(scores), "slope_tests": slope_tests(scores, trials, seed)}
    pictures = _write(scores, tables, out) if out else []
    if as_json:
        from probes.tables import records

        shown = {name: records(table) for name, table in tables.items()}
        print_json({**shown, **({"out": str(out)} if out else {})})
        return
    _show_slopes(tables["slopes"])
    _show_tests(tables["slope_tests"], trials)
    if out:
        click.echo("\n".join([f"tables in {out}", *pictures]))


def _write(scores: pd.DataFrame, tables: dict[str, pd.DataFrame], out: Path) -> list[str]:
    """Write tables and pictures in place of an earlier run's; the pictures' paths."""
    from analyses.report.slope_figures import all_slopes, best_fits
    from cli.form_tables import picture_path, write_tables

    write_tables(tables, out, TABLES, PICTURES)
    table = tables["slopes"]
    tasks = list(dict.fromkeys(table.task))
    paths = []
    for start in range(0, len(tasks), PER_PICTURE):
        path = picture_path(out, "slopes", "fits", str(start // PER_PICTURE + 1))
        if best_fits(scores, table[table.task.isin(tasks[start : start + PER_PICTURE])], path):
            paths.append(str(path))
    path = picture_path(out, "slopes", "all")
    if all_slopes(table, path):
        paths.append(str(path))
    return paths


def _settings(table: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """The lines of each setting; all of them under an empty name where there are none."""
    if "setting" not in table:
        return {"": table}
    return {str(name): part for name, part in table.groupby("setting", sort=False)}


def _show_slopes(table: pd.DataFrame) -> None:
    """A line per task, the settings side by side."""
    settings = _settings(table)
    columns = [heading for setting in settings for heading in (setting or "slope", "interval", "points", "seeds")]
    rows = []
    for task in dict.fromkeys(table.task):
        row: list[Any] = [task]
        for part in settings.values():
            found = [*part[part.task == task].itertuples()]
            row += [
                cell for line in found for cell in (line.slope, interval(line.low, line.high), line.points, line.seeds)
            ] or [None] * 4
        rows.append(row)
    print_table(
        "Slope of the score against the share of code",
        ["task", *columns],
        rows,
        caption="slope: change of the score from no code to nothing but code; interval: 95%, Student's t over seeds",
    )


def _show_tests(table: pd.DataFrame, trials: int) -> None:
    """A line per statistic, the settings side by side; a table for all tasks and one per category and group."""
    from analyses.pretraining.slopes import SHUFFLED
    from cli.form_tables import known

    for (by, name), lines in table.groupby(["by", "name"], sort=False):
        settings = _settings(lines)
        rows = []
        for statistic in dict.fromkeys(lines.statistic):
            row: list[Any] = [statistic]
            for part in settings.values():
                found = {line.shuffled: line for line in part[part.statistic == statistic].itertuples()}
                line = found["tasks"]
                row += [known(line.value), interval(line.null_low, line.null_high, ".3g")]
                row += [known(found[shuffled].p) if shuffled in found else None for shuffled in SHUFFLED]
            rows.append(row)
        how_many = ", ".join(
            f"{setting} {part.tasks.iloc[0]}" if setting else str(part.tasks.iloc[0])
            for setting, part in settings.items()
        )
        print_table(
            f"Slopes of {'all tasks' if by == 'all' else f'{by} {name}'} (tasks: {how_many})",
            [
                "statistic",
                *(
                    heading
                    for setting in settings
                    for heading in (setting or "value", "chance", "p, tasks", "p, models")
                ),
            ],
            rows,
            caption=f"{trials:,} permutations; {MEANING}" if by == "all" else None,
        )
