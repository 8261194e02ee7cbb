"""``twinprobe bench import``: logs of other people's runs as one table of items."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import PATH, json_option
from cli.output import print_json, print_table, progress


@click.command(
    name="import",
    epilog="""\b
Examples:
  twinprobe bench import results/org__model --out base.csv
  twinprobe bench import samples_gsm8k_2025-01-31T10-00-00.jsonl --filter strict-match --out base.csv
  twinprobe bench import logs/task.eval --model org/model --out base.csv
  twinprobe bench import model_eval_results.json --model org/model --out base.csv
  twinprobe bench import logs.json metrics.json --out base.csv
  twinprobe bench import published.csv --model org/model --out base.csv

\b
LOG is a file or folder of lm-evaluation-harness (--log_samples), inspect_ai (.json, .eval), evalplus, human-eval, the
bigcode-evaluation-harness (logs.json and its metrics file) or a CSV of scores. docs/BENCHMARKS.md explains each.""",
)
@click.argument("logs", metavar="LOG...", nargs=-1, required=True, type=PATH)
@click.option("--out", required=True, type=PATH, metavar="FILE.csv", help="The table to write; replaced if it exists.")
@click.option("--model", default=None, metavar="NAME", help="The model; checked against the logs that name one.")
@click.option("--rename", is_flag=True, help="Take --model's name although the logs say another one.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Score to take, the first that a task has; may be repeated.",
)
@click.option("--filter", "filter_", default=None, metavar="NAME", help="Filter of lm-eval tasks that have several.")
@click.option(
    "--gather", multiple=True, metavar="TASK", help="Make TASK_* subjects of one task, such as mmlu; may be repeated."
)
@json_option
def import_(
    logs: tuple[Path, ...],
    out: Path,
    model: str | None,
    rename: bool,
    metrics: tuple[str, ...],
    filter_: str | None,
    gather: tuple[str, ...],
    as_json: bool,
) -> None:
    """Map logs of one model to the table of items, and check that they are of that model."""
    from activations.errors import TwinprobeError
    from analyses.benchmarks.imports import Wanted, import_logs
    from analyses.benchmarks.per_item import write_items
    from probes.tables import records

    if out.is_dir() or out.resolve() in {path.resolve() for path in logs}:
        raise TwinprobeError(f"{out} is a folder or one of the logs; choose another file for --out")
    with progress("reading logs") as report:
        imported = import_logs(
            logs,
            model,
            rename=rename,
            wanted=Wanted(metrics, filter_),
            gathered=gather,
            progress=lambda done, total: report("files", done, total),
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    write_items(imported.table, out)
    by_task = imported.table.groupby("task", sort=False)
    summary = by_task.agg(
        subjects=("subject", "nunique"), items=("item", "size"), score=("score", "mean")
    ).reset_index()
    if as_json:
        about = {
            "out": str(out),
            "model": imported.model,
            "log_model": imported.log_model,
            "unscored": imported.unscored,
        }
        print_json({**about, "tasks": records(summary)})
        return
    rows = [[line[name] for name in ("task", "subjects", "items", "score")] for line in records(summary)]
    print_table(f"{imported.model}: {len(imported.table):,} items", ("task", "subjects", "items", "mean score"), rows)
    if imported.log_model is None:
        click.echo("no log names its model; the name is the one given")
    elif imported.log_model != imported.model:
        click.echo(f"renamed from {imported.log_model}")
    if imported.unscored:
        click.echo(f"items left out, as they have no score: {imported.unscored}")
    click.echo(f"wrote {out}")
