"""``twinprobe graft``: single parts of one model's weights in the other, and all weights on the way between the two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.contrasts import check_folder, chosen_items, chosen_models, chosen_pair, contrast_options, reading_options
from cli.options import PATH
from cli.output import print_json, progress

ALPHAS = "0,0.1,0.2,0.3,0.4,0.5,0.6,0.7,0.8,0.9,1"


@click.command(
    epilog="""\b
Examples:
  twinprobe graft --pair embedded --task aliasing --form code --out runs/graft
  twinprobe graft --pair embedded --task nesting --control embedded:text-seed2 --out runs/graft
  twinprobe graft --pair embedded --task nesting --part blocks.2 --part blocks.2+blocks.3 --alphas 0,0.5,1 --out runs/graft

Both models (and the control) are in memory together, and none of them is altered. A graft that takes the answer away does
not show that the host's part held it: see docs/PATCHING.md."""
)
@contrast_options
@click.option(
    "--part",
    "chosen",
    multiple=True,
    help="embed, blocks.0, blocks.1, ..., unembed; parts joined by + are grafted together; may be repeated. Every part "
    "alone when not given.",
)
@click.option(
    "--alphas", default=ALPHAS, show_default=True, help="Shares of code's weights, from 0 to 1, with commas between."
)
@click.option(
    "--control",
    metavar="MODEL",
    default=None,
    help="A further model that gives its parts to base, such as another seed of base.",
)
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder for tables and pictures.")
@reading_options
def graft(
    pair: str | None,
    base: str | None,
    code: str | None,
    task: str | None,
    items_file: Path | None,
    forms: tuple[str, ...],
    max_prompts: int,
    chosen: tuple[str, ...],
    alphas: str,
    control: str | None,
    out: Path,
    seed: int,
    bos: str,
    as_json: bool,
    **loading: Any,
) -> None:
    """Put parts of each model's weights into the other, and go from one to the other: what becomes of the answers."""
    from activations.errors import TwinprobeError

    names = chosen_pair(pair, base, code) | ({"control": control} if control else {})
    items, label, used = chosen_items(task, items_file, forms, seed)
    shares = _shares(alphas)
    if loading["quantization"]:
        raise TwinprobeError(f"{loading['quantization']} weights can not be mixed; leave out --quantization")
    check_folder(out, (".csv", ".png"))
    specs, prepend = chosen_models(names, bos, loading)
    from activations.models import load_model
    from cli.form_tables import clusters_of
    from cli.graft_job import Job, check_models, joined, shared_by_all
    from cli.graft_results import draw, show, write

    out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    models = {role: load_model(spec, check=loading["self_check"]) for role, spec in specs.items()}
    grafts = check_models(models, chosen)
    prompts, without = shared_by_all(models, items, used, prepend, max_prompts, label)
    with progress(f"grafts on {label}") as report:
        job = Job(models, grafts, shares, clusters_of(task), seed, label, report)
        tables = joined([job.run(form, given) for form, given in prompts.items()])
    write(tables, out)
    pictures = draw(tables, label, out)
    if as_json:
        from probes.tables import records

        shown = {name: records(tables[name]) for name in ("grafts", "interpolation")}
        refused = [{"form": form, "reason": str(reason)} for form, reason in without.items()]
        print_json({**shown, "without": refused, "out": str(out)})
        return
    show(tables, label)
    for reason in without.values():
        click.echo(str(reason))
    click.echo("\n".join([f"tables in {out}", *pictures]))


def _shares(text: str) -> list[float]:
    """The shares that ``--alphas`` names, in order.

    Raises:
        TwinprobeError: one is no number from 0 to 1.
    """
    from activations.errors import TwinprobeError

    try:
        found = sorted({float(part) for part in text.split(",")})
    except ValueError:
        found = []
    if not found or not all(0 <= share <= 1 for share in found):
        raise TwinprobeError(f"--alphas {text!r} must be numbers from 0 (base) to 1 (code), such as 0,0.5,1")
    return found
