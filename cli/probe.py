"""``twinprobe probe``: probe every site of a store, with controls and baselines."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import COUNT, PATH, json_option, seed_option, task_options
from cli.output import interval, print_json, print_table, progress

if TYPE_CHECKING:
    import pandas as pd

    from activations.store import ActivationStore
    from probes.sweep import Problem


@click.command(
    epilog="""\b
Examples:
  twinprobe probe runs/acts                                labels from the texts' spans
  twinprobe probe runs/acts --labels labels.jsonl --out runs/probes
  twinprobe probe runs/acts --sites 'resid_post.*' --seeds 5 --code-orders 3 --out runs/probes
  twinprobe probe runs/tasks --task binding --task scope   a store of twinprobe cache --task

\b
A line of FILE; "split", "group" and "control" are optional (docs/FORMATS.md):
  {"text": "a1", "position": 3, "label": "noun"}

Strength and layer are chosen on dev; the table shows test scores. A sweep that was cut off goes on after its last
finished site when the same command is run again with the same --out."""
)
@click.argument("store", type=PATH)
@click.option("--labels", type=PATH, metavar="FILE", multiple=True, help="JSONL file of labels; may be repeated.")
@click.option("--span", multiple=True, help="Name of labelled spans; may be repeated. Default: all.")
@task_options
@click.option("--sites", default=None, help="Sites of the store, e.g. 'embed,resid_post.*'. Default: all.")
@click.option(
    "--seeds", type=COUNT, default=1, show_default=True, help="Draws: new items, splits and controls in each."
)
@click.option("--family", default="logistic", show_default=True, help="logistic, difference, rank-1, rank-2 or mlp.")
@click.option(
    "--code-orders",
    type=click.IntRange(min=0),
    default=1,
    show_default=True,
    help="Orders of the rows that the online codelength averages over; 0: none.",
)
@click.option("--device", default="cpu", show_default=True, help="Where linear probes are fitted: cpu, cuda.")
@click.option("--out", type=PATH, metavar="FOLDER", help="Leave probes.csv, draws.csv and layers.png there.")
@seed_option
@json_option
def probe(
    store: Path,
    labels: tuple[Path, ...],
    span: tuple[str, ...],
    task: tuple[str, ...],
    items: int,
    sites: str | None,
    seeds: int,
    family: str,
    code_orders: int,
    device: str,
    out: Path | None,
    seed: int,
    as_json: bool,
) -> None:
    """Train linear probes on the rows of a STORE."""
    from activations.errors import TwinprobeError
    from activations.store import ActivationStore
    from probes.families import check_family
    from probes.problems import store_sites
    from probes.resumable import pooled, run_sweep
    from probes.tables import records, write_table

    given = [name for name, value in (("--labels", labels), ("--span", span), ("--task", task)) if value]
    if len(given) > 1:
        raise TwinprobeError(f"{' and '.join(given)} were given together; labels come from one of them")
    check_family(family)
    opened = ActivationStore(store)
    chosen_sites = store_sites(opened, sites)
    problems = [
        problem for draw in range(seed, seed + seeds) for problem in _problems(opened, labels, span, task, items, draw)
    ]
    settings = {
        "labels": {str(file): hashlib.sha256(file.read_bytes()).hexdigest() for file in labels},
        "span": span, "task": task, "items": items, "seeds": seeds, "seed": seed,
    }  # fmt: skip
    with progress(f"probing {store}") as report:
        draws = run_sweep(
            opened, problems, sites=chosen_sites, out=out, settings=settings, family=family, code_orders=code_orders,
            seed=seed, device=device, progress=lambda done, total: report("probes", done, total),
        )  # fmt: skip
    table = pooled(draws)
    if out:
        from analyses.report.curves import layer_curves

        write_table(draws, out / "draws.csv")
        write_table(table, out / "probes.csv")
        layer_curves(table, out / "layers.png")
    if as_json:
        print_json(records(table))
        return
    _print(table)


def _problems(
    store: ActivationStore,
    labels: tuple[Path, ...],
    span: tuple[str, ...],
    tasks: tuple[str, ...],
    items: int,
    seed: int,
) -> list[Problem]:
    """What to probe for in one draw: labels of files, of a task's items, or of the store's own spans."""
    from probes.labels import labelled_spans, labels_from_file, labels_from_spans
    from probes.problems import label_problem, task_problems
    from probes.tasks import get_task

    if labels:
        return [label_problem(file.stem, labels_from_file(store, file, seed), seed=seed) for file in labels]
    if tasks:
        return [
            problem
            for task in map(get_task, tasks)
            for problem in task_problems(store, task, task.generate(items, seed), seed=seed)
        ]
    names = span or labelled_spans(store)
    return [label_problem(name, labels_from_spans(store, name, seed), seed=seed) for name in names]


def _print(table: pd.DataFrame) -> None:
    from probes.tables import records

    places = [name for name in ("task", "target", "form") if name in table]
    for place, part in table.groupby(places, sort=False):
        lines = records(part)
        first = lines[0]
        draws = f", {first['seeds']} draws" if first["seeds"] > 1 else ""
        print_table(
            f"{' '.join(map(str, place))}: {first['family']} probes, {first['n_train']}/{first['n_dev']}/{first['n_test']} "
            f"rows in train/dev/test, {first['n_classes']} classes{draws}",
            ("site", "dev", "test", "95% interval", "control", "selectivity", "95% interval", "compression"),
            [
                (
                    f"{line['site']}{' *' if line['chosen'] else ''}", line["dev_score"], line["score"],
                    interval(line["low"], line["high"]), line["control"], line["selectivity"],
                    interval(line["selectivity_low"], line["selectivity_high"]), line["compression"],
                )
                for line in lines
            ],
            caption=f"* chosen on dev. Baselines on test: majority {first['majority']:.3f}, bag of tokens "
            f"{first['bag_of_tokens']:.3f}, own token {first['token']:.3f}, position {first['position']:.3f}. "
            f"{first['control_seen']:.0%} of the test rows' control keys occur in training.",
        )  # fmt: skip
