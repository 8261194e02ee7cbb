"""MultiPL-E's problems: HumanEval translated into other languages (Cassano et al. 2023, arXiv 2208.08227).

A file is of one language, a line per problem with ``name``, ``language``, ``prompt``, ``tests`` and ``stop_tokens``. The tests
go on where a completion that was cut at its stop token ends: in some languages with the brace that closes the function. There
are no solutions. A file without ``language`` is the Python one, with HumanEval's fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from analyses.benchmarks.code_generation.problems import PYTHON, Problem, json_lines


def read_multipl_e(path: Path) -> list[Problem]:
    """The problems of one language, in the order of the file.

    Raises:
        TwinprobeError: the file is missing or holds several languages.
    """
    found = [_problem(row) for row in json_lines(path)]
    languages = sorted({problem.language for problem in found})
    if len(languages) > 1:
        raise TwinprobeError(f"{path} holds problems in {', '.join(languages)}; give a file of one language")
    return found


def _problem(row: dict[str, Any]) -> Problem:
    # Go's is called after the file that its authors write, go_test.go.
    language = row.get("language", PYTHON).rpartition(".")[2]
    tests = row["tests"] if "tests" in row else row["test"]
    name, solution = row["name"] if "name" in row else row["task_id"], row.get("canonical_solution", "")
    return Problem(name, row["prompt"], tests, solution, language, tuple(row.get("stop_tokens", ())))
