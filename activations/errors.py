"""The one exception class of twinprobe: a mistake that the user can mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class TwinprobeError(Exception):
    """What was received, what was expected, and what to do, in one line.

    The command line prints the message and exits with code 2; library callers can catch this one class.
    """


def did_you_mean(received: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Return ``" (did you mean 'x'?)"`` for the closest known names, or an empty string."""
    close = difflib.get_close_matches(received, list(known), n=3, cutoff=cutoff)
    return f" (did you mean {' or '.join(repr(name) for name in close)}?)" if close else ""
