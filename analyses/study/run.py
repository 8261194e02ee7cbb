"""Run a paired study: model by model through capture, probes, patching and scores, then compare and report."""

from __future__ import annotations

import json
import shutil
import time
import tomllib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from activations.errors import TwinprobeError
from activations.files import disk_full, write_whole
from activations.hdf5 import STORED_BYTES
from activations.models import LoadedModel, ModelSpec, load_config, load_model, load_tokenizer
from activations.sites import parse_sites
from analyses.study.comparisons import arrival, compare
from analyses.study.results import examples
from analyses.study.settings import Study
from analyses.study.stages import Report, Stages, Tables, model_identity, quiet, write_table
from analyses.toml_files import to_toml
from probes.metrics import cluster_bootstrap
from probes.tasks import get_task
from probes.tasks.items import Item

if TYPE_CHECKING:
    from analyses.study.probing import BaselineCache

CAUSAL_ROLES = ("base", "code", "second_seed")
"""The random-initialised model is a floor for probes; it has no behaviour to patch."""


class _Models:
    """Loads a model when a stage first needs it, and holds one at a time."""

    def __init__(self, specs: dict[str, ModelSpec], report: Report) -> None:
        self.specs, self.report = specs, report
        self.held: tuple[str, LoadedModel] | None = None

    def load(self, role: str) -> LoadedModel:
        if self.held is None or self.held[0] != role:
            self.held = None  # free the last model before the next one comes
            self.report(f"{role}/load", 0, 1)
            loaded = load_model(self.specs[role])
            loaded.require_decoder()
            self.held = (role, loaded)
            self.report(f"{role}/load", 1, 1)
        return self.held[1]


class StudyRun:
    """One run of a study in its directory."""

    def __init__(self, study: Study, out: Path, report: Report = quiet) -> None:
        """Claim ``out`` for the study.

        Raises:
            TwinprobeError: ``out`` holds another study or foreign files, or a model is unknown or unusable.
        """
        self.study, self.out, self.report = study, out, report
        self.pair, self.specs = study.compared, study.specs()
        self.identities = {role: model_identity(spec) for role, spec in self.specs.items()}
        claim(out, study)
        self.stages = Stages(out, report)
        self.models = _Models(self.specs, report)
        self.baselines: BaselineCache = {}

    @cached_property
    def bos(self) -> bool:
        """Whether BOS is prepended: one answer for all models of the study."""
        from activations.inputs import resolve_bos

        return resolve_bos(self.study.load.bos, [load_tokenizer(spec) for spec in self.specs.values()])

    @cached_property
    def items(self) -> dict[str, list[Item]]:
        """The items of every task."""
        settings = self.study.tasks
        return {name: get_task(name).generate(settings.items, self.study.seed) for name in settings.names}

    def expected_bytes(self) -> int:
        """About how much the stores will take, from the models' configurations alone."""
        from analyses.study.probing import labelled_texts

        rows = sum(len(text.spans) for items in self.items.values() for text in labelled_texts(items))
        total = 0
        for spec in self.specs.values():
            config = load_config(spec)
            sites = parse_sites(self.study.probes.sites, config.num_hidden_layers, config.num_attention_heads)
            total += rows * len(sites) * config.hidden_size * STORED_BYTES[self.study.probes.storage_dtype]
        return total

    def run(self) -> dict[str, Any]:
        """Do what is not done yet; write tables, results, figures, report and manifest; return the results."""
        began = time.monotonic()
        per_role: dict[str, Tables] = {role: self._model(role) for role in self.specs}
        settings = self.study.statistics
        finished = self.stages.tables(
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
        shown = self.stages.tables(
            "examples",
            {"items": self.study.tasks.items, "names": self.study.tasks.names, "seed": self.study.seed},
            lambda: {"examples": examples(self.items)},
        )
        tables = _joined(per_role) | finished | shown
        self._write_tables(tables)
        results = self._results(tables)
        self._report(results, tables)
        self._manifest(tables, time.monotonic() - began)
        return results

    def _keys(self) -> list[str]:
        return [entry["key"] for entry in self.stages.log]

    def _common(self, role: str) -> dict[str, Any]:
        return {
            "model": self.identities[role],
            "bos": self.study.load.bos,
            # The BOS rule looks at every tokenizer, so every model is an input of each one's stages.
            "pair": [identity for other, identity in self.identities.items() if other != "random"],
            "seed": self.study.seed,
        }

    def _task(self, task: str) -> dict[str, Any]:
        return {"task": task, "items": self.study.tasks.items}

    def _model(self, role: str) -> Tables:
        """Every table of one model."""
        tables = self.stages.tables(f"{role}/model", self._common(role), lambda: self._facts(role))
        parts: list[Tables] = [self._probes(role, task) for task in self.study.tasks.names]
        if role in CAUSAL_ROLES:
            parts += [self._patching(role, task) for task in self.study.tasks.names if get_task(task).causal]
            parts += [self._scores(role)]
        for part in parts:
            for name, frame in part.items():
                tables[name] = pd.concat([tables[name], frame], ignore_index=True) if name in tables else frame
        if len(tables.get("patching_cells", ())):
            tables["arrival"] = arrival(tables["patching_cells"])
        return tables

    def _facts(self, role: str) -> Tables:
        loaded = self.models.load(role)
        facts = {**loaded.provenance(), "prepends_bos": self.bos, "tokenizer": type(loaded.tokenizer).__name__}
        return {"models": pd.DataFrame([facts])}

    def _probes(self, role: str, task: str) -> Tables:
        from analyses.study.probing import capture_task, probe_task

        settings, seed = self.study.probes, self.study.seed
        rows = {"sites": settings.sites, "pool": settings.pool, "dtype": settings.storage_dtype}
        wanted = {**self._common(role), **rows, **self._task(task)}

        def fill(folder: Path) -> None:
            capture_task(
                self.models.load(role), self.items[task], folder, bos=self.bos,
                progress=self._progress(f"stores/{role}/{task}"), **rows,
            )  # fmt: skip

        store, key = self.stages.store(f"{role}/{task}", wanted, fill)

        def probe() -> Tables:
            from activations.store import ActivationStore

            return probe_task(
                ActivationStore(store), task, self.items[task], strengths=settings.strengths, seed=seed,
                n_resamples=self.study.statistics.resamples, cache=self.baselines,
                progress=self._progress(f"{role}/probes {task}"),
            )  # fmt: skip

        inputs = {"store": key, "strengths": settings.strengths, "statistics": self.study.statistics.resamples}
        return self.stages.tables(f"{role}/probes {task}", inputs, probe)

    def _patching(self, role: str, task: str) -> Tables:
        settings = self.study.patching
        if not settings.prompts:
            return {}

        def patch() -> Tables:
            from analyses.study.causal import patch_task

            forms = sorted({form for item in self.items[task] for form in item.forms})
            return patch_task(
                self.models.load(role), task, self.items[task], forms, bos=self.bos, max_prompts=settings.prompts,
                max_items=settings.items, check_exact=settings.check_exact, seed=self.study.seed,
                n_resamples=self.study.statistics.resamples, progress=self._progress(f"{role}/patching {task}"),
            )  # fmt: skip

        effort = {"patching": settings.model_dump(), "resamples": self.study.statistics.resamples}
        inputs = {**self._common(role), **self._task(task), **effort}
        return self.stages.tables(f"{role}/patching {task}", inputs, patch)

    def _scores(self, role: str) -> Tables:
        settings, seed = self.study.scores, self.study.seed
        if not settings.passages:
            return {}

        def score_both() -> Tables:
            from analyses.benchmarks.bits_per_byte import passages, score

            rows, summary = [], []
            for kind, path in (("code", settings.code), ("prose", settings.prose)):
                texts = passages(kind, path, settings.passages, settings.characters, seed)
                progress = self._progress(f"{role}/score {kind}")
                scored = score(self.models.load(role), texts, bos=self.bos, progress=progress).assign(form=kind)
                interval = cluster_bootstrap(
                    scored.bits_per_byte.to_numpy(), scored["group"].to_numpy(), self.study.statistics.resamples, seed
                )
                rows.append(scored)
                summary.append(
                    {
                        "form": kind,
                        "bits_per_byte": interval.estimate,
                        "low": interval.low,
                        "high": interval.high,
                        "passages": len(scored),
                        "documents": scored["group"].nunique(),
                        "bytes": int(scored.bytes.sum()),
                    }
                )
            return {"score_rows": pd.concat(rows, ignore_index=True), "scores": pd.DataFrame(summary)}

        sources = {path: Path(path).stat().st_mtime_ns for path in (settings.code, settings.prose) if path}
        effort = {"scores": settings.model_dump(), "resamples": self.study.statistics.resamples}
        inputs = {**self._common(role), **effort, "sources": sources}
        return self.stages.tables(f"{role}/scores", inputs, score_both)

    def _progress(self, stage: str) -> Callable[[int, int], None]:
        return lambda done, total: self.report(stage, done, total)

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

        self.stages.files(
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

        record = manifest(self.study, tables, self.stages.log, seconds)
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


def run_study(study: Study, out: str | Path, report: Report = quiet) -> dict[str, Any]:
    """Run ``study`` in the directory ``out`` and return what ``results.json`` holds.

    A stage whose inputs did not change since the last run there is not computed again.

    Example::

        results = run_study(read_study("my_study.toml"), "runs/mine")

    Raises:
        TwinprobeError: see :class:`StudyRun` and the stages.
    """
    return StudyRun(study, Path(out), report).run()
