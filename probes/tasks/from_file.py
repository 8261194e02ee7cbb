"""Items from the user's own JSONL file: a task of a study (``items:FILE``), or contrast items to patch.

Every line is one item (:mod:`probes.tasks.item_lines`). The labelled spans and the relations are the task's targets. The
file is what it is: nothing is balanced, and when fewer items are there than are asked for, all of them are used. Where no
line names a split, whole groups are shared out, anew for every seed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from activations.errors import TwinprobeError
from activations.texts import numbered_lines
from probes.rows import SPLITS
from probes.splits import split_groups
from probes.tasks.item_lines import SHORT, Line, parse_item
from probes.tasks.items import Form, FormName, Item, Split, Task, source


def read_items(path: str | Path) -> list[Item]:
    """Read items to be patched; where the file names no splits, all lie in the test split.

    Raises:
        TwinprobeError: the file is missing or empty, has a bad line (file and line are named), or no item has a contrast.
    """
    items = [line.item for line in _read_lines(Path(path))]
    if not _causal(items):
        raise TwinprobeError(f"{path}: no item has an 'answer' and a 'contrast', so there is nothing to patch")
    return items


@source("items", "your own texts, spans and labels", "a JSONL file of items, one per line (docs/FORMATS.md)")
def read(path: Path) -> Task:
    """Make a task of a file; its intervals resample groups.

    Raises:
        TwinprobeError: the file is missing or empty, has a bad line (file and line are named), or labels nothing.
    """
    lines = _read_lines(path)
    relations = _relation_targets(lines)
    items = [line.item for line in lines]
    targets: dict[str, tuple[FormName, ...]] = {}
    for item in items:
        for name, form in item.forms.items():
            for target, *_ in _labels(form):
                targets[target] = tuple(dict.fromkeys((*targets.get(target, ()), name)))
    if not targets:
        raise TwinprobeError(f"{path}: no span and no relation has a label, so there is nothing to probe")

    def generate(n_items: int, seed: int) -> list[Item]:
        """At most ``n_items`` items of the file, a seeded choice in which every split keeps its share."""
        drawn = _choose(items if lines[0].has_split else _split(items, seed, path), n_items, seed)
        for target, forms in targets.items():
            for name in forms:
                _check_target(drawn, target, name, f"{path}: {target!r} in form {name!r}")
        return drawn

    return Task("items", f"items of {path.name}", targets, generate, _causal(items), "group", relations, (path,))


def _read_lines(path: Path) -> list[Line]:
    """All lines; ids are unique, and either all lines name a split or none does."""
    lines: dict[str, Line] = {}
    groups: dict[str, Line] = {}
    for number, text in numbered_lines(path):
        line = parse_item(text, f"{path}:{number}", "items")
        item, first = line.item, next(iter(lines.values()), line)
        if item.id in lines:
            raise _clash(line, f"id {item.id!r} was already used; ids must be unique", lines[item.id])
        if line.has_split != first.has_split:
            raise _clash(line, "'split' must be on every line or on none", first)
        owner = groups.setdefault(item.group, line)
        if owner.item.split != item.split:
            said = f"group {item.group!r} is in {item.split} here and in {owner.item.split} before"
            raise _clash(line, f"{said}; a group never lies in two splits", owner)
        lines[item.id] = line
    if not lines:
        expected = f"id and forms, or id, {', '.join(SHORT)}"
        raise TwinprobeError(f"{path}: no items found; expected one JSON object per line with {expected}")
    return list(lines.values())


def _clash(line: Line, problem: str, other: Line) -> TwinprobeError:
    return TwinprobeError(f"{line.where}: {problem} (see line {other.where.rpartition(':')[2]})")


def _relation_targets(lines: Sequence[Line]) -> tuple[str, ...]:
    """The targets that are relations; raises :class:`TwinprobeError` when spans of that name carry labels as well."""
    related: dict[str, Line] = {}
    labelled: dict[str, Line] = {}
    for line in lines:
        for form in line.item.forms.values():
            for relation in form.relations:
                related.setdefault(relation.target, line)
            for span in form.spans:
                if span.label is not None:
                    labelled.setdefault(span.name, line)
    if both := [name for name in related if name in labelled]:
        name = both[0]
        raise _clash(related[name], f"{name!r} names a relation here and a labelled span", labelled[name])
    return tuple(related)


def _causal(items: Sequence[Item]) -> bool:
    return any(form.contrast is not None for item in items for form in item.forms.values())


def _labels(form: Form) -> list[tuple[str, str, str]]:
    """Target, label and control key of everything in a form that is labelled."""
    spans = [(s.name, s.label, s.control or form.text[s.start : s.end]) for s in form.spans if s.label is not None]
    return spans + [(relation.target, relation.label, relation.control) for relation in form.relations]


def _split(items: Sequence[Item], seed: int, path: Path) -> list[Item]:
    """The items with whole groups shared out to the splits."""
    try:
        splits = split_groups([item.group for item in items], seed)
    except TwinprobeError as error:
        raise TwinprobeError(f"{path}: {error}") from None
    return [replace(item, split=cast(Split, split)) for item, split in zip(items, splits, strict=True)]


def _choose(items: Sequence[Item], n_items: int, seed: int) -> list[Item]:
    """``n_items`` items, or all where there are fewer, in the file's order; every split keeps its share."""
    rng = random.Random(f"items-{seed}")
    ranks: dict[str, float] = {}
    for split in SPLITS:
        members = [item.id for item in items if item.split == split]
        ranks |= {name: (i + 0.5) / len(members) for i, name in enumerate(rng.sample(members, len(members)))}
    chosen = set(sorted(ranks, key=ranks.__getitem__)[:n_items])
    return [item for item in items if item.id in chosen]


def _check_target(items: Sequence[Item], target: str, name: FormName, where: str) -> None:
    """Raise unless a probe and its control can be trained and tested on one target in one form."""
    rows = [
        (item.split, label, control)
        for item in items
        if name in item.forms
        for found, label, control in _labels(item.forms[name])
        if found == target
    ]
    for split in SPLITS:
        if not any(home == split for home, *_ in rows):
            raise TwinprobeError(f"{where} has no label in the {split} split; add items or ask for more of them")
    for at, what in ((1, "label"), (2, "control key")):
        if len(kinds := {row[at] for row in rows if row[0] == "train"}) < 2:
            raise TwinprobeError(
                f"{where} has one {what} in the train split ({next(iter(kinds))!r}); a probe needs two or more"
            )
