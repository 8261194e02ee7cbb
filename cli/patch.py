"""``twinprobe patch``: activation patching of both models of a pair, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.options import COUNT, PATH, bos_option, json_option, loading_options, model_spec, seed_option
from cli.output import print_json, print_table, progress, quiet_libraries


@click.command(
    epilog="""\b
Examples:
  twinprobe patch --pair embedded --task nesting --out runs/patch
  twinprobe patch --base ./model-a --code ./model-b --items items.jsonl --out runs/patch

\b
A line of items.jsonl (docs/FORMATS.md); each text ends where its answer begins:
  {"id": "1", "clean": "...", "answer": " box", "corrupted": "...", "contrast": " bag"}

Only items that a model answers rightly in both texts are patched; the table shows how many."""
)
@click.option("--pair", default=None, help="A pair of the registry (twinprobe show pairs).")
@click.option("--base", default=None, help="Instead of --pair: the base model.")
@click.option("--code", default=None, help="Instead of --pair: the code model.")
@click.option("--task", default=None, help="A task (twinprobe show tasks); its test items are used.")
@click.option(
    "--items",
    "items_file",
    type=PATH,
    metavar="FILE",
    help="Instead of --task: JSONL file of your own items (docs/FORMATS.md).",
)
@click.option("--form", "forms", multiple=True, help="Form of the task, code or prose; all of them when not given.")
@click.option("--max-prompts", type=COUNT, default=100, show_default=True, help="Prompts run per form.")
@click.option("--max-items", type=COUNT, default=32, show_default=True, help="Retained items patched per form.")
@click.option(
    "--check-exact",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    help="Random cells per form checked against a plain forward pass.",
)
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder for tables and heat maps.")
@seed_option
@bos_option
@loading_options
@json_option
def patch(
    pair: str | None,
    base: str | None,
    code: str | None,
    task: str | None,
    items_file: Path | None,
    forms: tuple[str, ...],
    max_prompts: int,
    max_items: int,
    check_exact: int,
    out: Path,
    seed: int,
    bos: str,
    as_json: bool,
    **loading: Any,
) -> None:
    """Denoise the residual stream at every layer × position and see where the answer comes back."""
    from activations.errors import TwinprobeError

    names = _pair(pair, base, code)
    if (task is None) == (items_file is None):
        raise TwinprobeError("give either --task NAME or --items FILE")
    items, label = _items(task, items_file, seed)
    known = sorted({form for item in items for form in item.forms})
    unknown = [form for form in forms if form not in known]
    if unknown:
        raise TwinprobeError(f"form {unknown[0]!r} is not there; {label} has {', '.join(known)}")
    if out.exists() and (not out.is_dir() or any(path.suffix not in (".csv", ".png") for path in out.iterdir())):
        raise TwinprobeError(f"{out} holds other files; choose another --out")
    quiet_libraries(names.values())
    import pandas as pd

    from activations.inputs import resolve_bos
    from activations.models import load_model, load_tokenizer
    from analyses.report.figures import patching_map
    from analyses.study.causal import patch_task

    specs = {role: model_spec(name, None, loading) for role, name in names.items()}
    prepend = resolve_bos(bos, [load_tokenizer(spec) for spec in specs.values()])
    out.mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work is done
    parts: dict[str, list[pd.DataFrame]] = {}
    with progress(f"patching {label}") as report:
        for role, spec in specs.items():

            def advance(done: int, total: int, role: str = role) -> None:
                report(role, done, total)

            loaded = load_model(spec, check=loading["self_check"])
            tables = patch_task(
                loaded, label, items, list(dict.fromkeys(forms)) or known, bos=prepend, max_prompts=max_prompts,
                max_items=max_items, check_exact=check_exact, seed=seed, n_resamples=1000, progress=advance,
            )  # fmt: skip
            for name, table in tables.items():
                parts.setdefault(name, []).append(table.assign(model=role))
    tables = {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)
    pictures = []
    if "patching" in tables:
        for form in tables["patching"].form.unique():
            picture = out / f"patching-{label}-{form}.png"
            patching_map(tables["patching"], label, form, picture)
            pictures.append(str(picture))
    if as_json:
        from probes.tables import records

        print_json(
            {**{name: records(tables[name]) for name in ("retention", "patching") if name in tables}, "out": str(out)}
        )
        return
    columns = ["model", "form", "prompts", "both_right", "chance", "retained", "patched", "not_aligned", "max_error"]
    retention = tables["retention"].reindex(columns=columns)
    print_table(
        f"Retention on {label}",
        columns,
        [
            tuple(None if pd.isna(value) else value for value in line)
            for line in retention.astype(object).itertuples(index=False)
        ],
        caption="both_right: right in the clean and the corrupted text; chance: share a guess among the candidates would get.",
    )
    click.echo("\n".join([f"tables in {out}", *pictures]))


def _pair(pair: str | None, base: str | None, code: str | None) -> dict[str, str]:
    from activations.errors import TwinprobeError
    from activations.pairs import get_pair

    if (pair and (base or code)) or (not pair and not (base and code)):
        raise TwinprobeError("give either --pair NAME, or both --base MODEL and --code MODEL")
    if pair:
        found = get_pair(pair)
        if found.kind != "decoder":
            raise TwinprobeError(f"pair {pair!r} is an {found.kind} pair; patching needs causal language models")
        return {"base": found.base, "code": found.code}
    return {"base": str(base), "code": str(code)}


def _items(task: str | None, items_file: Path | None, seed: int) -> tuple[list[Any], str]:
    from activations.errors import TwinprobeError
    from probes.tasks import get_task
    from probes.tasks.from_file import read_items

    if items_file:
        return read_items(items_file), items_file.stem
    chosen = get_task(str(task))
    if not chosen.causal:
        raise TwinprobeError(f"task {task!r} has no answers and contrasts, so it can not be patched")
    return chosen.generate(600, seed), chosen.name
