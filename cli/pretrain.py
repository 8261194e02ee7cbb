"""``twinprobe pretrain``: train a family of models that differ in their mixture of prose and code."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import PATH, json_option
from cli.output import duration, long_stages, print_json, print_table, progress, quiet_libraries, say, size

if TYPE_CHECKING:
    from analyses.pretraining.design import Design, Run
    from analyses.pretraining.estimates import Estimate


@click.command(
    epilog="""\b
Examples:
  twinprobe pretrain design.toml --dry-run
  twinprobe pretrain analyses/pretraining/twins.toml --data-dir FOLDER --out runs/twins
  accelerate launch -m cli.main pretrain design.toml --data-dir FOLDER --out runs/mine

A killed training goes on from its last checkpoint when the same command is run again. Under accelerate launch several
processes or GPUs split every batch. docs/PRETRAINING.md explains every field of a design."""
)
@click.argument("design_file", metavar="DESIGN", type=PATH)
@click.option(
    "--data-dir", default=".", type=PATH, metavar="FOLDER", help="Folder that the design's data paths start from."
)
@click.option("--out", type=PATH, default=None, metavar="FOLDER", help="Folder of the runs; needed unless --dry-run.")
@click.option(
    "--only", metavar="RUN", multiple=True, help="Train this run of the design only; may be given several times."
)
@click.option("--dry-run", is_flag=True, help="Show the runs and what they will take, and train nothing.")
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads (0: torch's choice).")
@json_option
def pretrain(
    design_file: Path,
    data_dir: Path,
    out: Path | None,
    only: tuple[str, ...],
    dry_run: bool,
    threads: int,
    as_json: bool,
) -> None:
    """Train the runs of a DESIGN file (TOML)."""
    if out is None and not dry_run:
        raise click.UsageError("Missing option '--out' (or --dry-run, which writes nothing)")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # tokenising is most of the time that data takes
    quiet_libraries([])
    from analyses.pretraining.design import read_design

    design = read_design(design_file)
    import torch

    from analyses.pretraining.train import chosen_runs, train_design, unfinished
    from analyses.pretraining.tuning import untuned

    if threads:
        torch.set_num_threads(threads)
    runs = chosen_runs(design, only)
    first = os.environ.get("RANK", "0") == "0"
    if dry_run:
        if first:
            _dry_run(design, runs, data_dir, out, as_json)
        return
    assert out is not None
    left = unfinished(out, runs)
    if first and left:
        _announce(design, left, data_dir, out)
    second = untuned(design, out, runs)
    if first and second:
        say(_second_stage(design, len(second)))
    with progress(f"training {design.name}") as report:
        folders = train_design(
            design, data_dir, out, long_stages(report), only, shlex.join(["twinprobe", *sys.argv[1:]])
        )
    if not first:
        return
    if as_json:
        print_json({name: str(folder) for name, folder in folders.items()})
    else:
        for name, folder in folders.items():
            click.echo(f"{name}: {folder}")


def _dry_run(design: Design, runs: Sequence[Run], data_dir: Path, out: Path | None, as_json: bool) -> None:
    from analyses.pretraining.estimates import estimate, table

    lines, taken = table(design, runs), estimate(design, runs, data_dir, out)
    tokens = sum(line["prose_tokens"] + line["code_tokens"] for line in lines)
    if as_json:
        print_json({"design": design.name, "runs": lines, "tokens": tokens, "estimate": asdict(taken)})
        return
    rows = [
        (
            line["name"],
            f"{line['code_share']:.4g}",
            f"{line['prose_tokens']:,}",
            f"{line['code_tokens']:,}",
            f"{line['steps']:,}",
            str(line["seed"]),
            ", ".join(f"{point['setting']} {point['share']:.4g}" for point in line["serves"]),
        )
        for line in lines
    ]
    columns = ("run", "share of code", "prose tokens", "code tokens", "steps", "seed", "serves as")
    print_table(
        f"{design.name}: {len(runs)} run{'s' if len(runs) > 1 else ''}, {tokens:,} tokens in all", columns, rows
    )
    click.echo(_said(design, taken))
    if design.tuning:
        click.echo(_second_stage(design, len(runs) * len(design.tuning.mix)))


def _announce(design: Design, left: Sequence[Run], data_dir: Path, out: Path) -> None:
    from analyses.pretraining.estimates import estimate

    tokens = sum(sum(design.tokens_seen(run).values()) for run in left)
    say(f"{design.name}: {len(left)} run{'s' if len(left) > 1 else ''} to train, {tokens:,} tokens in all, into {out}")
    say(_said(design, estimate(design, left, data_dir, out)))


def _said(design: Design, taken: Estimate) -> str:
    """The estimate in two sentences."""
    compiled = "; compiled (compile = true), steps are often faster" if design.training.compile else ""
    data = "" if taken.data_bytes == 0 else f", {size(taken.data_bytes)} for the data" if taken.data_bytes else ""
    unknown = "; the size of the data is not known before it is read" if taken.data_bytes is None else ""
    return (
        f"about {duration(taken.seconds)} of training on {taken.device} ({taken.seconds_per_step:.3g} s a step, measured "
        f"without torch.compile{compiled})\n"
        f"disk: {size(taken.model_bytes)} for the models, {size(taken.checkpoint_bytes)} for checkpoints while they train"
        f"{data}{unknown}"
    )


def _second_stage(design: Design, models: int) -> str:
    assert design.tuning is not None
    mixes = ", ".join(mix.name for mix in design.tuning.mix)
    return f"second stage: {models} models to tune on {design.tuning.examples:,} instructions each (mixes {mixes})"
