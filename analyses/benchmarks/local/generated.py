"""Benchmarks that need no files: questions like those of BIG-bench's programmatic tasks, from generators of our own.

BIG-bench (Srivastava et al. 2022) and BIG-bench Hard (Suzgun et al. 2023) have tasks whose questions a program makes. These
are of the same kinds, but the words, the numbers and the choices are our own: scores on them can not be compared with
scores on BIG-bench. Every question is short enough for a context of 256 tokens.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from analyses.benchmarks.local.generated_balance import Draw, balanced
from analyses.benchmarks.local.generated_logic import boolean_expression, dyck_language, navigate
from analyses.benchmarks.local.generated_symbols import arithmetic, word_sorting
from analyses.benchmarks.local.generated_things import logical_deduction, tracking_shuffled_objects
from analyses.benchmarks.local.questions import Part

QUESTIONS = 240
"""Questions of a task: a multiple of 2, 3 and 4, so that the right choice is equally often at every place."""
DRAWS: dict[str, Draw] = {
    "generated_boolean_expressions": boolean_expression,
    "generated_dyck_languages": dyck_language,
    "generated_navigate": navigate,
    "generated_tracking_shuffled_objects": tracking_shuffled_objects,
    "generated_logical_deduction": logical_deduction,
    "generated_arithmetic": arithmetic,
    "generated_word_sorting": word_sorting,
}
"""The tasks and what draws a question of each."""


def read(data: Path, name: str) -> list[Part]:
    """The questions of a task, always the same ones; ``data`` is not looked at. Few-shot examples are other questions."""
    return [_part(name)]


@cache
def _part(name: str) -> Part:
    return Part(name, balanced(DRAWS[name], QUESTIONS, name))
