"""LogiQA (Liu et al. 2020) from the authors' ``logiqa/Test.txt``, with examples from ``logiqa/Eval.txt``.

Blocks of eight lines: empty, letter of the right answer, context, question, four answers that begin with ``A.`` to ``D.``.
"""

from __future__ import annotations

from pathlib import Path

from activations.errors import TwinprobeError
from analyses.benchmarks.local.questions import Part, Question, chosen, text_of

LETTERS = "abcd"


def read(data: Path) -> list[Part]:
    """The English test questions; those about one context are one group."""
    folder = data / "logiqa"
    return [Part("logiqa", _questions(folder / "Test.txt"), _questions(folder / "Eval.txt"))]


def _questions(path: Path) -> tuple[Question, ...]:
    lines = [line for line in text_of(path).split("\n") if line.strip()]
    if len(lines) % 7:
        raise TwinprobeError(f"{path}: {len(lines)} lines that are not empty; expected seven for every question")
    found = []
    for start in range(0, len(lines), 7):
        letter, context, question, *answers = lines[start : start + 7]
        if letter.strip() not in LETTERS:
            raise TwinprobeError(f"{path}, question {start // 7 + 1}: right answer {letter!r}; expected a, b, c or d")
        choices = [_spaced(answer[2:]) for answer in answers]
        listed = "".join(f"{name.upper()}. {choice}\n" for name, choice in zip(LETTERS, choices, strict=True))
        text = f"Passage: {_spaced(context)}\nQuestion: {_spaced(question)}\nChoices:\n{listed}Answer: "
        found.append(chosen(str(start // 7), text, choices, [LETTERS.index(letter.strip())], context))
    return tuple(found)


def _spaced(text: str) -> str:
    """With the space after full stops that the translation lacks."""
    return text.replace(".", ". ").strip()
