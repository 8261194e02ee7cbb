"""``twinprobe patch``: activation patching of both models of a pair, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.contrasts import check_folder, chosen_items, chosen_models, chosen_pair, contrast_options, reading_options
from cli.options import COUNT, PATH
from cli.output import print_json, progress

if TYPE_CHECKING:
    from analyses.patching.grids import Grid

SITES = ("resid_pre", "z")
METRICS = ("logit_difference", "probability", "rank", "kl")
METHODS = ("atp", "ig-inputs", "ig-activations", "atp*")
DONORS = ("contrast", "mean", "random", "identity")
DIRECTIONS = {"denoising": ("denoising",), "noising": ("noising",), "both": ("denoising", "noising")}


@click.command(
    epilog="""\b
Examples:
  twinprobe patch --pair embedded --task nesting --out runs/patch
  twinprobe patch --pair embedded --task binding --site z --by all --direction both --out runs/heads
  twinprobe patch --pair embedded --task binding --attribution atp --out runs/estimates
  twinprobe patch --pair embedded --task binding --across --out runs/across
  twinprobe patch --base ./model-a --code ./model-b --items items.jsonl --out runs/patch

\b
A line of items.jsonl (docs/FORMATS.md); each text ends where its answer begins:
  {"id": "1", "clean": "...", "answer": " box", "corrupted": "...", "contrast": " bag"}

Only items that a model answers rightly in both texts are patched; the table shows how many. docs/PATCHING.md explains
every option."""
)
@contrast_options
@click.option("--max-items", type=COUNT, default=32, show_default=True, help="Retained items patched per form.")
@click.option(
    "--site",
    "sites",
    multiple=True,
    default=SITES,
    show_default=True,
    help="What is patched in every layer: resid_pre, resid_mid, resid_post, attn_out, mlp_out, z, q, k, v, mlp_post; may "
    "be repeated.",
)
@click.option("--by", default=None, help="Patch by position, role or all; by role for z, q, k, v, by position else.")
@click.option(
    "--window", type=COUNT, default=1, show_default=True, help="Neighbouring layers that are patched together."
)
@click.option("--neurons", type=COUNT, default=None, help="At mlp_post: groups of so many neurons, each patched alone.")
@click.option("--direction", type=click.Choice([*DIRECTIONS]), default="denoising", show_default=True)
@click.option(
    "--donor",
    type=click.Choice(DONORS),
    default="contrast",
    show_default=True,
    help="What is put in: the item's other text, the mean of its role, another item, or what is there already.",
)
@click.option(
    "--metric",
    type=click.Choice(METRICS),
    default=METRICS[0],
    show_default=True,
    help="Metric of the map, its picture and its top cells; the table of cells has all.",
)
@click.option(
    "--attribution", type=click.Choice(METHODS), default=None, help="Estimate by gradients instead, checked exactly."
)
@click.option(
    "--check-cells", type=COUNT, default=5000, show_default=True, help="With --attribution: cells computed exactly."
)
@click.option("--across", is_flag=True, help="Patch each model with the other's activations, too.")
@click.option(
    "--mapped",
    is_flag=True,
    help="With --across: through orthogonal maps fitted on neutral text, for models whose spaces differ (resid_pre, "
    "resid_post).",
)
@click.option(
    "--check-exact",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Random cells per form checked against a plain forward pass.",
)
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder for tables and heat maps.")
@reading_options
def patch(
    pair: str | None,
    base: str | None,
    code: str | None,
    task: str | None,
    items_file: Path | None,
    forms: tuple[str, ...],
    max_prompts: int,
    max_items: int,
    sites: tuple[str, ...],
    by: str | None,
    window: int,
    neurons: int | None,
    direction: str,
    donor: str,
    metric: str,
    attribution: str | None,
    check_cells: int,
    across: bool,
    mapped: bool,
    check_exact: int,
    out: Path,
    seed: int,
    bos: str,
    as_json: bool,
    **loading: Any,
) -> None:
    """Patch activations of every layer in both models of a pair, and see where the answer is decided."""
    names = chosen_pair(pair, base, code)
    items, label, used = chosen_items(task, items_file, forms, seed)
    if attribution:
        _check_attribution(by, window, neurons, donor, metric, loading["quantization"])
    check_folder(out, (".csv", ".png"))
    from cli.patch_job import Job, Tables, grids, joined

    chosen = grids(sites, by, window, neurons)
    mappable = _mappable(chosen, across) if mapped else []
    specs, prepend = chosen_models(names, bos, loading)
    from activations.models import load_model
    from analyses.across.compatibility import check_compatible
    from cli.patch_results import PRINTED, draw, require_patched, show, write_tables

    out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    job = Job(
        label, items, chosen, DIRECTIONS[direction], donor, metric, prepend, max_prompts, max_items, check_exact, seed
    )
    load = partial(load_model, check=loading["self_check"])
    # Models are held together only where both are needed at once.
    held = {role: load(spec) for role, spec in specs.items()} if across else {}
    if across and not mapped:
        check_compatible(held["base"], held["code"])
    parts: list[Tables] = []
    with progress(f"patching {label}") as report:
        for role, spec in specs.items():
            loaded = held.get(role) or load(spec)
            for form in used:
                found = (
                    job.attribute(loaded, form, role, report, attribution, check_cells)
                    if attribution
                    else job.patch(loaded, form, role, report)
                )
                parts.append({name: table.assign(model=role) for name, table in found.items()})
        if across:
            parts += [job.across(held["base"], held["code"], form, mappable, report) for form in used]
    tables = joined(parts)
    write_tables(tables, out)
    require_patched(tables, label, out)
    pictures = draw(tables, label, out)
    if as_json:
        from probes.tables import records

        print_json({**{name: records(tables[name]) for name in PRINTED if name in tables}, "out": str(out)})
        return
    show(tables, label)
    click.echo("\n".join([f"tables in {out}", *pictures]))


def _mappable(chosen: Sequence[Grid], across: bool) -> list[Grid]:
    """The grids whose sites can come across through a map."""
    from activations.errors import TwinprobeError

    found = [grid for grid in chosen if grid.site in ("resid_pre", "resid_post")]
    if not across:
        raise TwinprobeError("--mapped says how activations come across; give --across, too")
    if not found:
        raise TwinprobeError("--mapped needs --site resid_pre or --site resid_post; other sites have no map")
    return found


def _check_attribution(
    by: str | None, window: int, neurons: int | None, donor: str, metric: str, quantization: str | None
) -> None:
    """Raise TwinprobeError where something is asked for that attribution does not do."""
    from activations.errors import TwinprobeError

    if quantization:
        raise TwinprobeError(
            f"--attribution needs gradients, and {quantization} weights have none; leave out --attribution or --quantization"
        )
    given = {
        "--by": by not in (None, "position"), "--window": window != 1, "--neurons": neurons is not None,
        "--donor": donor != "contrast", "--metric": metric != METRICS[0],
    }  # fmt: skip
    if other := [name for name, differs in given.items() if differs]:
        raise TwinprobeError(
            f"--attribution estimates the logit difference after contrast patches, position by position; leave out {other[0]}"
        )
