"""Logs of other people's benchmark runs, mapped to the per-item table, with the model's identity checked."""

from __future__ import annotations

from analyses.benchmarks.imports.logs import Wanted
from analyses.benchmarks.imports.reading import Imported, import_logs

__all__ = ["Imported", "Wanted", "import_logs"]
