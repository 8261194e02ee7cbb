"""``twinprobe compare``: the whole paired study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.options import COUNT, PATH, json_option
from cli.output import interval, print_json, print_table, progress, quiet_libraries, say, size


@click.command(
    epilog="""\b
Examples:
  twinprobe compare                                  the embedded twins, into runs/embedded
  twinprobe compare my_study.toml --out runs/mine    your own pair

\b
A study file needs a name and a pair; everything else has a default:
  name = "mine"
  [pair]
  base = "Qwen/Qwen2.5-0.5B"
  code = "Qwen/Qwen2.5-Coder-0.5B"
The run directory's study.toml shows every field with its value.

The same command again computes only what is new."""
)
@click.argument("study", required=False, type=PATH)
@click.option("--full", is_flag=True, help="Without STUDY: every task, three draws, capacity curves; takes far longer.")
@click.option(
    "--jobs", type=COUNT, default=None, help="Models at a time; default: as many as cores, for small ones on CPU."
)
@click.option("--out", type=PATH, metavar="FOLDER", help="Run directory; runs/NAME of the study when not given.")
@json_option
def compare(study: Path | None, full: bool, jobs: int | None, out: Path | None, as_json: bool) -> None:
    """Run a paired STUDY (a TOML file): capture, probes, transfer, patching, scores, statistics, report."""
    from activations.errors import TwinprobeError
    from analyses.study.settings import embedded_study, read_study

    if study and full:
        raise TwinprobeError(f"--full is the full study of the embedded twins; {study} says itself what it runs")
    settings = read_study(study or embedded_study(full=full))
    folder = out or Path("runs") / settings.name
    quiet_libraries(spec.name for spec in settings.specs().values())
    from analyses.study.run import StudyRun

    fresh = not (folder / "results.json").exists()
    with progress(f"study {settings.name}") as report:
        run = StudyRun(settings, folder, report, jobs)
        if fresh:
            say(f"into {folder}: {len(run.shared.specs)} models, stores of about {size(run.expected_bytes())}")
        results = run.run()
    reused = sum(entry["reused"] for entry in run.shared.stages.log)
    say(f"{reused} of {len(run.shared.stages.log)} stages were as the last run left them")
    if as_json:
        print_json(results)
    else:
        _summary(results, folder)


def _summary(results: dict[str, Any], folder: Path) -> None:
    """One screen: scores, probes, transfer and behaviour of both models, and what the statistics say."""
    from analyses.report.words import what

    pair, tables = results["pair"], results["tables"]
    click.echo(f"\n{results['study']}: base = {pair['base']}, code = {pair['code']}\n")
    rows = [line for line in tables.get("comparisons", []) if line["against"] == "code"]
    print_table(
        "Code minus base, paired by item (95% cluster bootstrap; sign-flip p with Holm correction)",
        ("measure", "what", "base", "code", "difference", "interval", "p (Holm)", "n"),
        [
            (
                line["measure"], what(line), line["base"], line["other"], line["difference"],
                interval(line["low"], line["high"], "+.3f"),
                line["p_holm"], line["n_items"],
            )
            for line in rows
        ],
    )  # fmt: skip
    for finding in results["findings"]:
        said = f"{finding['measure']}: {finding['clear']} of {finding['comparisons']} differ after Holm"
        beyond = finding["clear_beyond_null"]
        if finding["clear"]:
            said += f" (code better {finding['code_better']}, base better {finding['base_better']}"
            said += ")" if beyond is None else f"; {beyond} by more than two seeds of base differ)"
        click.echo(said)
    if results["calibration"]:
        null = results["calibration"]
        click.echo(
            f"null pair (two seeds of base): {null['below_alpha']} of {null['comparisons']} have p < {null['alpha']}, "
            f"{null['below_alpha_after_holm']} after Holm"
        )
    click.echo(f"\nreport: {folder / 'report.html'}\nnumbers: {folder / 'results.json'}, {folder / 'tables'}")
