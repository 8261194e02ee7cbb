"""BIG-bench (Srivastava et al. 2022): every file in ``bigbench`` that holds multiple choice, zero-shot."""

from __future__ import annotations

from pathlib import Path

from activations.errors import TwinprobeError
from analyses.benchmarks.bigbench import read_bigbench
from analyses.benchmarks.local.questions import Part, chosen, text_of


def read(data: Path) -> list[Part]:
    """A part per file with multiple choice in it, called by its path; other files and examples are left out.

    Raises:
        TwinprobeError: there is no such file, or one can not be used.
    """
    folder = data / "bigbench"
    parts = []
    for path in sorted([*folder.rglob("*.json"), *folder.rglob("*.jsonl")]):
        if not any(f'"{field}"' in text_of(path) for field in ("target_scores", "choices")):
            continue
        questions = [chosen(item.id, item.context, item.choices, item.gold) for item in read_bigbench(path)]
        parts.append(Part(path.relative_to(folder).with_suffix("").as_posix(), tuple(questions)))
    if not parts:
        raise TwinprobeError(f"{folder}: no multiple choice file in it; expected BIG-bench task files")
    return parts
