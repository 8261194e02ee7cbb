"""``twinprobe bench paired``: is the code model better than its base, on the items that both answered?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from cli.contrasts import check_folder
from cli.options import PATH, json_option, seed_option
from cli.output import interval, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("paired", "missing")
FIGURES = (
    "standard_error", "p_permutation", "p_permutation_holm", "p_mcnemar", "p_mcnemar_holm", "minimum_detectable_effect",
    "correlation",
)  # fmt: skip
"""Columns of the table that follow the interval on the screen."""
MEANING = (
    "difference: code minus base, interval: 95%, paired bootstrap over clusters; SE: clustered; p: sign flips of clusters, "
    "and McNemar's exact test (takes items as independent); Holm: over all lines; MDE: found with 80% power; r: of the scores"
)


@click.command(
    epilog="""\b
Examples:
  twinprobe bench paired base.csv code.csv
  twinprobe bench paired base.csv code.csv --by subject --out runs/paired

\b
BASE.csv and CODE.csv are tables of items (twinprobe bench import writes them). docs/BENCHMARKS.md explains every figure."""
)
@click.argument("base_file", metavar="BASE.csv", type=PATH)
@click.argument("code_file", metavar="CODE.csv", type=PATH)
@click.option(
    "--by", type=click.Choice(["task", "subject"]), default="task", show_default=True, help="What gets its own tests."
)
@click.option("--out", type=PATH, default=None, metavar="DIR", help="Folder for the tables.")
@seed_option
@json_option
def paired(
    base_file: Path, code_file: Path, by: Literal["task", "subject"], out: Path | None, seed: int, as_json: bool
) -> None:
    """Paired tests of two models' scores, task by task, with clustered errors and corrected for the number of tasks."""
    from activations.errors import TwinprobeError

    if out:
        check_folder(out, (".csv",))
        if {path.resolve() for path in (base_file, code_file)} & {(out / f"{name}.csv").resolve() for name in TABLES}:
            raise TwinprobeError(f"a table given would be overwritten by the tables in {out}; choose another --out")
    from analyses.benchmarks.paired import join, paired_tests
    from analyses.benchmarks.per_item import read_items
    from probes.tables import records

    joined = join(read_items(base_file), read_items(code_file))
    tests = paired_tests(joined.items, by, seed=seed)
    tables = {"paired": tests, "missing": joined.missing}
    if out:
        from cli.form_tables import write_tables

        out.mkdir(parents=True, exist_ok=True)
        write_tables(tables, out, TABLES, ())
    if as_json:
        about = {"base": joined.models[0], "code": joined.models[1], "by": by, **({"out": str(out)} if out else {})}
        print_json({**about, **{name: records(table) for name, table in tables.items()}})
        return
    _show(tests, joined.models, by)
    for side, part in joined.missing.groupby("missing"):
        first = ", ".join(f"{line.task}/{line.item}" for line in part.head(3).itertuples())
        click.echo(
            f"left out, as the {side} model lacks them: {len(part)} items ({first}{', …' if len(part) > 3 else ''})"
        )
    if out:
        click.echo(f"tables in {out}")


def _show(tests: pd.DataFrame, models: tuple[str, str], by: str) -> None:
    from probes.tables import records

    names = ["task"] if by == "task" else ["task", "subject"]
    rows = [
        [
            *(line[name] for name in (*names, "items", "clusters", "base", "code", "difference")),
            interval(line["low"], line["high"]),
            *(line[name] for name in FIGURES),
        ]
        for line in records(tests)
    ]
    heads = (
        "items",
        "clusters",
        "base",
        "code",
        "difference",
        "interval",
        "SE",
        "p",
        "Holm",
        "McNemar",
        "Holm",
        "MDE",
        "r",
    )
    print_table(f"{models[1]} against {models[0]}", [*names, *heads], rows, caption=MEANING)
