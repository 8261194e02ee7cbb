"""AGIEval's multiple choice tasks (Zhong et al. 2023): the authors' ``agieval/NAME.jsonl`` of data version 1.

Zero-shot prompt of the paper, in English or Chinese; the choices are the whole options with their letters, as in the data
that the harness reads. JEC-QA has questions with several right options: picking any of them is right, as in the harness.
Its few questions without a right option are left out.
"""

from __future__ import annotations

from pathlib import Path

from activations.errors import TwinprobeError
from analyses.benchmarks.local.questions import Part, Question, chosen, files_in, json_rows

CHINESE = ("logiqa-zh", "jec-qa-kd", "jec-qa-ca")
LETTERS = "ABCDEFG"


def read(data: Path) -> list[Part]:
    """A part per file; questions about one passage are one group."""
    return [Part(path.stem, _questions(path)) for path in files_in(data / "agieval", "*.jsonl")]


def _questions(path: Path) -> tuple[Question, ...]:
    found = []
    for number, (where, row) in enumerate(json_rows(path, ("passage", "question", "options", "label"))):
        options, last = row["options"], LETTERS[len(row["options"]) - 1]
        if row["label"] == []:
            continue
        labels = set(row["label"]) - {"。"}  # a full stop among the letters of one row of JEC-QA
        if not labels or not labels <= set(LETTERS[: len(options)]):
            raise TwinprobeError(f"{where}: right options {row['label']!r}; expected letters from A to {last}")
        passage = row["passage"] or ""
        if path.stem in CHINESE:
            text = f"{passage}问题：{row['question']} 选项：{' '.join(options)}\n答案：从A到{last}, 我们应选择 "
        else:
            listed = " ".join(options)
            text = f"{passage}Q: {row['question']} Answer Choices: {listed}\nA: Among A through {last}, the answer is "
        gold = sorted(LETTERS.index(label) for label in labels)
        found.append(chosen(str(number), text, options, gold, passage))
    return tuple(found)
