"""WinoGrande (Sakaguchi et al. 2020) from ``winogrande/winogrande.jsonl``: context_options, continuation, gold.

Partial scoring (Trinh & Le 2018): the same continuation after either name, of which the more probable one is picked.
"""

from __future__ import annotations

from pathlib import Path

from analyses.benchmarks.local.questions import Part, Question, json_rows


def read(data: Path) -> list[Part]:
    """The questions; twins, which differ in a word that turns the answer, are one group."""
    questions = []
    rows = json_rows(data / "winogrande" / "winogrande.jsonl", ("context_options", "continuation", "gold"))
    for number, (_, row) in enumerate(rows):
        leads = tuple(f"{context} " for context in row["context_options"])
        continuation, gold = row["continuation"], int(row["gold"])
        questions.append(
            Question(
                str(number), "", leads[gold] + continuation, (continuation,) * len(leads), (gold,),
                " / ".join(sorted(leads)), leads,
            )
        )  # fmt: skip
    return [Part("winogrande", tuple(questions))]
