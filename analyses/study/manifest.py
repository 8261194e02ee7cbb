"""The manifest: everything needed to say what was run, on what, with which versions."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from analyses.study.settings import Study
from analyses.study.stages import Tables, code_hash
from probes.tables import records

PACKAGES = (
    "twinprobe", "torch", "transformers", "transformer-lens", "tokenizers", "numpy", "scipy", "scikit-learn", "pandas", "h5py",
)  # fmt: skip


def manifest(study: Study, tables: Tables, stages: list[dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Versions, models with fingerprints, settings, machine, and which stages were reused."""
    return {
        "study": study.model_dump(mode="json"),
        "models": records(tables["models"]),
        "versions": versions(),
        "code": code_hash(),
        "python": platform.python_version(),
        "machine": {"system": platform.platform(), "processor": platform.machine(), "cores": os.cpu_count()},
        "padding": "right",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "stages": stages,
    }


def versions() -> dict[str, str | None]:
    """The installed version of every package that shapes a number."""
    return {name: _version(name) for name in PACKAGES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
