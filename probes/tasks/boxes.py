"""Boxes: how many things a box holds in the end, on the user's files (Kim & Schuster 2023, "Entity Tracking").

One JSON object per line, in a file or in a folder with files called (or ending in) train, dev and test::

    {"sample_id": 4, "numops": 1, "context": "Box 0 contains the ice, Box 1 is empty. Move the ice from Box 0 to Box 1.",
     "query": "Box 1", "answer": "contains the ice"}

``context`` describes all boxes in one sentence and then tells operations (``Put the .. into``, ``Remove the .. from``,
``Move the .. from .. to``); ``numops``, the difficulty, counts those that touched the box asked about. The operations are
carried out here, and a line whose ``answer`` does not follow is refused.

The text is the context and the query, so it ends where the answer begins. The target ``count`` is the number of things
in the box, 0 to 3 in the published data. What a box holds would be a class per object, with too few items in each. The
model's own answer is the next word, ``contains`` or ``is`` (empty). The contrast asks about another box of the same
context with the other answer: one digit differs, and no operation has to be made consistent again. The control key is
the query. All items of one ``sample_id`` grow out of one description, so it is the group and what intervals resample.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from activations.texts import Span, numbered_lines, parse_object
from probes.tasks.drawing import Example, draw_items, split_files
from probes.tasks.items import Contrast, Form, Item, Split, Task, source

SUMMARY = "how many things a box holds after some operations, on your files"
FORM = "prose"
ANSWERS = (" contains", " is")
KEYS = ("sample_id", "numops", "context", "query", "answer")
STATE = re.compile(r"(Box \d+) (?:is empty|contains (the .+))")
OPERATION = re.compile(r"(?:Put (the .+) into|Remove (the .+) from|Move (the .+) from (Box \d+) to) (Box \d+)")


@lru_cache(maxsize=64)  # the lines of one context follow each other
def final_boxes(context: str) -> Mapping[str, frozenset[str]]:
    """What every box holds after the context, in the order of its description.

    Raises:
        ValueError: a sentence is none that is known, or takes what is not there; says which.
    """
    description, *operations = re.split(r"\.\s*", context.strip().removesuffix("."))
    boxes: dict[str, frozenset[str]] = {}
    for fact in description.split(", "):
        found = STATE.fullmatch(fact)
        if found is None:
            raise ValueError(f"{fact!r} does not say what a box holds")
        boxes[found[1]] = _things(found[2])
    for operation in operations:
        found = OPERATION.fullmatch(operation)
        if found is None:
            raise ValueError(f"{operation!r} is not an operation that puts, removes or moves things")
        put, removed, moved, giver, box = found.groups()
        things = _things(put or removed or moved)
        for taken_from in filter(None, (giver, removed and box)):
            if not things <= boxes.get(taken_from, frozenset()):
                raise ValueError(f"{operation!r} takes what {taken_from} does not hold")
            boxes[taken_from] -= things
        if not removed:
            if box not in boxes:
                raise ValueError(f"{operation!r} names a box that was not described")
            boxes[box] |= things
    return boxes


def _things(words: str | None) -> frozenset[str]:
    return frozenset(words.removeprefix("the ").split(" and the ")) if words else frozenset()


@source("boxes", SUMMARY, "a .jsonl file, or a folder with train, dev and test .jsonl")
def read(path: Path) -> Task:
    """Read the lines, each checked against its own context.

    Raises:
        TwinprobeError: a file is missing or empty, or a line is not as described; names file and line.
    """
    files = split_files(path, ".jsonl")
    examples = [
        _example(parse_object(line, f"{file}:{number}", KEYS), f"{file}:{number}", file.stem, split)
        for file, split in files
        for number, line in numbered_lines(file)
    ]
    if not examples:
        raise TwinprobeError(f"{path}: no lines found; expected one JSON object per line with {', '.join(KEYS)}")

    def generate(n_items: int, seed: int) -> list[Item]:
        return draw_items("boxes", path, examples, n_items, seed)

    read_from = tuple(file for file, _ in files)
    return Task("boxes", SUMMARY, {"count": (FORM,)}, generate, causal=True, clusters="group", files=read_from)


def _example(raw: dict[str, Any], where: str, stem: str, split: Split | None) -> Example:
    for key, kind in zip(KEYS, (int, int, str, str, str), strict=True):
        if type(raw.get(key)) is not kind:
            expected = "a whole number" if kind is int else "a string"
            raise TwinprobeError(f"{where}: {key!r} must be {expected}, got {raw.get(key)!r}")
    context, query, said = raw["context"], raw["query"], raw["answer"]
    try:
        boxes = final_boxes(context)
    except ValueError as error:
        raise TwinprobeError(f"{where}: {error}") from None
    if query not in boxes:
        raise TwinprobeError(f"{where}: 'query' must be one of {', '.join(boxes)}, got {query!r}")
    if _things(said.removeprefix("contains ") if said != "is empty" else None) != boxes[query]:
        held = " and ".join(f"the {thing}" for thing in sorted(boxes[query])) or "nothing"
        raise TwinprobeError(f"{where}: 'answer' is {said!r}, but by the context {query} holds {held}")
    return Example(
        f"{stem}/{raw['sample_id']}", str(len(boxes[query])), raw["numops"], FORM, _form(context, query, boxes), split
    )


def _form(context: str, query: str, boxes: Mapping[str, frozenset[str]]) -> Form:
    text = f"{context} {query}"
    spans = (
        Span("query", len(text) - len(query), len(text)),
        Span("count", len(text) - 1, len(text), str(len(boxes[query])), query),
    )
    # The first such box after the one asked about, so that no box is asked for more often than others.
    order = [*boxes, *boxes]
    after = order[order.index(query) + 1 :]
    other = next((box for box in after if bool(boxes[box]) != bool(boxes[query])), None)
    answer, opposite = ANSWERS if boxes[query] else ANSWERS[::-1]
    contrast = None if other is None else Contrast(f"{context} {other}", opposite)
    return Form(text, spans, answer, ANSWERS, contrast)
