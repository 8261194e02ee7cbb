"""What locks itself up and then runs an untrusted program; started by :mod:`analyses.benchmarks.code_generation.sandbox`.

Run by path, with the standard library alone: ``python -I -S jail.py SPEC``, SPEC being JSON; what it starts at last is the
driver in there (:mod:`analyses.benchmarks.code_generation.drivers`). Two modes. ``namespaces`` (Linux;
root, or a user who may make user namespaces): a file system of its own that holds nothing but the system's and the
interpreter's libraries, read-only, and a scratch folder in memory; no network; a process tree that the kernel kills as a
whole. ``plain``: resource limits, another user id where it runs as root, and whatever was started is killed at the end.
Either mode is entered whole or the program is not started: what fails is written to the status pipe.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any, NoReturn

PROGRAM_FD, CONTROL_FD = 3, 4
"""What the driver inherits beside output and error: the program's text, and the socket to whoever judges it."""
SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/nix/store")
DEVICES = ("null", "zero", "urandom", "random")
ROOT_BYTES = 1 << 20
"""Room for the folders and links of the new root; the files themselves are mounted."""

NEW_NS, NEW_UTS, NEW_IPC, NEW_USER, NEW_PID, NEW_NET = (1 << bit for bit in (17, 26, 27, 28, 29, 30))
READ_ONLY, NO_SUID, NO_DEV, REMOUNT, BIND, RECURSIVE, PRIVATE = 1, 2, 4, 32, 4096, 16384, 1 << 18
KEPT = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""Flags of statvfs and of mount: a user namespace may not drop those that a mount came with."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 4, 36, 38


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _call(name: str, *arguments: Any) -> None:
    """Call libc; raise OSError where it fails."""
    if getattr(_libc(), name)(*arguments) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


def _mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    encoded = [value.encode() if value is not None else None for value in (source, target, kind, data)]
    _call("mount", encoded[0], encoded[1], encoded[2], ctypes.c_ulong(flags), encoded[3])


def _control_of_process(option: int, value: int) -> None:
    if sys.platform == "linux":
        _call("prctl", option, ctypes.c_ulong(value), ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))


def _write(path: str, text: str) -> None:
    with open(path, "w") as handle:
        handle.write(text)


def free_user_id() -> int:
    """A user id that no account has, another one for every process: limits on processes are counted by user.

    Raises:
        OSError: the user namespace we run in has none to spare.
    """
    start, count = 0, 1 << 31
    if os.path.exists("/proc/self/uid_map"):
        with open("/proc/self/uid_map") as handle:
            start, _, count = max((tuple(map(int, line.split())) for line in handle), key=lambda part: part[2])
    if count < 1000:
        raise OSError("no user id to run the program under")
    top = min(start + count - 2, 2_000_000_000)
    return top - os.getpid() % min(count // 2, 1 << 22)


def _bind(source: str, root: str) -> None:
    """Show a file or folder of ours at the same place of the new root, read-only; a link as the same link."""
    target = root + source
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(source):
        if not os.path.lexists(target):
            os.symlink(os.readlink(source), target)
        return
    if os.path.isdir(source):
        os.makedirs(target, exist_ok=True)
    elif not os.path.exists(target):
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY))
    _mount(source, target, None, BIND | RECURSIVE)
    with open("/proc/self/mountinfo") as handle:
        mounts = [line.split()[4].encode().decode("unicode_escape") for line in handle]
    for place in mounts:
        if place == target or place.startswith(target + "/"):
            flags = os.statvfs(place).f_flag
            kept = sum(ours for theirs, ours in KEPT.items() if flags & theirs)
            _mount(None, place, None, BIND | REMOUNT | READ_ONLY | NO_SUID | NO_DEV | kept)


def _new_root(spec: dict[str, Any]) -> None:
    """Leave the file system for one that holds nothing of the user's; ``spec["base"]`` is an empty folder to build it on."""
    base = spec["base"]
    _mount(None, "/", None, RECURSIVE | PRIVATE)
    _mount("tmpfs", base, "tmpfs", NO_SUID, f"size={ROOT_BYTES},mode=755")
    root = base + "/root"
    os.makedirs(root + "/dev")
    os.makedirs(root + "/scratch")
    for place in (*SYSTEM, *spec["places"]):
        if os.path.lexists(place) and not os.path.exists(root + place):
            _bind(place, root)
    for name in DEVICES:
        os.close(os.open(f"{root}/dev/{name}", os.O_CREAT | os.O_WRONLY))
        _mount(f"/dev/{name}", f"{root}/dev/{name}", None, BIND)
    _mount(
        "tmpfs",
        root + "/scratch",
        "tmpfs",
        NO_SUID | NO_DEV,
        f"size={spec['scratch_bytes']},nr_inodes=4096,mode=1777",
    )
    os.chdir(base)
    _call("pivot_root", b".", b".")
    _call("umount2", b".", 2)  # lazily: the old root is still our own until it is left
    os.chdir("/")
    _mount(None, "/", None, BIND | REMOUNT | READ_ONLY | NO_SUID)
    # The kernel lets no process whose root is not that of its mounts make a user namespace, where it would have all rights.
    os.chroot("/root")
    os.chdir("/scratch")


def _limit(spec: dict[str, Any]) -> None:
    for name, value in spec["limits"].items():
        number = getattr(resource, f"RLIMIT_{name}", None)
        if number is None:
            continue
        highest = resource.getrlimit(number)[1]
        value = value if highest == resource.RLIM_INFINITY else min(value, highest)
        try:
            # A second more before the kernel kills: a program that is out of time first gets a signal that says so.
            resource.setrlimit(number, (value, value + 1 if name == "CPU" and value != highest else value))
        except (OSError, ValueError):
            if name not in ("AS", "DATA"):  # macOS has no limit on addresses
                raise


def _become_driver(spec: dict[str, Any], user: int | None) -> NoReturn:
    """Give up every right and every open file, and turn into the interpreter that runs the program."""
    os.setsid()
    _control_of_process(PR_SET_PDEATHSIG, signal.SIGKILL)
    if user is not None:
        os.setgroups([])
        os.setgid(user)
        os.setuid(user)
        _control_of_process(PR_SET_PDEATHSIG, signal.SIGKILL)  # another user: the kernel has forgotten it
    _control_of_process(PR_SET_NO_NEW_PRIVS, 1)
    nothing = os.open("/dev/null", os.O_RDONLY)
    # First out of the way of the numbers they are to have.
    program, control = (os.dup2(spec[name], 100 + place) for place, name in enumerate(("program", "control")))
    for number, source in ((0, nothing), (PROGRAM_FD, program), (CONTROL_FD, control)):
        os.dup2(source, number)
    status = spec["status"]
    if status <= CONTROL_FD:
        raise OSError("the status pipe must lie above the driver's own files")
    for number in range(CONTROL_FD + 1, status):
        with contextlib.suppress(OSError):
            os.close(number)
    os.closerange(status + 1, 4096)
    os.set_inheritable(status, False)
    for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    _limit(spec)
    python = spec["python"]
    os.execve(python, [python, "-I", "-S", "-X", "utf8", "-c", spec["driver"], spec["told"]], {})


def _run_driver(spec: dict[str, Any], user: int | None) -> int:
    """Start the driver, wait for it; its exit status, negative for a signal."""
    driver = os.fork()
    if driver == 0:
        try:
            _become_driver(spec, user)
        except BaseException as error:
            _tell(spec, refused=f"{type(error).__name__}: {error}")
            os._exit(70)
    _tell(spec, started=True)
    while True:
        found, status = os.wait()
        if found == driver:
            return os.waitstatus_to_exitcode(status)


def _tell(spec: dict[str, Any], **words: Any) -> None:
    os.write(spec["status"], json.dumps(words).encode() + b"\n")


def _namespaces(spec: dict[str, Any]) -> None:
    """Make the namespaces; their first process builds the new root and watches the driver, and all die with it."""
    user, group, root = os.geteuid(), os.getegid(), os.geteuid() == 0
    number = free_user_id() if root else None
    shared = NEW_NS | NEW_UTS | NEW_IPC | NEW_PID | NEW_NET
    _call("unshare", shared if root else shared | NEW_USER)
    if not root:
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"65534 {user} 1")
        _write("/proc/self/gid_map", f"65534 {group} 1")
    first = os.fork()
    if first:
        os.waitpid(first, 0)
        return
    try:
        _control_of_process(PR_SET_PDEATHSIG, signal.SIGKILL)
        _control_of_process(PR_SET_DUMPABLE, 0)
        with contextlib.suppress(OSError):
            _write("/proc/sys/kernel/shmall", "0")  # of this namespace; shared memory outlives what the limits count
        _new_root(spec)
        _tell(spec, exit=_run_driver(spec, number))
    except BaseException as error:
        _tell(spec, refused=f"{type(error).__name__}: {error}")
    finally:
        os._exit(0)


def _children() -> list[int]:
    """Processes whose parent we are, those that lost theirs included."""
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else []:
        with contextlib.suppress(OSError, ValueError):
            if name.isdigit():
                with open(f"/proc/{name}/stat") as handle:
                    if int(handle.read().rpartition(")")[2].split()[1]) == os.getpid():
                        found.append(int(name))
    return found


def _stop(*_: Any) -> NoReturn:
    raise SystemExit


def _plain(spec: dict[str, Any]) -> None:
    """Run the driver beside us and kill, at the end, whatever it left: lost processes come to us."""
    _control_of_process(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGTERM, _stop)
    number = free_user_id() if os.geteuid() == 0 else None
    os.chdir(spec["base"])
    if number is not None:
        os.chown(spec["base"], number, number)
    try:
        _tell(spec, exit=_run_driver(spec, number))
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while left := _children():
            for child in left:
                os.kill(child, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass


def main() -> None:
    """Lock up as the first argument says, and run the program."""
    spec = json.loads(sys.argv[1])
    try:
        _control_of_process(PR_SET_PDEATHSIG, signal.SIGKILL)
        if sys.platform == "linux":
            _write("/proc/self/oom_score_adj", "1000")  # where memory runs out, not the user's own work goes first
        (_namespaces if spec["mode"] == "namespaces" else _plain)(spec)
    except Exception as error:
        _tell(spec, refused=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
