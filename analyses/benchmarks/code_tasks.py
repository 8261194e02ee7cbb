"""Code generation problems from their authors' files, and the program that checks one sample.

HumanEval (Chen et al. 2021), MBPP (Austin et al. 2021), and EvalPlus' further inputs for both (Liu et al. 2023, arXiv
2305.01210). Every check is the authors' own: prompt, completion, tests. The EvalPlus files store inputs without outputs; there
the check runs the reference solution beside the sample. What is compared less strictly in the released EvalPlus package (sets,
for some MBPP problems) is compared exactly here, so these are not the official HumanEval+ and MBPP+ scores.
"""

from __future__ import annotations

import ast
import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from activations.texts import parse_json


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        name: the authors' name of it, ``HumanEval/0``, ``MBPP/11``.
        prompt: what a completion continues; empty where samples are whole programs.
        tests: text that runs the tests once the sample is defined.
        reference: the authors' solution, as a completion of the prompt.
    """

    name: str
    prompt: str
    tests: str
    reference: str

    def program(self, sample: str, whole: bool = False) -> str:
        """The text to run: it reaches its end where the sample passes; a ``whole`` sample holds the prompt already."""
        return f"{'' if whole else self.prompt}{sample}\n{self.tests}\n"


def read_code_task(task: str, path: str | Path) -> dict[str, Problem]:
    """The problems of a task by :func:`problem_key`, in the order of the file.

    Args:
        task: one of :data:`CODE_TASKS`.
        path: the authors' file, ``.jsonl`` or ``.jsonl.gz``; for ``humaneval+`` the folder of EvalPlus' files.

    Raises:
        TwinprobeError: the task is not known, or the file is missing or of another form.
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
    return {problem_key(problem.name): problem for problem in found}


def problem_key(name: object) -> str:
    """A problem's number, however its name is written: ``HumanEval/0``, ``HumanEval_0``, ``Mbpp/11``, ``11``."""
    return str(name).replace("_", "/").rpartition("/")[2]


def _lines(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise TwinprobeError(f"{path}: no such file; expected JSON lines, .jsonl or .jsonl.gz")
    try:
        text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode("utf-8")
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise TwinprobeError(f"{path}: can not be read ({error}); expected JSON lines in UTF-8") from None
    rows = [parse_json(line, f"{path}:{number}") for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if any(not isinstance(row, dict) for row in rows):
        raise TwinprobeError(f"{path}: a line is no JSON object; expected one problem a line")
    return rows


def _humaneval(path: Path) -> list[Problem]:
    return [
        Problem(row["task_id"], row["prompt"], f"{row['test']}\ncheck({row['entry_point']})", row["canonical_solution"])
        for row in _lines(path)
    ]


def _mbpp(path: Path) -> list[Problem]:
    found = []
    for row in _lines(path):
        tests = row["test_list"] if "test_list" in row else row["test"]
        set_up = row.get("test_setup_code", "")
        found.append(Problem(f"MBPP/{row['task_id']}", "", "\n".join([set_up, *tests]), row["code"]))
    return found


def _humaneval_plus(folder: Path) -> list[Problem]:
    """The three files of EvalPlus' folder: problems, further inputs, and (where there) later references with tolerances."""
    rows = _lines(_only(folder, "HumanEvalPlus_full*.jsonl"))
    further = {
        problem_key(row["task_id"]): row["inputs"] for row in _lines(_only(folder, "HumanEvalPlusInputs*.jsonl"))
    }
    if any(folder.glob("HumanEvalPlus_contract_reference*.jsonl")):
        later = _lines(_only(folder, "HumanEvalPlus_contract_reference*.jsonl"))
        if len(later) != len(rows):
            raise TwinprobeError(
                f"{folder}: {len(later)} references for {len(rows)} problems; expected files that match"
            )
    else:
        later = [{} for _ in rows]
    found = []
    for row, new in zip(rows, later, strict=True):
        reference, key = new.get("reference", row["reference"]), problem_key(row["task_id"])
        inputs = row["base_input"] + further.get(key, [])
        tests = _against_reference(row["prompt"] + reference, row["entry_point"], inputs, new.get("atol", 0))
        found.append(Problem(row["task_id"], row["prompt"], tests, reference))
    return found


def _only(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if len(found) != 1:
        raise TwinprobeError(f"{folder}: {len(found)} files {pattern}; expected EvalPlus' folder with one")
    return found[0]


def _mbpp_plus(path: Path) -> list[Problem]:
    found = []
    for row in _lines(path):
        like = _literals(row["assertion"], row["entry_point"])
        inputs = [_as_in(like, values) for values in (*row["base_input"], *row["plus_input"])]
        tests = _against_reference(row["canonical_solution"], row["entry_point"], inputs, row["atol"])
        found.append(Problem(row["task_id"], "", tests, row["canonical_solution"]))
    return found


def _literals(tests: str, name: str) -> list[Any]:
    """The arguments of the first test that calls ``name`` with literals."""
    for node in ast.walk(ast.parse(tests)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
            try:
                return [ast.literal_eval(argument) for argument in node.args]
            except ValueError:
                continue
    return []


def _as_in(example: Any, value: Any) -> Any:
    """``value`` with the tuples and sets that JSON could not write, where ``example`` has them."""
    if not isinstance(value, list):
        return value
    if isinstance(example, list | tuple | set) and example:
        parts = list(example)
        value = [_as_in(parts[min(place, len(parts) - 1)], part) for place, part in enumerate(value)]
    kind = type(example) if isinstance(example, tuple | set) else list
    return kind(value)


_CHECK = """
def check_against_reference(source, name, inputs, tolerance):
    import re
    from copy import deepcopy

    def same(got, expected):
        if isinstance(expected, float) and isinstance(got, (int, float)):
            near = abs(got - expected) <= max(tolerance, 1e-6) + 1e-7 * abs(expected)
            return got == expected or near or (got != got and expected != expected)
        if isinstance(expected, (list, tuple)) and type(got) is type(expected) and len(got) == len(expected):
            return all(map(same, got, expected))
        if isinstance(expected, re.Match):
            return bool(got)
        return got == expected

    scope = {"__name__": "reference"}
    exec(source, scope)
    compared = 0
    for values in inputs:
        try:
            expected = scope[name](*deepcopy(values))
        except Exception:
            continue
        got = globals()[name](*deepcopy(values))
        assert same(got, expected), f"input {values!r:.100}: {got!r:.100}, expected {expected!r:.100}"
        compared += 1
    assert compared, "the reference fails on every input"
"""
"""Tolerances as EvalPlus has them: 1e-6 for floats where a problem names none. Matches are equal to nothing but themselves,
and what a problem that returns one is about is whether there is one."""


def _against_reference(reference: str, name: str, inputs: list[Any], tolerance: float) -> str:
    """Tests that compare the sample with the reference on every input that the reference takes."""
    # "inf" and "nan" are how Python writes these floats, and no names of it.
    call = f"check_against_reference({reference!r}, {name!r}, {inputs!r}, {tolerance!r})"
    return f"{_CHECK}\ninf, nan = float('inf'), float('nan')\n{call}"


CODE_TASKS: dict[str, Callable[[Path], list[Problem]]] = {
    "humaneval": _humaneval,
    "humaneval+": _humaneval_plus,
    "mbpp": _mbpp,
    "mbpp+": _mbpp_plus,
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
    for number, row in enumerate(_lines(Path(path)), 1):
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
