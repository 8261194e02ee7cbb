"""Labels that the word itself can't tell: every name is drawn with a rival, the same word under another label.

In real text most words have one label (``isinstance`` is called, ``the`` is a determiner), so that a probe that knows
the word knows the answer. Here a word is drawn two at a time, under two labels of the target. Whoever sees the word
alone is then right at most about every other time.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from activations.errors import TwinprobeError
from activations.texts import Span
from probes.tasks.items import Form, FormName, Item
from probes.tasks.pools import balanced, split_sizes
from probes.tasks.windows import Window, split_groups

K = TypeVar("K", bound=Hashable)
Labels = Mapping[str, tuple[str, ...]]
"""The labels of every target. Files are shared out by those of the first, which should be the scarcest."""


def draw_items(
    task: str, form: FormName, windows: Sequence[Window], labels: Labels, size: int, seed: int
) -> list[Item]:
    """Draw ``size`` items of one form, each a text in which a target labels at most one span of each label.

    Equally many texts are chosen for each of the targets, with even labels. What else these texts hold is drawn then,
    even too, until a target has another span per text or has no more. Whole groups go to one split.

    Raises:
        TwinprobeError: too few texts hold words with rivals.
    """
    rng = random.Random(f"{task}-{seed}-{form}")
    lead = next(iter(labels))
    splits = split_groups(windows, lead, labels[lead], rng)
    items = []
    for split, count in split_sizes(size).items():
        drawn = _draw_texts(splits[split], labels, count, rng)
        if len(drawn) < count:
            raise TwinprobeError(
                f"task {task!r}: {count} {form} {split} texts asked for, with even labels that the words themselves do "
                f"not tell, but the files have only {len(drawn)} such; ask for fewer items"
            )
        for i, place in enumerate(rng.sample(sorted(drawn), count)):
            window, spans = splits[split][place], sorted(drawn[place], key=lambda span: (span.start, span.name))
            item_id, group = f"{task}-{seed}/{split}/{form}-{i:04d}", f"{form}/{window.group}"
            items.append(Item(item_id, task, split, group, 0, {form: Form(window.text, tuple(spans))}))
    return items


def _draw_texts(windows: Sequence[Window], labels: Labels, count: int, rng: random.Random) -> dict[int, list[Span]]:
    """``count`` windows, by their places, with the spans drawn from each; fewer where there are not as many."""
    drawn: dict[int, list[Span]] = {}
    leads = Counter(balanced(rng, list(labels), count))
    for target in labels:
        wanted = Counter(balanced(rng, labels[target], leads[target]))
        free = {place: _of(window, target) for place, window in enumerate(windows) if place not in drawn}
        drawn |= {place: [span] for place, span in draw_rivals(free, wanted, rng).items()}
    for target, names in labels.items():
        held = {(place, span.label) for place, spans in drawn.items() for span in spans if span.name == target}
        keys = [(place, label) for place in drawn for label in names if (place, label) not in held]
        rest = {key: [span for span in _of(windows[key[0]], target) if span.label == key[1]] for key in keys}
        more = draw_rivals(rest, dict.fromkeys(names, count // len(names)), rng)
        fewest = min(sum(key[1] == label for key in more) for label in names)
        for label in names:
            for key in [key for key in more if key[1] == label][:fewest]:
                drawn[key[0]].append(more[key])
    return drawn


def _of(window: Window, target: str) -> list[Span]:
    return [span for span in window.spans if span.name == target]


def draw_rivals(spans: Mapping[K, Sequence[Span]], wanted: Mapping[str, int], rng: random.Random) -> dict[K, Span]:
    """Draw spans as rivals, at most one of those under a key (its text, say) and ``wanted`` of each label.

    Labels that run out of rivals come out short.
    """
    free: dict[str, dict[str, list[tuple[K, Span]]]] = {label: defaultdict(list) for label in wanted}
    for key in rng.sample(list(spans), len(spans)):
        for span in spans[key]:
            if span.label in free:
                free[span.label][str(span.control)].append((key, span))
    missing = Counter(wanted)
    drawn: dict[K, Span] = {}
    while missing.total() > 0:
        label = max(missing, key=lambda name: missing[name])
        pair = _pair(
            free, label, [name for name, count in missing.most_common() if count and name != label], drawn, rng
        )
        for key, span in pair:
            drawn[key] = span
            missing[str(span.label)] -= 1
        if not pair:
            missing[label] = 0
    return drawn


def _pair(
    free: Mapping[str, dict[str, list[tuple[K, Span]]]],
    label: str,
    rivals: Sequence[str],
    drawn: Mapping[K, Span],
    rng: random.Random,
) -> list[tuple[K, Span]]:
    """A word under ``label`` and one under the first of the rival labels that has it; failing that, as at the very end,
    a word under ``label`` alone that the texts do hold under another; empty where there is no such word."""
    for rival in rivals:
        words = [word for word in free[label] if word in free[rival]]
        for word in rng.sample(words, len(words)):
            for first in _unused(free[label], word, drawn):
                for second in _unused(free[rival], word, drawn):
                    if first[0] != second[0]:
                        return [first, second]
    words = [word for word in free[label] if any(word in free[other] for other in free if other != label)]
    for word in rng.sample(words, len(words)):
        if left := _unused(free[label], word, drawn):
            return left[:1]
    return []


def _unused(words: dict[str, list[tuple[K, Span]]], word: str, drawn: Mapping[K, Span]) -> list[tuple[K, Span]]:
    """The free spans of a word; those under a key that gave one already are forgotten, and so is a word without any."""
    words[word] = [(key, span) for key, span in words.pop(word, []) if key not in drawn]
    return words[word] or words.pop(word)
