"""Run one untrusted program where it can do no harm, and learn whether it ran to its end.

What a model wrote is run as a stranger's program would be: in a process tree of its own
(:mod:`analyses.benchmarks.code_generation.jail`), without the user's environment, files, network or processes. A program
*passes* when its last line was reached: only then does the driver say so on a socket, and it must give back a token which
it is sent after that. Leaving early, whatever the exit code, printing, or writing into every open file does not pass. A
program that knows this driver, or that patches what tests rely on (``builtins``, ``__eq__``), can still pretend: code and
tests share one interpreter, as in every published harness of these benchmarks.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activations.errors import TwinprobeError
from analyses.benchmarks.code_generation.containment import Isolation, Limits, Mode, Outcome
from analyses.benchmarks.code_generation.drivers import COMMANDS, PYTHON
from analyses.benchmarks.code_generation.watching import end, watch

if TYPE_CHECKING:
    from analyses.benchmarks.code_generation.toolchains import Toolchain

__all__ = ["Isolation", "Limits", "Outcome", "isolation", "run_program", "weak_isolation"]


@functools.cache
def isolation() -> Isolation:
    """What this system offers, found by running an empty program.

    Raises:
        TwinprobeError: the system is none that programs can be limited on, or not even the weaker mode works.
    """
    if os.name != "posix":
        raise TwinprobeError(f"programs can not be limited on {sys.platform}; run this on Linux")
    full = Isolation("namespaces", True, True, True, True)
    refused = "not Linux"
    if sys.platform == "linux":
        refused = _attempt("", Limits(wall_seconds=60), full)[1]
        if not refused:
            return full
    plain = Isolation("plain", False, False, False, os.geteuid() == 0, refused)
    second = _attempt("", Limits(wall_seconds=60), plain)[1]
    if second:
        raise TwinprobeError(f"no program can be run apart here: {refused}; {second}; use another machine")
    return plain


def run_program(
    program: str, limits: Limits | None = None, allow_weak: bool = False, toolchain: Toolchain | None = None
) -> Outcome:
    """Run a program to its end, or to the end of its limits; nothing that it started is left.

    Args:
        program: source text; it passes when its last line is reached.
        limits: what it may use.
        allow_weak: run it even where network or files can not be kept from it.
        toolchain: what runs it, where it is not Python; its language's own needs are added to the limits.

    Raises:
        TwinprobeError: isolation is incomplete and not allowed to be, or the program could not be started.
    """
    had = isolation()
    if had.missing and not allow_weak:
        raise TwinprobeError(weak_isolation(had))
    outcome, refused = _attempt(program, limits or Limits(), had, toolchain)
    if refused or outcome is None:
        raise TwinprobeError(f"the program was not run: {refused}; nothing is known about it, try again")
    return outcome


def weak_isolation(had: Isolation) -> str:
    """The one line that says what is missing and what can be done."""
    return (
        f"{' and '.join(had.missing)} can not be kept from the programs here ({had.reason}); run as root or where user "
        "namespaces are allowed, or accept it with --allow-weak-isolation"
    )


def _interpreter() -> tuple[str, list[str]]:
    """The interpreter beneath any virtual environment, and what it needs to start: its file and its libraries."""
    python = os.path.realpath(getattr(sys, "_base_executable", None) or sys.executable)
    folders = [os.path.join(sys.base_prefix, name) for name in ("lib", "lib64")]
    folders += [sysconfig.get_path("stdlib"), str(sysconfig.get_config_var("LIBDIR") or "")]
    found = {os.path.realpath(folder) for folder in folders if folder and os.path.isdir(folder)}
    places = [python, *sorted(found)]
    return python, [place for place in places if not place.startswith(("/usr/", "/lib/", "/lib64/"))]


def _spec(limits: Limits, mode: Mode, base: str) -> dict[str, Any]:
    python, interpreter = _interpreter()
    processes = limits.processes if mode == "namespaces" or os.geteuid() == 0 else limits.processes + _own_threads()
    return {
        "mode": mode,
        "base": base,
        "python": python,
        "places": interpreter,
        "scratch_bytes": limits.scratch_bytes,
        "limits": {
            "CPU": limits.cpu_seconds, "AS": max(limits.memory_bytes, limits.address_bytes), "DATA": limits.memory_bytes,
            "FSIZE": limits.file_bytes, "NPROC": processes, "NOFILE": limits.open_files, "CORE": 0, "MEMLOCK": 0,
        },
    }  # fmt: skip


def _own_threads() -> int:
    """Threads of this user now: without a user id or namespace of its own, a program's are counted with them."""
    count = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError, KeyError, ValueError):
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
            count += int(fields["Threads"]) if int(fields["Uid"].split()[0]) == os.getuid() else 0
    return count or 500


def _attempt(
    program: str, limits: Limits, had: Isolation, toolchain: Toolchain | None = None
) -> tuple[Outcome | None, str]:
    """The outcome, and why the program was not started; one of the two."""
    driver: dict[str, Any] = {"driver": PYTHON, "told": ""}
    places: list[str] = []
    if toolchain is not None:
        mark = secrets.token_hex(16)
        program, limits = toolchain.language.marked(program, mark), toolchain.language.limits(limits)
        driver, places = {"driver": COMMANDS, "told": json.dumps(toolchain.told(mark))}, toolchain.places
    base = tempfile.mkdtemp(prefix="twinprobe-run-")
    try:
        with tempfile.TemporaryFile() as text, contextlib.ExitStack() as opened:
            text.write(program.encode("utf-8", "surrogatepass"))
            text.seek(0)
            ours, theirs = socket.socketpair()
            opened.enter_context(ours)
            with theirs:
                reading, writing = os.pipe()
                status = opened.enter_context(open(reading, "rb", buffering=0))
                spec = _spec(limits, had.mode, base)
                spec |= {**driver, "places": [*spec["places"], *places]}
                spec |= {"program": text.fileno(), "control": theirs.fileno(), "status": writing}
                jail = str(Path(__file__).with_name("jail.py"))
                try:
                    process = subprocess.Popen(
                        [sys.executable, "-I", "-S", jail, json.dumps(spec)],
                        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env={},
                        pass_fds=(text.fileno(), theirs.fileno(), writing), start_new_session=True,
                    )  # fmt: skip
                finally:
                    os.close(writing)
            with process:
                try:
                    return watch(process, ours, status.fileno(), limits, had)
                finally:
                    end(process, had.mode)
    finally:
        shutil.rmtree(base, ignore_errors=True)
