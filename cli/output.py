"""What a person sees: progress on stderr, tables and JSON on stdout."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click


def quiet_libraries(models: Iterable[str]) -> None:
    """Keep the libraries' advice off the screen, and their bars too unless a model has to be downloaded.

    Call it before transformers is imported: it reads these settings once.
    """
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if all(name.startswith("embedded:") or Path(name).expanduser().exists() for name in models):
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


@contextmanager
def progress(title: str, stages: int | None = None) -> Iterator[Callable[[str, int, int], None]]:
    """Show live progress on stderr: bars in a terminal, a line per finished stage elsewhere.

    Yields:
        A function to call with the stage's name, the steps done and the steps in all.
    """
    if sys.stderr.isatty():
        yield from _bars(title, stages)
    else:
        yield from _lines(title)


def _bars(title: str, stages: int | None) -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description:<34}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as display:
        whole = display.add_task(title, total=stages) if stages else None
        current = display.add_task("", total=None)
        finished: set[str] = set()

        def report(stage: str, done: int, total: int) -> None:
            display.update(current, description=stage, completed=done, total=total)
            if done >= total and stage not in finished:
                finished.add(stage)
                if whole is not None:
                    display.update(whole, completed=min(len(finished), stages or 0))

        yield report


def _lines(title: str) -> Iterator[Callable[[str, int, int], None]]:
    begun = False
    finished: set[str] = set()

    def report(stage: str, done: int, total: int) -> None:
        nonlocal begun
        if not begun:
            # Not before: a mistake that is found as work is prepared is to stand alone.
            begun = True
            click.echo(title, err=True)
        if done >= total and stage not in finished:
            finished.add(stage)
            click.echo(f"  {stage}", err=True)

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
        return f"{value:.3f}"
    return str(value)


def size(count: float) -> str:
    """Bytes for people: 3.2 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.1f} {unit}" if unit != "B" else f"{int(count)} B"
        count /= 1000
    return f"{count:.1f} TB"
