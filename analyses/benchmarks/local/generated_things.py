"""Drafts of questions about three things: who has what after swaps, and who stands where."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations

from analyses.benchmarks.local.generated_balance import Draft

NAMES = ("Tom", "Anna", "Ben", "Mary", "Jack", "Lucy", "Peter", "Kate", "Sam", "Ruth", "Mark", "Jane")
COLOURS = ("red", "blue", "green", "white", "black", "yellow")
THINGS = ("ball", "box", "cup", "book", "hat", "bag")
SWAPS = 3


def tracking_shuffled_objects(rng: random.Random) -> Draft:
    """Three people swap three things three times; what does one of them hold then?"""
    names, colours, thing = rng.sample(NAMES, 3), rng.sample(COLOURS, 3), rng.choice(THINGS)
    held = dict(zip(names, colours, strict=True))
    pairs: list[list[str]] = []
    while len(pairs) < SWAPS:
        if set(pair := rng.sample(names, 2)) != set(pairs[-1] if pairs else ()):
            pairs.append(pair)
    for one, other in pairs:
        held[one], held[other] = held[other], held[one]
    asked = rng.choice(names)
    begins = ", ".join(f"{name} has the {colour} {thing}" for name, colour in zip(names, colours, strict=True))
    swaps = ", then ".join(f"{one} and {other} swap" for one, other in pairs)
    right = held[asked]
    own = [pair for pair in pairs if asked in pair]

    def began(name: str) -> tuple[str, ...]:
        return (colours[names.index(name)],)

    def partner(pair: Sequence[str]) -> str:
        return pair[0] if pair[1] == asked else pair[1]

    return Draft(
        f"{begins}. First {swaps}. At the end, the {thing} that {asked} has is ",
        right, tuple(colour for colour in colours if colour != right),
        {
            "what one began with": began(asked),
            "what the last partner began with": began(partner(own[-1])) if own else (),
            "what the first partner began with": began(partner(own[0])) if own else (),
            "what the last to swap began with": began(pairs[-1][-1]),
        },
    )  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """Three things in an order, and how it is told: first, middle, last."""

    things: tuple[str, ...]
    lead: str
    nearer: str
    further: str
    places: tuple[str, str, str]
    asked: tuple[str, str, str]


PEOPLE = NAMES
GOODS = ("the cup", "the box", "the book", "the lamp", "the hat", "the bag", "the ball", "the clock")
SCENES = (
    Scene(
        GOODS, "stand in a row on a shelf", "is to the left of", "is to the right of",
        ("is at the left end", "is in the middle", "is at the right end"),
        ("What is at the left end?", "What is in the middle?", "What is at the right end?"),
    ),
    Scene(
        PEOPLE, "ran a race", "came in before", "came in after", ("won", "came in second", "came in last"),
        ("Who won?", "Who came in second?", "Who came in last?"),
    ),
    Scene(
        PEOPLE, "are of different ages", "is older than", "is younger than",
        ("is the oldest", "is neither the oldest nor the youngest", "is the youngest"),
        ("Who is the oldest?", "Who is between the other two in age?", "Who is the youngest?"),
    ),
)  # fmt: skip


def logical_deduction(rng: random.Random) -> Draft:
    """Two statements settle the order of three things; which has the place that no statement gives away?"""
    scene = rng.choice(SCENES)
    order = rng.sample(scene.things, 3)
    while True:
        facts = [_fact(rng) for _ in range(2)]
        given = {places[0] for places in facts if len(places) == 1}
        free = [place for place in range(3) if place not in given]
        if sum(all(_holds(fact, put) for fact in facts) for put in permutations(range(3))) == 1:
            break
    asked = rng.choice(free)
    told = [_told(rng, scene, order, fact) for fact in facts]
    one, other, third = rng.sample(order, 3)
    text = f"{one}, {other} and {third} {scene.lead}. {'. '.join(told)}. {scene.asked[asked]}\nAnswer: "
    right = order[asked]
    first = min((name for name in order if name in told[0]), key=told[0].index)
    last = max((name for name in order if name in told[1]), key=told[1].index)
    return Draft(
        _sentences(text), right, tuple(name for name in order if name != right),
        {"first in the first statement": (first,), "last in the last statement": (last,)},
    )  # fmt: skip


def _fact(rng: random.Random) -> tuple[int, ...]:
    """A place (whoever has it is named), or two of which the first is nearer the beginning."""
    if rng.random() < 0.4:
        return (rng.randrange(3),)
    one, other = sorted(rng.sample(range(3), 2))
    return one, other


def _holds(fact: tuple[int, ...], put: Sequence[int]) -> bool:
    """Whether a fact is true of things put otherwise: ``put[n]`` is the place of what stands at place n."""
    return put[fact[0]] == fact[0] if len(fact) == 1 else put[fact[0]] < put[fact[1]]


def _told(rng: random.Random, scene: Scene, order: Sequence[str], fact: tuple[int, ...]) -> str:
    if len(fact) == 1:
        return f"{order[fact[0]]} {scene.places[fact[0]]}"
    one, other = (order[place] for place in fact)
    return f"{one} {scene.nearer} {other}" if rng.random() < 0.5 else f"{other} {scene.further} {one}"


def _sentences(text: str) -> str:
    """Every sentence with a capital at its beginning."""
    return ". ".join(part[:1].upper() + part[1:] for part in text.split(". "))
