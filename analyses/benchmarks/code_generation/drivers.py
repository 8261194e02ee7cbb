"""What runs inside the sandbox: texts of small Python programs that run the untrusted one and say whether it got to its end.

Each is started by :mod:`analyses.benchmarks.code_generation.jail` with the program's text open as file 3 and, as file 4,
the socket to whoever judges it. It says ``ran.`` there when the last line was reached, then gives back the token that it
is sent: unknown in here until the tests ran. ``sys.argv[1]`` is JSON, for the drivers that need to be told something.
"""

from __future__ import annotations

TELLING = r"^.*(?:(?:Error|Exception)\b(?: \[\w+\])?: |Exception in |panicked at|Assertion |\berror\b|not found).*$"
"""Lines of what languages print that say what went wrong; the first is told."""
RAN = b"ran."
"""What a driver says when the program's last line was reached."""

PYTHON = r"""
import os, sys, types
def run(read, write, leave, getpid, flush, message):
    me, module = getpid(), types.ModuleType("program")
    with open(3, encoding="utf-8") as handle:
        source = handle.read()
    sys.modules["program"] = module
    try:
        exec(compile(source, "<program>", "exec"), module.__dict__)
    except BaseException as error:
        try:
            flush()
            write(2, f"\n{type(error).__name__}: {error}"[:500].encode("utf-8", "replace"))
        finally:
            leave(1)
    if getpid() != me:
        leave(1)
    try:
        flush()
    except BaseException:
        pass
    write(4, message)
    write(4, read(4, 64))
    leave(0)
run(os.read, os.write, os._exit, os.getpid, sys.stdout.flush, b"ran.")
"""
"""Runs a Python program in its own interpreter.

A module of its own, as dataclasses look themselves up by name; not ``__main__``, as HumanEval's own harness does not run a
sample's main block either.
"""

COMMANDS = r"""
import json, os, re, select, signal, sys
def copied(reading, child):
    tail = b""
    while True:
        # A process that the program left behind may hold the pipe open for ever.
        if select.select([reading], [], [], 0.1)[0]:
            data = os.read(reading, 65536)
            if not data:
                return tail, os.waitpid(child, 0)[1]
            os.write(1, data)
            tail = (tail + data)[-8192:]
        elif (found := os.waitpid(child, os.WNOHANG))[0]:
            return tail, found[1]
def run(asked):
    files = dict(asked["files"])
    with open(3, encoding="utf-8", errors="surrogateescape") as handle:
        files[asked["file"]] = handle.read()
    for name, text in files.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        with open(name, "w", encoding="utf-8", errors="surrogateescape") as handle:
            handle.write(text)
    os.set_inheritable(4, False)
    here = os.getcwd()
    settings = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": here, "TMPDIR": here, "LANG": "C.UTF-8"}
    if asked["libraries"]:
        settings["LD_LIBRARY_PATH"] = ":".join(asked["libraries"])
    for step in asked["steps"]:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.dup2(writing, 1)
                os.dup2(writing, 2)
                os.execve(step[0], step, settings)
            finally:
                os._exit(127)
        os.close(writing)
        tail, status = copied(reading, child)
        code = os.waitstatus_to_exitcode(status)
        if code < 0:
            signal.signal(-code, signal.SIG_DFL) if -code not in (9, 19) else None
            os.kill(os.getpid(), -code)
        if code:
            found = re.search(asked["telling"].encode(), tail, re.M)
            lines = [found[0]] if found else tail.strip().splitlines()[-1:]
            told = lines[0].strip()[:400] if lines else b"exit code %d of %s" % (code, os.path.basename(step[0]).encode())
            os.write(2, b"\n" + told + b"\n")
            os._exit(1)
    if asked["mark"] and asked["mark"].encode() not in tail.split():
        os._exit(0)
    os.write(4, b"ran.")
    os.write(4, os.read(4, 64))
    os._exit(0)
run(json.loads(sys.argv[1]))
"""
"""Writes the program and what it needs into the scratch folder, and runs commands one after the other until one fails.

Told ``file`` (the program's name), ``files`` (further ones), ``steps`` (commands), ``libraries`` (folders of the tools' own)
``telling`` (:data:`TELLING`) and ``mark``: a word that the program prints at its end, so that leaving early is not passing;
where it is empty, exit code 0 is all there is to go by.
"""
