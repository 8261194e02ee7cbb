"""What all stages of a study share: its models, its items, its passages, and what their keys are made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activations.hdf5 import STORED_BYTES
from activations.models import LoadedModel, ModelSpec, load_config, load_model, load_tokenizer
from activations.sites import parse_sites
from activations.texts import Text
from analyses.study.settings import Study
from analyses.study.stages import Report, Stages, model_identity
from probes.tasks.items import Item, Task

if TYPE_CHECKING:
    from activations.store import ActivationStore
    from analyses.benchmarks.local.run import Job
    from probes.problems import BaselineCache

CAUSAL_ROLES = ("base", "code", "second_seed")
"""The random-initialised model is a floor for probes; it has no behaviour to patch."""
CHARACTERS_PER_TOKEN = 3
NEUTRAL = "neutral"
"""Name of the store of neutral passages, beside those of the tasks."""
ACROSS = "across"
"""What the stages of both models together are called, where those of one model have its role."""


class Models:
    """Loads a model when a stage first needs it, and holds one at a time."""

    def __init__(self, specs: dict[str, ModelSpec], report: Report) -> None:
        self.specs, self.report = specs, report
        self.held: tuple[str, LoadedModel] | None = None

    def load(self, role: str) -> LoadedModel:
        """The model that plays ``role``."""
        if self.held is None or self.held[0] != role:
            self.held = None  # free the last model before the next one comes
            self.report(f"{role}/load", 0, 1)
            loaded = load_model(self.specs[role])
            loaded.require_decoder()
            self.held = (role, loaded)
            self.report(f"{role}/load", 1, 1)
        return self.held[1]


class Shared:
    """The inputs of every stage, made when first needed, and the stores that are finished."""

    def __init__(self, study: Study, out: Path, report: Report) -> None:
        """Look at the models.

        Raises:
            TwinprobeError: a model is unknown or unusable.
        """
        self.study, self.report = study, report
        self.specs = study.specs()
        self.identities = {role: model_identity(spec) for role, spec in self.specs.items()}
        self.stages = Stages(out, report)
        self.models = Models(self.specs, report)
        self.baselines: BaselineCache = {}
        self.stores: dict[tuple[str, str], tuple[Path, str]] = {}
        """Folder and key of each store, by role and task."""

    @cached_property
    def bos(self) -> bool:
        """Whether BOS is prepended: one answer for all models of the study."""
        from activations.inputs import resolve_bos

        return resolve_bos(self.study.load.bos, [load_tokenizer(spec) for spec in self.specs.values()])

    @cached_property
    def tasks(self) -> dict[str, Task]:
        """The tasks by their own names, without the path of a task that is read from files."""
        return {task.name: task for task in self.study.chosen_tasks()}

    @cached_property
    def draws(self) -> dict[str, list[list[Item]]]:
        """The items of every task, draw by draw."""
        settings, seed = self.study.tasks, self.study.seed
        return {
            name: [task.generate(settings.items, seed + draw) for draw in range(settings.seeds)]
            for name, task in self.tasks.items()
        }

    def first_draw(self, task: str) -> list[Item]:
        """The items that are run and patched."""
        return self.draws[task][0]

    @property
    def across_tasks(self) -> list[str]:
        """The tasks that are patched across the pair."""
        return [name for name, task in self.tasks.items() if task.causal and self.study.across.prompts]

    def forms(self, task: str) -> list[str]:
        """The forms of a task."""
        return sorted({form for item in self.first_draw(task) for form in item.forms})

    def all_items(self, task: str) -> list[Item]:
        """The items of all draws, each once."""
        return list({item.id: item for items in self.draws[task] for item in items}.values())

    @cached_property
    def neutral_texts(self) -> list[Text]:
        """Passages of documents that no task uses."""
        from analyses.study.neutral import neutral_texts

        settings, scores = self.study.mapping, self.study.scores
        if not settings.passages:
            return []
        items = [item for task in self.tasks for item in self.first_draw(task)]
        return neutral_texts(
            items, count=settings.passages, characters=settings.characters, seed=self.study.seed + 1, code=scores.code,
            prose=scores.prose,
        )  # fmt: skip

    def expected_bytes(self) -> int:
        """About how much the stores will take, from the models' configurations alone."""
        from probes.task_rows import labelled_texts

        rows = sum(len(text.spans) for task in self.tasks for text in labelled_texts(self.all_items(task)))
        rows += sum(len(text.text) for text in self.neutral_texts) // CHARACTERS_PER_TOKEN
        total = 0
        for spec in self.specs.values():
            config = load_config(spec)
            sites = parse_sites(self.study.probes.sites, config.num_hidden_layers, config.num_attention_heads)
            total += rows * len(sites) * config.hidden_size * STORED_BYTES[self.study.probes.storage_dtype]
        return total

    def common(self, role: str) -> dict[str, Any]:
        """What the keys of all stages of a model hold."""
        return {
            "model": self.identities[role],
            "bos": self.study.load.bos,
            # The BOS rule looks at every tokenizer, so every model is an input of each one's stages.
            "pair": [identity for other, identity in self.identities.items() if other != "random"],
            "seed": self.study.seed,
        }

    def task_key(self, name: str) -> dict[str, Any]:
        """What the keys of all stages about a task hold."""
        task, settings = self.tasks[name], self.study.tasks
        stamps = {str(file): (file.stat().st_size, file.stat().st_mtime_ns) for file in task.files}
        return {
            "task": name,
            "items": settings.items,
            "forms": settings.forms,
            "draws": settings.seeds,
            "files": stamps,
        }

    def sources(self) -> dict[str, Any]:
        """The files of held-out passages, for the keys of stages."""
        scores = self.study.scores
        paths = [path for path in (scores.code, scores.prose) if path]
        return {"sources": {path: Path(path).stat().st_mtime_ns for path in paths}}

    def weight_bytes(self) -> list[int | None]:
        """Bytes of every model's files, None for one that is not a local folder."""
        sizes = [[size for size, _ in identity["files"].values()] for identity in self.identities.values()]
        return [sum(found) if found else None for found in sizes]

    @cached_property
    def benchmark_jobs(self) -> list[Job]:
        """The benchmarks with all their prompts."""
        from analyses.benchmarks.local.run import jobs

        table = self.study.benchmarks
        return jobs(table.chosen(), Path(table.data) if table.data else None, table.limit)

    def progress(self, stage: str) -> Callable[[int, int], None]:
        """Report the steps of a stage."""
        return lambda done, total: self.report(stage, done, total)

    def store(self, role: str, name: str) -> ActivationStore:
        """A finished store."""
        from activations.store import ActivationStore

        return ActivationStore(self.stores[role, name][0])
