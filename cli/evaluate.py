"""``twinprobe evaluate``: score every model of a family, for ``twinprobe slopes``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import PATH, json_option
from cli.output import duration, long_stages, print_json, print_table, progress, quiet_libraries, say

if TYPE_CHECKING:
    import pandas as pd

    from analyses.pretraining.evaluation.run import Unit


@click.command(
    epilog="""\b
Examples:
  twinprobe evaluate analyses/pretraining/mixture_evaluation.toml --models runs/mixture --data-dir data --out runs/scores
  twinprobe slopes runs/scores/scores.csv --out runs/slopes

FOLDER/<run>/model of --models is a finished model, as twinprobe pretrain writes it. A killed evaluation goes on where it was
when the same command is run again; several at once share the work. docs/PRETRAINING.md explains every field of the file."""
)
@click.argument("evaluation_file", metavar="EVALUATION.toml", type=PATH)
@click.option("--models", "runs", required=True, type=PATH, metavar="FOLDER", help="Folder of the trained runs.")
@click.option(
    "--data-dir", default=".", type=PATH, metavar="FOLDER", help="Folder that the file's data paths start from."
)
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder for the scores.")
@click.option("--only", metavar="RUN", multiple=True, help="Evaluate this model only; may be given several times.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads (0: torch's choice).")
@json_option
def evaluate(
    evaluation_file: Path, runs: Path, data_dir: Path, out: Path, only: tuple[str, ...], threads: int, as_json: bool
) -> None:
    """Evaluate all trained models as an EVALUATION file (TOML) says, and write their scores to scores.csv."""
    quiet_libraries([str(runs)])
    from analyses.pretraining.evaluation.models import finished_models
    from analyses.pretraining.evaluation.run import evaluate as evaluate_units
    from analyses.pretraining.evaluation.run import expected_seconds, unfinished, units
    from analyses.pretraining.evaluation.scores_table import left_out, scores_table, write_scores
    from analyses.pretraining.evaluation.settings import read_evaluations

    evaluations = read_evaluations(evaluation_file)
    asked = {model.name for model in finished_models(runs, only)}
    everything = units(finished_models(runs), evaluations)
    left = [unit for unit in unfinished(everything, out) if unit.model.name in asked]
    out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    import torch

    if threads:
        torch.set_num_threads(threads)

    measured: dict[str, float] = {}

    def seconds_left() -> float:
        return expected_seconds(left, done(), data_dir, out, measured)

    def done() -> list[Unit]:
        return [unit for unit in everything if unit.place(out).exists()]

    def finished(unit: Unit) -> None:
        write_scores(done(), out)
        left.remove(unit)
        if left:
            say(f"  {len(left)} left, about {duration(seconds_left())}")

    if left:
        models = len({unit.model.name for unit in left})
        say(f"{len(left)} evaluations of {models} models to do, about {duration(seconds_left())}, into {out}")
    with progress("evaluating") as report:
        elsewhere = evaluate_units([*left], data_dir, out, long_stages(report), finished)
    path = write_scores(done(), out)
    for line in left_out(done(), out):
        say(line)
    if elsewhere:
        say(f"{len(elsewhere)} are being done by another process; run the same command again when it has ended")
    if as_json:
        from probes.tables import records

        print_json({"scores": records(scores_table(done(), out)), "out": str(path)})
        return
    _show(scores_table(done(), out))
    click.echo(str(path))


def _show(table: pd.DataFrame) -> None:
    """A line per task, a column per model."""
    scores = table.drop_duplicates(["task", "model"]).pivot(index="task", columns="model", values="score")
    rows = [[task, *(None if value != value else float(value) for value in line)] for task, line in scores.iterrows()]
    print_table("Scores", ["task", *map(str, scores.columns)], rows)
