"""Logic: does a claim follow from a text, on the user's files (the JSON of Logic-LM, Pan et al. 2023).

A JSON list of objects with ``context``, ``question``, ``options`` and ``answer``, in a file, or in the folders of a
folder (``ProofWriter/dev.json`` ..). A file's folder names its data set, and each data set is a form of the target
``truth``: the items of two forms are different texts, but their labels mean the same, so that a probe of one can be
tried on the other. Two kinds of questions are read:

- "Is the following statement true or false? <claim>" (ProofWriter, PrOntoQA, FOLIO): the label is ``true``, ``false`` or
  ``unknown``, which FOLIO calls uncertain. The difficulty is the number of steps where an ``explanation`` of alternating
  facts and rules is given (PrOntoQA), and otherwise 0: these files do not tell it.
- "Which of the following is true?" (LogicalDeduction): the answer is a claim that is ``true``, and one of the other
  options, at random but always the same, a claim that is ``false``. The difficulty is the number of options, which is
  that of the objects to be put in order.

Other questions (AR-LSAT's: what could be, must be, cannot be) make no claim that is true or false, and are left out.

The text is the context and ``Claim: <claim> This is``; the target lies on the last token. All claims about one context
are a group. The files' own splits are not used: not all data sets have three, and some share contexts between them.
Labels come out even. The control key is the claim's last word; in FOLIO few of these come twice, so that its control can
hardly be learnt and its selectivity says little. There is no contrast.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from activations.texts import parse_json
from probes.tasks.drawing import Example, draw_items
from probes.tasks.items import Form, FormName, Item, Task, Weaver, source

SUMMARY = "whether a claim follows from a text, on your files; a form for each data set"
KEYS = ("context", "question", "options", "answer")
LABELS = {"true": "true", "false": "false", "unknown": "unknown", "uncertain": "unknown"}
STATEMENT = re.compile(r".*\bis the following statement true\b[^?]*\? (.+)", re.IGNORECASE | re.DOTALL)
CHOICE = "Which of the following is true?"


@source("logic", SUMMARY, "a .json file of Logic-LM's, or a folder of such folders as ProofWriter")
def read(path: Path) -> Task:
    """Read the claims of every JSON file.

    Raises:
        TwinprobeError: a file is not such JSON, or an entry is not as described, or there is no claim; names file and entry.
    """
    files = tuple(sorted(path.rglob("*.json"))) if path.is_dir() else (path,)
    examples = [example for file in files for example in _examples(file)]
    if not examples:
        raise TwinprobeError(f"{path}: no claim that is true or false found; expected .json files of Logic-LM's kind")
    names = tuple(sorted({example.name for example in examples}))

    def generate(n_items: int, seed: int) -> list[Item]:
        return draw_items("logic", path, examples, n_items, seed)

    return Task("logic", SUMMARY, {"truth": names}, generate, causal=False, clusters="group", files=files)


def _examples(file: Path) -> Iterator[Example]:
    try:
        entries = parse_json(file.read_text(encoding="utf-8"), str(file))
    except UnicodeDecodeError as error:
        raise TwinprobeError(f"{file}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    if not isinstance(entries, list):
        raise TwinprobeError(
            f"{file}: expected a JSON list of objects with {', '.join(KEYS)}, got {type(entries).__name__}"
        )
    name = file.absolute().parent.name.lower()
    for number, entry in enumerate(entries, start=1):
        where = f"{file}: entry {number}"
        options, answer = _options(entry, where)
        context, question = entry["context"], entry["question"]
        claim = STATEMENT.fullmatch(question)
        if claim:
            if answer.lower() not in LABELS:
                raise TwinprobeError(f"{where}: the answer must be one of {', '.join(LABELS)}, got {answer!r}")
            yield _example(name, context, claim[1], LABELS[answer.lower()], _steps(entry, where))
        elif question == CHOICE:
            wrong = [option for option in options if option != answer]
            # Not all of them: a claim about many objects would then be false more often than one about few.
            for label, option in (("true", answer), ("false", random.Random(f"{context} {wrong}").choice(wrong))):
                yield _example(name, context, option, label, len(options))


def _options(entry: Any, where: str) -> tuple[list[str], str]:
    """The options without their letters, and which of them is the answer."""
    if not isinstance(entry, dict):
        raise TwinprobeError(f"{where}: expected an object with {', '.join(KEYS)}, got {type(entry).__name__}")
    for key in ("context", "question", "answer"):
        if not isinstance(entry.get(key), str) or not entry[key].strip():
            raise TwinprobeError(f"{where}: {key!r} must be a non-empty string, got {entry.get(key)!r}")
    options = entry.get("options")
    if not isinstance(options, list) or len(options) < 2:
        raise TwinprobeError(f"{where}: 'options' must be a list of two strings or more, got {options!r}")
    lettered = [re.fullmatch(r"([A-Z])\) (.+)", str(option), re.DOTALL) for option in options]
    by_letter = {found[1]: found[2] for found in lettered if found is not None}
    if len(by_letter) < len(options):
        raise TwinprobeError(
            f"{where}: 'options' must be strings such as 'A) True', each with its letter, got {options!r}"
        )
    if entry["answer"] not in by_letter:
        raise TwinprobeError(f"{where}: 'answer' must be one of {', '.join(by_letter)}, got {entry['answer']!r}")
    return list(by_letter.values()), by_letter[entry["answer"]]


def _steps(entry: dict[str, Any], where: str) -> int:
    """How often a rule is applied: an explanation is the first fact, and then a rule and its conclusion each time."""
    explanation = entry.get("explanation", [])
    if not isinstance(explanation, list):
        raise TwinprobeError(f"{where}: 'explanation' must be a list of sentences, got {explanation!r}")
    return len(explanation) // 2


def _example(name: FormName, context: str, claim: str, label: str, difficulty: int) -> Example:
    weaver = Weaver()
    weaver.add("{context} Claim: {claim} This is", {"context": context.strip(), "claim": claim}, {"claim": "query"})
    weaver.label_last("truth", label, control=re.findall(r"[\w-]+", claim)[-1])
    group = f"{name}/{hashlib.sha256(context.encode()).hexdigest()[:16]}"
    return Example(group, label, difficulty, name, Form(weaver.text, tuple(weaver.spans)))
