"""What a person sees: progress in a terminal and elsewhere, tables, sizes."""

from __future__ import annotations

import os
import pty
from collections.abc import Iterator
from contextlib import redirect_stderr, suppress
from io import StringIO

import pytest

from cli.output import interval, print_table, progress, size


def test_elsewhere_than_in_a_terminal_progress_is_a_line_per_finished_stage() -> None:
    with redirect_stderr(StringIO()) as shown, progress("a study") as report:
        assert shown.getvalue() == "", "the title waits for the first stage"
        for stage in ("base/probes", "code/probes"):
            for done in range(4):
                report(stage, done, 3)
            report(stage, 3, 3)
    assert shown.getvalue().splitlines() == ["a study", "  base/probes", "  code/probes"]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    ends = pty.openpty()
    yield ends
    for end in ends:
        os.close(end)


def _everything(end: int) -> str:
    """All that waits at this end of a terminal, which hands over a few kilobytes at a time."""
    os.set_blocking(end, False)
    parts = []
    with suppress(BlockingIOError):
        while part := os.read(end, 100_000):
            parts.append(part)
    return b"".join(parts).decode()


def test_in_a_terminal_progress_is_a_bar(terminal: tuple[int, int]) -> None:
    ours, theirs = terminal
    with os.fdopen(os.dup(theirs), "w") as stderr, redirect_stderr(stderr), progress("a study") as report:
        report("base/probes [bold]", 0, 3)
        report("base/probes [bold]", 2, 3)
        report("base/probes [bold]", 3, 3)
        report("code/probes", 1, 9)
    shown = _everything(ours)
    clear_line = "\x1b[2K"
    assert f"{clear_line}a study\r\n" in shown
    assert f"{clear_line}  base/probes [bold]\r\n" in shown, "a finished stage stays on the screen, above the bar"
    assert f"{clear_line}code/probes" in shown and "1/9" in shown


def test_tables_show_text_as_it_is_and_a_dash_for_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("A [title]", ("what", "score"), [("[red]x[/red]", 0.12345), ("y", None)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["[red]x[/red]", "0.123"] in lines
    assert ["y", "–"] in lines


def test_intervals_and_sizes() -> None:
    assert interval(0.25, 0.5) == "0.250 to 0.500"
    assert interval(-0.25, 0.5, "+.1f") == "-0.2 to +0.5"
    assert interval(None, None) == interval(float("nan"), float("nan")) == "–"
    assert [size(count) for count in (0, 999, 1000, 64e6, 5e12)] == ["0 B", "999 B", "1.0 kB", "64.0 MB", "5.0 TB"]
