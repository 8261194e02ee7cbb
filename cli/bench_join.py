"""``twinprobe bench join``: does a probe that is right on a benchmark's item tell that the model is right on it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import COUNT, PATH, bos_option, json_option, loading_options, model_spec, seed_option
from cli.output import duration, interval, long_stages, print_json, print_table, progress, quiet_libraries, say, size

if TYPE_CHECKING:
    import pandas as pd

    from analyses.benchmarks.joining.run import Part
    from analyses.benchmarks.joining.tables import Evidence

Shown = Callable[[str, int, int], None]


@click.command(
    epilog="""\b
Examples:
  twinprobe bench join embedded:text --data-dir data --tasks arc_easy --limit 400 --out runs/join
  twinprobe bench join org/code --against org/base --data-dir data --tasks arc_easy,hellaswag --out runs/join
  twinprobe bench join ./model --data-dir data --tasks mmlu --shots 0 --device cuda --dtype auto --out runs/mmlu

At the last token of every choice, in every layer, a linear probe is trained to tell right choices from wrong ones. Its
answers to items that it was not trained on are set beside the model's own. An odds ratio above 1 may only say that some
items are easy for both: compare it with the embedding's, and with --against with that of another model's answers.

A killed run goes on where it was when the same command is run again. docs/BENCHMARKS.md explains tests and columns."""
)
@click.argument("model", metavar="MODEL")
@click.option("--data-dir", required=True, type=PATH, metavar="FOLDER", help="Folder of the benchmarks' files.")
@click.option("--tasks", required=True, metavar="NAMES", help="Multiple-choice tasks, with commas between them.")
@click.option("--against", metavar="MODEL2", help="Another model, whose answers to the same items are the baseline.")
@click.option(
    "--shots", type=click.IntRange(min=0), default=None, help="Few-shot examples instead of the task's usual number."
)
@click.option("--limit", type=COUNT, default=None, help="Only the first items of every subject.")
@click.option(
    "--folds",
    type=click.IntRange(min=3),
    default=5,
    show_default=True,
    help="Parts that items are cut into for probes.",
)
@click.option("--out", required=True, type=PATH, metavar="FOLDER", help="Folder for tables, answers and activations.")
@click.option("--revision", default=None, help="Revision of a hub model.")
@click.option("--against-revision", default=None, help="Revision of MODEL2.")
@seed_option
@bos_option
@loading_options
@json_option
def join(
    model: str, data_dir: Path, tasks: str, against: str | None, shots: int | None, limit: int | None, folds: int,
    out: Path, revision: str | None, against_revision: str | None, seed: int, bos: str, as_json: bool, **loading: Any,
) -> None:  # fmt: skip
    """Join MODEL's answers to benchmark items with probes of its activations on the same items."""
    quiet_libraries([name for name in (model, against) if name])
    from activations.errors import TwinprobeError
    from analyses.benchmarks.joining.run import parts
    from analyses.benchmarks.local.run import jobs
    from analyses.benchmarks.local.tasks import settings

    if against_revision and not against:
        raise TwinprobeError("--against-revision goes with --against MODEL2")
    if (model, revision) == (against, against_revision):
        raise TwinprobeError(f"--against names {against}, which is MODEL itself; name another model")
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    work = parts(jobs(settings(names, None, shots), data_dir, limit), folds)
    for folder in ("model", "against") if against else ("model",):
        (out / folder).mkdir(parents=True, exist_ok=True)  # a place that can not be written is found before the work
    with progress(f"joining {model}") as report:
        stages = long_stages(report)

        def shown(stage: str, done: int, total: int) -> None:
            stages(stage, done, total, "")

        found = _own(work, model_spec(model, revision, loading), loading["self_check"], bos, out, folds, seed, shown)
        if against:
            other = model_spec(against, against_revision, loading)
            found = _others(work, found, other, loading["self_check"], bos, out, shown)
        table = _tables(found, out, seed, shown)
    if as_json:
        from probes.tables import records

        print_json({"model": model, "against": against, "folds": folds, "seed": seed, "join": records(table)})
        return
    _show(table, model, against)
    click.echo(str(out / "join.csv"))


def _own(
    work: list[Part], spec: Any, check: bool, bos: str, out: Path, folds: int, seed: int, shown: Shown
) -> list[Evidence]:
    """Everything about MODEL, which leaves memory when this is through."""
    from activations.inputs import resolve_bos
    from activations.models import load_model
    from analyses.benchmarks.joining.run import estimate, evidence

    loaded = load_model(spec, check=check)
    loaded.require_decoder()
    opened, folder = resolve_bos(bos, [loaded.tokenizer]), out / "model"
    if left := estimate(work, loaded, opened, folder, folds):
        say(
            f"{left.items:,} items, {left.rows:,} rows of activations to capture: {size(left.bytes)} of {size(left.free)} "
            f"free on the disk of {out}, about {duration(left.seconds)}"
        )
    return [evidence(part, loaded, opened, folder, folds=folds, seed=seed, report=shown) for part in work]


def _others(
    work: list[Part], found: list[Evidence], spec: Any, check: bool, bos: str, out: Path, shown: Shown
) -> list[Evidence]:
    """The same with MODEL2's answers."""
    from activations.inputs import resolve_bos
    from activations.models import load_model
    from analyses.benchmarks.joining.asking import answers, likelihoods
    from analyses.benchmarks.joining.run import different_weights

    loaded = load_model(spec, check=check)
    loaded.require_decoder()
    opened = resolve_bos(bos, [loaded.tokenizer])
    different_weights(work, loaded, opened, out / "model")
    joined = []
    for part, one in zip(work, found, strict=True):

        def steps(done: int, total: int, name: str = part.task) -> None:
            shown(f"{name}: answers of {spec.name}", done, total)

        choices = likelihoods(part.job, loaded, opened, out / "against", steps)
        joined.append(replace(one, other=answers(one.asked.items, choices, part.job.setting.metric)))
    return joined


def _tables(found: list[Evidence], out: Path, seed: int, shown: Shown) -> pd.DataFrame:
    import pandas as pd

    from activations.files import write_whole
    from analyses.benchmarks.joining.tables import item_table, join_table

    lines = []
    for done, one in enumerate(found):
        shown("tests", done, len(found))
        lines.append(join_table(one, seed))
    shown("tests", len(found), len(found))
    table = pd.concat(lines, ignore_index=True)
    write_whole(out / "join.csv", table.to_csv(index=False).encode())
    items = pd.concat([item_table(one) for one in found], ignore_index=True)
    write_whole(out / "join_items.csv", items.to_csv(index=False).encode())
    return table


def _show(table: pd.DataFrame, model: str, against: str | None) -> None:
    columns = [
        "site",
        "probe",
        "95%",
        "control",
        "both / probe / model / none",
        "odds ratio",
        "95%",
        "p Holm",
        "adds",
        "95%",
    ]
    columns += ["times other", "95%"] if against else []
    for task, part in table.groupby("task", sort=False):
        first = part.iloc[0]
        rows = [
            [
                line["site"], line["probe_accuracy"], interval(line["probe_low"], line["probe_high"], ".2f"),
                line["control_accuracy"],
                " / ".join(str(line[name]) for name in ("both_right", "probe_only", "model_only", "both_wrong")),
                line["odds_ratio"], interval(line["low"], line["high"], ".2f"), line["p_holm"], line["support_beside"],
                interval(line["support_beside_low"], line["support_beside_high"], ".2f"),
                *([line["ratio"], interval(line["ratio_low"], line["ratio_high"], ".2f")] if against else []),
            ]
            for line in part.to_dict("records")
        ]  # fmt: skip
        other = f", {against} {first.other_accuracy:.3f}" if against else ""
        print_table(
            f"{task}: {first['items']:,} items in {first.clusters:,} groups; right: {model} {first.model_accuracy:.3f}{other}, "
            f"chance {first.chance:.3f}",
            columns,
            rows,
            caption="both / probe / model / none: items that both, the probe alone, the model alone or none gets right. "
            "odds ratio: odds that the model is right where the probe is, over those where it is not; embed is the floor. "
            "adds: log odds that the model is right per standard deviation of the probe's support for the model's pick, beside "
            "the model's confidence"
            + (
                f". times other: odds ratio over that with {against}'s answers; 1 is difficulty alone"
                if against
                else ""
            ),
        )
        if first.cut:
            say(f"{task}: {first.cut:,} of the items are longer than the model's context and lost their beginning")
        if first.written:
            say(f"{task}: {first.written:,} items with written answers are left out")
