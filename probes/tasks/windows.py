"""Windows: short runs of whole statements cut from real source files, and how whole files are shared out to splits."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from activations.texts import Span
from probes.tasks.items import Split
from probes.tasks.pools import SHARES
from probes.tasks.python_tokens import Mark

MAX_CHARACTERS = 320
MAX_STATEMENTS = 8


@dataclass(frozen=True)
class Window:
    """A short stretch of one group (a file, a documentation topic) with everything in it that can be labelled."""

    group: str
    text: str
    spans: tuple[Span, ...]


def cut_windows(
    group: str, source: str, statements: Iterable[tuple[int, int]], marks: Iterable[Mark]
) -> Iterator[Window]:
    """Cut a source into runs of whole statements, dedented, of at most :data:`MAX_CHARACTERS` characters.

    ``statements`` are their first and last rows, from 1; ``(0, 0)`` stands for one that no window may hold.
    """
    lines = source.split("\n")
    rows: dict[int, list[Mark]] = defaultdict(list)
    for mark in marks:
        rows[mark.row].append(mark)

    def cut(first: int, last: int) -> Window:
        indent = min(len(line) - len(line.lstrip()) for line in lines[first - 1 : last] if line.strip())
        text, spans = "", []
        for row in range(first, last + 1):
            for mark in rows[row]:
                start = len(text) + mark.column - indent
                spans.append(Span(mark.target, start, start + len(mark.text), mark.label, mark.text))
            text += lines[row - 1][indent:] + ("\n" if row < last else "")
        return Window(group, text, tuple(spans))

    start, end, count = 0, 0, 0
    for first, last in [*statements, (0, 0)]:
        size = sum(len(line) + 1 for line in lines[start - 1 : last]) if start else 0
        if start and (not first or count == MAX_STATEMENTS or size > MAX_CHARACTERS):
            if count > 1:
                yield cut(start, end)
            start, count = 0, 0
        if first and sum(len(line) + 1 for line in lines[first - 1 : last]) <= MAX_CHARACTERS:
            start, end, count = start or first, last, count + 1


def distinct(windows: Iterable[Window]) -> tuple[Window, ...]:
    """The windows that hold anything to label, each text once: boilerplate stands in many files."""
    return tuple({window.text: window for window in windows if window.spans}.values())


def holders(windows: Sequence[Window], target: str, labels: Sequence[str]) -> dict[str, list[Window]]:
    """The windows that hold each of the labels of a target."""
    found = [{span.label for span in window.spans if span.name == target} for window in windows]
    return {label: [w for w, held in zip(windows, found, strict=True) if label in held] for label in labels}


def split_groups(
    windows: Sequence[Window], target: str, labels: Sequence[str], rng: random.Random
) -> dict[Split, list[Window]]:
    """Assign whole groups to splits so that the target's scarcest label is shared out as SHARES asks, then the rest."""
    scarce = {id(window) for window in min(holders(windows, target, labels).values(), key=len)}
    groups: dict[str, list[Window]] = defaultdict(list)
    for window in rng.sample(windows, len(windows)):
        groups[window.group].append(window)
    weights = {group: (sum(id(w) in scarce for w in members), len(members)) for group, members in groups.items()}
    split: dict[Split, list[Window]] = {name: [] for name in SHARES}
    filled = {name: [0, 0] for name in SHARES}
    totals = (len(scarce), len(windows))
    for group in sorted(groups, key=lambda name: weights[name], reverse=True):
        measure = 0 if weights[group][0] else 1
        name = max(SHARES, key=lambda name: SHARES[name] * totals[measure] - filled[name][measure])
        split[name] += groups[group]
        filled[name] = [had + got for had, got in zip(filled[name], weights[group], strict=True)]
    return split
