"""Code generation problems from their authors' files, and the program that checks one sample.

HumanEval (Chen et al. 2021), MBPP (Austin et al. 2021), EvalPlus' further inputs for both
(:mod:`analyses.benchmarks.code_generation.evalplus`) and MultiPL-E's translations
(:mod:`analyses.benchmarks.code_generation.multipl_e`). Every check is the authors' own: prompt, completion, tests.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from activations.errors import TwinprobeError
from analyses.benchmarks.code_generation.evalplus import read_humaneval_plus, read_mbpp_plus
from analyses.benchmarks.code_generation.multipl_e import read_multipl_e
from analyses.benchmarks.code_generation.problems import Problem, json_lines, problem_key


def read_code_task(task: str, path: str | Path) -> dict[str, Problem]:
    """The problems of a task by :func:`analyses.benchmarks.code_generation.problems.problem_key`, in the order of the file.

    Args:
        task: one of :data:`CODE_TASKS`.
        path: the authors' file, ``.jsonl`` or ``.jsonl.gz``; for ``humaneval+`` the folder of EvalPlus' files.

    Raises:
        TwinprobeError: the task is not known, or the file is missing, of another form, or has a problem twice.
    """
    if task not in CODE_TASKS:
        raise TwinprobeError(f"no code task {task!r}; expected one of {', '.join(CODE_TASKS)}")
    try:
        found = CODE_TASKS[task](Path(path))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise TwinprobeError(
            f"{path}: not in the form of {task} ({type(error).__name__}: {error}); give the authors' own file"
        ) from None
    if not found:
        raise TwinprobeError(f"{path}: no problem in it; give the authors' own file of {task}")
    problems = {problem_key(problem.name): problem for problem in found}
    if len(problems) < len(found):
        raise TwinprobeError(f"{path}: {len(found)} problems with {len(problems)} numbers; expected a number for each")
    return problems


def _humaneval(path: Path) -> list[Problem]:
    return [
        Problem(row["task_id"], row["prompt"], f"{row['test']}\ncheck({row['entry_point']})", row["canonical_solution"])
        for row in json_lines(path)
    ]


def _mbpp(path: Path) -> list[Problem]:
    found = []
    for row in json_lines(path):
        tests = row["test_list"] if "test_list" in row else row["test"]
        set_up = row.get("test_setup_code", "")
        found.append(Problem(f"MBPP/{row['task_id']}", "", "\n".join([set_up, *tests]), row["code"]))
    return found


CODE_TASKS: dict[str, Callable[[Path], list[Problem]]] = {
    "humaneval": _humaneval,
    "humaneval+": read_humaneval_plus,
    "mbpp": _mbpp,
    "mbpp+": read_mbpp_plus,
    "multipl-e": read_multipl_e,
}
"""The tasks, and how each one's files are read."""


@dataclass(frozen=True)
class Sample:
    """One sample of a problem: a completion of its prompt, or a ``whole`` program."""

    problem: str
    text: str
    whole: bool


def read_samples(path: str | Path) -> list[Sample]:
    """Samples from JSON lines: ``task_id`` and ``completion`` (human-eval) or ``solution`` (EvalPlus, a whole program).

    Raises:
        TwinprobeError: the file is missing, or a line has not these fields.
    """
    found = []
    for number, row in enumerate(json_lines(Path(path)), 1):
        fields = [field for field in ("completion", "solution") if isinstance(row.get(field), str)]
        if "task_id" not in row or len(fields) != 1:
            raise TwinprobeError(
                f"{path}, sample {number}: has {', '.join(row)}; expected task_id and one of completion and solution"
            )
        found.append(Sample(problem_key(row["task_id"]), row[fields[0]], fields[0] == "solution"))
    if not found:
        raise TwinprobeError(f"{path}: no sample in it; expected JSON lines of task_id and completion or solution")
    return found


def sample_lines(problems: dict[str, Problem]) -> str:
    """The reference solutions as JSON lines of samples: a check of the data and of the machine, all should pass."""
    return "".join(
        json.dumps({"task_id": problem.name, "completion": problem.reference}) + "\n" for problem in problems.values()
    )
