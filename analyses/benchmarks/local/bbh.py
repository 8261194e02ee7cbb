"""BIG-bench Hard (Suzgun et al. 2023): the authors' ``bbh/bbh/TASK.json`` and ``bbh/cot-prompts/TASK.txt``.

Answers without reasoning, after up to three examples: the questions of the authors' chain-of-thought prompts with their last
words. Options are scored as choices (their letters, or all targets of a task that has two); other answers are written by the
model and must equal the target. BBH carries a canary: it must not get into any training text.
"""

from __future__ import annotations

import re
from pathlib import Path

from activations.errors import TwinprobeError
from analyses.benchmarks.local.questions import Part, Question, chosen, files_in, json_list, text_of

STOPS = ("</s>", "Q", "\n\n")
"""The harness' ends of a written answer."""


def read(data: Path) -> list[Part]:
    """A part per task."""
    folder = data / "bbh"
    return [_part(path, folder / "cot-prompts" / f"{path.stem}.txt") for path in files_in(folder / "bbh", "*.json")]


def _part(path: Path, prompts: Path) -> Part:
    rows = [row for _, row in json_list(path, "examples", ("input", "target"))]
    targets = {row["target"] for row in rows}
    letters = {target for target in targets if re.fullmatch(r"\([A-Z]\)", target)}
    # For a question whose own options are missing in the file: all that is ever right in its task, if these are few.
    usual = tuple(sorted(letters or (targets if len(targets) == 2 else ())))
    questions = [_question(str(number), row["input"], row["target"], usual) for number, row in enumerate(rows)]
    description, *examples = re.split(r"\n\nQ: ", text_of(prompts).split("-----\n", 1)[-1].rstrip())
    pool = []
    for number, example in enumerate(examples):
        asked, _, reasoning = example.partition("\nA: ")
        answer = re.findall(r"(?i)so the answer is (.*?)\.?$", reasoning)
        if not answer:
            raise TwinprobeError(f"{prompts}, example {number + 1}: no 'So the answer is' at its end")
        pool.append(Question(f"example-{number}", f"Q: {asked}\nA: ", answer[-1]))
    return Part(path.stem, tuple(questions), tuple(pool), "first", f"{description}\n\n", STOPS)


def _question(identity: str, asked: str, target: str, usual: tuple[str, ...]) -> Question:
    text = f"Q: {asked}\nA: "
    own = [f"({letter})" for letter in re.findall(r"(?m)^\(([A-Z])\)", asked.partition("Options:")[2])]
    choices = own if len(own) > 1 else usual
    if target in choices:
        return chosen(identity, text, choices, [choices.index(target)])
    return Question(identity, text, target)
