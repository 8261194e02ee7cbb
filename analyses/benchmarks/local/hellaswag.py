"""HellaSwag (Zellers et al. 2019): rows of the authors' ``hellaswag_val.jsonl``, in any one JSONL file in ``hellaswag``."""

from __future__ import annotations

import re
from pathlib import Path

from analyses.benchmarks.local.questions import Part, chosen, files_in, json_rows

FIELDS = ("ind", "activity_label", "ctx_a", "ctx_b", "label", "endings", "source_id")


def read(data: Path) -> list[Part]:
    """The questions; those about one video or article are one group."""
    questions = []
    for _, row in json_rows(files_in(data / "hellaswag", "*.jsonl")[0], FIELDS):
        begun = _clean(f"{row['activity_label']}: {row['ctx_a']} {row['ctx_b'].capitalize()}")
        endings = [_clean(ending) for ending in row["endings"]]
        questions.append(chosen(str(row["ind"]), f"{begun} ", endings, [int(row["label"])], str(row["source_id"])))
    return [Part("hellaswag", tuple(questions))]


def _clean(text: str) -> str:
    """Without WikiHow's marks in square brackets, of which a title's ends a sentence."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")
