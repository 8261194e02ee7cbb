"""How many CPU threads a forward pass gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from activations.models import LoadedModel

SMALL_MODEL = 20_000_000
"""Parameters below which one thread is used: the pieces of work are so short that threads mostly wait for each other, the
more so on a busy machine. ``docs/bench/threads.py`` measures it."""


@contextmanager
def threads_for(loaded: LoadedModel) -> Iterator[None]:
    """While active, a small model on a CPU computes on one thread; torch's own setting comes back afterwards."""
    import torch

    before = torch.get_num_threads()
    if loaded.device.type == "cpu" and loaded.model.num_parameters() < SMALL_MODEL:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
