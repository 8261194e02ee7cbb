"""``twinprobe bench harness``: lm-evaluation-harness itself on one model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.options import COUNT, PATH, bos_option, json_option, loading_options, model_spec
from cli.output import interval, long_stages, print_json, print_table, progress, quiet_libraries, say


@click.command(
    epilog="""\b
Examples:
  twinprobe bench harness org/model --tasks hellaswag,mmlu --shots 5 --device cuda --dtype auto --out runs/model
  twinprobe bench harness embedded:text --data-dir data --tasks arc_easy,winogrande --limit 100 --out runs/text
  twinprobe bench harness ./model --include-path my_tasks --tasks my_task --metric f1 --out runs/model

Prompts, examples and metrics are those of the task files of lm-evaluation-harness (pip install "twinprobe[bench]"). Their
data come from the Hugging Face hub, or with --data-dir from the files that bench run reads. A killed run goes on with the next
task when the same command is run again. docs/BENCHMARKS.md says how the numbers compare with those of bench run."""
)
@click.argument("model", metavar="MODEL")
@click.option(
    "--tasks", required=True, metavar="NAMES", help="Tasks or groups of the harness, with commas between them."
)
@click.option("--data-dir", default=None, type=PATH, metavar="FOLDER", help="Folder of the benchmarks' files; no hub.")
@click.option("--include-path", default=None, type=PATH, metavar="FOLDER", help="Folder of your own task files (YAML).")
@click.option("--shots", type=click.IntRange(min=0), default=None, help="Few-shot examples instead of each task's own.")
@click.option("--limit", type=COUNT, default=None, help="Only the first items of every task.")
@click.option("--batch", type=COUNT, default=8, show_default=True, help="Texts of a forward pass.")
@click.option(
    "--chat-template", is_flag=True, help="Apply the tokenizer's chat template; examples are turns of the chat."
)
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="NAME",
    help="Score to take, the first that a task has; may be repeated.",
)
@click.option(
    "--filter", "filter_", default=None, metavar="NAME", help="Filter of tasks that have several; else the first."
)
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder for tables and logs.")
@click.option("--revision", default=None, help="Revision of a hub model.")
@bos_option
@loading_options
@json_option
def harness(
    model: str, tasks: str, data_dir: Path | None, include_path: Path | None, shots: int | None, limit: int | None,
    batch: int, chat_template: bool, metrics: tuple[str, ...], filter_: str | None, out: Path, revision: str | None,
    bos: str, as_json: bool, **loading: Any,
) -> None:  # fmt: skip
    """Score MODEL with lm-evaluation-harness, and write the tables and logs of its items."""
    quiet_libraries([model])
    from activations.errors import TwinprobeError
    from analyses.benchmarks.harness.tasks import choose_tasks, load_tasks, require_harness, task_manager

    require_harness()
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise TwinprobeError("no tasks given; name some of those that lm_eval ls tasks lists, such as hellaswag,mmlu")
    manager = task_manager(names, include_path, data_dir)
    chosen = choose_tasks(manager, names, data_dir)
    out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done

    from activations.inputs import resolve_bos
    from activations.models import load_model
    from analyses.benchmarks.harness.run import Settings, finished, identity, run, write_table
    from analyses.benchmarks.imports import Wanted

    loaded = load_model(model_spec(model, revision, loading), check=loading["self_check"])
    loaded.require_decoder()
    settings = Settings(shots, limit, batch, resolve_bos(bos, [loaded.tokenizer]), chat_template)
    left = [one for one in chosen if not finished(identity(one, loaded, settings), out)]
    # Data that can not be loaded is found before the first task is run.
    counts = [len(task.eval_docs) for one in left for task in load_tasks(manager, one)]
    if left:
        items = sum(min(count, limit or count) for count in counts)
        say(f"{', '.join(one.name for one in left)}: {len(counts)} tasks with {items:,} items to do, into {out}")
    with progress(f"asking {model}") as report:
        shown = long_stages(report)
        for one in left:

            def steps(done: int, total: int, name: str = one.name) -> None:
                shown(name, done, total, "")

            run(one, manager, loaded, settings, out, steps)
    import pandas as pd

    from activations.files import write_whole

    lines = [line for one in chosen for line in write_table(one.name, out, Wanted(metrics, filter_))]
    path = out / "summary.csv"
    write_whole(path, pd.DataFrame(lines).to_csv(index=False).encode())
    if as_json:
        print_json({"tasks": lines, "out": str(out)})
        return
    rows = [
        [
            line["task"], line["shots"], line["metric"], line["filter"], line["items"], line["score"],
            line["standard_error"], interval(line["low"], line["high"]), line["chance"],
        ]
        for line in lines
    ]  # fmt: skip
    print_table(
        f"lm-evaluation-harness {lines[0]['harness']} on {model}",
        ["task", "shots", "metric", "filter", "items", "score", "s.e.", "interval", "chance"],
        rows,
        caption="s.e.: clustered by task where there are several; interval: 95%. BOS "
        f"{'opens' if settings.bos else 'does not open'} every text; chat template {lines[0]['chat_template']}",
    )
    click.echo(str(path))
