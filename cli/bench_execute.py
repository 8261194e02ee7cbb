"""``twinprobe bench execute``: run generated code in the sandbox, and score it."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from cli.options import COUNT, PATH, json_option, seed_option
from cli.output import duration, interval, print_json, print_table, progress, say

TABLES = ("items", "pass_at_k")
START_SECONDS = 0.1
"""Two interpreters and the namespaces, on one core; docs/BENCHMARKS.md has the measurement."""


@click.command(
    epilog="""\b
Examples:
  twinprobe bench execute samples.jsonl --task humaneval --data HumanEval.jsonl.gz --allow-code-execution --out runs/he
  twinprobe bench execute samples.jsonl --task mbpp --data mbpp_test.jsonl --allow-code-execution --out runs/mbpp --k 1 --k 10
  twinprobe bench execute samples.jsonl --task multipl-e --data humaneval-js.jsonl --allow-code-execution --out runs/js

SAMPLES.jsonl has a line per sample: task_id, and completion (what continues the prompt) or solution (a whole program).
The samples run without network, and see no file of yours, on Linux as root or where user namespaces are allowed;
elsewhere nothing runs unless --allow-weak-isolation is given too. Run the same command again to go on after an
interruption. MultiPL-E needs the language's interpreter or compiler in the system's folders; it is tried in the sandbox
first, and what is missing is named. docs/BENCHMARKS.md says what the sandbox keeps out and what it can not."""
)
@click.argument("samples_file", metavar="SAMPLES.jsonl", type=PATH)
@click.option(
    "--task",
    type=click.Choice(["humaneval", "humaneval+", "mbpp", "mbpp+", "multipl-e"]),
    required=True,
    help="The benchmark; multipl-e: in the language of the file.",
)
@click.option("--data", type=PATH, required=True, metavar="FILE", help="The authors' file (humaneval+: the folder).")
@click.option("--allow-code-execution", is_flag=True, help="Run the samples; without it nothing is run.")
@click.option(
    "--allow-weak-isolation", is_flag=True, help="Run them even where network or files can not be kept from them."
)
@click.option("--k", "ks", type=COUNT, multiple=True, default=(1, 10, 100), show_default=True, help="pass@k; repeat.")
@click.option("--model", default=None, metavar="NAME", help="Model that wrote them.  [default: the file's name]")
@click.option("--workers", type=COUNT, default=None, help="Samples at a time.  [default: one per core]")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=10.0,
    show_default=True,
    help="Seconds for one sample, of wall clock and of CPU; 10 more where it is compiled.",
)
@click.option(
    "--memory", type=click.IntRange(min=64), default=1024, show_default=True, help="MB for one process of a sample."
)
@click.option("--out", type=PATH, required=True, metavar="FOLDER", help="Folder for tables and finished problems.")
@seed_option
@json_option
def execute(
    samples_file: Path, task: str, data: Path, allow_code_execution: bool, allow_weak_isolation: bool, ks: tuple[int, ...],
    model: str | None, workers: int | None, timeout: float, memory: int, out: Path, seed: int, as_json: bool,
) -> None:  # fmt: skip
    """Run generated code in a sandbox: what passes, and pass@k with an interval over problems."""
    from activations.errors import TwinprobeError

    if not allow_code_execution:
        raise TwinprobeError("nothing was run: samples are untrusted code; add --allow-code-execution to run them")
    from analyses.benchmarks.code_generation.execution import check_samples, pass_table, task_name, toolchain_of
    from analyses.benchmarks.code_generation.execution import execute as run_all
    from analyses.benchmarks.code_generation.sandbox import Limits
    from analyses.benchmarks.code_generation.tasks import read_code_task, read_samples
    from cli.contrasts import check_folder
    from cli.form_tables import write_tables

    check_folder(out, (".csv", ""))
    problems, samples = read_code_task(task, data), read_samples(samples_file)
    limits = Limits(wall_seconds=timeout, cpu_seconds=max(1, round(timeout)), memory_bytes=memory << 20)
    check_samples(problems, samples, task, allow_weak_isolation)
    task, toolchain = task_name(task, problems), toolchain_of(problems, limits, allow_weak_isolation)
    longest = toolchain.language.limits(limits).wall_seconds if toolchain else timeout
    count = workers or os.cpu_count() or 1
    say(
        f"{len(samples):,} samples of {task}, {count} at a time: {duration(len(samples) * START_SECONDS / count)} to "
        f"{duration(len(samples) * longest / count)}"
    )
    with progress(f"Running {samples_file}") as report:
        done = run_all(
            problems, samples, out / "problems", task, model or samples_file.name.partition(".")[0], limits, count,
            allow_weak_isolation, toolchain, lambda done, total: report("samples", done, total),
        )  # fmt: skip
    import pandas as pd

    scores = pass_table(done.items, sorted(set(ks)), seed)
    table = pd.DataFrame([asdict(score) for score in scores])
    write_tables({"items": done.items, "pass_at_k": table}, out, TABLES, ())
    counts = {str(status): int(number) for status, number in done.items.status.value_counts().items()}
    if as_json:
        from probes.tables import records

        print_json(
            {"pass_at_k": records(table), "samples": counts, "isolation": asdict(done.isolation), "out": str(out)}
        )
        return
    missing = done.isolation.missing
    print_table(
        f"pass@k on {task} ({', '.join(f'{number:,} {status}' for status, number in counts.items())})",
        ["k", "pass@k", "interval", "problems", "dropped"],
        [[score.k, score.estimate, interval(score.low, score.high), score.problems, score.dropped] for score in scores],
        caption="unbiased estimator of Chen et al. 2021; interval: 95%, bootstrap over problems; dropped: fewer than k "
        f"samples; kept from {'all but ' + ', '.join(missing) if missing else 'network, files and processes'}",
    )
    click.echo(f"tables in {out}")
