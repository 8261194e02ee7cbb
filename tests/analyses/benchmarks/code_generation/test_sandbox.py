"""Hostile programs, run for real: every one is contained, and none passes that did not reach its end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from uuid import uuid4

import pytest

import analyses
from activations.errors import TwinprobeError
from analyses.benchmarks.code_generation import sandbox
from analyses.benchmarks.code_generation.sandbox import Isolation, Limits, Outcome, isolation, run_program

ROOT = Path(analyses.__file__ or "").parents[1]
SYSTEM_PYTHON = "/usr/bin/python3"
QUICK = Limits(wall_seconds=20, cpu_seconds=5)


def run(program: str, limits: Limits = QUICK) -> Outcome:
    if isolation().missing:
        pytest.skip(f"no namespaces here: {isolation().reason}")
    outcome = run_program(program, limits)
    assert not outcome.isolation.missing
    return outcome


def test_a_program_passes_where_its_last_line_is_reached() -> None:
    outcome = run("def f(x):\n    return x + 1\nprint('here', flush=True)\nassert f(1) == 2")
    assert (outcome.status, outcome.detail, outcome.output) == ("passed", "", "here\n")
    outcome = run("assert 1 == 2, 'they differ'")
    assert (outcome.status, outcome.detail) == ("failed", "AssertionError: they differ")
    assert run("def f(:").detail.startswith("SyntaxError")


FORGE = """
import os
for number in range(3, 64):
    try: os.write(number, b"ran.")
    except OSError: pass
"""
CHEATS = {
    "exit": ("raise SystemExit(0)", "SystemExit: 0"),
    "hard exit": ("import os; os._exit(0)", "exit code 0 before"),
    "print": ("import os\nprint('ran.', flush=True)\nos._exit(0)", "exit code 0 before"),
    "write everywhere": (FORGE + "os._exit(0)", "exit code 0 before"),
    "write everywhere and go on": (FORGE, ""),
    "child runs the tests": ("import os\nif os.fork(): os._exit(0)", "exit code 0 before"),
    "exit in a child": ("import os\nif not os.fork(): os._exit(0)\nos.wait()\nassert False", "AssertionError"),
    "closed files": ("import os; os.closerange(0, 64)", ""),
    "kill itself": ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL"),
    "exit while tests run": ("def f(): raise SystemExit(0)\nassert f() == 1", "SystemExit"),
}


@pytest.mark.parametrize("name", CHEATS)
def test_leaving_early_is_not_passing(name: str) -> None:
    program, detail = CHEATS[name]
    outcome = run(program + ("\nassert True" if name == "write everywhere and go on" else ""))
    assert outcome.status == "failed"
    assert detail in outcome.detail


def test_an_endless_loop_and_a_sleeper_are_ended() -> None:
    looped = run("while True: pass", Limits(wall_seconds=30, cpu_seconds=1))
    assert (looped.status, looped.detail) == ("timed out", "ran longer than 1 s of CPU")
    begun = time.monotonic()
    slept = run("import time; time.sleep(60)", Limits(wall_seconds=0.5))
    assert (slept.status, slept.detail) == ("timed out", "ran longer than 0.5 s")
    ignored = run(
        "import signal, time\nfor s in set(signal.Signals) - {9, 19}:\n    signal.signal(s, signal.SIG_IGN)\ntime.sleep(60)",
        Limits(wall_seconds=0.5),
    )
    assert ignored.status == "timed out" and time.monotonic() - begun < 20


def test_a_fork_bomb_meets_its_limit() -> None:
    program = """
import os, time
count = 1
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except BlockingIOError:
    print("limit", count, flush=True)
"""
    outcome = run(program)
    assert (outcome.status, outcome.output) == ("passed", f"limit {QUICK.processes}\n")
    assert run("import os\nwhile True: os.fork()", Limits(wall_seconds=1)).status != "passed"


def test_memory_disk_and_output_are_bounded() -> None:
    assert run("x = bytearray(3 << 30)").detail.startswith("MemoryError")
    assert "File too large" in run("f = open('a', 'wb')\nwhile True: f.write(bytes(1 << 20))").detail
    many = "for n in range(9999):\n    with open(str(n), 'wb') as f: f.write(bytes(8 << 20))"
    assert "No space left" in run(many).detail
    assert "No space left" in run("for n in range(99999): open(str(n), 'w').close()").detail
    flood = run("while True: print('x' * 10000, flush=True)", Limits(wall_seconds=1, output_bytes=1000))
    assert (flood.status, flood.output) == ("timed out", "x" * 1000)


def test_nothing_outside_the_scratch_folder_can_be_written_or_read(tmp_path: Path) -> None:
    secret = Path.home() / f".twinprobe-secret-{uuid4().hex}"
    secret.write_text("the secret")
    program = f"""
import os
open("mine", "w").write("x")
assert os.listdir(".") == ["mine"]
assert set(os.environ) <= {{"LC_CTYPE"}}, os.environ  # which the interpreter itself sets
assert os.getuid() != 0
def refused(action):
    try: action()
    except OSError as error: return
    raise AssertionError("not refused")
for place in ({str(tmp_path / "a")!r}, "/usr/a", "/a", "/dev/a", "/tmp/a", os.__file__, "../a"):
    refused(lambda: open(place, "w"))
for place in ({str(secret)!r}, "/etc/passwd", "/etc/shadow", "/proc/1/environ", "/proc/self/mem", "/work", "/home", "/sys"):
    refused(lambda: os.stat(place))
refused(lambda: os.remove(os.__file__))
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(1 << 28) and libc.mount(b"x", b"/scratch", b"tmpfs", 0, None) and libc.chroot(b"/scratch")
assert open(0).read() == ""
"""
    try:
        outcome = run(program)
        assert (outcome.status, outcome.detail) == ("passed", "")
        assert not (tmp_path / "a").exists()
    finally:
        secret.unlink()


def test_there_is_no_network() -> None:
    with socket.socket() as here:
        here.bind(("127.0.0.1", 0))
        here.listen()
        here.settimeout(0.2)
        program = f"""
import socket
for address in (("127.0.0.1", {here.getsockname()[1]}), ("192.0.2.1", 80)):
    try: socket.create_connection(address, 2)
    except OSError as error: print(error.errno, flush=True)
    else: raise AssertionError("connected")
mine = socket.socket()
mine.bind(("0.0.0.0", {here.getsockname()[1]}))  # in use on the machine itself
mine.listen()
"""
        outcome = run(program)
        assert (outcome.status, outcome.detail) == ("passed", "")
        with pytest.raises(TimeoutError):
            here.accept()


def test_other_processes_can_not_be_killed() -> None:
    victim = subprocess.Popen([sys.executable, "-I", "-S", "-c", "import time; time.sleep(60)"])
    program = f"""
import os, signal
for pid in ({victim.pid}, {os.getpid()}, os.getppid(), 1, -1):
    for number in (signal.SIGKILL, signal.SIGTERM):
        try: os.kill(pid, number)
        except OSError: pass
try: os.killpg(0, 0)
except OSError: pass
"""
    try:
        assert run(program).status in {"passed", "failed"}
        assert victim.poll() is None
    finally:
        victim.kill()
        victim.wait()


DAEMON = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        python = {python!r}
        os.execv(python, [python, "-I", "-S", "-c", "import time; time.sleep(120)", {mark!r}])
    os._exit(0)
time.sleep(1)
"""


def running(mark: str) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if mark.encode() in path.read_bytes().split(b"\0"):
                return True
        except OSError:
            pass
    return False


def test_a_daemon_does_not_outlive_its_program() -> None:
    mark, outcomes = uuid4().hex, []
    program = DAEMON.format(python=sandbox._interpreter()[0], mark=mark)
    thread = threading.Thread(target=lambda: outcomes.append(run(program)))
    thread.start()
    seen = False
    while thread.is_alive():
        seen |= running(mark)
        time.sleep(0.02)
    assert seen and outcomes[0].status == "passed"
    assert not running(mark)


def as_another_user(program: str) -> str:
    """Run Python as a user without rights, by an interpreter that such a user can read."""
    script = f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.dont_write_bytecode = True\n{program}"
    command = [SYSTEM_PYTHON, "-I", "-c", script]
    if os.geteuid() != 0 or not Path(SYSTEM_PYTHON).exists():
        pytest.skip("needs root and the system's Python")
    ran = subprocess.run(
        command, user=54321, group=54321, extra_groups=[], cwd="/", capture_output=True, text=True, check=False,
        env={"TMPDIR": "/tmp"},
    )  # fmt: skip
    if "No module named" in ran.stderr or "requires a different Python" in ran.stderr:
        pytest.skip("the checkout can not be read by another user")
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_a_user_without_rights_gets_the_same_isolation_or_a_refusal() -> None:
    program = """
import json
from dataclasses import asdict
from analyses.benchmarks.code_generation.sandbox import *
from activations.errors import TwinprobeError
hostile = '''
import os, socket
assert os.getuid() == 65534 and not os.path.exists("/etc/passwd") and not os.path.exists("/home")
try: open("/usr/x", "w")
except OSError: pass
else: raise AssertionError("written")
try: socket.create_connection(("192.0.2.1", 80), 1)
except OSError as error: assert error.errno == 101, error
import ctypes
assert ctypes.CDLL(None).unshare(1 << 28) != 0
count = 1
try:
    while True:
        if os.fork() == 0:
            import time; time.sleep(60)
        count += 1
except BlockingIOError: pass
assert count <= 8, count
'''
try:
    print(json.dumps([asdict(isolation()), run_program(hostile).detail, run_program("raise SystemExit(0)").status]))
except TwinprobeError as error:
    print(json.dumps([asdict(isolation()), str(error), ""]))
"""
    had, detail, left_early = json.loads(as_another_user(program))
    if had["mode"] == "plain":
        assert "can not be kept from the programs" in detail
    else:
        assert (detail, left_early) == ("", "failed")


def test_without_namespaces_it_is_limited_and_cleaned_up_but_only_run_when_allowed() -> None:
    mark = uuid4().hex
    daemon = DAEMON.format(python=SYSTEM_PYTHON, mark=mark)
    program = f"""
import json
from analyses.benchmarks.code_generation import sandbox
from analyses.benchmarks.code_generation.sandbox import *
plain = Isolation("plain", False, False, False, False, "a test")
sandbox.isolation = lambda: plain
said = []
try: run_program("")
except Exception as error: said.append(str(error))
for text in ("", "assert False", "x = bytearray(3 << 30)", "raise SystemExit(0)", {daemon!r}):
    said.append(run_program(text, allow_weak=True).status)
said.append(run_program({daemon!r} + "time.sleep(60)", Limits(wall_seconds=1.5), allow_weak=True).status)
said.append(run_program("open('f', 'wb').write(bytes(64 << 20))", allow_weak=True).detail)
said.append(run_program("import os\\nwhile True: os.fork()", Limits(wall_seconds=1), allow_weak=True).status)
print(json.dumps(said))
"""
    refusal, *statuses, timed, large, bomb = json.loads(as_another_user(program))
    assert "network and files and processes and user can not be kept" in refusal and "--allow-weak-isolation" in refusal
    assert statuses == ["passed", "failed", "failed", "failed", "passed"]
    assert timed == "timed out" and "File too large" in large and bomb in {"failed", "timed out"}
    assert not running(mark)


def test_incomplete_isolation_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "isolation", lambda: Isolation("plain", False, False, False, True, "unshare: no"))
    with pytest.raises(TwinprobeError, match="network and files and processes can not be kept .*unshare: no"):
        run_program("x = 1")


def test_limits_must_leave_something() -> None:
    with pytest.raises(TwinprobeError, match="cpu_seconds is 0"):
        Limits(cpu_seconds=0)


def test_a_program_does_not_outlive_who_ran_it(tmp_path: Path) -> None:
    if isolation().missing:
        pytest.skip(f"no namespaces here: {isolation().reason}")
    mark = uuid4().hex
    daemon = DAEMON.format(python=sandbox._interpreter()[0], mark=mark) + "time.sleep(60)"
    script = (
        f"from analyses.benchmarks.code_generation.sandbox import *\nrun_program({daemon!r}, Limits(wall_seconds=60))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    host = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, env=environment)
    until = time.monotonic() + 30
    while not running(mark) and time.monotonic() < until:
        time.sleep(0.02)
    assert running(mark)
    host.kill()
    host.wait()
    while running(mark) and time.monotonic() < until:
        time.sleep(0.02)
    assert not running(mark)
