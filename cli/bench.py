"""``twinprobe bench``: what the models of a pair score, beside what they represent and use."""

from __future__ import annotations

import click

from cli.bench_calibration import calibration
from cli.bench_execute import execute
from cli.bench_explain import explain
from cli.bench_harness import harness
from cli.bench_import import import_
from cli.bench_join import join
from cli.bench_paired import paired
from cli.bench_pairs import pairs
from cli.bench_published import published
from cli.bench_run import run
from cli.bench_vulnerability import vulnerability


@click.group(
    epilog="""\b
Examples:
  twinprobe bench published scores.csv
  twinprobe bench published scores.csv --out runs/published

\b
docs/BENCHMARKS.md explains every test and every table."""
)
def bench() -> None:
    """Benchmark scores of models and pairs, tested as their items allow."""


for part in (run, harness, import_, paired, pairs, calibration, join, published, explain, execute, vulnerability):
    bench.add_command(part)
