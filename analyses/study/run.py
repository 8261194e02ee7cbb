"""Run a paired study: model by model through capture, probes, patching and scores, then compare and report."""

from __future__ import annotations

import json
import shutil
import time
import tomllib
from pathlib import Path
from typing import Any

import pandas as pd

from activations.errors import TwinprobeError
from activations.files import disk_full, write_whole
from analyses.study.across_stages import AcrossStages
from analyses.study.comparisons import compare
from analyses.study.model_stages import ModelStages
from analyses.study.results import examples
from analyses.study.settings import Study
from analyses.study.shared import ACROSS, CAUSAL_ROLES, NEUTRAL, Shared
from analyses.study.side_by_side import compute_parts, default_jobs
from analyses.study.stages import Report, Tables, quiet
from analyses.toml_files import to_toml
from probes.tables import write_table


class StudyRun:
    """One run of a study in its directory."""

    def __init__(self, study: Study, out: Path, report: Report = quiet, jobs: int | None = None) -> None:
        """Claim ``out`` for the study.

        ``jobs`` is how many models are computed at a time; when it is None, :func:`default_jobs` says.

        Raises:
            TwinprobeError: ``out`` holds another study or foreign files, or a model is unknown or unusable.
        """
        self.study, self.out, self.pair = study, out, study.compared
        self.shared = Shared(study, out, report)
        self.jobs = default_jobs(study, self.shared.weight_bytes()) if jobs is None else jobs
        claim(out, study)

    def expected_bytes(self) -> int:
        """About how much the stores will take, from the models' configurations alone."""
        return self.shared.expected_bytes()

    def run(self) -> dict[str, Any]:
        """Do what is not done yet; write tables, results, figures, report and manifest; return the results."""
        began = time.monotonic()
        if self.jobs > 1 and not (self.out / "results.json").exists():
            parts = [*self.shared.specs, *(f"{ACROSS}/{task}" for task in self.shared.across_tasks)]
            log = compute_parts(self.study, self.out, parts, self.shared.draws, self.jobs, self.shared.report)
            self.shared.stages.elsewhere = {entry["stage"]: entry for entry in log}
        per_role: dict[str, Tables] = {role: ModelStages(self.shared, role).tables() for role in self.shared.specs}
        mapped = self._mapped(per_role)
        across = AcrossStages(self.shared)
        cells = {role: tables["patching_cells"] for role, tables in per_role.items() if "patching_cells" in tables}
        shared = across.tables() | across.overlap(cells) | across.similarity()
        settings = self.study.statistics
        finished = self.shared.stages.tables(
            "comparisons",
            {"statistics": settings.model_dump(), "seed": self.study.seed, "from": self._keys()},
            lambda: {
                "comparisons": compare(
                    {role: tables for role, tables in per_role.items() if role in CAUSAL_ROLES},
                    seed=self.study.seed,
                    n_resamples=settings.resamples,
                    n_flips=settings.flips,
                )
            },
        )
        scored = self._benchmarks(per_role)
        shown = self.shared.stages.tables(
            "examples",
            {"tasks": [self.shared.task_key(name) for name in self.shared.tasks], "seed": self.study.seed},
            lambda: {
                "examples": examples([(task, self.shared.first_draw(task.name)) for task in self.shared.tasks.values()])
            },
        )
        tables = _joined(per_role) | mapped | shared | finished | scored | shown
        self._write_tables(tables)
        results = self._results(tables)
        self._report(results, tables)
        self._manifest(tables, time.monotonic() - began)
        return results

    def _mapped(self, per_role: dict[str, Tables]) -> Tables:
        """Probes of one model on the rows of the other."""
        roles = [role for role in CAUSAL_ROLES if (role, NEUTRAL) in self.shared.stores]
        if not roles:
            return {}

        def transfer() -> Tables:
            from analyses.study.mapping import Side, map_transfers

            sides = {
                role: Side(
                    self.shared.store(role, NEUTRAL),
                    {task: self.shared.store(role, task) for task in self.shared.tasks},
                    per_role[role]["probes"],
                )
                for role in roles
            }
            return map_transfers(
                sides, [(task, self.shared.first_draw(name)) for name, task in self.shared.tasks.items()],
                strengths=self.study.probes.strengths, n_draws=self.study.mapping.draws, seed=self.study.seed,
                n_resamples=self.study.statistics.resamples, progress=self.shared.progress("mapped"),
            )  # fmt: skip

        keys = {f"{role}/{name}": key for (role, name), (_, key) in self.shared.stores.items() if role in roles}
        sites = {role: per_role[role]["probes"].site[per_role[role]["probes"].chosen].tolist() for role in roles}
        return self.shared.stages.tables(
            "mapped",
            {
                "stores": keys, "sites": sites, "strengths": self.study.probes.strengths, "seed": self.study.seed,
                "mapping": self.study.mapping.model_dump(), "resamples": self.study.statistics.resamples,
            },
            transfer,
        )  # fmt: skip

    def _benchmarks(self, per_role: dict[str, Tables]) -> Tables:
        """Scores on benchmarks, and their paired tests."""
        items = {role: found["benchmark_items"] for role, found in per_role.items() if "benchmark_items" in found}
        if not items:
            return {}

        def compute() -> Tables:
            from analyses.study.benchmarking import benchmarks

            chosen, effort = self.study.benchmarks.chosen(), self.study.statistics
            found = benchmarks(
                items, chosen, seed=self.study.seed, n_resamples=effort.resamples, n_flips=effort.flips
            )  # fmt: skip
            return {"benchmarks": found}

        keys = self._keys(among="/benchmark ")
        inputs = {"statistics": self.study.statistics.model_dump(), "seed": self.study.seed, "from": keys}
        return self.shared.stages.tables("benchmarks", inputs, compute)

    def _keys(self, among: str = "") -> list[str]:
        """The keys of all stages so far, or of those with ``among`` in their names."""
        return [entry["key"] for entry in self.shared.stages.log if among in entry["stage"]]

    def _write_tables(self, tables: Tables) -> None:
        folder = self.out / "tables"
        folder.mkdir(exist_ok=True)
        for name, table in tables.items():
            write_table(table, folder / f"{name}.csv")

    def _results(self, tables: Tables) -> dict[str, Any]:
        from analyses.study.results import results

        found = results(self.study, self.pair, tables)
        write_whole(self.out / "results.json", (json.dumps(found, indent=1, allow_nan=False) + "\n").encode())
        return found

    def _report(self, results: dict[str, Any], tables: Tables) -> None:
        from analyses.report.page import look, write_report
        from analyses.study.manifest import versions

        self.shared.stages.files(
            "report",
            {
                "results": results,
                "study": (self.out / "study.toml").read_text(),
                "look": look(),
                "versions": versions(),
            },
            lambda: write_report(self.out, results, tables),
        )

    def _manifest(self, tables: Tables, seconds: float) -> None:
        from analyses.study.manifest import manifest

        record = manifest(self.study, tables, self.shared.stages.log, seconds)
        write_whole(self.out / "manifest.json", (json.dumps(record, indent=1, default=str) + "\n").encode())


def _joined(per_role: dict[str, Tables]) -> Tables:
    """The tables of all models under one another, with a first column that names the model's role."""
    names = sorted({name for tables in per_role.values() for name in tables})
    return {
        name: pd.concat(
            [tables[name].assign(model=role) for role, tables in per_role.items() if name in tables], ignore_index=True
        ).pipe(lambda frame: frame[["model", *(column for column in frame if column != "model")]])
        for name in names
    }


def claim(folder: Path, study: Study) -> None:
    """Create the run directory or take it up again, and write the resolved study file.

    Raises:
        TwinprobeError: it holds another study, or files that are no study's.
    """
    record, text = folder / "study.toml", to_toml(study)
    if record.exists():
        try:
            held, wanted = (tomllib.loads(source) for source in (record.read_text(), text))
        except tomllib.TOMLDecodeError as error:
            raise TwinprobeError(f"{record} is damaged ({error}); restore it or choose another --out") from None
        for field in ("name", "pair"):
            if held.get(field) != wanted[field]:
                raise TwinprobeError(
                    f"{folder} holds another study ({field} {held.get(field)!r}, here {wanted[field]!r}); "
                    "choose another --out or remove the folder"
                )
    elif folder.exists() and (not folder.is_dir() or {path.name for path in folder.iterdir()} - {"study.toml.tmp"}):
        raise TwinprobeError(f"{folder} is not empty and holds no study; choose another --out")
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free < 10 * 2**20:
        raise disk_full(folder, "what was finished is kept")
    write_whole(record, text.encode())


def run_study(study: Study, out: str | Path, report: Report = quiet, jobs: int = 1) -> dict[str, Any]:
    """Run ``study`` in the directory ``out`` and return what ``results.json`` holds.

    A stage whose inputs did not change since the last run there is not computed again. With ``jobs`` above 1, as many
    models are computed at a time, in processes of their own; a script that asks for it must guard its main module with
    ``if __name__ == "__main__"``.

    Example::

        results = run_study(read_study("my_study.toml"), "runs/mine")

    Raises:
        TwinprobeError: see :class:`StudyRun` and the stages.
    """
    return StudyRun(study, Path(out), report, jobs).run()
