"""What a study file may say. Every field has a default but the pair."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, Field

from activations.errors import TwinprobeError
from activations.models import ModelSpec
from activations.pairs import Pair, custom_pair, get_pair
from analyses.toml_files import read_toml
from probes.families import check_family
from probes.tasks import get_task
from probes.tasks.items import Task, restricted

if TYPE_CHECKING:
    from analyses.benchmarks.local.tasks import Setting

RANDOM_SEED = 10_000
"""Added to the study's seed for random weights: a model under study may itself have begun from a small seed."""
EMBEDDED_TASKS = ("closers", "indentation", "induction", "agreement", "aliasing", "identifiers", "syntax", "dataflow")
"""What a study probes for unless it says otherwise."""


class Table(BaseModel):
    """A TOML table that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PairTable(Table):
    """Either ``name`` from the registry (``twinprobe show pairs``), or ``base`` and ``code`` as model names or folders.

    ``null`` is a second seed of the base model, when there is one: base against null calibrates the statistics.
    """

    name: str | None = None
    base: str | None = None
    code: str | None = None
    null: str | None = None
    base_revision: str | None = None
    code_revision: str | None = None


class LoadTable(Table):
    """How every model of the study is loaded (see :class:`activations.models.ModelSpec`), and the BOS rule."""

    dtype: str = "float32"
    device: str = "cpu"
    device_map: str | None = None
    attention: str = "auto"
    bos: Literal["auto", "always", "never"] = "auto"
    allow_pickle: bool = False
    trust_remote_code: bool = False


class TasksTable(Table):
    """Which tasks (``name`` or ``name:PATH``), and how many items of each (split train/dev/test as 5 : 1.5 : 2.5).

    ``forms`` restricts them to some forms, such as ``code`` and ``prose``; all when empty.
    ``seeds`` is how often the items are drawn anew; each draw has its own probes, and scores are pooled over draws. What
    is run or patched (behaviour, patching, interventions) uses the first draw.
    """

    names: tuple[str, ...] = Field(EMBEDDED_TASKS, min_length=1)
    forms: tuple[str, ...] = ()
    items: int = Field(600, ge=40)
    seeds: int = Field(1, ge=1)


class ProbesTable(Table):
    """Where rows are captured and how they are probed.

    ``code_orders`` is over how many orders of the rows the online codelength is averaged (0 leaves it out); ``capacity``
    names families of probes to set beside the linear one at the chosen site.
    """

    sites: str = "embed,resid_post.*"
    pool: Literal["last", "first", "mean"] = "last"
    storage_dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    strengths: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    random_init: bool = True
    code_orders: int = Field(1, ge=0)
    capacity: tuple[str, ...] = ()


class PatchingTable(Table):
    """How many test prompts of each task and form are run, and how many of the retained ones are patched, and where.

    Sites with heads (``z``, ``q``, ``k``, ``v``) are patched head by head and role by role, others at every position.
    """

    sites: tuple[str, ...] = Field(("resid_pre", "z"), min_length=1)
    directions: tuple[Literal["denoising", "noising"], ...] = Field(("denoising", "noising"), min_length=1)
    prompts: int = Field(100, ge=0)
    items: int = Field(16, ge=1)
    check_exact: int = Field(3, ge=0)


class AcrossTable(Table):
    """Patching across the pair: prompts of each task and form that both models answer, and how many are patched.

    None when ``prompts`` is 0.
    """

    prompts: int = Field(100, ge=0)
    items: int = Field(8, ge=1)
    check_exact: int = Field(3, ge=0)


class InterventionsTable(Table):
    """The causal companion of the probes: prompts per task and form, and random directions to compare with."""

    prompts: int = Field(60, ge=0)
    draws: int = Field(3, ge=1)


class MappingTable(Table):
    """Neutral passages that orthogonal maps between the models are fitted on, and how long they are; 0 for no maps."""

    passages: int = Field(30, ge=0)
    characters: int = Field(300, ge=50)
    draws: int = Field(5, ge=1)


class ScoresTable(Table):
    """Held-out passages for bits per byte; the default sets come with Python itself."""

    passages: int = Field(60, ge=0)
    characters: int = Field(600, ge=50)
    code: str | None = None
    prose: str | None = None


class BenchmarksTable(Table):
    """Which benchmarks the models are scored on; none without ``preset`` and ``tasks``, or when ``limit`` is 0.

    ``data`` is the folder of the benchmarks' files, for tasks that read any; ``shots`` and ``limit`` (the first questions of
    every subject) go before the preset's or the tasks' own. See ``twinprobe bench run``.
    """

    preset: str | None = None
    tasks: tuple[str, ...] = ()
    data: str | None = None
    shots: int | None = Field(None, ge=0)
    limit: int | None = Field(None, ge=0)

    def chosen(self) -> list[Setting]:
        """The benchmarks with their few-shot counts and metrics.

        Raises:
            TwinprobeError: an unknown task or preset.
        """
        if self.limit == 0 or not (self.preset or self.tasks):
            return []
        from analyses.benchmarks.local.tasks import settings

        return settings(list(self.tasks), self.preset, self.shots)


class StatisticsTable(Table):
    """Effort of the resampling methods."""

    resamples: int = Field(1000, ge=100)
    flips: int = Field(10_000, ge=1000)


class Study(Table):
    """A paired study."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    seed: int = Field(0, ge=0)
    pair: PairTable
    load: LoadTable = LoadTable()
    tasks: TasksTable = TasksTable()
    probes: ProbesTable = ProbesTable()
    patching: PatchingTable = PatchingTable()
    across: AcrossTable = AcrossTable()
    interventions: InterventionsTable = InterventionsTable()
    mapping: MappingTable = MappingTable()
    scores: ScoresTable = ScoresTable()
    benchmarks: BenchmarksTable = BenchmarksTable()
    statistics: StatisticsTable = StatisticsTable()

    @property
    def compared(self) -> Pair:
        """The pair under study, from the registry or made of two names."""
        if self.pair.name:
            return get_pair(self.pair.name)
        assert self.pair.base is not None  # read_study checks this
        assert self.pair.code is not None
        return custom_pair(self.pair.base, self.pair.code)

    def chosen_tasks(self) -> list[Task]:
        """The tasks, restricted to the chosen forms.

        Raises:
            TwinprobeError: an unknown task, or one without any of the forms.
        """
        tasks = [get_task(name) for name in self.tasks.names]
        return [restricted(task, self.tasks.forms) for task in tasks] if self.tasks.forms else tasks

    def specs(self) -> dict[str, ModelSpec]:
        """The models to run by their role: ``base``, ``code``, ``second_seed`` and ``random`` where it has them."""
        load, pair = self.load, self.compared

        def spec(name: str, revision: str | None = None, random_init: int | None = None) -> ModelSpec:
            return ModelSpec(
                name, revision, load.dtype, load.device, load.device_map, load.attention,
                load.allow_pickle, load.trust_remote_code, random_init,
            )  # fmt: skip

        found = {"base": spec(pair.base, self.pair.base_revision), "code": spec(pair.code, self.pair.code_revision)}
        if self.pair.null:
            found["second_seed"] = spec(self.pair.null)
        if self.probes.random_init:
            found["random"] = spec(pair.base, self.pair.base_revision, random_init=self.seed + RANDOM_SEED)
        return found


def embedded_study(full: bool = False) -> Path:
    """The study file of the embedded twins, which ships with the package; ``full``: that of every task."""
    return Path(str(files("analyses.study") / ("full.toml" if full else "embedded.toml")))


def read_study(path: str | Path) -> Study:
    """Read a study file and check names against the registries.

    Raises:
        TwinprobeError: see :func:`analyses.toml_files.read_toml`; also an unknown pair, an unknown or repeated
            task, a pair without models, or held-out texts that are not there.
    """
    study = read_toml(path, Study)
    if not study.pair.name and not (study.pair.base and study.pair.code):
        raise TwinprobeError(f"{path}: [pair] needs either 'name' or both 'base' and 'code'")
    if study.pair.name and (study.pair.base or study.pair.code):
        raise TwinprobeError(f"{path}: [pair] has 'name' and also 'base' or 'code'; give one or the other")
    try:
        pair = study.compared
        names = [task.name for task in study.chosen_tasks()]
        for family in study.probes.capacity:
            check_family(family)
        _check_benchmarks(study.benchmarks)
    except TwinprobeError as error:
        raise TwinprobeError(f"{path}: {error}") from None
    if twice := [name for name in names if names.count(name) > 1]:
        raise TwinprobeError(f"{path}: task {twice[0]!r} is named twice in [tasks] names")
    for given in (study.scores.code, study.scores.prose):
        if given and not Path(given).is_file():
            raise TwinprobeError(f"{path}: [scores] {given!r} is no file; expected a JSONL file of texts")
    if pair.kind != "decoder":
        raise TwinprobeError(f"{path}: pair {pair.name!r} is an {pair.kind} pair; a study needs causal language models")
    return study


def _check_benchmarks(table: BenchmarksTable) -> None:
    chosen = table.chosen()
    if not chosen:
        return
    from analyses.benchmarks.local.tasks import needing_data

    reading = needing_data(chosen)
    if reading and not table.data:
        raise TwinprobeError(
            f"[benchmarks] needs 'data', the folder of the benchmarks' files, for {', '.join(reading)}"
        )
    if table.data and not Path(table.data).is_dir():
        raise TwinprobeError(f"[benchmarks] data {table.data!r} is no folder; expected that of the benchmarks' files")
