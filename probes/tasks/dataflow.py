"""Dataflow: which definition of a name a use reads, in real Python (the def-use relations of GraphCodeBERT, Guo et al. 2021).

The texts are cut from the held-out standard library: neighbouring functions that fit together, or whole statements of one
long function, dedented; each is labelled for itself, read as it stands. ``reaches`` relates a definition (``first``) and
a use (``second``) of the same name: "yes" where some path from the one to the other meets no further definition of it.
A "no" is a definition that is assigned anew on the way, stands in another branch, behind the use or in another function.

A "yes" is mostly the last definition before the use, which could be told without following any path. So every "yes" is
drawn with a "no" of the same :class:`~probes.tasks.dataflow_texts.Cell`: order, distance, kind of definition, and whether
another definition of the name stands between the two. Relations for which the sources have no such partner are left out:
most of those from a parameter. ``self`` and ``cls`` are left out too.

``source`` is labelled on one use per text: what kind of definition it reads, where all that reach it are of one kind.
Imports and ``with`` are too rare (34 and 6 texts) to be labels of their own. Where a text has no ``for`` or no ``def``
before the use, that tells; compare with the bag of tokens. The control key of both targets is the name; about a third of
the names in test occur in train. The difficulty is the number of definitions of the name before the use, the largest of
the text's relations.
"""

from __future__ import annotations

import ast
import random
import textwrap
from collections import Counter, defaultdict
from collections.abc import Sequence
from functools import cache

from activations.errors import TwinprobeError
from activations.texts import Span
from probes.tasks.dataflow_texts import SOURCES, Candidate, Cell, Passage, passage, runs
from probes.tasks.identifiers import held_out_sources
from probes.tasks.items import Form, Item, task
from probes.tasks.pools import balanced, check_size, split_sizes
from probes.tasks.windows import split_groups

MAX_OF_A_LABEL = 4  # relations of one label in one text


@cache
def _passages() -> dict[str, Passage]:
    """Every text that has both a relation and a source, once, as its own key: boilerplate stands in many files."""
    found: dict[str, Passage] = {}
    for path, source in held_out_sources():
        lines = source.split("\n")
        for first, last in runs(ast.parse(source).body, lines):
            cut = passage(path, textwrap.dedent("\n".join(lines[first - 1 : last])))
            if cut is not None and cut.spans and cut.candidates:
                found.setdefault(cut.text, cut)
    return found


def _pick_texts(passages: Sequence[Passage], size: int, where: str, rng: random.Random) -> list[tuple[Passage, Span]]:
    """Choose ``size`` texts, each with the span of a source, evenly; first those with the rarer relation of some cell.

    Raises:
        TwinprobeError: the texts do not suffice.
    """
    wanted = balanced(rng, SOURCES, size)
    order = rng.sample(passages, len(passages))
    counts = Counter((each.cell, each.relation.label) for text in passages for each in text.candidates)
    rarer = {key for key, count in counts.items() if count <= counts[key[0], "yes" if key[1] == "no" else "no"]}
    order.sort(key=lambda text: not any((each.cell, each.relation.label) in rarer for each in text.candidates))
    picked: dict[str, tuple[Passage, Span]] = {}
    for source in reversed(SOURCES):  # the scarce first, while they are free
        free = [text for text in order if text.text not in picked and source in {span.label for span in text.spans}]
        if len(free) < wanted.count(source):
            raise TwinprobeError(
                f"task 'dataflow': {size} {where} texts asked for, {wanted.count(source)} of them with a use that reads "
                f"a {source}, but this Python's own sources have only {len(free)} such; ask for fewer items"
            )
        for text in free[: wanted.count(source)]:
            picked[text.text] = text, rng.choice([span for span in text.spans if span.label == source])
    return rng.sample(list(picked.values()), size)


def _match(texts: Sequence[Passage], rng: random.Random) -> dict[str, list[Candidate]]:
    """The relations to label in every text: in each cell as many of "yes" as of "no", of one text a few at most."""
    offers: dict[Cell, dict[str, list[tuple[str, Candidate]]]] = defaultdict(lambda: {"yes": [], "no": []})
    for text in texts:
        for candidate in text.candidates:
            offers[candidate.cell][candidate.relation.label].append((text.text, candidate))
    found: dict[str, list[Candidate]] = {text.text: [] for text in texts}
    taken: Counter[tuple[str, str]] = Counter()
    for cell in sorted(offers, key=lambda cell: min(map(len, offers[cell].values()))):
        sides = {label: rng.sample(offered, len(offered)) for label, offered in offers[cell].items()}
        while True:
            for label, offered in sides.items():
                sides[label] = [(owner, each) for owner, each in offered if taken[owner, label] < MAX_OF_A_LABEL]
            if not all(sides.values()):
                break
            for label, offered in sides.items():
                owner, candidate = offered.pop()
                found[owner].append(candidate)
                taken[owner, label] += 1
    return found


@task(
    "dataflow",
    "which definition of a name a use reads, in real Python",
    {"reaches": ("code",), "source": ("code",)},
    causal=False,
    clusters="group",
    relations=("reaches",),
)
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw ``n_items`` texts; whole files go to one split; relations and sources are even in every split.

    Raises:
        TwinprobeError: this Python carries too few texts.
    """
    check_size("dataflow", n_items)
    rng = random.Random(f"dataflow-{seed}")
    home = split_groups(tuple(_passages().values()), "source", SOURCES, rng)
    items = []
    for split, size in split_sizes(n_items).items():
        picked = _pick_texts([_passages()[window.text] for window in home[split]], size, split, rng)
        matched = _match([text for text, _ in picked], rng)
        for i, (text, labelled) in enumerate(picked):
            relations = [candidate.relation for candidate in matched[text.text]]
            ends = {Span("reaches", *end) for relation in relations for end in (relation.first, relation.second)}
            spans = tuple(sorted((labelled, *ends), key=lambda span: (span.start, span.name)))
            form = Form(text.text, spans, relations=tuple(relations))
            difficulty = max((candidate.difficulty for candidate in matched[text.text]), default=0)
            item_id = f"dataflow-{seed}/{split}/{i:04d}"
            items.append(Item(item_id, "dataflow", split, text.group, difficulty, {"code": form}))
    return items
