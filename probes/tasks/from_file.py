"""Your own contrast items, from a JSONL file, for patching.

One JSON object per line::

    {"id": "1", "clean": "The key is in the box. The key is in the", "answer": " box",
     "corrupted": "The key is in the bag. The key is in the", "contrast": " bag",
     "candidates": [" jar"], "spans": [{"name": "definition", "start": 18, "end": 21}], "difficulty": 1}

Each text ends where its answer begins; the two must have the same number of tokens. ``candidates`` (further alternatives
that a right answer must beat), ``spans`` (roles of tokens, in the clean text) and ``difficulty`` are optional.
"""

from __future__ import annotations

import json
from pathlib import Path

from activations.errors import TwinprobeError
from activations.texts import numbered_lines, parse_object, parse_text
from probes.tasks.items import Contrast, Form, Item

REQUIRED = ("id", "clean", "corrupted", "answer", "contrast")
KEYS = (*REQUIRED, "candidates", "spans", "difficulty")
FORM = "text"


def read_items(path: str | Path) -> list[Item]:
    """Read contrast items; each has the one form ``text`` and lies in the test split.

    Raises:
        TwinprobeError: the file is missing or empty, or a line is not an item; the message names file and line.
    """
    items: dict[str, Item] = {}
    for number, line in numbered_lines(Path(path)):
        where = f"{path}:{number}"
        item = _item(line, where)
        if item.id in items:
            raise TwinprobeError(f"{where}: id {item.id!r} was already used; ids must be unique")
        items[item.id] = item
    if not items:
        raise TwinprobeError(f"{path}: no items found; expected one JSON object per line with {', '.join(REQUIRED)}")
    return list(items.values())


def _item(line: str, where: str) -> Item:
    raw = parse_object(line, where, KEYS)
    for key in REQUIRED[1:]:
        if not isinstance(raw.get(key), str) or not raw[key]:
            raise TwinprobeError(f"{where}: {key!r} must be a non-empty string, got {raw.get(key)!r}")
    candidates = raw.get("candidates", [])
    if not isinstance(candidates, list) or not all(isinstance(entry, str) and entry for entry in candidates):
        raise TwinprobeError(f"{where}: 'candidates' must be a list of non-empty strings, got {candidates!r}")
    difficulty = raw.get("difficulty", 0)
    if type(difficulty) is not int:
        raise TwinprobeError(f"{where}: 'difficulty' must be a whole number, got {difficulty!r}")
    # The text's own reader checks id and spans, and words its errors.
    text = parse_text(json.dumps({"id": raw.get("id"), "text": raw["clean"], "spans": raw.get("spans", [])}), where)
    form = Form(
        text=text.text,
        spans=text.spans,
        answer=raw["answer"],
        candidates=tuple(dict.fromkeys([raw["answer"], raw["contrast"], *candidates])),
        contrast=Contrast(raw["corrupted"], raw["contrast"]),
    )
    return Item(text.id, "file", "test", text.id, difficulty, {FORM: form})
