"""ARC (Clark et al. 2018) from ``arc/arc_challenge.jsonl`` and ``arc/arc_easy.jsonl``: query, choices, gold."""

from __future__ import annotations

from pathlib import Path

from analyses.benchmarks.local.questions import Part, chosen, json_rows


def read(data: Path, name: str) -> list[Part]:
    """The questions of ``arc_challenge`` or ``arc_easy``; the files hold the test split alone."""
    rows = json_rows(data / "arc" / f"{name}.jsonl", ("query", "choices", "gold"))
    questions = [
        chosen(str(number), f"{row['query'].rstrip()}\nAnswer: ", row["choices"], [row["gold"]])
        for number, (_, row) in enumerate(rows)
    ]
    return [Part(name, tuple(questions))]
