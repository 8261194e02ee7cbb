"""Aliasing: two chains of names that refer to one another, each ending in a value; one name is asked for.

The difficulty is the number of hops from the name asked for to its value. Both chains have the same length, their
statements are interleaved at random, and in half of the one-hop items another name follows the one asked for.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from probes.tasks.items import FormName, Item, Split, task
from probes.tasks.pools import PEOPLE, VALUES, balanced, each_split
from probes.tasks.statements import Phrasing, Statement, render

HOPS = (1, 2, 3)

PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            Phrasing("assign", '{name} = "{word}"\n', "{name} = {word}\n", 'assert {name} == "'),
            Phrasing("line", '{name} = "{word}"; ', "{name} = {word}; ", 'assert {name} == "'),
            Phrasing("list", '{name} = ["{word}"]\n', "{name} = {word}\n", 'assert {name}[0] == "'),
            Phrasing("lambda", '{name} = lambda: "{word}"\n', "{name} = {word}\n", 'assert {name}() == "'),
        ),
        "dev": (
            Phrasing("tuple", '{name} = ("{word}",)\n', "{name} = {word}\n", 'assert {name}[0] == "'),
            Phrasing("walrus", '({name} := "{word}")\n', "({name} := {word})\n", 'assert {name} == "'),
        ),
        "test": (
            Phrasing("typed", '{name}: str = "{word}"\n', "{name}: str = {word}\n", 'assert {name} == "'),
            Phrasing("dict", '{name} = {{"it": "{word}"}}\n', "{name} = {word}\n", 'assert {name}["it"] == "'),
        ),
    },
    "prose": {
        "train": (
            Phrasing("has", "The {name} has the {word}. ", "The {name} has what the {word} has. ",
                     "So the {name} has the"),
            Phrasing("wants", "The {name} wants the {word}. ", "The {name} copies the {word}. ",
                     "In short, the {name} wants the"),
            Phrasing("takes", "The {name} takes the {word}. ", "The {name} follows the {word}. ",
                     "Thus the {name} takes the"),
            Phrasing("holds", "The {name} holds the {word}. ", "The {name} shares with the {word}. ",
                     "It is clear that the {name} holds the"),
        ),
        "dev": (
            Phrasing("saw", "The {name} saw the {word}. ", "The {name} saw what the {word} saw. ",
                     "That day the {name} saw the"),
            Phrasing("chose", "The {name} chose the {word}. ", "The {name} agreed with the {word}. ",
                     "Hence the {name} chose the"),
        ),
        "test": (
            Phrasing("likes", "The {name} likes the {word}. ", "The {name} thinks like the {word}. ",
                     "This means the {name} likes the"),
            Phrasing("named", "The {name} named the {word}. ", "The {name} repeated after the {word}. ",
                     "All in all, the {name} named the"),
        ),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Chains:
    """The queried chain (0) and its rival (1), each from its root on, and the order in which their links are said."""

    names: tuple[tuple[str, ...], tuple[str, ...]]
    roots: tuple[str, str]
    order: tuple[int, ...]
    hops: int
    other: str

    def statements(self) -> list[Statement]:
        """The links in order, with the roles of their words; only links up to the name asked for are ``alias``."""
        said = [0, 0]
        facts = []
        for chain in self.order:
            i, names = said[chain], self.names[chain]
            said[chain] += 1
            alias = "alias" if chain == 0 and i <= self.hops else None
            if i == 0:
                role = "definition" if chain == 0 else "distractor"
                facts.append(Statement(names[0], self.roots[chain], True, alias, role))
            else:
                facts.append(Statement(names[i], names[i - 1], False, alias, alias))
        return facts


def draw(rng: random.Random, split: Split, value: str, hops: int) -> Chains:
    """Draw two chains of which the first gives ``value`` to its name after ``hops`` hops."""
    length = hops + 1 + (rng.randrange(2) if hops == 1 else 0)
    names = rng.sample(PEOPLE[split], 2 * length)
    rival, other = rng.sample([word for word in VALUES if word != value], 2)
    order = rng.sample([0] * length + [1] * length, 2 * length)
    return Chains((tuple(names[:length]), tuple(names[length:])), (value, rival), tuple(order), hops, other)


@task("aliasing", "which value a name stands for after k hops along references", {"value": ("code", "prose")})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced values and numbers of hops."""
    items = []
    for split, size, rng in each_split("aliasing", n_items, seed):
        latents = zip(balanced(rng, VALUES, size), balanced(rng, HOPS, size), strict=True)
        for i, (value, hops) in enumerate(latents):
            chains = draw(rng, split, value, hops)
            asked = chains.names[0][hops]
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {
                form: render(form, phrasing, chains.statements(), asked, value, chains.other)
                for form, phrasing in chosen.items()
            }
            group = "/".join([p.id for p in chosen.values()] + sorted(chains.names[0] + chains.names[1]))
            items.append(Item(f"aliasing-{seed}/{split}/{i:04d}", "aliasing", split, group, hops, forms))
    return items
