"""Run one untrusted Python program where it can do no harm, and learn whether it ran to its end.

What a model wrote is run as a stranger's program would be: in an interpreter of its own (:mod:`analyses.benchmarks.jail`),
without the user's environment, files, network or processes. A program *passes* when its last line was reached: only then does
the driver say so on a socket, and it must give back a token which it is sent after that. Leaving early, whatever the exit code,
printing, or writing into every open file does not pass. A program that knows this driver, or that patches what tests rely on
(``builtins``, ``__eq__``), can still pretend: code and tests share one interpreter, as in every published harness of these
benchmarks.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import secrets
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from activations.errors import TwinprobeError

SET_UP_SECONDS = 60.0
"""For two interpreters to start on a busy machine; the program's own time is counted from when it starts."""
STOP_SECONDS = 5.0
RAN = b"ran."
"""What the driver says when the program's last line was reached."""

Status = Literal["passed", "failed", "timed out"]
Mode = Literal["namespaces", "plain"]


@dataclass(frozen=True)
class Limits:
    """What a program may use; bytes and seconds.

    Attributes:
        wall_seconds: from its start to its end.
        cpu_seconds: of one process.
        memory_bytes: addresses of one process; with ``processes`` the most that a hostile program can take.
        file_bytes: largest file.
        scratch_bytes: everything in the scratch folder (held in memory), where namespaces can be had.
        processes: processes and threads together.
        open_files: open files of one process.
        output_bytes: output and errors kept; the rest is thrown away.
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 10
    memory_bytes: int = 1 << 30
    file_bytes: int = 16 << 20
    scratch_bytes: int = 64 << 20
    processes: int = 8
    open_files: int = 64
    output_bytes: int = 1 << 14

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise TwinprobeError(f"{name} is {value}; expected more than 0")


@dataclass(frozen=True)
class Isolation:
    """What keeps a program from the rest of the machine.

    Attributes:
        mode: ``namespaces``, or ``plain`` where the system offers none.
        network: it has no network.
        files: it sees no file but the system's libraries and writes none outside its scratch folder.
        processes: it sees no other process, and none that it started can outlive it.
        user: it runs under a user id of its own (as root), or one without any right (in a user namespace).
        reason: why there are no namespaces; empty where there are.
    """

    mode: Mode
    network: bool
    files: bool
    processes: bool
    user: bool
    reason: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """What could not be isolated."""
        return tuple(name for name in ("network", "files", "processes", "user") if not getattr(self, name))


@dataclass(frozen=True)
class Outcome:
    """What became of a program.

    Attributes:
        status: ``passed`` only where the last line was reached.
        detail: the exception, signal or exit that ended it; empty where it passed.
        output: the beginning of what it printed, output and errors together.
        seconds: from its start to its end.
        isolation: what it was kept from.
    """

    status: Status
    detail: str
    output: str
    seconds: float
    isolation: Isolation


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


def run_program(program: str, limits: Limits | None = None, allow_weak: bool = False) -> Outcome:
    """Run a Python program to its end, or to the end of its limits; nothing that it started is left.

    Args:
        program: source text; it passes when its last line is reached.
        limits: what it may use.
        allow_weak: run it even where network or files can not be kept from it.

    Raises:
        TwinprobeError: isolation is incomplete and not allowed to be, or the program could not be started.
    """
    had = isolation()
    if had.missing and not allow_weak:
        raise TwinprobeError(weak_isolation(had))
    outcome, refused = _attempt(program, limits or Limits(), had)
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
        "interpreter": interpreter,
        "scratch_bytes": limits.scratch_bytes,
        "limits": {
            "CPU": limits.cpu_seconds, "AS": limits.memory_bytes, "FSIZE": limits.file_bytes, "NPROC": processes,
            "NOFILE": limits.open_files, "CORE": 0, "MEMLOCK": 0,
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


def _attempt(program: str, limits: Limits, had: Isolation) -> tuple[Outcome | None, str]:
    """The outcome, and why the program was not started; one of the two."""
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
                    return _watch(process, ours, status.fileno(), limits, had)
                finally:
                    _end(process, had.mode)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def _watch(
    process: subprocess.Popen[bytes], control: socket.socket, status: int, limits: Limits, had: Isolation
) -> tuple[Outcome | None, str]:
    token = secrets.token_hex(16).encode()
    assert process.stdout is not None
    printed, said, told = process.stdout.fileno(), bytearray(), bytearray()
    output = bytearray()
    begun, deadline, started = time.monotonic(), time.monotonic() + SET_UP_SECONDS, False
    with selectors.DefaultSelector() as selector:
        for number in (printed, control.fileno(), status):
            os.set_blocking(number, False)
            selector.register(number, selectors.EVENT_READ)
        late = False
        while not late and status in selector.get_map():
            for key, _ in selector.select(max(0.0, deadline - time.monotonic())):
                try:
                    data = os.read(key.fd, 1 << 16)
                except BlockingIOError:
                    continue
                except ConnectionError:
                    data = b""
                if not data:
                    selector.unregister(key.fd)
                elif key.fd == printed:
                    output += data[: limits.output_bytes - len(output)]
                elif key.fd == status:
                    told += data
                elif len(said) <= len(RAN) + len(token):
                    said += data
                    # Anything else was not said by the driver; the end of the socket lets one that waits for a token go.
                    with contextlib.suppress(OSError):
                        if said == RAN:
                            control.send(token)
                        elif not RAN.startswith(said) and not said.startswith(RAN + token[:1]):
                            control.shutdown(socket.SHUT_WR)
            if not started and b'"started"' in told:
                started, begun = True, time.monotonic()
                deadline = begun + limits.wall_seconds
            late = time.monotonic() >= deadline
        seconds = time.monotonic() - begun
        if not late:
            # What was printed last may still lie in the pipe; a lost process may hold it open for ever.
            with contextlib.suppress(BlockingIOError):
                while len(output) < limits.output_bytes and (data := os.read(printed, 1 << 16)):
                    output += data[: limits.output_bytes - len(output)]
            with contextlib.suppress(BlockingIOError, ConnectionError):
                while data := os.read(control.fileno(), 64):
                    said += data
    words: dict[str, Any] = {}
    for line in told.splitlines():
        words |= json.loads(line)
    if "refused" in words or not started:
        return None, str(words.get("refused", f"not started within {SET_UP_SECONDS:.0f} s" if late else "not started"))
    text = output.decode("utf-8", "replace")
    code = words.get("exit")
    if not late and code == 0 and said == RAN + token:
        return Outcome("passed", "", text, seconds, had), ""
    if late or code == -signal.SIGXCPU:
        which = f"{limits.wall_seconds:g} s" if late else f"{limits.cpu_seconds} s of CPU"
        return Outcome("timed out", f"ran longer than {which}", text, seconds, had), ""
    return Outcome("failed", _why(code, text), text, seconds, had), ""


def _why(code: int | None, text: str) -> str:
    if code == 1 and (last := text.strip().splitlines()[-1:]):
        return last[0][:200]
    if code is None:
        return "killed"
    if code < 0:
        named = {number.value: number.name for number in signal.Signals}
        return f"killed by {named.get(-code, f'signal {-code}')}"
    return f"exit code {code} before the end of the tests"


def _end(process: subprocess.Popen[bytes], mode: Mode) -> None:
    """End the jail and all in it; in plain mode the jail itself has to collect what was started."""
    if mode == "plain" and process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
