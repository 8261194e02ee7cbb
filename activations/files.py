"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from activations.errors import TwinprobeError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space, the user's quota, the process's limit on a file's size."""


def write_whole(path: Path, content: bytes | Iterable[bytes]) -> None:
    """Write under a temporary name; the file gets its own name, synced to disk, only when all went well.

    ``content`` is all of it, or its pieces in order.

    Raises:
        TwinprobeError: the disk is full; what other files hold stays.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as handle:
            handle.writelines([content] if isinstance(content, bytes) else content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(path, "what was finished is kept") from None
        raise
    finally:
        temporary.unlink(missing_ok=True)


def disk_full(path: Path, kept: str) -> TwinprobeError:
    """The error for a full disk."""
    return TwinprobeError(
        f"no space left on the disk of {path}; {kept}; free some space and run the same command again"
    )
