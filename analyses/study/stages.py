"""Stages: a computation is done once for given inputs, and its tables are read back afterwards.

The key of a stage is a hash of its inputs and of the package's own source code, so neither a changed setting nor a
changed program ever meets an old result. A stage's folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from activations.models import ModelSpec, resolve
from probes.tables import read_table, write_table

Tables = dict[str, pd.DataFrame]
Report = Callable[[str, int, int], None]
"""Progress: name of the stage, steps done, steps in all."""

MODEL_FILES = (".safetensors", ".bin", ".json", ".txt", ".model", ".py")
"""Weights, configuration, tokenizer (GPT-2 keeps its merges in a .txt), code that comes with a checkpoint."""
_ROOT = Path(__file__).parents[2]


def quiet(stage: str, done: int, total: int) -> None:
    """A report that says nothing."""


class Stages:
    """The stages of one run directory; ``log`` collects for each one whether it was reused and how long it took."""

    def __init__(self, folder: Path, report: Report = quiet) -> None:
        self.folder = folder
        self.report = report
        self.log: list[dict[str, Any]] = []
        self.elsewhere: dict[str, dict[str, Any]] = {}
        """What the log of another process says of a stage that it computed for this run."""

    def tables(self, name: str, inputs: Mapping[str, Any], compute: Callable[[], Tables]) -> Tables:
        """The tables of stage ``name``: read back when the inputs are those of last time, computed otherwise."""
        key, home = _key(inputs), self.folder / "stages" / name
        record = home / "stage.json"
        if record.exists() and json.loads(record.read_text())["key"] == key:
            self._note(name, key, reused=True, seconds=0.0)
            return {path.stem: read_table(path) for path in sorted(home.glob("*.csv"))}
        began = time.monotonic()
        self.report(name, 0, 1)
        computed = compute()
        temporary = home.with_name(home.name + ".tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for table, frame in computed.items():
            write_table(frame, temporary / f"{table}.csv")
        (temporary / "stage.json").write_text(json.dumps({"key": key}))
        shutil.rmtree(home, ignore_errors=True)
        temporary.rename(home)
        self._note(name, key, reused=False, seconds=time.monotonic() - began)
        self.report(name, 1, 1)
        # Read back what was written, so that a first run and a repeated one go on with the very same values.
        return {path.stem: read_table(path) for path in sorted(home.glob("*.csv"))}

    def files(self, name: str, inputs: Mapping[str, Any], write: Callable[[], list[Path]]) -> None:
        """Have ``write`` leave its files in the run directory, again when an input changed or one of them is gone."""
        record = self.folder / "stages" / name / "files.csv"
        if record.exists() and not all((self.folder / file).exists() for file in read_table(record).file):
            shutil.rmtree(record.parent)

        def compute() -> Tables:
            return {"files": pd.DataFrame({"file": [path.relative_to(self.folder).as_posix() for path in write()]})}

        self.tables(name, inputs, compute)

    def store(self, name: str, inputs: Mapping[str, Any], compute: Callable[[Path], Any]) -> tuple[Path, str]:
        """The folder and key of a store that ``compute`` fills; a run that was cut off resumes inside ``compute``."""
        key, home = _key(inputs), self.folder / "stores" / name
        started, finished = home.with_name(f"{home.name}.started"), home.with_name(f"{home.name}.finished")
        if home.is_dir() and finished.exists() and finished.read_text() == key:
            self._note(f"stores/{name}", key, reused=True, seconds=0.0)
            return home, key
        began = time.monotonic()
        finished.unlink(missing_ok=True)
        if not (started.exists() and started.read_text() == key):
            shutil.rmtree(home, ignore_errors=True)
            home.parent.mkdir(parents=True, exist_ok=True)
            started.write_text(key)
        compute(home)
        finished.write_text(key)
        self._note(f"stores/{name}", key, reused=False, seconds=time.monotonic() - began)
        return home, key

    def _note(self, name: str, key: str, *, reused: bool, seconds: float) -> None:
        entry = {"stage": name, "key": key, "reused": reused, "seconds": round(seconds, 2)}
        self.log.append(self.elsewhere.get(name, entry))
        if reused:
            self.report(name, 1, 1)


def _key(inputs: Mapping[str, Any]) -> str:
    # Python itself is an input: the texts of the identifiers task and the held-out passages come with it.
    text = json.dumps({"code": code_hash(), "python": platform.python_version(), **inputs}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


@cache
def code_hash() -> str:
    """SHA-256 of the package's own sources (the command line and the look of the report change no number)."""
    digest = hashlib.sha256()
    for package in ("activations", "probes", "analyses"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            if "report" not in path.parts and "pretraining" not in path.parts:
                digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def model_identity(spec: ModelSpec) -> dict[str, Any]:
    """What a stage's key says about a model without loading it: how it is loaded, and its files where they are local."""
    source = Path(resolve(spec))
    files = sorted(path for path in source.glob("*") if path.suffix in MODEL_FILES)
    stamps = {path.name: (path.stat().st_size, path.stat().st_mtime_ns) for path in files}
    return {"spec": spec.__dict__, "files": stamps}
