"""ScienceQA (Lu et al. 2022), text of questions that go with an image, from ``scienceqa_image_subset/test*.json``.

LLaVA's form: a conversation of a question, with options ``(A) ...``, and the answer. The image is left out, so many of the
questions can not be answered; no task of the harness corresponds to it.
"""

from __future__ import annotations

import re
from pathlib import Path

from activations.errors import TwinprobeError
from analyses.benchmarks.local.questions import Part, chosen, files_in, json_list

ASKED = re.compile(r"(?s)(.*)\nQuestion: (.*?)\n\n((?:\([A-Z]\) [^\n]*\n)+)\nSelect the correct answer")


def read(data: Path) -> list[Part]:
    """The test questions; those with one text before the question are one group."""
    questions = []
    for path in files_in(data / "scienceqa_image_subset", "test*.json"):
        for where, row in json_list(path, None, ("id", "conversations")):
            said = [turn.get("value", "") for turn in row["conversations"]]
            found = ASKED.match(said[0].removeprefix("<image>").lstrip("\n")) or ASKED.match("\n" + said[0])
            answer = re.match(r"The answer is \(([A-Z])\)", said[-1])
            options = re.findall(r"(?m)^\(([A-Z])\) (.*)$", found[3]) if found else []
            letters = [letter for letter, _ in options]
            if not found or not answer or answer[1] not in letters:
                raise TwinprobeError(f"{where}: expected a question with options (A), (B) … and the answer's letter")
            listed = "\n".join(f"{letter}. {text}" for letter, text in options)
            about = found[1].removeprefix("<image>").strip()
            text = f"{about}\nQuestion: {found[2]}\n{listed}\nAnswer: ".lstrip("\n")
            questions.append(chosen(str(row["id"]), text, letters, [letters.index(answer[1])], about))
    return [Part("scienceqa_image_subset", tuple(questions))]
