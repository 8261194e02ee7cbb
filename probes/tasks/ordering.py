"""Ordering: four people, pairwise facts about who comes before whom, and the rank of one of them is asked for.

The asked person ``x`` has the neighbours ``a`` and ``b``; the fourth person is ``c``. In all facts but one the second of
the pair comes before the first when x is third or last, and after it when x is first or second; the remaining one, x
and a, says which of these two it is, so that turning it round moves x by one place and leaves all else consistent. The
difficulty is the number of facts:

- 3: x and each of the others, so counting is enough;
- 4: x with a, x with b, a with c, b with c: everybody is said twice, a and b have the same place in the pattern, and
  only a second hop, to c, tells the second rank from the third;
- 5: the same and a with b, which is true and not needed.

Each fact is said in either direction at random ("before", "after"), so neither the counts of words nor the place of a
name tell its rank. The sets of facts at 3 and 4 may leave the order of the others open; the rank of x never is.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from probes.tasks.items import Contrast, Form, FormName, Item, Split, Weaver, task
from probes.tasks.pools import PEOPLE, VALUES, each_split
from probes.tasks.statements import LEAD

RANKS = ("first", "second", "third", "last")
PAIRS = {3: ("xa", "xb", "xc"), 4: ("xa", "xb", "ac", "bc"), 5: ("xa", "xb", "ac", "bc", "ab")}


@dataclass(frozen=True)
class Phrasing:
    """One template: what is said first, one fact, what joins facts, the question, and the two words for the relation.

    The head may name the ``{topic}`` and the people in random order (``{p}``, ``{q}``, ``{r}``, ``{s}``).
    """

    id: str
    head: str
    fact: str
    joint: str
    query: str
    before: str
    after: str


_WORDS = '["first", "second", "third", "last"]'
_TOOLS = "from itertools import permutations\n"
_SORTER = "from graphlib import TopologicalSorter\nline = TopologicalSorter()\n"
_SCALE = "first > second > third > last"

PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            Phrasing("for", "# about the {topic}\n" + _TOOLS + "for {p}, {q}, {r}, {s} in permutations(range(4)):\n    if ",
                     "{a} {rel} {b}", " and ", f': break\nassert {_WORDS}[{{x}}] == "', "<", ">"),
            Phrasing("all", '"""The {topic}."""\n' + _TOOLS + f"rank = {_WORDS}\n"
                     "for {p}, {q}, {r}, {s} in permutations(range(4)):\n    if all([",
                     "{a} {rel} {b}", ", ", ']): break\nassert rank[{x}] == "', "<", ">"),
            Phrasing("continue", "# The {topic}\n" + _TOOLS + "for {p}, {q}, {r}, {s} in permutations(range(4)):\n",
                     "    if not {a} {rel} {b}: continue\n", "", f'    break\nassert {_WORDS}[{{x}}] == "', "<", ">"),
            Phrasing("sorter", "# {topic}\n" + _SORTER + "up, down = lambda a, b: line.add(b, a), line.add\n",
                     '{rel}("{a}", "{b}")\n', "",
                     f'rank = dict(zip(line.static_order(), {_WORDS}))\nassert rank["{{x}}"] == "', "up", "down"),
        ),
        "dev": (
            Phrasing("def", "# see the {topic}\n" + _TOOLS + "def fits({p}, {q}, {r}, {s}): return ",
                     "{a} {rel} {b}", " and ",
                     "\n{p}, {q}, {r}, {s} = next(n for n in permutations(range(4)) if fits(*n))\n"
                     f'assert {_WORDS}[{{x}}] == "', "<", ">"),
            Phrasing("index", "# for the {topic}\n" + _TOOLS + 'for line in permutations(["{p}", "{q}", "{r}", "{s}"]):\n'
                     "    at = line.index\n    if ", 'at("{a}") {rel} at("{b}")', " and ",
                     f': break\nassert dict(zip(line, {_WORDS}))["{{x}}"] == "', "<", ">"),
        ),
        "test": (
            Phrasing("lambda", "# this {topic}\n" + _TOOLS + "fits = lambda {p}, {q}, {r}, {s}: ",
                     "({a} {rel} {b})", " & ",
                     "\n[{p}, {q}, {r}, {s}], *more = [n for n in permutations(range(4)) if fits(*n)]\n"
                     f'assert {_WORDS}[{{x}}] == "', "<", ">"),
            Phrasing("rows", "# any {topic}\n" + _SORTER + "for a, is_, b in [", '("{a}", "{rel}", "{b}")', ", ",
                     ']:\n    line.add(*(b, a) if is_ == "up" else (a, b))\n'
                     f'rank = dict(zip(line.static_order(), {_WORDS}))\nassert rank["{{x}}"] == "', "up", "down"),
        ),
    },
    "prose": {
        "train": (
            Phrasing("above", "Four people see the {topic}. ", "The {a} lives {rel} the {b}. ", "",
                     "So from the top down, the {x} is", "above", "below"),
            Phrasing("more", "Four people know the {topic}. ", "The {a} has {rel} than the {b}. ", "",
                     "From most to least, the {x} is", "more", "less"),
            Phrasing("nearer", "Four people look for the {topic}. ", "The {a} is {rel} than the {b}. ", "",
                     "Thus by distance, the {x} comes", "nearer", "farther"),
            Phrasing("warmer", "Four people talk about the {topic}. ", "The {a} feels {rel} than the {b}. ", "",
                     "From the warmest person on, the {x} is", "warmer", "colder"),
        ),
        "dev": (
            Phrasing("famous", "There are four people by the {topic}. ", "The {a} is {rel} famous than the {b}. ", "",
                     "Going by fame, the {x} comes", "more", "less"),
            Phrasing("came", "We met four people with the {topic}. ", "The {a} came {rel} the {b}. ", "",
                     "So of the four, the {x} came", "before", "after"),
        ),
        "test": (
            Phrasing("over", "All four people had the {topic}. ", "The {a} stands {rel} the {b}. ", "",
                     "This means that in their row, from the top on, the {x} stands", "over", "under"),
            Phrasing("greater", "These four people left the {topic}. ", "The {a} is {rel} in rank than the {b}. ", "",
                     "Hence in rank the {x} comes", "greater", "lesser"),
        ),
    },
    "formal": {
        "train": (
            Phrasing("comma", f"[{{topic}}] {_SCALE}\n", "{a} {rel} {b}", ", ", "\n{x} :", ">", "<"),
            Phrasing("and", f"{{topic}}: {_SCALE}; ", "({a} {rel} {b})", " & ", " |- {x} =", ">", "<"),
            Phrasing("prefix", f"{{topic}} / {_SCALE} / ", "{rel} {a} {b}", " / ", " / {x} ->", ">", "<"),
            Phrasing("line", f"{{topic}}\n{_SCALE}\n", "{a} {rel} {b}\n", "", "{x} =", ">", "<"),
        ),
        "dev": (
            Phrasing("square", f"( {{topic}} ) {_SCALE} ", "[{a} {rel} {b}]", " ", " => {x} :", ">", "<"),
            Phrasing("bar", f"| {{topic}} | {_SCALE} | ", "{a} {rel} {b}", " | ", " | {x} |", ">", "<"),
        ),
        "test": (
            Phrasing("semicolon", f"<{{topic}}> {_SCALE}. ", "{a} {rel} {b}", "; ", ". {x} ?", ">", "<"),
            Phrasing("plus", f"+ {{topic}} + {_SCALE} ", "+ ({a}) {rel} ({b}) ", "", "+ ({x}) =", ">", "<"),
        ),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Order:
    """Facts ``(one, whether one comes before two, two)`` in the order in which they are said.

    ``turned`` is the index of the fact that the contrast turns round; ``people`` is everybody in random order.
    """

    facts: tuple[tuple[str, bool, str], ...]
    turned: int
    people: tuple[str, ...]
    asked: str
    rank: int
    topic: str

    def render(self, form: FormName, phrasing: Phrasing) -> Form:
        """Say the facts and ask for the rank; the contrast turns one fact round by replacing its word for the relation.

        The control key is the topic, said once, before the facts: an arbitrary function of a word of the context.
        """
        weaver = Weaver()
        words = dict(zip("pqrs", self.people, strict=True)) | {"topic": self.topic, "x": self.asked}
        relation = {True: phrasing.before, False: phrasing.after}
        weaver.add(phrasing.head, words, {"topic": "topic"})
        for i, (one, before, two) in enumerate(self.facts):
            if i:
                weaver.add(phrasing.joint, {})
            role = "definition" if i == self.turned else "distractor"
            weaver.add(phrasing.fact, {"a": one, "rel": relation[before], "b": two}, {"rel": role})
        weaver.add(phrasing.query, words, {"x": "query"})
        weaver.label_last("rank", RANKS[self.rank], control=self.topic)
        lead = LEAD[form]
        return Form(
            text=weaver.text,
            spans=tuple(weaver.spans),
            answer=lead + RANKS[self.rank],
            candidates=tuple(lead + rank for rank in RANKS),
            contrast=Contrast(
                weaver.edited("definition", relation[not self.facts[self.turned][1]]), lead + RANKS[self.rank ^ 1]
            ),
        )


def draw(rng: random.Random, split: Split, rank: int, n_facts: int) -> Order:
    """Draw ``n_facts`` facts that put the asked person at ``rank`` (0 to 3)."""
    people = rng.sample(PEOPLE[split], 4)
    names = dict(zip("xabc", people, strict=True))
    pairs = rng.sample(PAIRS[n_facts], n_facts)
    facts = []
    for pair in pairs:
        one, two = (names[letter] for letter in pair)
        before = rank % 2 == 0 if pair == "xa" else rank < 2
        facts.append((one, before, two) if rng.random() < 0.5 else (two, not before, one))
    return Order(
        tuple(facts), pairs.index("xa"), tuple(rng.sample(people, 4)), names["x"], rank, rng.choice(VALUES)
    )  # fmt: skip


@task("ordering", "the rank that follows from pairwise facts", {"rank": ("code", "prose", "formal")})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced ranks and numbers of facts.

    Raises:
        TwinprobeError: fewer items than the splits need.
    """
    items = []
    for split, size, rng in each_split("ordering", n_items, seed):
        # Counted modulo the numbers of ranks and of levels, which share no factor: balanced each and crossed.
        start, levels = rng.randrange(len(RANKS) * len(PAIRS)), tuple(PAIRS)
        for i, k in enumerate(rng.sample(range(start, start + size), size)):
            n_facts = levels[k % len(levels)]
            order = draw(rng, split, k % len(RANKS), n_facts)
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {form: order.render(form, phrasing) for form, phrasing in chosen.items()}
            group = "/".join([p.id for p in chosen.values()] + sorted(order.people))
            items.append(Item(f"ordering-{seed}/{split}/{i:04d}", "ordering", split, group, n_facts, forms))
    return items
