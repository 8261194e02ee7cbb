"""What a person sees: progress on stderr, tables and JSON on stdout."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import click

Report = Callable[[str, int, int], None]
"""Progress: name of the stage, steps done, steps in all."""

LINE_EVERY = 60.0
"""Seconds between the lines that stand for the bar where there is no terminal."""


def quiet_libraries(models: Iterable[str]) -> None:
    """Keep the libraries' advice off the screen, and their bars too unless a model has to be downloaded.

    Call it before transformers is imported: it reads these settings once.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if all(name.startswith("embedded:") or Path(name).expanduser().exists() for name in models):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def say(line: str) -> None:
    """Print a line on stderr, above the bar where there is one (click's own echo would write into it)."""
    print(line, file=sys.stderr)


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Show live progress on stderr: a line per finished stage, and in a terminal a bar for the one at work.

    Yields:
        A function to call with the stage's name, the steps done and the steps in all.
    """
    with _bar() if sys.stderr.isatty() else nullcontext() as bar:
        begun = False
        finished: set[str] = set()

        def report(stage: str, done: int, total: int) -> None:
            nonlocal begun
            if not begun:
                # Not before: a mistake that is found as work is prepared is to stand alone.
                begun = True
                say(title)
            if bar is not None:
                bar(stage, done, total)
            if done >= total and stage not in finished:
                finished.add(stage)
                say(f"  {stage}")

        yield report


def long_stages(report: Report) -> Callable[[str, int, int, str], None]:
    """Progress of stages that take minutes to days, with a note; where there is no terminal, also as a line now and then."""
    last = time.monotonic()

    def shown(stage: str, done: int, total: int, note: str) -> None:
        nonlocal last
        report(f"{stage} {note}".strip(), done, total)
        if not sys.stderr.isatty() and time.monotonic() - last > LINE_EVERY:
            last = time.monotonic()
            say(f"  {stage} {done:,}{f' of {total:,}' if total else ''} {note}".rstrip())

    return shown


@contextmanager
def _bar() -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    name = TextColumn("{task.description:<34}", markup=False)
    columns = (name, BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("", total=None)
        before = 0

        def report(stage: str, done: int, total: int) -> None:
            nonlocal before
            if done < before:
                display.reset(task)  # another stage, with times of its own
            before = done
            display.update(task, description=stage, completed=done, total=total)

        yield report


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    click.echo(json.dumps(value, indent=1, ensure_ascii=False))


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], caption: str | None = None
) -> None:
    """Print a table; numbers are aligned to the right, text is never read as markup."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
    )
    for number, column in enumerate(columns):
        numeric = any(isinstance(row[number], int | float) for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def interval(low: float | None, high: float | None, spec: str = ".3f") -> str:
    """An interval for a table, or a dash where none could be estimated."""
    missing = low is None or high is None or math.isnan(low) or math.isnan(high)
    return "–" if missing else f"{low:{spec}} to {high:{spec}}"


def _cell(value: object) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.0e}" if 0 < abs(value) < 0.0005 else f"{value:.3f}"
    return str(value)


def size(count: float) -> str:
    """Bytes for people: 3.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if unit != "B" else f"{int(count)} B"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Seconds for people: 40 s, 12 min, 3.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 1 else "less than a second"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
