"""``twinprobe probe``: probe every site of a store, with controls and baselines."""

from __future__ import annotations

from pathlib import Path

import click

from cli.options import PATH, json_option, seed_option
from cli.output import interval, print_json, print_table, progress


@click.command(
    epilog="""\b
Examples:
  twinprobe probe runs/acts                         labels from the texts' spans
  twinprobe probe runs/acts --labels labels.jsonl --out probes.csv

\b
A line of FILE; "split", "group" and "control" are optional (docs/FORMATS.md):
  {"text": "a1", "position": 3, "label": "noun"}

Strength and layer are chosen on dev; the table shows test scores."""
)
@click.argument("store", type=PATH)
@click.option("--labels", type=PATH, metavar="FILE", help="JSONL file of labels; without it, the spans' own.")
@click.option("--span", default=None, help="Name of the labelled spans, when the texts have several kinds.")
@click.option("--out", type=PATH, metavar="FILE", help="Write the whole table to this CSV file.")
@seed_option
@json_option
def probe(store: Path, labels: Path | None, span: str | None, out: Path | None, seed: int, as_json: bool) -> None:
    """Train linear probes on the rows of a STORE."""
    import pandas as pd

    from activations.errors import TwinprobeError
    from activations.features import SiteFeatures
    from activations.store import ActivationStore
    from analyses.study.results import records
    from probes.labels import labels_from_file, labels_from_spans
    from probes.sweep import best_layer, sweep

    if labels and span:
        raise TwinprobeError("--labels and --span were both given; --span chooses among the store's own labels")
    if out and not out.parent.is_dir():
        raise TwinprobeError(f"--out {out}: there is no folder {out.parent}; create it or choose another place")
    opened = ActivationStore(store)
    chosen = labels_from_file(opened, labels, seed) if labels else labels_from_spans(opened, span, seed)
    with progress(f"probing {store}") as report:
        results = sweep(
            SiteFeatures(opened, chosen.rows), chosen.about, seed=seed,
            progress=lambda done, total: report("sites", done, total),
        )  # fmt: skip
    best = best_layer(results)
    table = pd.DataFrame([{**result.row(), "chosen": result is best} for result in results])
    if out:
        table.to_csv(out, index=False)
    if as_json:
        print_json(records(table))
        return
    first = results[0]
    print_table(
        f"Linear probes, {first.n_train}/{first.n_dev}/{first.n_test} rows in train/dev/test, {first.n_classes} classes",
        ("site", "dev", "test", "95% interval", "control", "selectivity", "95% interval"),
        [
            (
                f"{result.site}{' *' if result is best else ''}", result.dev_score, result.score,
                interval(result.low, result.high), result.control, result.selectivity,
                interval(result.selectivity_low, result.selectivity_high),
            )
            for result in results
        ],
        caption=f"* chosen on dev. Baselines on test: majority {first.majority:.3f}, bag of tokens {first.bag_of_tokens:.3f}, "
        f"own token {first.token:.3f}, position {first.position:.3f}. {first.control_seen:.0%} of the test rows' control "
        "keys occur in training.",
    )  # fmt: skip
