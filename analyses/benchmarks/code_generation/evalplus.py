"""EvalPlus' further inputs for HumanEval and MBPP (Liu et al. 2023, arXiv 2305.01210).

The files store inputs without outputs: the check runs the reference solution beside the sample. What is compared less strictly
in the released EvalPlus package (sets, for some MBPP problems) is compared exactly here, so these are not the official
HumanEval+ and MBPP+ scores.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from analyses.benchmarks.code_generation.problems import Problem, json_lines, problem_key


def read_humaneval_plus(folder: Path) -> list[Problem]:
    """The three files of EvalPlus' folder: problems, further inputs, and (where there) later references with tolerances."""
    rows = json_lines(_only(folder, "HumanEvalPlus_full*.jsonl"))
    further = {
        problem_key(row["task_id"]): row["inputs"] for row in json_lines(_only(folder, "HumanEvalPlusInputs*.jsonl"))
    }
    if any(folder.glob("HumanEvalPlus_contract_reference*.jsonl")):
        later = json_lines(_only(folder, "HumanEvalPlus_contract_reference*.jsonl"))
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


def read_mbpp_plus(path: Path) -> list[Problem]:
    """The problems of a file ``MbppPlus*.jsonl``; arguments get the tuples and sets of the problem's own tests."""
    found = []
    for row in json_lines(path):
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
