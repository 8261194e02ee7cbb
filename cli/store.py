"""``twinprobe store``: verify, pack and merge stores."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from cli.options import PATH, json_option
from cli.output import print_json, progress, say, size


@click.group(
    epilog="""\b
Examples:
  twinprobe store verify runs/acts
  twinprobe store pack runs/acts --out acts.h5 --compress
  twinprobe store merge runs/part1 runs/part2 --out runs/acts

\b
twinprobe cache writes a store, twinprobe show store tells what is in one (docs/STORE.md)."""
)
def store() -> None:
    """Verify, pack and merge stores."""


@store.command(
    epilog="""\b
Examples:
  twinprobe store verify runs/acts
  twinprobe store verify acts.h5 --json

\b
Exit code 0 where the store is sound, 1 where it is not."""
)
@click.argument("path", type=PATH)
@json_option
def verify(path: Path, as_json: bool) -> None:
    """Read every byte of the store PATH, a folder or a packed file, and say what is wrong with it."""
    from activations.verifying import verify as find_problems

    with progress(f"verifying {path}") as report:
        problems = find_problems(path, lambda done, total: report("files", done, total))
    if as_json:
        print_json({"path": str(path), "sound": not problems, "problems": problems})
    else:
        click.echo("\n".join(problems) or f"{path} is sound")
    if problems:
        if path.is_file():
            say("To mend it: pack the store again, or copy the file again from where it came.")
        else:
            say(
                "To mend it: run the same twinprobe cache or twinprobe store merge command again; what is sound is kept."
            )
        sys.exit(1)


@store.command(
    epilog="""\b
Examples:
  twinprobe store pack runs/acts --out acts.h5
  twinprobe store pack runs/acts --out acts.h5 --compress

\b
A packed store is used like a folder: twinprobe probe acts.h5. Values are kept bit for bit."""
)
@click.argument("path", type=PATH)
@click.option("--out", required=True, type=PATH, metavar="FILE", help="The file to write; it must not exist.")
@click.option("--compress", is_flag=True, help="Compress by bitshuffle and zstd (needs hdf5plugin to write and read).")
@json_option
def pack(path: Path, out: Path, compress: bool, as_json: bool) -> None:
    """Write all of the store PATH into one HDF5 file."""
    from activations.packing import pack as pack_store
    from activations.store import ActivationStore

    opened = ActivationStore(path)
    with progress(f"packing {path}") as report:
        pack_store(opened, out, "zstd" if compress else None, report)
    before, after = opened.size, out.stat().st_size
    if as_json:
        print_json({"out": str(out), "bytes_before": before, "bytes": after})
    else:
        click.echo(f"wrote {out}: {size(after)}, {after / before:.0%} of the {size(before)} of {path}")


@store.command(
    epilog="""\b
Examples:
  twinprobe store merge runs/part1 runs/part2 --out runs/all         more texts
  twinprobe store merge runs/residuals runs/heads --out runs/both    more sites

\b
A merge that was cut off goes on where it stopped when the same command is run again."""
)
@click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH PATH ...")
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder of the new store.")
@json_option
def merge(paths: tuple[Path, ...], out: Path, as_json: bool) -> None:
    """Write one store with the rows of several, folders or packed files.

    They are of one model and hold either different texts at the same sites, or the same texts at different sites.
    """
    from activations.merging import merge as merge_stores

    with progress(f"merging {len(paths)} stores") as report:
        merged = merge_stores(paths, out, report, say)
    if as_json:
        print_json({"out": str(out), "n_texts": len(merged.texts), "n_rows": merged.n_rows, "sites": merged.sites})
    else:
        click.echo(
            f"wrote {out}: {len(merged.texts):,} texts, {merged.n_rows:,} rows × {len(merged.sites)} sites, "
            f"{size(merged.size)}; look at it with: twinprobe show store {out}"
        )
