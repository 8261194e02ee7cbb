"""Value types: what type of value a name has after literals, conversions and copies (task ``types``).

Both forms tell the same program. Eight names get a value each, in a random order that runs: two from a literal, two from
a conversion of another name's value, four as copies. The literals and the conversions make one value of each type, so
every text holds all four types once; the name asked for is some copies away from the literal or conversion that made its
value. The difficulty is that number of copies (1 to 3); conversions cut a value off from what it was made of.

The same label in both forms means the same abstract type of the same value, not a pairing of unlike classes: ``number``
is ``int`` in code and ``seven`` in prose, ``text`` is ``str`` and a quoted word, ``list`` is ``list`` and words in a row,
``answer`` is ``bool`` and a yes or a no. Code names its four types at the start of every text; prose never names them.

Shortcuts that were closed: every text holds each type exactly once, and a literal settles the question as often as a
conversion, whatever the label; the contrast exchanges one name for another in a copy, so that no type is said anew.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from probes.tasks.crossing import crossed
from probes.tasks.items import Contrast, Form, FormName, Item, Split, Weaver, task
from probes.tasks.pools import balanced, each_split
from probes.tasks.statements import LEAD
from probes.tasks.value_types_words import ANSWERS, KINDS, NUMBERS, PHRASINGS, SPEAKERS, WORDS, Phrasing

HOPS = (1, 2, 3)
LITERALS, CONVERSIONS, COPIES = 2, 2, 4


@dataclass(frozen=True)
class Fact:
    """One name gets a value: a literal (the ``words`` it is made of), or one made from ``source``'s.

    ``kind`` is ``None`` for a copy.
    """

    name: str
    kind: str | None
    words: tuple[str, ...] = ()
    source: str = ""

    def literal(self, form: FormName) -> str:
        """The literal as the form writes it."""
        match self.kind, form:
            case "number", "code":
                return str(NUMBERS[self.words[0]])
            case "answer", "code":
                return str(ANSWERS[self.words[0]])
            case "text", _:
                return f'"{self.words[0]}"'
            case "list", "code":
                return "[" + ", ".join(f'"{word}"' for word in self.words) + "]"
            case _:
                return " and ".join(self.words)


@dataclass(frozen=True)
class Program:
    """Facts in an order that runs, the name asked for, and the exchange of one source that changes its type.

    ``made`` names whose fact made the value asked for, ``edited`` the copy whose source the contrast exchanges.
    """

    facts: tuple[Fact, ...]
    asked: str
    made: str
    edited: str
    exchange: str
    kind: str
    other: str

    def render(self, form: FormName, phrasing: Phrasing) -> Form:
        """Say the facts and ask for the type; the control key is the word or number said first."""
        weaver = Weaver()
        weaver.add(phrasing.head, {})
        for fact in self.facts:
            change = phrasing.convert[fact.kind] if fact.kind else phrasing.copy
            weaver.add(
                phrasing.state if fact.words else change,
                {"name": fact.name, "source": fact.source, "literal": fact.literal(form) if fact.words else ""},
                {
                    "name": "definition" if fact.name == self.made else None,
                    "source": "source" if fact.name == self.edited else None,
                },
            )
        weaver.add(phrasing.query, {"name": self.asked}, {"name": "query"})
        weaver.label_last("type", self.kind, control=next(fact.words[0] for fact in self.facts if fact.words))
        lead = LEAD[form]
        return Form(
            text=weaver.text,
            spans=tuple(weaver.spans),
            answer=lead + self.kind,
            candidates=tuple(lead + kind for kind in KINDS),
            contrast=Contrast(weaver.edited("source", self.exchange), lead + self.other),
        )


def _words(rng: random.Random, kind: str) -> tuple[str, ...]:
    match kind:
        case "number":
            return (rng.choice(tuple(NUMBERS)),)
        case "answer":
            return (rng.choice(tuple(ANSWERS)),)
        case "list":
            return tuple(rng.sample(WORDS, 2))
        case _:
            return (rng.choice(WORDS),)


def _order(rng: random.Random, n_names: int, path: list[int]) -> list[int]:
    """A random order of the names that starts with a literal and runs along ``path``."""
    while True:
        order = rng.sample(range(n_names), n_names)
        for spot, node in zip(sorted(map(order.index, path)), path, strict=True):
            order[spot] = node
        if order[0] < LITERALS:
            return order


def draw(rng: random.Random, split: Split, kind: str, hops: int, converted: bool) -> Program:
    """Draw a program after which the name asked for is ``hops`` copies away from a value of type ``kind``."""
    makers = LITERALS + CONVERSIONS
    names = rng.sample(SPEAKERS[split], makers + COPIES)
    made = rng.randrange(LITERALS, makers) if converted else rng.randrange(LITERALS)
    kinds = rng.sample([other for other in KINDS if other != kind], makers - 1)
    kinds.insert(made, kind)
    path = [made, *range(makers, makers + hops)]
    exchanges: list[tuple[int, int]] = []
    while not exchanges:  # a copy on the path with a name before it that has another type: nearly always at once
        order = _order(rng, len(names), path)
        facts, types = [], dict[int, str]()
        for node in order:
            own = kinds[node] if node < makers else None
            if own and node < LITERALS:
                facts.append(Fact(names[node], own, _words(rng, own)))
                types[node] = own
                continue
            source = path[path.index(node) - 1] if node in path[1:] else rng.choice(list(types))
            facts.append(Fact(names[node], own, source=names[source]))
            types[node] = own or types[source]
        exchanges = [(at, old) for at in path[1:] for old in order[: order.index(at)] if types[old] != kind]
    edited, exchange = rng.choice(exchanges)
    return Program(
        tuple(facts), names[path[-1]], names[made], names[edited], names[exchange], kind, types[exchange]
    )  # fmt: skip


@task("types", "which type of value a name has after literals, conversions and copies", {"type": ("code", "prose")})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced types, numbers of copies, and makers (literal or conversion)."""
    items = []
    for split, size, rng in each_split("types", n_items, seed):
        latents = crossed(rng, KINDS, HOPS, size)
        makers = balanced(rng, (False, True), size)
        for i, ((kind, hops), converted) in enumerate(zip(latents, makers, strict=True)):
            program = draw(rng, split, kind, hops, converted)
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {form: program.render(form, phrasing) for form, phrasing in chosen.items()}
            group = "/".join([p.id for p in chosen.values()] + sorted(fact.name for fact in program.facts))
            items.append(Item(f"types-{seed}/{split}/{i:04d}", "types", split, group, hops, forms))
    return items
