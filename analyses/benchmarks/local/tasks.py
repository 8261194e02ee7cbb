"""The benchmarks that can be read, with their usual settings, and presets of several."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from activations.errors import TwinprobeError, did_you_mean
from analyses.benchmarks.local import (
    agieval,
    arc,
    bbh,
    big_bench,
    generated,
    gsm8k,
    hellaswag,
    logiqa,
    mmlu,
    scienceqa,
    truthfulqa,
    winogrande,
)
from analyses.benchmarks.local.questions import Reader
from analyses.toml_files import read_toml

Metric = Literal["acc", "acc_norm", "acc_bytes", "mc2", "exact", "strict", "flexible"]
PRESETS = Path(__file__).with_name("presets.toml")


@dataclass(frozen=True)
class Task:
    """A benchmark.

    Attributes:
        read: gives its parts out of the data folder.
        version: of this reader; scores of different versions must not be compared.
        like: the task of lm-evaluation-harness 0.4 with these prompts, and its version; empty where there is none.
        shots, metric: as that task has them (scores of written answers have metrics of their own).
        marks: what of a written answer is compared with the same of the right one, by the metric's name; the first counts.
        tokens: the most that are written.
        needs_data: whether the data folder is read.
    """

    read: Reader
    version: str
    like: str
    shots: int
    metric: Metric
    marks: Mapping[Metric, Callable[[str], str]] = field(default_factory=dict)
    tokens: int = 256
    needs_data: bool = True


TASKS: dict[str, Task] = {
    "mmlu": Task(mmlu.read, "1", "mmlu 1.0", 5, "acc"),
    "arc_challenge": Task(partial(arc.read, name="arc_challenge"), "1", "arc_challenge 1.0", 0, "acc_norm"),
    "arc_easy": Task(partial(arc.read, name="arc_easy"), "1", "arc_easy 1.0", 0, "acc_norm"),
    "hellaswag": Task(hellaswag.read, "1", "hellaswag 1.0", 0, "acc_norm"),
    "winogrande": Task(winogrande.read, "1", "winogrande 1.0", 0, "acc"),
    "truthfulqa_mc1": Task(partial(truthfulqa.read, form="mc1"), "1", "truthfulqa_mc1 2.0", 0, "acc"),
    "truthfulqa_mc2": Task(partial(truthfulqa.read, form="mc2"), "1", "truthfulqa_mc2 2.0", 0, "mc2"),
    "logiqa": Task(logiqa.read, "1", "logiqa 1.0", 0, "acc_norm"),
    "agieval": Task(agieval.read, "1", "agieval 1.0", 0, "acc_norm"),
    "scienceqa_image_subset": Task(scienceqa.read, "1", "", 0, "acc"),
    "bigbench": Task(big_bench.read, "1", "bigbench of harness 0.3", 0, "acc"),
    "bbh": Task(bbh.read, "1", "leaderboard_bbh 1.0", 3, "acc_norm", {"exact": str.strip}, 64),
    "gsm8k": Task(gsm8k.read, "1", "gsm8k 3.0", 5, "strict", {"strict": gsm8k.strict, "flexible": gsm8k.flexible}),
    **{name: Task(partial(generated.read, name=name), "1", "", 0, "acc", needs_data=False) for name in generated.DRAWS},
}


class Setting(BaseModel):
    """A task of a preset and how it is asked and scored."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    task: str
    shots: int
    metric: Metric
    limit: int | None = None


class Preset(BaseModel):
    """Several tasks under a name."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    about: str
    tasks: tuple[Setting, ...]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    preset: dict[str, Preset]


@cache
def presets() -> dict[str, Preset]:
    """The presets by name."""
    return read_toml(PRESETS, _File).preset


def settings(names: list[str], preset: str | None, shots: int | None = None) -> list[Setting]:
    """What to ask: the tasks ``names`` (of the preset, if there is one; all of it if none are named).

    Raises:
        TwinprobeError: an unknown name, or neither tasks nor a preset.
    """
    if preset is not None and preset not in presets():
        known = presets()
        raise TwinprobeError(f"no preset {preset!r}{did_you_mean(preset, known)}; there are {', '.join(known)}")
    if preset is None and not names:
        raise TwinprobeError(f"no tasks given; name some of {', '.join(TASKS)} or a preset of {', '.join(presets())}")
    if preset is None:
        known_settings = {
            name: Setting(task=name, shots=task.shots, metric=task.metric) for name, task in TASKS.items()
        }
    else:
        known_settings = {setting.task: setting for setting in presets()[preset].tasks}
    for name in names:
        if name not in known_settings:
            where = f"preset {preset} has" if preset else "there are"
            raise TwinprobeError(
                f"no task {name!r}{did_you_mean(name, known_settings)}; {where} {', '.join(known_settings)}"
            )
    found = [known_settings[name] for name in dict.fromkeys(names or known_settings)]
    return found if shots is None else [setting.model_copy(update={"shots": shots}) for setting in found]


def needing_data(settings: Sequence[Setting]) -> list[str]:
    """The tasks among these that read the data folder."""
    return [setting.task for setting in settings if TASKS[setting.task].needs_data]
