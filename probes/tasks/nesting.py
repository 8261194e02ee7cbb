"""Nesting: round and square brackets, some still open; how many are, and which closer must come next?

An item is a row of moves (open, close, another word) that both forms spell out: nested calls and lists in code,
parentheticals in prose. Shortcuts that were closed:

- Below the pending bracket the types are drawn such that, from depth 2 on, the open brackets of each type are as many
  whichever type is pending, and closed groups are of random types: a bag of tokens does not give the pending closer.
- Closed groups also follow the pending bracket, so the last bracket opened is not always the pending one.
- The number of brackets opened does not depend on the depth, and shallow texts are filled to about equal length.

The depth itself is the number of openers minus the number of closers in any well-formed text, so a bag of tokens can
count it: read ``depth`` against that baseline.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from probes.tasks.items import Contrast, Form, FormName, Item, Split, Weaver, task
from probes.tasks.pools import CALLEES, PEOPLE, VALUES, balanced, each_split

CLOSERS = {"(": ")", "[": "]"}
LABELS = {")": "round", "]": "square"}
DEPTHS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Phrasing:
    """One template: what is said before the first bracket, when one opens, and for one more word at the same level."""

    id: str
    start: str
    open: str
    word: str


PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            Phrasing("total", "total = {callee}{bracket}{word}", ", {callee}{bracket}{word}", ", {word}"),
            Phrasing("return", "return {callee}{bracket}{word}", ", {callee}{bracket}{word}", ", {word}"),
            Phrasing("sum", "n += {callee}{bracket}{word}", ", {callee}{bracket}{word}", " + {word}"),
        ),
        "dev": (
            Phrasing("yield", "yield {callee}{bracket}{word}", ", {callee}{bracket}{word}", ", {word}"),
            Phrasing("data", "data = {callee}{bracket}{word}", ", {callee}{bracket}{word}", " or {word}"),
        ),
        "test": (
            Phrasing("if", "if {callee}{bracket}{word}", ", {callee}{bracket}{word}", ", {word}"),
            Phrasing("item", "item = {callee}{bracket}{word}", ", {callee}{bracket}{word}", " - {word}"),
        ),
    },
    "prose": {
        "train": (
            Phrasing("near", "The {subject} {bracket}near the {word}", " {bracket}near the {word}", " and the {word}"),
            Phrasing("with", "We met the {subject} {bracket}with the {word}", " {bracket}with the {word}",
                     " or the {word}"),
            Phrasing("behind", "There was the {subject} {bracket}behind the {word}", " {bracket}behind the {word}",
                     ", the {word}"),
        ),
        "dev": (
            Phrasing("by", "She saw the {subject} {bracket}by the {word}", " {bracket}by the {word}",
                     " and the {word}"),
            Phrasing("not", "Look at the {subject} {bracket}not at the {word}", " {bracket}not the {word}",
                     " but the {word}"),
        ),
        "test": (
            Phrasing("like", "He was a {subject} {bracket}like the {word}", " {bracket}like the {word}",
                     ", and the {word}"),
            Phrasing("after", "First came the {subject} {bracket}after the {word}", " {bracket}before the {word}",
                     " then the {word}"),
        ),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Nest:
    """A row of moves: an opening bracket (with a word), a closing one, or ``"w"`` for one more word.

    ``words`` and ``callees`` hold one entry per move (unused where a move has none); ``pending`` is the index of the
    move that opened the innermost open bracket.
    """

    moves: str
    pending: int
    subject: str
    words: tuple[str, ...]
    callees: tuple[str, ...]

    def render(self, phrasing: Phrasing, depth: int) -> Form:
        """Spell the moves out; the contrast opens the pending bracket as the other type."""
        weaver = Weaver()
        last = len(self.moves) - 1
        for i, (move, word, callee) in enumerate(zip(self.moves, self.words, self.callees, strict=True)):
            query = "query" if i == last else None
            if move in CLOSERS:
                weaver.add(
                    phrasing.open if i else phrasing.start,
                    {"bracket": move, "word": word, "callee": callee, "subject": self.subject},
                    {"bracket": "opener" if i == self.pending else None, "word": query},
                )
            elif move == "w":
                weaver.add(phrasing.word, {"word": word}, {"word": query})
            else:
                weaver.add(move, {})
        pending = self.moves[self.pending]
        answer, other = CLOSERS[pending], CLOSERS[_swap(pending)]
        weaver.label_last("closer", LABELS[answer], control=self.words[self.pending])
        weaver.label_last("depth", str(depth), control=self.words[self.pending])
        contrast = Contrast(weaver.edited("opener", _swap(pending)), other)
        return Form(weaver.text, tuple(weaver.spans), answer, tuple(LABELS), contrast)


def _swap(bracket: str) -> str:
    return "[" if bracket == "(" else "("


def _stack(rng: random.Random, pending: str, depth: int) -> list[str]:
    """The open brackets, outermost first, with as many of each type whichever is pending (from depth 2 on)."""
    same = max(1, rng.choice((depth // 2, (depth + 1) // 2)))
    below = [pending] * (same - 1) + [_swap(pending)] * (depth - same)
    rng.shuffle(below)
    return [*below, pending]


def _closed(rng: random.Random, pairs: int) -> str:
    """A balanced row of ``pairs`` bracket pairs of random types, side by side or nested."""
    row = ""
    for _ in range(pairs):
        at = rng.randint(0, len(row))
        row = row[:at] + rng.choice(("()", "[]")) + row[at:]
    return row


def draw(rng: random.Random, split: Split, pending: str, depth: int) -> Nest:
    """Draw moves that leave ``depth`` brackets open, ``pending`` the innermost.

    The word behind the pending bracket is the key of the control task: as far back as the bracket that the labels are
    about, and, as its own token is long past, no easier to read off. It comes from the values that all splits share,
    because a control must be learnable; every other word is the split's own.
    """
    pairs = rng.choice((5, 6)) - depth
    levels = [depth - 1 if rng.random() < 0.5 else rng.randrange(depth) for _ in range(pairs)]
    moves: list[str] = []
    for level, opener in enumerate(_stack(rng, pending, depth)):
        at = len(moves)
        moves += [opener, *_closed(rng, levels.count(level))]
    fillers = (7 - pairs + rng.randint(0, 1)) // 2
    if moves[-1] in LABELS or at == len(moves) - 1:
        moves.append("w")
        fillers -= 1
    for _ in range(fillers):
        spot = rng.randint(1, len(moves))
        moves.insert(spot, "w")
        at += spot <= at
    words = [rng.choice(VALUES if i == at else PEOPLE[split]) for i in range(len(moves))]
    callees = [rng.choice(CALLEES[split]) if rng.random() < 0.5 else "" for _ in moves]
    return Nest("".join(moves), at, rng.choice(PEOPLE[split]), tuple(words), tuple(callees))


@task(
    "nesting",
    "which bracket must close next, and how many are open",
    {"closer": ("code", "prose"), "depth": ("code", "prose")},
)
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced pending brackets and depths."""
    items = []
    for split, size, rng in each_split("nesting", n_items, seed):
        latents = zip(balanced(rng, tuple(CLOSERS), size), balanced(rng, DEPTHS, size), strict=True)
        for i, (pending, depth) in enumerate(latents):
            nest = draw(rng, split, pending, depth)
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {form: nest.render(phrasing, depth) for form, phrasing in chosen.items()}
            group = "/".join([p.id for p in chosen.values()] + sorted({nest.subject, *nest.words} - set(VALUES)))
            items.append(Item(f"nesting-{seed}/{split}/{i:04d}", "nesting", split, group, depth, forms))
    return items
