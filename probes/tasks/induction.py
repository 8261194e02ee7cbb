"""Induction: the same words come a second time; which name followed them the first time (after Olsson et al. 2022)?

Every statement ends in a name of its own and begins with a key word of its own; after a remark about something else the
text breaks off where one of them, repeated word for word, would say its name. The difficulty is the number of
statements. With one, there is one name to copy, which a bag of tokens can read off; from two on, the name must be found
by the key before it ("prefix matching", Olsson et al. 2022, "In-context Learning and Induction Heads"). Which statement
is repeated is drawn evenly.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from probes.tasks.crossing import crossed
from probes.tasks.items import Contrast, Form, FormName, Item, Split, Weaver, task
from probes.tasks.pools import PEOPLE, VALUES, each_split

NAMES = ("George", "John", "Tom", "Robert", "Holmes", "Anne")
STATEMENTS = (1, 2, 3)
LEAD = " "


@dataclass(frozen=True)
class Phrasing:
    """One template: how a statement begins, up to its name, and how it ends."""

    id: str
    start: str
    end: str


PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            Phrasing("assign", "{key} =", "\n"),
            Phrasing("call", "{key}(self,", ")\n"),
            Phrasing("import", "from {key} import", "\n"),
            Phrasing("entry", '"{key}":', ",\n"),
        ),
        "dev": (Phrasing("as", "import {key} as", "\n"), Phrasing("compare", "assert {key} ==", "\n")),
        "test": (Phrasing("attribute", "self.{key} =", "\n"), Phrasing("add", "{key} +=", "\n")),
    },
    "prose": {
        "train": (
            Phrasing("with", "The {key} was with", ". "),
            Phrasing("apposition", "Then the {key},", ", came in. "),
            Phrasing("loved", "My {key} loved", ". "),
            Phrasing("told", "He told the {key} of", ". "),
        ),
        "dev": (Phrasing("spoke", "The {key} spoke to", ". "), Phrasing("called", "One {key} was called", ". ")),
        "test": (Phrasing("said", '"Yes," said the {key} to', ". "), Phrasing("went", "The {key} went to", ". ")),
    },
}


REMARK: dict[FormName, str] = {"code": "check({word})\n", "prose": "They saw the {word}. "}


@dataclass(frozen=True)
class Pairs:
    """Which name follows which key, in the order of the statements; the one numbered ``repeated`` is begun again."""

    keys: tuple[str, ...]
    names: tuple[str, ...]
    repeated: int
    other: str
    word: str

    def render(self, form: FormName, phrasing: Phrasing) -> Form:
        """Say the statements and begin one again; the contrast names ``other`` in it.

        The control key is the word of the remark, which all splits share and the answer does not depend on.
        """
        weaver = Weaver()
        for i, (key, name) in enumerate(zip(self.keys, self.names, strict=True)):
            asked = i == self.repeated
            weaver.add(
                phrasing.start + LEAD + "{name}" + phrasing.end,
                {"key": key, "name": name},
                {"key": "key" if asked else None, "name": "definition" if asked else "distractor"},
            )
        weaver.add(REMARK[form], {"word": self.word})
        weaver.add(phrasing.start, {"key": self.keys[self.repeated]}, {"key": "query"})
        answer = self.names[self.repeated]
        weaver.label_last("name", answer, control=self.word)
        return Form(
            text=weaver.text,
            spans=tuple(weaver.spans),
            answer=LEAD + answer,
            candidates=tuple(LEAD + name for name in (*self.names, self.other)),
            contrast=Contrast(weaver.edited("definition", self.other), LEAD + self.other),
        )


def draw(rng: random.Random, split: Split, name: str, statements: int) -> Pairs:
    """Draw ``statements`` pairs, one of which, the repeated one, has ``name``."""
    repeated = rng.randrange(statements)
    *names, other = rng.sample([one for one in NAMES if one != name], statements)
    names.insert(repeated, name)
    keys = rng.sample(PEOPLE[split], statements)
    return Pairs(tuple(keys), tuple(names), repeated, other, rng.choice(VALUES))


@task("induction", "which name followed the same words before", {"name": ("code", "prose")})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced names, crossed with the numbers of statements."""
    items = []
    for split, size, rng in each_split("induction", n_items, seed):
        for i, (name, statements) in enumerate(crossed(rng, NAMES, STATEMENTS, size)):
            pairs = draw(rng, split, name, statements)
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {form: pairs.render(form, phrasing) for form, phrasing in chosen.items()}
            group = "/".join([p.id for p in chosen.values()] + sorted(pairs.keys))
            items.append(Item(f"induction-{seed}/{split}/{i:04d}", "induction", split, group, statements, forms))
    return items
