"""Arithmetic: two names each start with a number to which others are added and from which they are taken away.

One of them is asked for. The difficulty is the number of its steps. Shortcuts that were closed:

- Both names take equally many steps, said in random order, and end on different values: the numbers and signs of a text
  are those of two sums, and nothing but the names says which number belongs to which.
- Every value on the way is drawn anew from 0 to 9 and the steps are the differences: where a name starts, or how large
  its last step is, tells little of where it ends.
- All numbers have one digit, so that every text of a template and a number of steps has the same length.

``value`` is asked at the last character; ``running`` lies at the end of every step, of either name, and is the value
that this name has then. (After the state tracking of Li, Nye & Andreas 2021, with numbers for states.)
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from activations.texts import Span
from probes.tasks.crossing import crossed
from probes.tasks.items import Contrast, Form, FormName, Item, Split, Weaver, task
from probes.tasks.pools import PEOPLE, each_split

VALUES = tuple(range(10))
STEPS = (1, 2, 3, 4)

#: Names of the formal form.
LETTERS: dict[Split, str] = {"train": "abcdefghijkl", "dev": "mnpqrs", "test": "tuvwxyz"}


@dataclass(frozen=True)
class Phrasing:
    """One template: how a ``start``, a number added (``plus``) or taken away (``minus``) and the question are put.

    ``{name}`` and ``{number}`` are filled in. The question ends right where the answer begins, on a sign and not on a
    space: many tokenizers never join a digit to what stands before it, and then all answers would begin alike.
    """

    id: str
    start: str
    plus: str
    minus: str
    query: str
    head: str = ""


PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            Phrasing("assign", "{name} = {number}\n", "{name} += {number}\n", "{name} -= {number}\n",
                     'assert str({name}) == "'),
            Phrasing("line", "{name} = {number}; ", "{name} = {name} + {number}; ", "{name} = {name} - {number}; ",
                     'assert "%d" % {name} == "'),
            Phrasing("index", 'at["{name}"] = {number}\n', 'at["{name}"] += {number}\n', 'at["{name}"] -= {number}\n',
                     'assert str(at["{name}"]) == "', "at = {{}}\n"),
            Phrasing("list", "{name} = [{number}]\n", "{name}.append({number})\n", "{name}.append(-{number})\n",
                     'assert str(sum({name})) == "'),
        ),
        "dev": (
            Phrasing("attribute", "at.{name} = {number}\n", "at.{name} += {number}\n", "at.{name} -= {number}\n",
                     'assert str(at.{name}) == "', "class at: pass\n"),
            Phrasing("walrus", "({name} := {number})\n", "({name} := {name} + {number})\n",
                     "({name} := {name} - {number})\n", 'assert repr({name}) == "'),
        ),
        "test": (
            Phrasing("typed", "{name}: int = {number}\n", "{name} = {number} + {name}\n", "{name} = -{number} + {name}\n",
                     'assert str({name}) == "'),
            Phrasing("dict", "own = dict({name}={number}, **own)\n", 'own["{name}"] += {number}\n',
                     'own["{name}"] -= {number}\n', 'assert "%s" % own["{name}"] == "', "own = dict()\n"),
        ),
    },
    "prose": {
        "train": (
            Phrasing("hand", "The {name} starts with {number} in hand. ", "The {name} wins {number} more. ",
                     "The {name} loses {number} again. ", 'The {name} counts again and says "'),
            Phrasing("stairs", "The {name} stands on step {number}. ", "The {name} goes up by {number}. ",
                     "The {name} goes down by {number}. ", 'On the step of the {name} one can read "'),
            Phrasing("box", "The box of the {name} holds {number} of them. ", "They put {number} in for the {name}. ",
                     "They take {number} out for the {name}. ", 'The box of the {name} is now marked "'),
            Phrasing("money", "The {name} has {number} to spend. ", "The {name} earns another {number}. ",
                     "The {name} pays out {number}. ", 'What is left to the {name} is "'),
        ),
        "dev": (
            Phrasing("page", "The {name} is on page {number}. ", "The {name} reads on for {number}. ",
                     "The {name} turns back by {number}. ", 'At the head of his page the {name} finds "'),
            Phrasing("debt", "The {name} owes us {number}. ", "The {name} borrows {number} from us. ",
                     "The {name} returns {number} to us. ", 'In our book the {name} now stands at "'),
        ),
        "test": (
            Phrasing("row", "The {name} sits in row {number}. ", "The {name} moves {number} behind. ",
                     "The {name} moves {number} ahead. ", 'Now the row of the {name} bears the sign "'),
            Phrasing("guests", "The {name} feeds {number} at home. ", "For the {name} there come {number} more. ",
                     "For the {name} there are {number} less. ", 'Asked how many there are, the {name} answers "'),
        ),
    },
    "formal": {
        "train": (
            Phrasing("equal", "{name} = {number}; ", "{name} + {number}; ", "{name} - {number}; ", "{name} ="),
            Phrasing("colon", "{name}: {number}, ", "{name}: + {number}, ", "{name}: - {number}, ", "{name}: ="),
            Phrasing("bar", "| {name} {number} ", "| {name} + {number} ", "| {name} - {number} ", "| {name} ="),
            Phrasing("arrow", "{name} <- {number}\n", "{name} <- {name} + {number}\n", "{name} <- {name} - {number}\n",
                     "{name} ->"),
        ),
        "dev": (
            Phrasing("prefix", "= {name} {number}\n", "+ {name} {number}\n", "- {name} {number}\n", "? {name} :"),
            Phrasing("round", "({name}, {number}) ", "({name}, + {number}) ", "({name}, - {number}) ", "({name},"),
        ),
        "test": (
            Phrasing("becomes", "{name} := {number} ; ", "{name} := {name} + {number} ; ",
                     "{name} := {name} - {number} ; ", "{name} :="),
            Phrasing("square", "[{name}] {number} ", "[{name}] + {number} ", "[{name}] - {number} ", "[{name}] ="),
        ),
    },
}  # fmt: skip

Chain = tuple[int, ...]


@dataclass(frozen=True)
class Sums:
    """The values of the name asked for (0) and of its rival (1), each from its start on.

    ``order`` says whose fact comes next; ``edited`` is the index of the fact of the name asked for that the contrast
    changes, ``other`` the number that it then has.
    """

    chains: tuple[Chain, Chain]
    order: tuple[int, ...]
    edited: int
    other: int

    def render(self, phrasing: Phrasing, names: Sequence[str]) -> Form:
        """Say the facts in order and ask for the first of ``names``; the control key is the number said first."""
        weaver = Weaver()
        weaver.add(phrasing.head, {})
        said = [0, 0]
        control = str(self.chains[self.order[0]][0])
        for who in self.order:
            at, said[who] = said[who], said[who] + 1
            number = numbers(self.chains[who])[at]
            weaver.add(
                phrasing.start if at == 0 else phrasing.plus if number > 0 else phrasing.minus,
                {"name": names[who], "number": str(abs(number))},
                {"number": self.role(who, at)},
            )
            if at:
                end = len(weaver.text.rstrip())
                weaver.spans.append(Span("running", end - 1, end, str(self.chains[who][at]), control))
        weaver.add(phrasing.query, {"name": names[0]}, {"name": "query"})
        value = self.chains[0][-1]
        weaver.label_last("value", str(value), control)
        contrast = Contrast(weaver.edited("definition", str(self.other)), str(changed(self, value)))
        return Form(weaver.text, tuple(weaver.spans), str(value), tuple(map(str, VALUES)), contrast)

    def role(self, who: int, at: int) -> str:
        """The role of a number: ``definition`` for the one that the contrast changes."""
        if who == 1:
            return "distractor"
        return "definition" if at == self.edited else "operand"


def numbers(chain: Sequence[int]) -> list[int]:
    """The numbers that are said of a chain: its start, then the steps with their signs."""
    return [chain[0], *(after - before for before, after in itertools.pairwise(chain))]


def changed(sums: Sums, value: int) -> int:
    """What ``value`` (of the name asked for, at the edited fact or later) is in the contrast."""
    number = numbers(sums.chains[0])[sums.edited]
    return value + (sums.other - number if number >= 0 else -sums.other - number)


def edits(chain: Chain) -> dict[int, list[int]]:
    """For each fact of a chain the other numbers it could have with all values still in :data:`VALUES`."""
    found: dict[int, list[int]] = {}
    for at, number in enumerate(numbers(chain)):
        sign = -1 if number < 0 else 1
        shifts = {other: sign * other - number for other in VALUES if other != abs(number) and (other or not at)}
        fitting = [n for n, shift in shifts.items() if all(value + shift in VALUES for value in chain[at:])]
        if fitting:
            found[at] = fitting
    return found


def draw_chains(rng: random.Random, latents: Sequence[tuple[int, int]]) -> list[tuple[Chain, Chain]]:
    """Two chains for every ``(value, steps)``: the first ends in that value, the second in another one.

    Starts aside, every value of 0 to 9 occurs equally often over all chains (counts differ by at most one), and no value
    follows itself.
    """
    counts = Counter({value: 0 for value in VALUES})
    counts.update(value for value, _ in latents)
    free = []
    for _ in range(sum(2 * steps - 1 for _, steps in latents)):
        fewest = min(counts.values())
        free.append(rng.choice([value for value in VALUES if counts[value] == fewest]))
        counts[free[-1]] += 1
    rng.shuffle(free)
    # One row per chain, without its start; the chains of item i are rows 2 i and 2 i + 1.
    rows, spots = [], []
    for value, steps in latents:
        rows += [[*(free.pop() for _ in range(steps - 1)), value], [free.pop() for _ in range(steps)]]
        spots += [(len(rows) - 2, at) for at in range(steps - 1)] + [(len(rows) - 1, at) for at in range(steps)]
    # What clashes is exchanged for a value elsewhere, which keeps the counts, until nothing does.
    while clashing := [(row, at) for row, at in spots if _clashes(rows, row, at)]:
        for row, at in clashing:
            there, spot = rng.choice(spots)
            rows[row][at], rows[there][spot] = rows[there][spot], rows[row][at]
    started = [(rng.choice([value for value in VALUES if value != row[0]]), *row) for row in rows]
    return list(zip(started[::2], started[1::2], strict=True))


def _clashes(rows: Sequence[Sequence[int]], row: int, at: int) -> bool:
    """Whether a value is that of the next step or, at the rival's end, that of the name asked for."""
    following = rows[row][at + 1] if at + 1 < len(rows[row]) else rows[row - 1][-1]
    return rows[row][at] == following


def draw(rng: random.Random, chains: tuple[Chain, Chain]) -> Sums:
    """Draw the order of the facts and which of them the contrast changes."""
    length = len(chains[0])
    possible = edits(chains[0])
    edited = rng.choice(sorted(possible))
    return Sums(chains, tuple(rng.sample([0, 1] * length, 2 * length)), edited, rng.choice(possible[edited]))


@task(
    "arithmetic",
    "the value of a name after k numbers were added or taken away, and after each of them",
    {"value": ("code", "prose", "formal"), "running": ("code", "prose", "formal")},
)
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with values balanced and crossed with the numbers of steps."""
    items = []
    for split, size, rng in each_split("arithmetic", n_items, seed):
        latents = crossed(rng, VALUES, STEPS, size)
        for i, ((_, steps), chains) in enumerate(zip(latents, draw_chains(rng, latents), strict=True)):
            sums = draw(rng, chains)
            names, letters = rng.sample(PEOPLE[split], 2), rng.sample(LETTERS[split], 2)
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {
                form: sums.render(phrasing, letters if form == "formal" else names) for form, phrasing in chosen.items()
            }
            group = "/".join([p.id for p in chosen.values()] + sorted(names) + sorted(letters))
            items.append(Item(f"arithmetic-{seed}/{split}/{i:04d}", "arithmetic", split, group, steps, forms))
    return items
