"""How many CPU threads a forward pass gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from activations.models import LoadedModel

SMALL_MODEL = 20_000_000
"""Parameters below which one thread is faster: the pieces of work are so short that threads mostly wait for each other.
Measured with the embedded twins on 2 cores: 2.0 s with one thread for what took 7.4 s with two, and far longer on a busy
machine."""


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
