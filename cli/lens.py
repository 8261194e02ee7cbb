"""``twinprobe lens``: what both models of a pair would answer if they stopped after a layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.contrasts import check_folder, chosen_items, chosen_models, chosen_pair, contrast_options, reading_options
from cli.options import PATH
from cli.output import interval, print_json, print_table, progress

if TYPE_CHECKING:
    from cli.form_tables import Tables

TABLES = ("lens", "lens_answers")


@click.command(
    epilog="""\b
Examples:
  twinprobe lens --pair embedded --task aliasing --form code --out runs/lens
  twinprobe lens --base ./model-a --code ./model-b --items items.jsonl --out runs/lens

The residual stream that leaves each layer is put through the model's own final norm and head at the last position. All
prompts are read, also those that a model answers wrongly. docs/PATCHING.md explains every figure."""
)
@contrast_options
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder for tables and pictures.")
@reading_options
def lens(
    pair: str | None,
    base: str | None,
    code: str | None,
    task: str | None,
    items_file: Path | None,
    forms: tuple[str, ...],
    max_prompts: int,
    out: Path,
    seed: int,
    bos: str,
    as_json: bool,
    **loading: Any,
) -> None:
    """Read the answer off every layer of both models of a pair: its lead, its rank, how often it comes first."""
    from activations.errors import TwinprobeError

    names = chosen_pair(pair, base, code)
    items, label, used = chosen_items(task, items_file, forms, seed)
    check_folder(out, (".csv", ".png"))
    specs, prepend = chosen_models(names, bos, loading)
    import pandas as pd

    from activations.models import load_model
    from analyses.across.logit_lens import by_layer, logit_lens
    from analyses.prompts import prompts
    from cli.form_tables import clusters_of, usable, write_tables

    out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    clusters = clusters_of(task)
    found: list[Tables] = []
    without: dict[tuple[str, str], TwinprobeError] = {}
    with progress(f"logit lens on {label}") as report:
        for role, spec in specs.items():
            loaded = load_model(spec, check=loading["self_check"])
            loaded.require_decoder()
            for form in used:
                read = prompts(loaded, items, form, prepend)
                try:
                    given = usable(read, max_prompts, label, form)
                except TwinprobeError as error:
                    without[role, form] = error
                    continue
                report(f"{role}, {form} form", 0, 1)
                rows = logit_lens(loaded, given)
                about = {"task": label, "form": form, "model": role}
                layers = by_layer(rows, clusters=clusters, seed=seed)
                found.append({"lens": layers.assign(**about), "lens_answers": rows.assign(**about)})
                report(f"{role}, {form} form", 1, 1)
    if not found:
        raise next(iter(without.values()))
    tables = {name: pd.concat([each[name] for each in found], ignore_index=True) for name in TABLES}
    write_tables(tables, out, TABLES, ("lens",))
    pictures = _draw(tables, label, out)
    if as_json:
        from probes.tables import records

        refused = [{"model": role, "form": form, "reason": str(reason)} for (role, form), reason in without.items()]
        print_json({"lens": records(tables["lens"]), "without": refused, "out": str(out)})
        return
    _show(tables, label)
    for (role, _), reason in without.items():
        click.echo(f"{role}: {reason}")
    click.echo("\n".join([f"tables in {out}", *pictures]))


def _draw(tables: Tables, label: str, out: Path) -> list[str]:
    """One picture per form; their paths."""
    from analyses.report.graft_figures import lens_curves
    from cli.form_tables import picture_path

    drawn = []
    for form, lines in tables["lens"].groupby("form", sort=False):
        path = picture_path(out, "lens", label, str(form))
        if lens_curves(lines, f"{label}, {form} form, {lines.prompts.max()} prompts in both their texts", path):
            drawn.append(str(path))
    return drawn


def _show(tables: Tables, label: str) -> None:
    from cli.form_tables import known

    for form, lines in tables["lens"].groupby("form", sort=False):
        print_table(
            f"Logit lens on {label}, {form} form",
            ("model", "layer", "logit difference", "interval", "median rank", "first", "prompts"),
            [
                (
                    line.model, line.layer, line.logit_difference, interval(known(line.low), known(line.high)),
                    f"{line.median_rank:g}", line.first, line.prompts,
                )
                for line in lines.itertuples()
            ],
            caption="logit difference: in favour of the text's own answer, mean of the two texts; median rank: of that answer "
            "in the whole vocabulary; first: share of texts where it is 1. The last layer's are what the model says.",
        )  # fmt: skip
