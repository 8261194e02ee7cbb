"""Syntax of sentences, from the user's treebank: ``treebank:FILE``.

A file ending in ``.conllu`` holds dependencies and has the targets ``relation`` (of a word to its head, without
subtypes), ``head`` (on which side of the word, and how many words away) and ``depth`` (steps to the root). Any other
file holds Penn bracketed trees and has ``constituent`` (the phrase that the word is directly in) and ``depth``
(phrases around it). Heads may stand to the right, and phrases go on: a left-to-right model has to guess there.

Most words have always the same label; each is therefore drawn with a rival, the same word under another label
(:mod:`probes.tasks.rivals`), punctuation never. A target has its :data:`MOST_LABELS` labels with the most rivals, those
of fewer than :data:`COMMON` left out. The control key is the word in lower case. Documents (CoNLL-U's ``newdoc``) go to
one split as a whole, and so does a sentence.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from activations.errors import TwinprobeError
from activations.texts import Span
from probes.brackets import read_brackets
from probes.conllu import read_conllu
from probes.tasks.items import Item, Task, source
from probes.tasks.pools import check_size
from probes.tasks.rivals import Labels, draw_items
from probes.tasks.windows import Window, distinct
from probes.treebanks import Sentence

FORM = "prose"
MOST_LABELS = 8
COMMON = 20
FARTHEST = 3


@source("treebank", "syntax of sentences in your treebank", "a .conllu file, or one of Penn bracketed trees")
def read(path: Path) -> Task:
    """Read the sentences of a treebank.

    Raises:
        TwinprobeError: a line is not as described (file and line are named), or no target has two common labels.
    """
    if not path.is_file():
        raise TwinprobeError(f"{path}: not a file; expected a .conllu file, or one of Penn bracketed trees")
    dependencies = path.suffix == ".conllu"
    sentences = read_conllu(path) if dependencies else read_brackets(path)
    spans_of = dependency_spans if dependencies else constituent_spans
    windows = distinct(Window(one.group, one.text, tuple(spans_of(one))) for one in sentences)
    labels = _common_labels(windows)
    if not labels:
        raise TwinprobeError(
            f"{path}: {len(sentences)} sentences, in which no target has two labels with {COMMON} words each that also "
            "have another label; add sentences"
        )

    def generate(n_items: int, seed: int) -> list[Item]:
        check_size("treebank", n_items)
        return draw_items("treebank", FORM, windows, labels, n_items, seed)

    return Task(
        "treebank", f"syntax of the sentences in {path}", {target: (FORM,) for target in labels}, generate,
        causal=False, clusters="group", files=(path,),
    )  # fmt: skip


def dependency_spans(sentence: Sentence) -> Iterator[Span]:
    """The labelled words of a sentence from CoNLL-U."""
    for (start, end), tag, node, depth in _words(sentence):
        if tag != "PUNCT":
            key = sentence.text[start:end].lower()
            yield Span("relation", start, end, sentence.labels[node].split(":")[0], key)
            yield Span("depth", start, end, str(depth), key)
            if sentence.parents[node] >= 0:
                steps = int(sentence.parents[node]) - node
                far = f"{min(abs(steps), FARTHEST)}{'+' if abs(steps) >= FARTHEST else ''}"
                yield Span("head", start, end, f"{'left' if steps < 0 else 'right'} {far}", key)


def constituent_spans(sentence: Sentence) -> Iterator[Span]:
    """The labelled words of a sentence from Penn brackets."""
    for (start, end), tag, node, depth in _words(sentence):
        if tag[0].isalpha():
            key = sentence.text[start:end].lower()
            yield Span("constituent", start, end, sentence.labels[sentence.parents[node]], key)
            yield Span("depth", start, end, str(depth), key)


def _words(sentence: Sentence) -> Iterator[tuple[tuple[int, int], str, int, int]]:
    """Span, part of speech, node and depth of every word."""
    depths = sentence.depths().astype(int).tolist()
    yield from zip(sentence.spans, sentence.tags, sentence.words.tolist(), depths, strict=True)


def _common_labels(windows: Sequence[Window]) -> Labels:
    """The labels of every target with the most words that also have another label."""
    counts: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for window in windows:
        for span in window.spans:
            counts[span.name][str(span.control)][str(span.label)] += 1
    common = {}
    for target, words in counts.items():
        rivals: Counter[str] = Counter()
        for held in words.values():
            rivals.update({label: min(count, held.total() - count) for label, count in held.items()})
        kept = [label for label, count in rivals.most_common(MOST_LABELS) if count >= COMMON]
        if len(kept) > 1:
            common[target] = tuple(sorted(kept))
    return common
