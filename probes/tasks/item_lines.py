"""One item of a user's JSONL file: what a line may say, and one line of error for everything else.

A line holds an item in all its forms::

    {"id": "7", "difficulty": 1, "group": "template3", "split": "train", "forms": {"code": {
        "text": "ann = 'key'\\nbob = ann\\nassert bob == '", "answer": "key", "candidates": ["log"],
        "contrast": {"text": "ann = 'map'\\nbob = ann\\nassert bob == '", "answer": "map"},
        "spans": [{"name": "value", "start": 36, "end": 37, "label": "key", "control": "bob"},
                  {"name": "definition", "start": 7, "end": 10}],
        "relations": [{"target": "reads", "first": [18, 21], "second": [0, 3], "label": "yes", "control": "ann"}]}}}

or, in short, a clean and a corrupted text, which make the one form ``text``::

    {"id": "1", "clean": "The key is in the box. The key is in the", "answer": " box",
     "corrupted": "The key is in the bag. The key is in the", "contrast": " bag",
     "candidates": [" jar"], "spans": [{"name": "definition", "start": 18, "end": 21}], "difficulty": 1}

Required are ``id`` and ``forms`` with a ``text`` in each, or else ``id``, ``clean``, ``answer``, ``corrupted`` and
``contrast``. docs/FORMATS.md says what every key means.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from activations.errors import TwinprobeError
from activations.texts import as_object, as_text, parse_object
from probes.rows import SPLITS
from probes.tasks.items import Contrast, Form, FormName, Item, Relation

SHORT = ("clean", "corrupted", "answer", "contrast")
SHORT_FORM = "text"
ABOUT = ("id", "difficulty", "group", "split")
FORM_KEYS = ("text", "spans", "answer", "contrast", "candidates", "relations")
RELATION_KEYS = ("target", "first", "second", "label", "control")
MAX_DIFFICULTY = 999_999_999


@dataclass(frozen=True)
class Line:
    """The item of a line, where the line stands (``file:line``), and whether it names a split (``test`` if not)."""

    where: str
    item: Item
    has_split: bool


def parse_item(line: str, where: str, task: str) -> Line:
    """Read one line as an item of ``task``; ``where`` opens every error message.

    Raises:
        TwinprobeError: the line is not an item.
    """
    raw = parse_object(line, where, (*ABOUT, "forms", *SHORT, "candidates", "spans"))
    head = as_text({"id": raw.get("id"), "group": raw.get("group"), "text": "-"}, where)
    difficulty, split = raw.get("difficulty", 0), raw.get("split")
    if type(difficulty) is not int or not 0 <= difficulty <= MAX_DIFFICULTY:
        raise TwinprobeError(f"{where}: 'difficulty' must be a whole number from 0 on, got {difficulty!r}")
    if split is not None and split not in SPLITS:
        raise TwinprobeError(f"{where}: 'split' must be one of {', '.join(SPLITS)}, got {split!r}")
    forms = {
        name: _form(form, head.id, where if "forms" not in raw else f"{where}: form {name!r}")
        for name, form in _raw_forms(raw, where).items()
    }
    return Line(where, Item(head.id, task, split or "test", head.group, difficulty, forms), split is not None)


def _raw_forms(raw: dict[str, Any], where: str) -> dict[FormName, Any]:
    """The forms of a line by name, the short way put the long way."""
    if "forms" not in raw:
        if not set(SHORT) & set(raw):
            raise TwinprobeError(f"{where}: an item needs 'forms', or else {', '.join(SHORT)}")
        _check_strings(raw, SHORT, where)
        rest = {key: raw[key] for key in ("answer", "candidates", "spans") if key in raw}
        contrast = {"text": raw["corrupted"], "answer": raw["contrast"]}
        return {SHORT_FORM: {"text": raw["clean"], "contrast": contrast, **rest}}
    forms = raw["forms"]
    if astray := [key for key in raw if key not in (*ABOUT, "forms")]:
        raise TwinprobeError(f"{where}: {astray[0]!r} stands beside 'forms'; put it into one of the forms")
    if not isinstance(forms, dict) or not forms:
        raise TwinprobeError(f"{where}: 'forms' must be an object of forms by name, got {forms!r}")
    for name in forms:  # names of files and of rows are made of it
        if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
            raise TwinprobeError(f"{where}: a form is named with letters, digits, '-' and '_', got {name!r}")
    return forms


def _form(raw: Any, item: str, where: str) -> Form:
    raw = as_object(raw, where, FORM_KEYS)
    spans, relations = (raw.get(key, []) for key in ("spans", "relations"))
    for key, value in (("spans", spans), ("relations", relations)):
        if not isinstance(value, list):
            raise TwinprobeError(f"{where}: {key!r} must be a list, got {type(value).__name__}")
    checked = [_checked_relation(relation, where) for relation in relations]
    # The text's own reader checks spans and words its errors, of the places that relations join as well.
    ends = [{"name": r["target"], "start": r[key][0], "end": r[key][1]} for r in checked for key in ("first", "second")]
    text = as_text({"id": item, "text": raw.get("text"), "spans": [*spans, *ends]}, where)
    related = tuple(_relation(relation, text.text) for relation in checked)
    labelled = [(span.name, span.start, span.end) for span in text.spans if span.label is not None]
    for place, count in Counter([*labelled, *((r.target, r.first, r.second) for r in related)]).items():
        if count > 1:
            raise TwinprobeError(f"{where}: {place[0]!r} at {place[1]} to {place[2]} is labelled twice")
    answer, contrast = raw.get("answer"), raw.get("contrast")
    if contrast is not None:
        contrast = as_object(contrast, f"{where}: contrast", ("text", "answer"))
        _check_strings(contrast, ("text", "answer"), f"{where}: contrast")
        _check_strings(raw, ("answer",), where)
        return Form(
            text.text,
            tuple(dict.fromkeys(text.spans)),
            answer,
            tuple(dict.fromkeys([answer, contrast["answer"], *_candidates(raw, where)])),
            Contrast(contrast["text"], contrast["answer"]),
            related,
        )
    if alone := [key for key in ("answer", "candidates") if raw.get(key) is not None]:
        raise TwinprobeError(f"{where}: {alone[0]!r} needs a 'contrast', an edited text with another answer")
    return Form(text.text, tuple(dict.fromkeys(text.spans)), relations=related)


def _candidates(raw: dict[str, Any], where: str) -> Sequence[str]:
    candidates = raw.get("candidates", [])
    if not isinstance(candidates, list) or not all(isinstance(entry, str) and entry for entry in candidates):
        raise TwinprobeError(f"{where}: 'candidates' must be a list of non-empty strings, got {candidates!r}")
    return candidates


def _checked_relation(raw: Any, where: str) -> dict[str, Any]:
    """A relation as it was read, all but its places checked."""
    raw = as_object(raw, f"{where}: relation", RELATION_KEYS)
    _check_strings(raw, ("target",), f"{where}: relation")
    where = f"{where}: relation {raw['target']!r}"
    for key in ("first", "second"):
        if not isinstance(raw.get(key), list) or len(raw[key]) != 2:
            raise TwinprobeError(f"{where}: {key!r} must be two whole numbers, [start, end], got {raw.get(key)!r}")
    for key, kinds in (("label", str | int | float), ("control", str | int | float | None)):
        if not isinstance(raw.get(key), kinds):
            raise TwinprobeError(f"{where}: {key!r} must be a string or a number, got {raw.get(key)!r}")
    return raw


def _relation(raw: dict[str, Any], text: str) -> Relation:
    """The relation; without a control key, that is the words which it joins."""
    first, second = ((raw[key][0], raw[key][1]) for key in ("first", "second"))
    words = " ".join(text[start:end] for start, end in (first, second))
    control = raw.get("control")
    return Relation(raw["target"], first, second, str(raw["label"]), words if control is None else str(control))


def _check_strings(raw: dict[str, Any], keys: Sequence[str], where: str) -> None:
    for key in keys:
        if not isinstance(raw.get(key), str) or not raw[key]:
            raise TwinprobeError(f"{where}: {key!r} must be a non-empty string, got {raw.get(key)!r}")
