"""``twinprobe bench calibration``: do models know what they know, and does that change with size or with code?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.contrasts import check_folder
from cli.options import COUNT, PATH, json_option, seed_option
from cli.output import interval, print_json, print_table

if TYPE_CHECKING:
    import pandas as pd

TABLES = ("calibration", "calibration_bins", "calibration_pairs")
PICTURES = ("reliability",)
PER_PICTURE = 12
"""Tasks in one picture."""
BOUNDED, PLAIN = ("overconfidence", "calibration_error"), ("ece", "auroc", "brier", "p_calibrated")
"""What stands on the screen with and without its interval; the tables have all."""
MEANING = (
    "overconfidence: confidence minus accuracy; calibration error: root mean square over bins of about equally many items, "
    "debiased; in brackets 95%, whole clusters resampled; ECE: not debiased; AUROC: of confidence for being right; p: of "
    "perfect calibration"
)


@click.command(
    epilog="""\b
Examples:
  twinprobe bench calibration runs/text/truthfulqa_mc1.csv runs/code/truthfulqa_mc1.csv
  twinprobe bench calibration runs/*/truthfulqa_mc*.csv --parameters org/model=6.7e9 --out runs/calibration
  twinprobe bench calibration a.csv b.csv --pair org/base org/code --bins 10

ITEMS.csv is a table of items with a column confidence, the picked choice's share of the probability of all choices, as
twinprobe bench run writes it for tasks that are answered by a choice. docs/BENCHMARKS.md explains every figure."""
)
@click.argument("files", metavar="ITEMS.csv...", nargs=-1, required=True, type=PATH)
@click.option(
    "--pair", "named", nargs=2, multiple=True, metavar="BASE CODE",
    help="Compare these two models as well as registered pairs; may be repeated.",
)  # fmt: skip
@click.option(
    "--parameters", "sizes", multiple=True, metavar="MODEL=7e9",
    help="Size of a model; goes before the files', the registry's and the one in the name.",
)  # fmt: skip
@click.option(
    "--bins", type=COUNT, default=None, help="Bins of confidence; default: 15, or fewer so that each has 10 items."
)
@click.option("--out", type=PATH, default=None, metavar="FOLDER", help="Folder for tables and pictures.")
@seed_option
@json_option
def calibration(
    files: tuple[Path, ...], named: tuple[tuple[str, str], ...], sizes: tuple[str, ...], bins: int | None, out: Path | None,
    seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Confidence and calibration of models by size, and of code model against base on the same items."""
    from activations.errors import TwinprobeError

    if out:
        check_folder(out, (".csv", ".png"))
        if {path.resolve() for path in files} & {(out / f"{name}.csv").resolve() for name in TABLES}:
            raise TwinprobeError(f"a table given would be overwritten by the tables in {out}; choose another --out")
    from analyses.benchmarks.calibration_tables import by_model, by_pair, read_answers
    from analyses.benchmarks.pairs.matching import known_pairs, match_pairs, require_scores
    from analyses.benchmarks.pairs.sizes import model_sizes, read_sizes

    read = read_answers(files)
    models = list(dict.fromkeys(read.answers.model))
    require_scores(named, models, "the files")
    known = list(known_pairs(named).values())
    found = model_sizes(models, known, {**read.parameters, **read_sizes(sizes, models)})
    if out:
        out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    figures, binned = by_model(read.answers, found, bins, seed=seed)
    compared = by_pair(read.answers, match_pairs(models, known).pairs, bins, seed=seed)
    tables = {
        "calibration": figures,
        "calibration_bins": binned,
        **({"calibration_pairs": compared} if len(compared) else {}),
    }
    pictures = _write(tables, out) if out else []
    if as_json:
        from probes.tables import records

        shown = {name: records(table) for name, table in tables.items()}
        print_json({**shown, "without_confidence": read.unsure, **({"out": str(out)} if out else {})})
        return
    _show(figures)
    if len(compared):
        _show_pairs(compared)
    if read.unsure:
        click.echo(f"left out, without a confidence: {read.unsure} items")
    if out:
        click.echo("\n".join([f"tables in {out}", *pictures]))


def _write(tables: dict[str, pd.DataFrame], out: Path) -> list[str]:
    """Write tables and pictures in place of an earlier run's; the pictures' paths."""
    from analyses.report.reliability_figures import reliability
    from cli.form_tables import picture_path, write_tables

    write_tables(tables, out, TABLES, PICTURES)
    bins = tables["calibration_bins"]
    tasks, paths = list(dict.fromkeys(bins.task)), []
    for start in range(0, len(tasks), PER_PICTURE):
        path = picture_path(out, "reliability", str(start // PER_PICTURE + 1))
        if reliability(bins[bins.task.isin(tasks[start : start + PER_PICTURE])], path):
            paths.append(str(path))
    return paths


def _show(figures: pd.DataFrame) -> None:
    """A table per task, a line per model, the smallest first."""
    for task, lines in figures.groupby("task", sort=False):
        rows: list[list[Any]] = []
        for line in _lines(lines):
            size = line["parameters"]
            rows.append([
                line["model"], f"{size / 1e9:.3g}" if size else None, line["items"], line["bins"], line["accuracy"],
                line["confidence"], *(_cell(line, name) for name in BOUNDED), *(line[name] for name in PLAIN),
            ])  # fmt: skip
        heads = ("overconfidence", "calibration error", "ECE", "AUROC", "Brier", "p")
        print_table(
            f"Calibration on {task}",
            ("model", "billions", "items", "bins", "accuracy", "confidence", *heads),
            rows,
            caption=MEANING,
        )


def _show_pairs(compared: pd.DataFrame) -> None:
    for pair, lines in compared.groupby("pair", sort=False):
        rows = [
            [
                line["task"], line["measure"].replace("_", " "), line["items"], line["clusters"], line["base"], line["code"],
                f"{line['difference']:+.3f}", interval(line["low"], line["high"], "+.3f"), line["p"], line["p_holm"],
            ]
            for line in _lines(lines)
        ]  # fmt: skip
        print_table(
            f"{pair}: code minus base on the same items",
            ("task", "measure", "items", "clusters", "base", "code", "difference", "95%", "p", "Holm"),
            rows,
            caption="p: signs of whole clusters flipped; Holm: over pairs and tasks of a measure",
        )


def _cell(line: dict[str, Any], name: str) -> str | None:
    if line[name] is None:
        return None
    shown = interval(line[f"{name}_low"], line[f"{name}_high"], ".2f")
    return f"{line[name]:.3f}" + ("" if shown == "–" else f" ({shown})")


def _lines(table: pd.DataFrame) -> list[dict[str, Any]]:
    from cli.form_tables import known

    return [{str(name): known(value) for name, value in line.items()} for line in table.to_dict("records")]
