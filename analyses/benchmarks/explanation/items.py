"""Snippets of code with the explanations that people gave, and the explanations of a system to be scored against them.

References are CoNaLa's own JSON (Yin et al. 2018, "Learning to Mine Aligned Code and Natural Language Pairs from Stack
Overflow": intent, rewritten_intent, snippet, question_id) or JSON lines with id, references, and optionally source and group.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from activations.errors import TwinprobeError
from activations.texts import numbered_lines, parse_json, parse_object

KEYS = ("id", "references", "source", "group")


@dataclass(frozen=True)
class Explained:
    """A snippet (``source``) and its reference explanations; ``group`` is what is not independent, such as one question."""

    id: str
    source: str
    references: tuple[str, ...]
    group: str


def read_references(path: str | Path) -> list[Explained]:
    """The items of a file in its order.

    CoNaLa's rows get the id ``QUESTION-N``, ``N`` counting the rows of the question from 0; its references are the rewritten
    intent, where there is one, and the intent.

    Raises:
        TwinprobeError: the file is missing, has neither layout, is empty, or repeats an id.
    """
    path = Path(path)
    if not path.is_file():
        raise TwinprobeError(f"{path}: no such file; expected CoNaLa's .json, or a .jsonl with id and references")
    items = _lines(path) if path.suffix == ".jsonl" else _conala(path)
    if not items:
        raise TwinprobeError(f"{path}: no items in it; expected at least one snippet with references")
    twice = next((name for name, count in Counter(item.id for item in items).items() if count > 1), None)
    if twice is not None:
        raise TwinprobeError(f"{path}: id {twice!r} occurs more than once; ids must be unique")
    return items


def read_hypotheses(path: str | Path, items: Sequence[Explained]) -> list[str]:
    """What a system said about every item, in the order of the items: JSON lines with id and text (which may be empty).

    Raises:
        TwinprobeError: the file is missing or has a bad line, a repeated or unknown id, or lacks an item.
    """
    path = Path(path)
    wanted = {item.id for item in items}
    found: dict[str, str] = {}
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        raw = parse_object(line, where, ("id", "text"))
        name = _identifier(raw.get("id"), where)
        if not isinstance(raw.get("text"), str):
            raise TwinprobeError(f"{where}: 'text' must be a string, got {raw.get('text')!r}")
        if name not in wanted:
            raise TwinprobeError(f"{where}: the references have no item {name!r}; ids must be those of the references")
        if name in found:
            raise TwinprobeError(f"{where}: id {name!r} was already used; ids must be unique")
        found[name] = raw["text"]
    missing = [item.id for item in items if item.id not in found]
    if missing:
        raise TwinprobeError(
            f"{path} lacks {len(missing)} of {len(items)} items ({missing[0]!r}); give every item a line, with an empty text "
            "where the system said nothing"
        )
    return [found[item.id] for item in items]


def _identifier(value: Any, where: str) -> str:
    if not isinstance(value, str) and type(value) is not int:
        raise TwinprobeError(f"{where}: 'id' must be a string or a whole number, got {value!r}")
    return str(value)


def _lines(path: Path) -> list[Explained]:
    items = []
    for number, line in numbered_lines(path):
        where = f"{path}:{number}"
        raw = parse_object(line, where, KEYS)
        name = _identifier(raw.get("id"), where)
        references = raw.get("references")
        if not isinstance(references, list) or not references or not all(map(_filled, references)):
            raise TwinprobeError(f"{where}: 'references' must be a list of one or more texts, got {references!r}")
        if not isinstance(raw.get("source", ""), str):
            raise TwinprobeError(f"{where}: 'source' must be a string, got {raw['source']!r}")
        items.append(Explained(name, raw.get("source", ""), tuple(references), str(raw.get("group", name))))
    return items


def _conala(path: Path) -> list[Explained]:
    try:
        rows = parse_json(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise TwinprobeError(f"{path}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    if not isinstance(rows, list):
        raise TwinprobeError(f"{path}: expected a JSON list, as CoNaLa's files are, got {type(rows).__name__}")
    items = []
    seen: Counter[str] = Counter()
    for number, row in enumerate(rows):
        kept = row if isinstance(row, dict) else {}
        intent, rewritten, snippet = (kept.get(key) for key in ("intent", "rewritten_intent", "snippet"))
        if not _filled(intent) or not (rewritten is None or _filled(rewritten)) or not isinstance(snippet, str):
            raise TwinprobeError(
                f"{path}: row {number} needs texts 'intent', 'snippet' and 'rewritten_intent' (or null), and a 'question_id'"
            )
        group = _identifier(kept.get("question_id"), f"{path}: row {number}: question_id")
        references = tuple(dict.fromkeys(text for text in (rewritten, intent) if text))
        items.append(Explained(f"{group}-{seen[group]}", snippet, references, group))
        seen[group] += 1
    return items


def _filled(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
