"""Published sets of examples that lie beside a checkout and are no part of it; tests that need them skip and say so."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOTS = [Path(__file__).parents[depth] / "shared" / "data" for depth in (4, 5)]


def real(name: str) -> Path:
    """The folder or file called ``name`` under ``shared/data`` in the checkout or beside it."""
    for root in ROOTS:
        if (root / name).exists():
            return root / name
    pytest.skip(f"real data absent: neither {ROOTS[0] / name} nor {ROOTS[1] / name} is there")
