"""``twinprobe pretrain``: train a family of models that differ in their mixture of prose and code."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import PATH, json_option
from cli.output import print_json, progress


@click.command(
    epilog="""\b
Example (how the embedded twins were made):
  twinprobe pretrain analyses/pretraining/twins.toml --data-dir FOLDER --out runs/twins

A killed training goes on from its last checkpoint when the same command is run again."""
)
@click.argument("design", type=PATH)
@click.option(
    "--data-dir", default=".", type=PATH, metavar="FOLDER", help="Folder that the design's data paths start from."
)
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder of the runs.")
@click.option(
    "--only", metavar="RUN", multiple=True, help="Train this run of the design only; may be given several times."
)
@click.option("--threads", type=click.IntRange(min=0), default=0, help="CPU threads (0: torch's choice).")
@json_option
def pretrain(design: Path, data_dir: Path, out: Path, only: tuple[str, ...], threads: int, as_json: bool) -> None:
    """Train the runs of a DESIGN file (TOML)."""
    from analyses.pretraining.design import read_design

    plan = read_design(design)
    tokens = plan.training.tokens * (len(only) or len(plan.run))
    click.echo(f"{plan.name}: {len(only) or len(plan.run)} runs, {tokens:,} tokens in all, into {out}", err=True)
    import torch

    from analyses.pretraining.train import train_design

    if threads:
        torch.set_num_threads(threads)
    with progress(f"training {plan.name}") as report:
        folders = train_design(
            plan, data_dir, out, lambda what, done, total, note: report(f"{what} {note}".strip(), done, total), only
        )
    if as_json:
        print_json({name: str(folder) for name, folder in folders.items()})
    else:
        for name, folder in folders.items():
            click.echo(f"{name}: {folder}")
