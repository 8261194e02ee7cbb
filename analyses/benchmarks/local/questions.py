"""Questions of a benchmark, and how they are put to a model: description, few-shot examples, question.

As lm-evaluation-harness 0.4 builds its prompts: the description, then examples with their answers, parted by an empty line,
then the question. Examples are the first of those that the authors give for it (MMLU, BBH), or drawn for every question;
where a benchmark's files hold no other split, they are drawn from its other questions.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from activations.errors import TwinprobeError
from activations.texts import numbered_lines, parse_json
from analyses.benchmarks.multiple_choice import Item

FEW_SHOT_SEED = 1234
"""Seed of drawn examples; the harness' own default, though its generator draws other ones."""
WHERE = "give the folder that holds the benchmarks' files"


@dataclass(frozen=True)
class Question:
    """One question before few-shot examples.

    Attributes:
        id: unique within its part.
        text: all that stands before the answer, with the space that parts them.
        answer: what an example shows after ``text`` (what is right, where there are no choices).
        choices: possible answers; none where the model writes its answer.
        gold: numbers of the right choices.
        group: what is asked about the same passage, source or names; errors are clustered by it.
        leads: what stands between ``text`` and each choice and is not scored, where choices differ in what goes before.
    """

    id: str
    text: str
    answer: str
    choices: tuple[str, ...] = ()
    gold: tuple[int, ...] = ()
    group: str = ""
    leads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Part:
    """The questions of one subject.

    ``pool`` holds examples for few-shot prompts (none: the other questions serve), of which the ``first`` are taken or
    some ``drawn`` for every question. ``stops`` end a written answer.
    """

    subject: str
    questions: tuple[Question, ...]
    pool: tuple[Question, ...] = ()
    take: Literal["first", "drawn"] = "drawn"
    description: str = ""
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A text that a model goes on with until one of ``stops`` (which is cut off), to be compared with ``answer``."""

    id: str
    subject: str
    text: str
    answer: str
    stops: tuple[str, ...]


@dataclass(frozen=True)
class Asked:
    """What is put to a model, an item with choices or a prompt, and the cluster it belongs to."""

    what: Item | Prompt
    group: str


def asked(parts: Sequence[Part], shots: int, seed: int = FEW_SHOT_SEED, limit: int | None = None) -> list[Asked]:
    """Every question (the first ``limit`` of each subject) after ``shots`` examples; a pure function of its arguments.

    Raises:
        TwinprobeError: there are fewer examples than shots.
    """
    return [
        _ask(part, question, _examples(part, question, shots, seed))
        for part in parts
        for question in part.questions[:limit]
    ]


def _examples(part: Part, question: Question, shots: int, seed: int) -> Sequence[Question]:
    if not shots:
        return ()
    # A question about the same passage, or a twin of a WinoGrande sentence, would give the answer away.
    pool = part.pool or [
        other
        for other in part.questions
        if other.id != question.id and not (question.group and other.group == question.group)
    ]
    if len(pool) < shots:
        raise TwinprobeError(f"{part.subject} has {len(pool)} few-shot examples, {shots} are asked for; ask for fewer")
    if part.take == "first":
        return pool[:shots]
    # A generator per question, so that a limit does not change what the questions before it are asked after.
    return random.Random(f"{seed}-{part.subject}-{question.id}").sample(pool, shots)


def _ask(part: Part, question: Question, examples: Sequence[Question]) -> Asked:
    shown = "".join(f"{example.text}{example.answer}\n\n" for example in examples)
    text = part.description + shown + question.text
    # A passage is no name; its digest is.
    group = hashlib.sha256(question.group.encode()).hexdigest()[:12] if question.group else question.id
    if question.choices:
        what: Item | Prompt = Item(
            question.id, part.subject, text, question.choices, question.gold, question.leads
        )  # fmt: skip
    else:
        what = Prompt(question.id, part.subject, text.rstrip(), question.answer, part.stops)
    return Asked(what, group)


def chosen(identity: str, text: str, choices: Sequence[str], gold: Sequence[int], group: str = "") -> Question:
    """A question with choices, whose examples show the first right one."""
    return Question(identity, text, choices[gold[0]] if gold else "", tuple(choices), tuple(gold), group)


def json_rows(path: Path, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(place, object)`` of every line of a JSONL file, each with all ``fields``.

    Raises:
        TwinprobeError: the file is missing, a line is no JSON object or lacks a field.
    """
    if not path.is_file():
        raise TwinprobeError(f"{path}: no such file; {WHERE}")
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        row = parse_json(line, where)
        yield where, checked(row, where, fields)


def json_list(path: Path, field: str | None, fields: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """``(place, object)`` of every entry of the list in a JSON file, the file's own or that in ``field``."""
    content = parse_json(text_of(path), str(path))
    rows = content.get(field) if field and isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise TwinprobeError(f"{path}: expected a list{f' in {field!r}' if field else ''}, got {json.dumps(rows)[:80]}")
    for number, row in enumerate(rows):
        where = f"{path}, entry {number}"
        yield where, checked(row, where, fields)


def checked(row: object, where: str, fields: Sequence[str]) -> dict[str, Any]:
    """``row`` as an object that has all ``fields``."""
    if not isinstance(row, dict) or not set(fields) <= set(row):
        raise TwinprobeError(f"{where}: expected an object with {', '.join(fields)}, got {str(row)[:120]!r}")
    return row


def text_of(path: Path) -> str:
    """What a UTF-8 file holds, without a byte order mark."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise TwinprobeError(f"{path}: no such file; {WHERE}") from None
    except UnicodeDecodeError as error:
        raise TwinprobeError(f"{path}: not UTF-8 (byte {error.start})") from None


def files_in(folder: Path, pattern: str) -> list[Path]:
    """The files of a folder that match, by name.

    Raises:
        TwinprobeError: there are none.
    """
    found = sorted(folder.glob(pattern))
    if not found:
        raise TwinprobeError(f"{folder}: no {pattern} in it; {WHERE}")
    return found


Reader = Callable[[Path], list[Part]]
"""Reads the parts of a benchmark from the data folder."""
