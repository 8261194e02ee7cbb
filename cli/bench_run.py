"""``twinprobe bench run``: standard benchmarks from local files, put to one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.options import COUNT, PATH, bos_option, json_option, loading_options, model_spec
from cli.output import duration, interval, long_stages, print_json, print_table, progress, quiet_libraries, say


@click.command(
    epilog="""\b
Examples:
  twinprobe bench run embedded:text --preset generated --out runs/generated
  twinprobe bench run embedded:text --data-dir data --preset offline-small --out runs/text
  twinprobe bench run org/model --data-dir data --preset open-llm-leaderboard --device cuda --dtype auto --out runs/model
  twinprobe bench run ./model --data-dir data --tasks mmlu,bbh --limit 20 --out runs/model

FOLDER of --data-dir holds a folder per benchmark with its authors' files; the tasks generated_... need none. A killed run
goes on with the next task when the same command is run again. docs/BENCHMARKS.md lists tasks, presets, files and columns."""
)
@click.argument("model", metavar="MODEL")
@click.option("--data-dir", type=PATH, metavar="FOLDER", help="Folder of the benchmarks' files, where a task needs it.")
@click.option("--tasks", default="", metavar="NAMES", help="Tasks, with commas between them (of the preset, if given).")
@click.option("--preset", metavar="NAME", help="Tasks with few-shot counts and metrics under one name.")
@click.option(
    "--shots", type=click.IntRange(min=0), default=None, help="Few-shot examples instead of the usual number."
)
@click.option("--limit", type=COUNT, default=None, help="Only the first items of every subject.")
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder for the tables.")
@click.option("--revision", default=None, help="Revision of a hub model.")
@bos_option
@loading_options
@json_option
def run(
    model: str, data_dir: Path | None, tasks: str, preset: str | None, shots: int | None, limit: int | None, out: Path,
    revision: str | None, bos: str, as_json: bool, **loading: Any,
) -> None:  # fmt: skip
    """Score MODEL on standard benchmarks that lie on the disk; no network is used for their data."""
    quiet_libraries([model])
    from activations.inputs import resolve_bos
    from activations.models import load_model
    from analyses.benchmarks.local.run import expected_seconds, finished, identity, jobs
    from analyses.benchmarks.local.run import run as run_job
    from analyses.benchmarks.local.tasks import settings

    names = [name.strip() for name in tasks.split(",") if name.strip()]
    work = jobs(settings(names, preset, shots), data_dir, limit)
    out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    loaded = load_model(model_spec(model, revision, loading), check=loading["self_check"])
    loaded.require_decoder()
    opened = resolve_bos(bos, [loaded.tokenizer])
    left = [job for job in work if finished(job, identity(job, loaded, opened), out) is None]
    if left:
        items = sum(len(job.asked) for job in left)
        took = duration(expected_seconds(left, loaded, opened))
        say(f"{len(left)} tasks with {items:,} items to do, about {took}, into {out}")
    found = []
    with progress(f"asking {model}") as report:
        shown = long_stages(report)
        for job in work:

            def steps(done: int, total: int, name: str = job.setting.task) -> None:
                shown(name, done, total, "")

            found.append(run_job(job, loaded, opened, out, steps))
    from activations.files import write_whole

    lines = [{**record["about"], **record["summary"]} for record in found]
    import pandas as pd

    path = out / "summary.csv"
    write_whole(path, pd.DataFrame(lines).to_csv(index=False).encode())
    if as_json:
        print_json({"tasks": lines, "out": str(out)})
        return
    _show(lines, opened)
    click.echo(str(path))


def _show(lines: list[dict[str, Any]], bos: bool) -> None:
    rows = [
        [
            line["task"], line["shots"], line["metric"], line["items"], line["score"], line["standard_error"],
            interval(line["low"], line["high"]), line["chance"], line["mean_of_subjects"],
        ]
        for line in lines
    ]  # fmt: skip
    print_table(
        f"Benchmarks of {lines[0]['model']}",
        ["task", "shots", "metric", "items", "score", "s.e.", "interval", "chance", "mean of subjects"],
        rows,
        caption="s.e.: clustered by subject where there are several, else by passage; interval: 95%. "
        f"BOS {'opens' if bos else 'does not open'} every text; no chat template",
    )
    for line in lines:
        if line["cut"]:
            say(
                f"{line['task']}: {line['cut']:.0%} of the texts are longer than the model's context and lost their beginning"
            )
