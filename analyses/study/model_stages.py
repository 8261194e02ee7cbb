"""The stages of one model: capture, probes, patching, interventions and scores, each computed only when it is new."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analyses.study.comparisons import arrival
from analyses.study.shared import CAUSAL_ROLES, NEUTRAL, Shared
from analyses.study.stages import Tables
from probes.metrics import cluster_bootstrap

if TYPE_CHECKING:
    from analyses.benchmarks.local.run import Job


class ModelStages:
    """All stages of the model that plays ``role``."""

    def __init__(self, shared: Shared, role: str) -> None:
        self.shared, self.role = shared, role
        self.study, self.stages = shared.study, shared.stages

    def tables(self) -> Tables:
        """Every table of one model."""
        tables = self.stages.tables(f"{self.role}/model", self.shared.common(self.role), lambda: self._facts())
        parts: list[Tables] = [self._probes(task) for task in self.shared.tasks]
        if self.role in CAUSAL_ROLES:
            causal = [name for name, task in self.shared.tasks.items() if task.causal]
            parts += [self._patching(name) for name in causal]
            parts += [self._interventions(name, parts[list(self.shared.tasks).index(name)]) for name in causal]
            parts += [self._scores()]
            parts += [self._benchmark(job) for job in self.shared.benchmark_jobs]
        self._neutral()
        for part in parts:
            for name, frame in part.items():
                tables[name] = pd.concat([tables[name], frame], ignore_index=True) if name in tables else frame
        if len(tables.get("patching_cells", ())):
            tables["arrival"] = arrival(tables["patching_cells"])
        return tables

    def _facts(self) -> Tables:
        loaded = self.shared.models.load(self.role)
        facts = {**loaded.provenance(), "prepends_bos": self.shared.bos, "tokenizer": type(loaded.tokenizer).__name__}
        return {"models": pd.DataFrame([facts])}

    def _probes(self, task: str) -> Tables:
        from analyses.study.probing import Effort, capture_task, probe_task

        settings, seed = self.study.probes, self.study.seed
        resamples = self.study.statistics.resamples
        effort = Effort(settings.strengths, resamples, settings.code_orders, settings.capacity)
        rows = {"sites": settings.sites, "pool": settings.pool, "dtype": settings.storage_dtype}
        wanted = {**self.shared.common(self.role), **rows, **self.shared.task_key(task)}

        def fill(folder: Path) -> None:
            capture_task(
                self.shared.models.load(self.role), self.shared.all_items(task), folder, bos=self.shared.bos,
                progress=self.shared.progress(f"stores/{self.role}/{task}"), **rows,
            )  # fmt: skip

        store, key = self.stages.store(f"{self.role}/{task}", wanted, fill)
        self.shared.stores[self.role, task] = (store, key)

        def probe() -> Tables:
            from activations.store import ActivationStore

            return probe_task(
                ActivationStore(store), self.shared.tasks[task], self.shared.draws[task], effort=effort, seed=seed,
                cache=self.shared.baselines, progress=self.shared.progress(f"{self.role}/probes {task}"),
            )  # fmt: skip

        inputs = {"store": key, "effort": asdict(effort)}
        return self.stages.tables(f"{self.role}/probes {task}", inputs, probe)

    def _patching(self, task: str) -> Tables:
        settings = self.study.patching
        if not settings.prompts:
            return {}

        def patch() -> Tables:
            from analyses.patching.grids import default_grid
            from analyses.study.causal import patch_task

            return patch_task(
                self.shared.models.load(self.role), task, self.shared.first_draw(task), self.shared.forms(task),
                grids=[default_grid(site) for site in settings.sites], directions=settings.directions, bos=self.shared.bos,
                max_prompts=settings.prompts, max_items=settings.items, check_exact=settings.check_exact,
                seed=self.study.seed,
                n_resamples=self.study.statistics.resamples, progress=self.shared.progress(f"{self.role}/patching {task}"),
            )  # fmt: skip

        effort = {"patching": settings.model_dump(), "resamples": self.study.statistics.resamples}
        inputs = {**self.shared.common(self.role), **self.shared.task_key(task), **effort}
        return self.stages.tables(f"{self.role}/patching {task}", inputs, patch)

    def _interventions(self, task: str, probed: Tables) -> Tables:
        settings, strengths = self.study.interventions, self.study.probes.strengths
        resamples, (store, key) = self.study.statistics.resamples, self.shared.stores[self.role, task]
        if not settings.prompts:
            return {}

        def intervene() -> Tables:
            from activations.store import ActivationStore
            from analyses.study.companion import intervene_task

            return intervene_task(
                self.shared.models.load(self.role), ActivationStore(store), self.shared.tasks[task],
                self.shared.first_draw(task), probed["probes"], bos=self.shared.bos, strengths=strengths,
                max_prompts=settings.prompts, n_draws=settings.draws, seed=self.study.seed, n_resamples=resamples,
                progress=self.shared.progress(f"{self.role}/interventions {task}"),
            )  # fmt: skip

        sites = probed["probes"].site[probed["probes"].chosen].tolist()
        effort = {"settings": settings.model_dump(), "strengths": strengths, "resamples": resamples}
        inputs = {
            **self.shared.common(self.role),
            **self.shared.task_key(task),
            "store": key,
            "sites": sites,
            **effort,
        }
        return self.stages.tables(f"{self.role}/interventions {task}", inputs, intervene)

    def _neutral(self) -> None:
        """Capture the passages that the maps between models are fitted on."""
        from analyses.study.neutral import capture_neutral

        settings, probes = self.study.mapping, self.study.probes
        if not settings.passages:
            return

        def fill(folder: Path) -> None:
            capture_neutral(
                self.shared.models.load(self.role), self.shared.neutral_texts, folder, bos=self.shared.bos,
                sites=probes.sites, dtype=probes.storage_dtype, progress=self.shared.progress(f"stores/{self.role}/neutral"),
            )  # fmt: skip

        wanted = {
            **self.shared.common(self.role), **self.shared.sources(), "sites": probes.sites, "dtype": probes.storage_dtype,
            "mapping": settings.model_dump(), "tasks": [self.shared.task_key(name) for name in self.shared.tasks],
        }  # fmt: skip
        self.shared.stores[self.role, NEUTRAL] = self.stages.store(f"{self.role}/neutral", wanted, fill)

    def _scores(self) -> Tables:
        settings, seed = self.study.scores, self.study.seed
        if not settings.passages:
            return {}

        def score_both() -> Tables:
            from analyses.benchmarks.bits_per_byte import passages, score

            rows, summary = [], []
            for kind, path in (("code", settings.code), ("prose", settings.prose)):
                texts = passages(kind, path, settings.passages, settings.characters, seed)
                progress = self.shared.progress(f"{self.role}/score {kind}")
                scored = score(
                    self.shared.models.load(self.role), texts, bos=self.shared.bos, progress=progress
                ).assign(form=kind)
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

        effort = {"scores": settings.model_dump(), "resamples": self.study.statistics.resamples}
        inputs = {**self.shared.common(self.role), **effort, **self.shared.sources()}
        return self.stages.tables(f"{self.role}/scores", inputs, score_both)

    def _benchmark(self, job: Job) -> Tables:
        name = f"{self.role}/benchmark {job.setting.task}"

        def ask() -> Tables:
            from analyses.benchmarks.local.run import answered

            loaded = self.shared.models.load(self.role)
            return {"benchmark_items": answered(job, loaded, self.shared.bos, self.shared.progress(name))}

        inputs = {**self.shared.common(self.role), **job.setting.model_dump(), "prompts": job.digest()}
        return self.stages.tables(name, inputs, ask)
