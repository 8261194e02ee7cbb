"""Call the command as a shell would, in this process or in one of its own."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from cli.main import main

ROOT = Path(str(importlib.util.find_spec("cli").origin)).parents[1]  # type: ignore[union-attr]
PYTHON = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
"""Environment of a process of its own: it finds the packages that are under test here."""
del PYTHON["HF_HUB_DISABLE_PROGRESS_BARS"]  # the command sees to that itself


@dataclass(frozen=True)
class Ran:
    """What the command left behind."""

    code: int
    out: str
    err: str


def twinprobe(*arguments: object) -> Ran:
    """Run ``twinprobe`` in this process, through the same ``main`` as the installed command."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["twinprobe", *map(str, arguments)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.argv = before
    return Ran(code, out.getvalue(), err.getvalue())


def on_small_study(command: str, study_file: Path, out: Path) -> Callable[..., Ran]:
    """Run a command on two models of the small study, base and code if no others are named, into ``out``."""

    def run(*options: object, base: str = "base", code: str = "code", out: Path = out) -> Ran:
        models = ("--base", study_file.parent / base, "--code", study_file.parent / code)
        return twinprobe(command, *models, "--out", out, *options)

    return run


def twinprobe_process(*arguments: object) -> Ran:
    """Run ``twinprobe`` in a process of its own, where nothing a library prints stays unseen."""
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=PYTHON)
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def done(ran: Ran) -> str:
    """What a run that went well printed."""
    assert ran.code == 0, ran.err
    return ran.out


def refused(ran: Ran, *expected: str, after_progress: bool = False) -> None:
    """The run ended with exit code 2 and one line that says all of ``expected``; nothing came out beside it.

    With ``after_progress``, lines about what was begun may stand before it.
    """
    assert ran.code == 2, f"exit code {ran.code}\n{ran.out}\n{ran.err}"
    assert ran.out == ""
    lines = ran.err.splitlines()
    assert after_progress or len(lines) == 1, ran.err
    assert [line for line in lines if line.startswith("Error: ") or "Traceback" in line] == lines[-1:]
    assert len(lines[-1]) < 700
    for part in expected:
        assert part in lines[-1]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
