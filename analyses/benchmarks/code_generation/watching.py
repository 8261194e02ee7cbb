"""Watch a program in the sandbox from its start to its end or that of its time, judge it, and leave nothing of it."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import signal
import socket
import subprocess
import time
from typing import Any

from analyses.benchmarks.code_generation.containment import Isolation, Limits, Mode, Outcome
from analyses.benchmarks.code_generation.drivers import RAN

SET_UP_SECONDS = 60.0
"""For two interpreters to start on a busy machine; the program's own time is counted from when it starts."""
STOP_SECONDS = 5.0


def watch(
    process: subprocess.Popen[bytes], control: socket.socket, status: int, limits: Limits, had: Isolation
) -> tuple[Outcome | None, str]:
    """What became of the program, and why it was not started; one of the two.

    Args:
        process: the jail.
        control: the socket on which the driver says that the last line was reached.
        status: the pipe on which the jail says what it did.
        limits: of which the wall clock and the output are kept here.
        had: what the program is kept from.
    """
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


def end(process: subprocess.Popen[bytes], mode: Mode) -> None:
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
