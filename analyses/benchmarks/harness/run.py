"""Run lm-evaluation-harness on a loaded model, a task or group at a time; what is there is not run again.

The harness' own log is written (``results_DATE.json`` and ``samples_TASK_DATE.jsonl``) and read as any imported log is, so
that a run of ours and an imported one of somebody else give the same table.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from activations.errors import TwinprobeError
from activations.files import write_whole
from activations.models import LoadedModel, fingerprint
from analyses.benchmarks.harness.model import harness_model
from analyses.benchmarks.harness.tasks import Chosen, load_tasks, quiet
from analyses.benchmarks.imports import Wanted, import_logs
from analyses.benchmarks.imports.logs import json_lines
from analyses.benchmarks.local.grading import summary
from analyses.benchmarks.per_item import gather, write_items
from probes.tables import plain

if TYPE_CHECKING:
    from lm_eval.tasks import TaskManager

Progress = Callable[[int, int], None]
SEED = 1234
"""Of drawn examples, the harness' own."""


@dataclass(frozen=True)
class Settings:
    """How tasks are asked.

    Attributes:
        shots: few-shot examples; none given: as every task says.
        limit: only the first questions of every task.
        batch: texts of a forward pass.
        bos: whether BOS opens every text.
        chat_template: whether the tokenizer's chat template is applied, examples as turns of a conversation.
    """

    shots: int | None = None
    limit: int | None = None
    batch: int = 8
    bos: bool = True
    chat_template: bool = False


def identity(chosen: Chosen, loaded: LoadedModel, settings: Settings) -> dict[str, Any]:
    """What makes the result what it is: model, task, data, settings; kept beside it.

    Raises:
        TwinprobeError: a chat template is to be applied and the tokenizer has none.
    """
    template = getattr(loaded.tokenizer, "chat_template", None)
    if settings.chat_template and not template:
        raise TwinprobeError(f"the tokenizer of {loaded.spec.name} has no chat template; leave out --chat-template")
    asked = asdict(settings)
    del asked["batch"]
    return {
        "model": loaded.spec.name, "revision": loaded.commit or loaded.spec.revision, "weights": fingerprint(loaded.model),
        "dtype": str(loaded.model.dtype).removeprefix("torch."), "task": chosen.name, "data": chosen.data, **asked,
        "chat_template": "applied" if settings.chat_template else "not applied",
        "tokenizer_has_chat_template": bool(template), "seed": SEED, "harness": version("lm_eval"),
    }  # fmt: skip


def finished(about: dict[str, Any], out: Path) -> bool:
    """Whether the harness' log of this task, model and settings is in ``out``.

    Raises:
        TwinprobeError: it has one of another model or of other settings.
    """
    path = _log(out, about["task"]) / "about.json"
    if not path.exists():
        return False
    there = json.loads(path.read_text(encoding="utf-8"))["about"]
    for name, value in about.items():
        if there.get(name) != value:
            raise TwinprobeError(f"{path} is of {name} {there.get(name)!r}, not {value!r}; choose another --out")
    return True


def run(
    chosen: Chosen, manager: TaskManager, loaded: LoadedModel, settings: Settings, out: Path, progress: Progress
) -> None:
    """Let the harness ask what is ``chosen`` unless its log is in ``out``; the log appears there whole or not at all.

    Raises:
        TwinprobeError: the data can not be loaded, the model can not be asked, or ``out`` has a log of something else.
    """
    about = identity(chosen, loaded, settings)
    if finished(about, out):
        return
    import lm_eval
    from lm_eval.loggers import EvaluationTracker

    begun = time.monotonic()
    log = _log(out, chosen.name)
    unfinished = log.with_name(f"{log.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    tasks = load_tasks(manager, chosen)
    with quiet():
        lm = harness_model(loaded, bos=settings.bos, batch=settings.batch, progress=progress)
        tracker = EvaluationTracker(output_path=str(unfinished))
        found = lm_eval.simple_evaluate(
            lm,
            {"pretrained": loaded.spec.name},
            tasks,
            num_fewshot=settings.shots,
            batch_size=settings.batch,
            limit=settings.limit,
            apply_chat_template=settings.chat_template,
            evaluation_tracker=tracker,
            task_manager=manager,
            fewshot_random_seed=SEED,
            bootstrap_iters=0,
        )
        samples = found.pop("samples")
        tracker.save_results_aggregated(results=found, samples=samples)
        for name, lines in samples.items():
            tracker.save_results_samples(task_name=name, samples=lines)
    scores = {
        task: {name: value for name, value in row.items() if isinstance(value, int | float) and not math.isnan(value)}
        for task, row in found["results"].items()
    }
    record = {
        "about": about, "scores": scores, "versions": found["versions"], "shots": found["n-shot"],
        "seconds": time.monotonic() - begun,
    }  # fmt: skip
    write_whole(unfinished / "about.json", (json.dumps(record, indent=1) + "\n").encode())
    shutil.rmtree(log, ignore_errors=True)
    unfinished.rename(log)


def table_of(name: str, out: Path, wanted: Wanted) -> pd.DataFrame:
    """The per-item table of what was run under ``name``, as ``import_logs`` makes it of the log.

    Several tasks whose names begin with ``name`` become its subjects. Of a task with several filters the first is taken where
    none is wanted.

    Raises:
        TwinprobeError: a task has several metrics and none of the usual or wanted ones.
    """
    parts = []
    for path in sorted(_log(out, name).rglob("samples_*.jsonl")):
        filters = [str(line.get("filter", "none")) for _, line in json_lines(path)]
        chosen = wanted.filter if wanted.filter in filters else filters[0]
        parts.append(import_logs([path], wanted=Wanted(wanted.metrics, chosen)).table)
    table = pd.concat(parts, ignore_index=True)
    several = [task for task in table.task.unique() if task != name]
    if not several or not all(task.startswith(f"{name}_") for task in several):
        return table
    return gather(table, [name])


def write_table(name: str, out: Path, wanted: Wanted) -> list[dict[str, Any]]:
    """Write the per-item table ``NAME.csv`` of what was run; returns a summary for each of its tasks."""
    table = table_of(name, out, wanted)
    write_items(table, out / f"{name}.csv")
    record = json.loads((_log(out, name) / "about.json").read_text(encoding="utf-8"))
    about = {key: record["about"][key] for key in ("model", "bos", "chat_template", "harness")}
    lines = []
    for task, items in table.groupby("task", sort=False):
        shots = {value for key, value in record["shots"].items() if key in (task, *items.subject)}
        told = {
            "task": task, "shots": shots.pop() if len(shots) == 1 else None, "metric": items.metric.iloc[0],
            "filter": items["filter"].iloc[0],
        }  # fmt: skip
        numbers = {key: plain(value) for key, value in summary(items.assign(cut=0)).items() if key != "cut"}
        lines.append({**about, **told, **numbers})
    return lines


def _log(out: Path, name: str) -> Path:
    return out / "logs" / name
