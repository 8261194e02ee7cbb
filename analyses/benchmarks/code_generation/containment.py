"""What an untrusted program may use, what it is kept from, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from activations.errors import TwinprobeError

Status = Literal["passed", "failed", "timed out"]
Mode = Literal["namespaces", "plain"]


@dataclass(frozen=True)
class Limits:
    """What a program may use; bytes and seconds.

    Attributes:
        wall_seconds: from its start to its end.
        cpu_seconds: of one process.
        memory_bytes: memory of one process that can be written; with ``processes`` the most that a hostile program can take.
        address_bytes: addresses of one process, for runtimes that reserve far more than they use; never fewer than memory.
        file_bytes: largest file.
        scratch_bytes: everything in the scratch folder (held in memory), where namespaces can be had.
        processes: processes and threads together.
        open_files: open files of one process.
        output_bytes: output and errors kept; the rest is thrown away.
    """

    wall_seconds: float = 10.0
    cpu_seconds: int = 10
    memory_bytes: int = 1 << 30
    address_bytes: int = 1 << 26
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
