"""``twinprobe cache``: write a model's activations over your texts into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.options import COUNT, PATH, bos_option, json_option, loading_options, model_spec
from cli.output import print_json, progress, quiet_libraries, say, size


@click.command(
    epilog="""\b
Examples:
  twinprobe cache embedded:code --texts texts.jsonl --sites 'resid_post.*' --out runs/acts
  twinprobe cache Qwen/Qwen2.5-0.5B --texts texts.jsonl --sites resid_post.0-23:4 --rows spans --out runs/qwen

\b
A line of FILE; "spans" and "group" are optional (docs/FORMATS.md):
  {"id": "a1", "text": "x = 1", "spans": [{"name": "role", "start": 0, "end": 1, "label": "name"}]}

A capture that was cut off goes on where it stopped when the same command is run again."""
)
@click.argument("model")
@click.option("--texts", "texts_file", required=True, type=PATH, metavar="FILE", help="JSONL file of texts.")
@click.option("--sites", required=True, help="Sites, e.g. 'embed,resid_post.*' (twinprobe show sites).")
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder of the store.")
@click.option(
    "--rows",
    type=click.Choice(["tokens", "last", "spans"]),
    default="tokens",
    show_default=True,
    help="One row per token, for the last token only, or one per span.",
)
@click.option(
    "--pool",
    type=click.Choice(["last", "first", "mean"]),
    default="last",
    show_default=True,
    help="How a span's tokens become one row.",
)
@click.option(
    "--store-dtype",
    type=click.Choice(["float32", "bfloat16", "float16"]),
    default="float32",
    show_default=True,
    help="Storage type; it must hold every bit of the compute type.",
)
@click.option("--batch-tokens", type=COUNT, default=8192, show_default=True, help="Padded tokens per forward pass.")
@click.option("--revision", default=None, help="Branch, tag or commit of a hub model.")
@click.option("--dry-run", is_flag=True, help="Only say how much would be written.")
@bos_option
@loading_options
@json_option
def cache(
    model: str,
    texts_file: Path,
    sites: str,
    out: Path,
    rows: str,
    pool: str,
    store_dtype: str,
    batch_tokens: int,
    revision: str | None,
    dry_run: bool,
    bos: str,
    as_json: bool,
    **loading: Any,
) -> None:
    """Capture activations of MODEL (hub name, folder or embedded:NAME) into an HDF5 store."""
    from activations.texts import read_texts

    texts = read_texts(texts_file)
    quiet_libraries([model])
    from activations.capturing import capture, estimate
    from activations.inputs import resolve_bos
    from activations.models import load_model
    from activations.sites import parse_sites

    loaded = load_model(model_spec(model, revision, loading))
    chosen = parse_sites(sites, loaded.n_layers, loaded.n_heads)
    prepend = resolve_bos(bos, [loaded.tokenizer])
    expected = estimate(loaded, texts, chosen, bos=prepend, rows=rows, dtype=store_dtype)
    click.echo(
        f"{expected.texts:,} texts, {expected.tokens:,} tokens, {expected.rows:,} rows × {len(chosen)} sites: "
        f"{size(expected.bytes)} in {out}",
        err=True,
    )
    if not dry_run:
        begun = False
        with progress(f"capturing {model}") as report:

            def advance(done: int, total: int) -> None:
                nonlocal begun
                if done and not begun:
                    say(f"{done:,} of {total:,} texts were captured before and are kept")
                begun = True
                report("texts", done, total)

            capture(
                loaded, texts, chosen, out, bos=prepend, rows=rows, pool=pool, dtype=store_dtype,
                batch_tokens=batch_tokens, progress=advance,
            )  # fmt: skip
    if as_json:
        print_json(
            {"out": str(out), **expected.__dict__, "sites": [str(site) for site in chosen], "written": not dry_run}
        )
    elif not dry_run:
        click.echo(f"wrote {out}; look at it with: twinprobe show store {out}")
