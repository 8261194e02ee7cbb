"""Run every sample of a benchmark in the sandbox and tabulate what passed; what was run is not run again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from activations.errors import TwinprobeError
from activations.files import write_whole
from analyses.benchmarks.code_generation.languages import language_named
from analyses.benchmarks.code_generation.pass_at_k import PassAtK, pass_at_ks
from analyses.benchmarks.code_generation.problems import PYTHON, Problem
from analyses.benchmarks.code_generation.sandbox import Isolation, Limits, isolation, run_program, weak_isolation
from analyses.benchmarks.code_generation.tasks import Sample
from analyses.benchmarks.code_generation.toolchains import Toolchain, find_toolchain

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "model", "task", "subject", "item", "score", "chance", "group", "sample", "status", "detail", "seconds",
)  # fmt: skip
Verdict = dict[str, Any]
"""What is kept of one run: status, detail, seconds."""


@dataclass(frozen=True)
class Executed:
    """The samples of one model on one task.

    Attributes:
        items: one row per sample, see :data:`COLUMNS`; ``item`` and ``group`` are the problem, ``score`` is 1 or 0.
        isolation: what the programs were kept from.
    """

    items: pd.DataFrame
    isolation: Isolation


def check_samples(problems: dict[str, Problem], samples: Sequence[Sample], task: str, allow_weak: bool) -> Isolation:
    """What the samples will be kept from.

    Raises:
        TwinprobeError: a sample names no problem, a problem has no sample (a score over the others would not be the task's),
            one is a whole program in another language than Python, or isolation is incomplete and not allowed to be.
    """
    named = {sample.problem for sample in samples}
    if strangers := sorted(named - set(problems)):
        raise TwinprobeError(
            f"samples of {len(strangers)} problems that {task} has not, the first {strangers[0]!r}; give the data that the "
            "samples were made for"
        )
    if len(named) != len(problems):
        raise TwinprobeError(f"samples of {len(named)} problems of {len(problems)}; expected some of every problem")
    foreign = {problem.language for problem in problems.values()} - {PYTHON}
    if foreign and any(sample.whole for sample in samples):
        raise TwinprobeError(
            f"samples of {task} have 'solution'; expected 'completion': its tests go on where a completion of the prompt ends"
        )
    had = isolation()
    if had.missing and not allow_weak:
        raise TwinprobeError(weak_isolation(had))
    return had


def task_name(task: str, problems: dict[str, Problem]) -> str:
    """The task's name in tables: with the language where one task has several."""
    return f"{task}-{next(iter(problems.values())).language}" if task == "multipl-e" else task


def toolchain_of(problems: dict[str, Problem], limits: Limits, allow_weak: bool = False) -> Toolchain | None:
    """What runs the language of the problems, found and tried; None for Python, which runs all this.

    Raises:
        TwinprobeError: there are no commands for the language, or what it needs is not here or does not run in the sandbox.
    """
    language = next(iter(problems.values())).language
    return None if language == PYTHON else find_toolchain(language_named(language), limits, allow_weak)


def execute(
    problems: dict[str, Problem],
    samples: Sequence[Sample],
    folder: Path,
    task: str,
    model: str,
    limits: Limits | None = None,
    workers: int = 1,
    allow_weak: bool = False,
    toolchain: Toolchain | None = None,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Executed:
    """Run all samples, a problem at a time; each problem's outcomes are written whole under ``folder``.

    A problem whose samples, tests, limits and isolation are those of the file is read from it.

    Args:
        problems: by key, see :func:`analyses.benchmarks.code_generation.tasks.read_code_task`.
        samples: in any order; those of one problem are numbered as they come.
        folder: for one file per problem.
        task: the name for the table.
        model: the name for the table.
        limits: what one sample may use.
        workers: samples that run at a time.
        allow_weak: also run where network or files can not be kept from the samples.
        toolchain: what runs the samples, see :func:`toolchain_of`.
        report: called with the samples done and all of them.

    Raises:
        TwinprobeError: what :func:`check_samples` refuses, or a program could not be started.
    """
    import pandas as pd

    limits = limits or Limits()
    had = check_samples(problems, samples, task, allow_weak)
    folder.mkdir(parents=True, exist_ok=True)
    by_problem: dict[str, list[Sample]] = {key: [] for key in problems}
    for sample in samples:
        by_problem[sample.problem].append(sample)

    def run(program: str) -> Verdict:
        outcome = run_program(program, limits, allow_weak, toolchain)
        return {"status": outcome.status, "detail": outcome.detail, "seconds": round(outcome.seconds, 3)}

    rows: list[tuple[Any, ...]] = []
    done = 0
    with ThreadPoolExecutor(workers) as pool:
        for key, own in by_problem.items():
            problem = problems[key]
            programs = [problem.program(sample.text, sample.whole) for sample in own]
            how = [asdict(toolchain.language), toolchain.paths] if toolchain else []
            asked = json.dumps([programs, asdict(limits), asdict(had), *how], sort_keys=True)
            mark = hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()
            path = folder / f"{quote(key, safe='')}.json"
            verdicts = _read(path, mark)
            if verdicts is None:
                verdicts = []
                for verdict in pool.map(run, programs):
                    verdicts.append(verdict)
                    report(done + len(verdicts), len(samples))
                write_whole(path, json.dumps({"of": mark, "verdicts": verdicts}, indent=1).encode())
            done += len(own)
            report(done, len(samples))
            for number, verdict in enumerate(verdicts):
                score = float(verdict["status"] == "passed")
                measured = (verdict["status"], verdict["detail"], verdict["seconds"])
                rows.append((model, task, "", problem.name, score, float("nan"), problem.name, number, *measured))
    return Executed(pd.DataFrame(rows, columns=list(COLUMNS)), had)


def pass_table(items: pd.DataFrame, ks: Sequence[int], seed: int = 0) -> list[PassAtK]:
    """pass@k of a table of :func:`execute`."""
    counted = items.groupby("group", sort=False)["score"].agg(["size", "sum"])
    return pass_at_ks([*map(int, counted["size"])], [*map(int, counted["sum"])], ks, seed=seed)


def _read(path: Path, mark: str) -> list[Verdict] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    verdicts: list[Verdict] = found["verdicts"]
    return verdicts if found["of"] == mark else None
