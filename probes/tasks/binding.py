"""Binding: three names each hold one value, some change it, one is asked for (after Kim & Schuster 2023).

The difficulty is the number of changes. Which statement settles the question is drawn evenly among all statements, so
neither the first nor the last value mentioned is a good guess, and every value is mentioned exactly once.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from probes.tasks.items import FormName, Item, Split, task
from probes.tasks.pools import PEOPLE, VALUES, balanced, each_split
from probes.tasks.statements import Phrasing, Statement, render

NAMES = 3
UPDATES = (0, 1, 2)

PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            Phrasing("assign", '{name} = "{word}"\n', '{name} = "{word}"\n', 'assert {name} == "'),
            Phrasing("index", 'at["{name}"] = "{word}"\n', 'at["{name}"] = "{word}"\n', 'assert at["{name}"] == "',
                     "at = {{}}\n"),
            Phrasing("list", '{name} = ["{word}"]\n', '{name}[0] = "{word}"\n', 'assert {name}[0] == "'),
            Phrasing("lambda", '{name} = lambda: "{word}"\n', '{name} = lambda: "{word}"\n', 'assert {name}() == "'),
        ),
        "dev": (
            Phrasing("attribute", 'at.{name} = "{word}"\n', 'at.{name} = "{word}"\n', 'assert at.{name} == "',
                     "class at: pass\n"),
            Phrasing("walrus", '({name} := "{word}")\n', '({name} := "{word}")\n', 'assert {name} == "'),
        ),
        "test": (
            Phrasing("update", 'own.update({name}="{word}")\n', 'own.update({name}="{word}")\n',
                     'assert own["{name}"] == "', "own = dict()\n"),
            Phrasing("typed", '{name}: str = "{word}"\n', '{name}: str = "{word}"\n', 'assert {name} == "'),
        ),
    },
    "prose": {
        "train": (
            Phrasing("has", "The {name} has the {word}. ", "Then the {name} takes the {word} instead. ",
                     "Now the {name} has the"),
            Phrasing("holds", "The {name} holds the {word}. ", "Later the {name} holds only the {word}. ",
                     "At this time the {name} holds the"),
            Phrasing("belongs", "The {word} belongs to the {name}. ", "The {word} is now all that the {name} has. ",
                     "What the {name} has is the"),
            Phrasing("wants", "The {name} wants the {word}. ", "But soon the {name} wants the {word} more. ",
                     "So the {name} wants the"),
        ),
        "dev": (
            Phrasing("carries", "The {name} carries the {word}. ", "After that the {name} carries the {word} only. ",
                     "At last the {name} carries the"),
            Phrasing("given", "They gave the {name} the {word}. ", "Next they gave the {name} the {word} for it. ",
                     "In the end the {name} goes home with the"),
        ),
        "test": (
            Phrasing("keeps", "The {name} keeps the {word}. ", "The {name} turns it in for the {word}. ",
                     "From now on the {name} keeps the"),
            Phrasing("found", "Here the {name} found the {word}. ", "There the {name} left it and found the {word}. ",
                     "We still see the {name} with the"),
        ),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Boxes:
    """Who gets which value, in order; ``settled_by`` is the index of the fact that answers the question."""

    facts: tuple[tuple[str, str], ...]
    settled_by: int
    other: str

    def statements(self) -> list[Statement]:
        """The facts with the roles of their words."""
        roles = ["distractor"] * len(self.facts)
        roles[self.settled_by] = "definition"
        return [
            Statement(name, value, first=i < NAMES, word_role=roles[i]) for i, (name, value) in enumerate(self.facts)
        ]


def draw(rng: random.Random, split: Split, value: str, updates: int) -> Boxes:
    """Draw a history of ``updates`` changes after which the name asked for holds ``value``."""
    names = rng.sample(PEOPLE[split], NAMES)
    settled_by = rng.randrange(NAMES + updates)
    asked = names[settled_by] if settled_by < NAMES else rng.choice(names)
    rest = [name for name in names if name != asked]
    changed = [
        asked if i == settled_by else rng.choice(rest if i > settled_by else names)
        for i in range(NAMES, NAMES + updates)
    ]
    *values, other = rng.sample([word for word in VALUES if word != value], NAMES + updates)
    values.insert(settled_by, value)
    return Boxes(tuple(zip(names + changed, values, strict=True)), settled_by, other)


@task("binding", "which value a name holds after k changes", {"value": ("code", "prose")})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced values and numbers of changes."""
    items = []
    for split, size, rng in each_split("binding", n_items, seed):
        latents = zip(balanced(rng, VALUES, size), balanced(rng, UPDATES, size), strict=True)
        for i, (value, updates) in enumerate(latents):
            boxes = draw(rng, split, value, updates)
            asked = boxes.facts[boxes.settled_by][0]
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {
                form: render(form, phrasing, boxes.statements(), asked, value, boxes.other)
                for form, phrasing in chosen.items()
            }
            group = "/".join([p.id for p in chosen.values()] + sorted({name for name, _ in boxes.facts}))
            items.append(Item(f"binding-{seed}/{split}/{i:04d}", "binding", split, group, updates, forms))
    return items
