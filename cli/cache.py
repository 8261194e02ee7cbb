"""``twinprobe cache``: write a model's activations over your texts into a store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.options import COUNT, PATH, bos_option, json_option, loading_options, model_spec, seed_option, task_options
from cli.output import duration, print_json, progress, quiet_libraries, say, size


@click.command(
    epilog="""\b
Examples:
  twinprobe cache embedded:code --texts texts.jsonl --sites 'resid_post.*' --out runs/acts
  twinprobe cache Qwen/Qwen2.5-0.5B --texts texts.jsonl --sites resid_post.0-23:4 --rows spans --out runs/qwen
  twinprobe cache embedded:code --texts texts.jsonl --sites pattern.3 --engine transformer_lens --out runs/patterns
  twinprobe cache embedded:code --texts texts.jsonl --sites 'resid_post.*' --out runs/acts --dry-run
  twinprobe cache embedded:code --task binding --task scope --sites 'resid_post.*' --out runs/tasks

\b
A line of FILE; "spans" and "group" are optional (docs/FORMATS.md):
  {"id": "a1", "text": "x = 1", "spans": [{"name": "role", "start": 0, "end": 1, "label": "name"}]}

A capture that was cut off goes on where it stopped when the same command is run again."""
)
@click.argument("model")
@click.option("--texts", "texts_file", type=PATH, metavar="FILE", help="JSONL file of texts.")
@task_options
@click.option("--seeds", type=COUNT, default=1, show_default=True, help="With --task: draws of the items.")
@seed_option
@click.option("--sites", required=True, help="Sites, e.g. 'embed,resid_post.*' (twinprobe show sites).")
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder of the store.")
@click.option(
    "--rows",
    type=click.Choice(["tokens", "last", "positions", "spans"]),
    default="tokens",
    show_default=True,
    help="One row per token, for the last token only, for the tokens at --positions, or one per span.",
)
@click.option("--positions", default="", metavar="LIST", help="With --rows positions: 0,2,-1; BOS does not count.")
@click.option(
    "--pool",
    type=click.Choice(["last", "first", "mean", "max"]),
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
@click.option(
    "--overlong",
    type=click.Choice(["error", "truncate", "split"]),
    default="error",
    show_default=True,
    help="Texts longer than the context: refuse, keep the beginning, or split into texts of their own (id#0, id#1).",
)
@click.option(
    "--engine",
    type=click.Choice(["auto", "hooks", "transformer_lens", "nnsight"]),
    default="auto",
    show_default=True,
    help="What runs the model; auto: hooks, or transformer_lens where a site needs its bridge (docs/SUPPORT.md).",
)
@click.option("--remote", is_flag=True, help="Run on NDIF, through the engine nnsight.")
@click.option("--workers", type=click.IntRange(min=0), default=0, help="Spread the shards over this many Ray workers.")
@click.option("--ray-address", default=None, help="With --workers: a running Ray cluster, HOST:PORT or auto.")
@click.option("--batch-tokens", type=COUNT, default=8192, show_default=True, help="Padded tokens per forward pass.")
@click.option("--revision", default=None, help="Branch, tag or commit of a hub model.")
@click.option("--dry-run", is_flag=True, help="Only say how much would be written and how long it would take.")
@bos_option
@loading_options
@json_option
def cache(
    model: str,
    texts_file: Path | None,
    task: tuple[str, ...],
    items: int,
    seeds: int,
    seed: int,
    sites: str,
    out: Path,
    rows: str,
    positions: str,
    pool: str,
    store_dtype: str,
    overlong: str,
    engine: str,
    remote: bool,
    workers: int,
    ray_address: str | None,
    batch_tokens: int,
    revision: str | None,
    dry_run: bool,
    bos: str,
    as_json: bool,
    **loading: Any,
) -> None:
    """Capture activations of MODEL (hub name, folder or embedded:NAME) into an HDF5 store."""
    from activations.errors import TwinprobeError
    from activations.rows import RowRule
    from activations.texts import read_texts

    rule = RowRule(rows, pool, _positions(positions))
    if ray_address and not workers:
        raise TwinprobeError("--ray-address goes with --workers N")
    if bool(task) == bool(texts_file):
        raise TwinprobeError("give the texts with --texts FILE, or the tasks whose items are captured with --task NAME")
    if task and rows not in ("tokens", "spans"):
        raise TwinprobeError(f"--rows {rows} does not go with --task; a task's labels are at its spans (--rows spans)")
    if texts_file:
        texts = read_texts(texts_file)
    else:
        from probes.task_rows import task_texts

        texts, rule = task_texts(task, items, range(seed, seed + seeds)), RowRule("spans", pool, ())
    quiet_libraries([model])
    from activations.capturing import prepare, run
    from activations.inputs import resolve_bos
    from activations.models import load_model

    loaded = load_model(model_spec(model, revision, loading), check=loading["self_check"])
    prepend = resolve_bos(bos, [loaded.tokenizer])
    job = prepare(
        loaded, texts, loaded.sites(sites), bos=prepend, rule=rule, dtype=store_dtype, overlong=overlong,
        batch_tokens=batch_tokens, engine=engine, remote=remote,
    )  # fmt: skip
    expected = job.estimate()
    say(
        f"{expected.texts:,} texts, {expected.tokens:,} tokens, {expected.rows:,} rows × {len(job.recipe.sites)} sites: "
        f"{size(expected.bytes)} in {out}"
    )
    cut = job.provenance["overlong"]
    if cut["texts"]:
        say(f"{cut['texts']:,} texts were too long ({overlong}); {cut['lost_spans']:,} spans lost")
    seconds = None
    if dry_run or expected.padded > LARGE * batch_tokens:
        seconds = job.seconds()
        say(f"about {duration(seconds)} here, going by one batch{' on one process' if workers else ''}")
    if not dry_run:
        begun = False
        with progress(f"capturing {model}") as report:

            def advance(done: int, total: int) -> None:
                nonlocal begun
                if done and not begun:
                    say(f"{done:,} of {total:,} texts were captured before and are kept")
                begun = True
                report("texts", done, total)

            run(job, out, workers=workers, ray_address=ray_address, progress=advance, notice=say)
    if as_json:
        done = {"out": str(out), **vars(expected), "seconds": seconds, "engine": job.engine.name}
        print_json({**done, "sites": job.provenance["sites"], "overlong": cut, "written": not dry_run})
    elif not dry_run:
        click.echo(f"wrote {out}; look at it with: twinprobe show store {out}")


LARGE = 32
"""Batches from which on a job is worth an estimate of its time."""


def _positions(written: str) -> tuple[int, ...]:
    from activations.errors import TwinprobeError

    try:
        return tuple(int(part) for part in written.split(",")) if written else ()
    except ValueError:
        raise TwinprobeError(
            f"--positions {written!r} is not a list of whole numbers; expected for example 0,2,-1"
        ) from None
