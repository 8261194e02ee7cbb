"""Texts with labelled character spans: the input of capture, and its JSONL format.

One JSON object per line::

    {"id": "a1", "text": "x = 1", "group": "file.py",
     "spans": [{"name": "role", "start": 0, "end": 1, "label": "identifier", "control": "x"}]}

``id`` and ``text`` are required. ``spans`` are character offsets into ``text`` (``end`` exclusive); ``label`` is what a
probe predicts there; ``control`` is the key of the Hewitt & Liang control task (the span's own text when absent).
``group`` names what must not be split between train and test (a template, a document); it defaults to ``id``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError, did_you_mean
from activations.files import write_whole


@dataclass(frozen=True)
class Span:
    """A named stretch of a text: characters ``start`` to ``end`` (exclusive), with an optional label."""

    name: str
    start: int
    end: int
    label: str | None = None
    control: str | None = None


@dataclass(frozen=True)
class Text:
    """A text with its labelled spans; ``group`` is the unit that splits and bootstraps keep together."""

    id: str
    text: str
    spans: tuple[Span, ...] = ()
    group: str = ""

    def __post_init__(self) -> None:
        if not self.group:
            object.__setattr__(self, "group", self.id)
        for span in self.spans:
            if not 0 <= span.start < span.end <= len(self.text):
                raise TwinprobeError(
                    f"text {self.id!r}: span {span.name!r} covers characters {span.start} to {span.end}, "
                    f"but the text has {len(self.text)}; spans need 0 <= start < end <= length"
                )


def _fail(where: str, problem: str) -> TwinprobeError:
    return TwinprobeError(f"{where}: {problem}")


def _span(where: str, raw: Any) -> Span:
    if not isinstance(raw, dict):
        raise _fail(where, f"a span must be an object with name, start and end, got {raw!r}")
    unknown = set(raw) - {"name", "start", "end", "label", "control"}
    if unknown:
        raise _fail(where, f"unknown span key {sorted(unknown)[0]!r}; known: name, start, end, label, control")
    name, start, end = raw.get("name"), raw.get("start"), raw.get("end")
    if not isinstance(name, str) or not name:
        raise _fail(where, f"a span needs a non-empty string 'name', got {name!r}")
    if type(start) is not int or type(end) is not int:
        raise _fail(where, f"span {name!r} needs whole numbers 'start' and 'end', got {start!r} and {end!r}")
    for key in ("label", "control"):
        if not isinstance(raw.get(key), str | int | float | None):
            raise _fail(where, f"span {name!r}: {key!r} must be a string or a number, got {raw[key]!r}")
    label, control = raw.get("label"), raw.get("control")
    return Span(name, start, end, None if label is None else str(label), None if control is None else str(control))


def parse_json(line: str, where: str) -> Any:
    """The JSON value of one line; ``where`` (``file:line``) opens the error message."""
    try:
        raw = json.loads(line)
        if "\\ud" in line.lower():
            json.dumps(raw, ensure_ascii=False).encode()
        return raw
    except json.JSONDecodeError as error:
        raise _fail(where, f"not valid JSON ({error.msg} at column {error.colno})") from None
    except UnicodeEncodeError:
        raise _fail(where, "not valid Unicode (half of a surrogate pair written as \\ud...)") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets thousands deep
        raise _fail(where, f"not readable JSON ({error})") from None


def parse_object(line: str, where: str, known: Sequence[str]) -> dict[str, Any]:
    """The JSON object of one line, which may have the ``known`` keys only."""
    return as_object(parse_json(line, where), where, known)


def as_object(raw: Any, where: str, known: Sequence[str]) -> dict[str, Any]:
    """A JSON value as an object, which may have the ``known`` keys only."""
    if not isinstance(raw, dict):
        raise _fail(where, f"expected a JSON object with {', '.join(known)}, got {type(raw).__name__}")
    for key in raw:
        if key not in known:
            raise _fail(where, f"unknown key {key!r}{did_you_mean(key, known)}; known: {', '.join(known)}")
    return raw


def parse_text(line: str, where: str) -> Text:
    """Parse one JSONL line; ``where`` (``file:line``) opens every error message."""
    return as_text(parse_json(line, where), where)


def as_text(value: Any, where: str) -> Text:
    """A JSON value as a text."""
    raw = as_object(value, where, ("id", "text", "group", "spans"))
    if not isinstance(raw.get("text"), str) or not raw["text"]:
        raise _fail(where, f"'text' must be a non-empty string, got {raw.get('text')!r}")
    for key, absent in (("id", False), ("group", True)):
        value = raw.get(key)
        if not (isinstance(value, str) or type(value) is int or (absent and value is None)):
            raise _fail(where, f"{key!r} must be a string or a whole number, got {value!r}")
    spans = raw.get("spans", [])
    if not isinstance(spans, list):
        raise _fail(where, f"'spans' must be a list, got {type(spans).__name__}")
    try:
        parsed = tuple(_span(where, span) for span in spans)
        return Text(str(raw["id"]), raw["text"], parsed, "" if raw.get("group") is None else str(raw["group"]))
    except TwinprobeError as error:
        message = str(error)
        raise TwinprobeError(message if message.startswith(where) else f"{where}: {message}") from None


def read_texts(path: str | Path) -> list[Text]:
    """Read a JSONL file of texts.

    Raises:
        TwinprobeError: the file is missing, empty, not UTF-8, has a bad line (named by number) or a repeated id.
    """
    path = Path(path)
    texts: list[Text] = []
    seen: dict[str, int] = {}
    for number, line in numbered_lines(path):
        text = parse_text(line, f"{path}:{number}")
        if text.id in seen:
            raise TwinprobeError(
                f"{path}:{number}: id {text.id!r} was already used on line {seen[text.id]}; ids must be unique"
            )
        seen[text.id] = number
        texts.append(text)
    if not texts:
        raise TwinprobeError(f"{path}: no texts found; expected one JSON object per line with 'id' and 'text'")
    return texts


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield ``(line number, line)`` for every non-blank line of a UTF-8 file."""
    if not path.is_file():
        raise TwinprobeError(f"{path}: no such file; expected a JSONL file")
    with path.open("rb") as handle:
        for number, raw in enumerate(handle, start=1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise TwinprobeError(
                    f"{path}:{number}: not UTF-8 (byte {error.start}); save the file as UTF-8"
                ) from None
            if line.strip():
                yield number, line


def write_texts(path: str | Path, texts: Iterable[Text]) -> None:
    """Write texts in the format that :func:`read_texts` reads."""
    lines = (json.dumps(to_dict(text), ensure_ascii=False, sort_keys=True) + "\n" for text in texts)
    write_whole(Path(path), (line.encode() for line in lines))


def text_set_hash(texts: Iterable[Text]) -> str:
    """SHA-256 over the texts with their spans, in order."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(json.dumps(to_dict(text), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()[:32]


def to_dict(text: Text) -> dict[str, Any]:
    """The JSON form of a text, without absent fields."""
    spans = [{key: value for key, value in asdict(span).items() if value is not None} for span in text.spans]
    return {"id": text.id, "text": text.text, "group": text.group, "spans": spans}


def labels_of(texts: Sequence[Text], name: str) -> list[str]:
    """Every label that spans called ``name`` carry, in order of appearance."""
    return [span.label for text in texts for span in text.spans if span.name == name and span.label is not None]
