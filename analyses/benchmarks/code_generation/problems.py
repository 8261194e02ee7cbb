"""A code generation problem, its name, and the lines of the files that problems and samples are in."""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from activations.texts import parse_json

PYTHON = "python"


@dataclass(frozen=True)
class Problem:
    """One problem.

    Attributes:
        name: the authors' name of it, ``HumanEval/0``, ``MBPP/11``, ``HumanEval_23_strlen``.
        prompt: what a completion continues; empty where samples are whole programs.
        tests: text that runs the tests once the sample is defined.
        reference: the authors' solution, as a completion of the prompt; empty where there is none.
        language: ``python``, or a name of :data:`analyses.benchmarks.code_generation.languages.LANGUAGES`.
        stops: what ends a completion; it is cut before the first of them.
    """

    name: str
    prompt: str
    tests: str
    reference: str
    language: str = PYTHON
    stops: tuple[str, ...] = ()

    def program(self, sample: str, whole: bool = False) -> str:
        """The text to run: it reaches its end where the sample passes; a ``whole`` sample holds the prompt already."""
        ends = [place for stop in self.stops if (place := sample.find(stop)) >= 0]
        kept = sample if whole or not ends else sample[: min(ends)]
        return f"{'' if whole else self.prompt}{kept}\n{self.tests}\n"


def problem_key(name: object) -> str:
    """A problem's number, however its name is written: ``HumanEval/0``, ``HumanEval_0_name``, ``Mbpp/11``, ``11``."""
    numbered = re.match(r"[A-Za-z]+[/_](\d+)(?:_|$)", str(name))
    return numbered[1] if numbered else str(name).replace("_", "/").rpartition("/")[2]


def json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, ``.jsonl`` or ``.jsonl.gz``.

    Raises:
        TwinprobeError: the file is missing, not readable, or a line is no JSON object.
    """
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
