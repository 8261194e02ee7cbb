"""Loops: five places in a ring, someone starts at one and moves on n times; where does the walk end?

The difficulty is the number of moves. Half of the templates list the places in the order of the ring, from a random one
on; the others say of each place which one follows, in random order, so that every move must be looked up. All five
places are in every text, equally often but for the start, which the walk of 1 to 4 moves never comes back to; numbers
and ends are crossed. The contrast makes one move more (after 1 and 3) or one less (after 2 and 4).
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from probes.tasks.crossing import crossed
from probes.tasks.items import Contrast, Form, FormName, Item, Split, Weaver, task
from probes.tasks.loops_words import FUNCTION, PHRASINGS, PLACES, Phrasing
from probes.tasks.pools import PEOPLE, each_split
from probes.tasks.statements import LEAD

STEPS = (1, 2, 3, 4)
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}


@dataclass(frozen=True)
class Walk:
    """A ring of places and a walk on it of ``steps`` moves, ``other_steps`` in the contrast.

    ``ring`` begins with the place that a list names first; ``order`` is the order in which single links are said.
    """

    name: str
    function: str
    ring: tuple[str, ...]
    order: tuple[int, ...]
    start: str
    steps: int
    other_steps: int

    def end(self, steps: int) -> str:
        """The place after ``steps`` moves."""
        return self.ring[(self.ring.index(self.start) + steps) % len(self.ring)]

    def render(self, form: FormName, phrasing: Phrasing) -> Form:
        """Describe ring and walk in one template; in ``formal`` every place is replaced by its letter.

        The target ``value`` lies on the last token; its control key is the start.
        """
        formal = form == "formal"
        put = {place: place[0].upper() if formal else place for place in PLACES}
        words = {"name": self.function if formal else self.name, "start": put[self.start]}
        count = {steps: NUMBERS[steps] if form == "prose" else str(steps) for steps in STEPS}
        weaver = Weaver()
        order = range(len(self.ring)) if phrasing.listed else self.order
        templates = (phrasing.first, *[phrasing.then] * (len(self.ring) - 2), phrasing.last)
        for template, i in zip(templates, order, strict=True):
            place, following = put[self.ring[i]], put[self.ring[(i + 1) % len(self.ring)]]
            weaver.add(template, {**words, "place": place, "next": following})
        words["n"] = count[self.steps]
        weaver.add(phrasing.walk, words, {"start": "start", "n": "steps"})
        weaver.add(phrasing.query, words, {"start": "start", "n": "steps", "name": "query"})
        end, other = self.end(self.steps), self.end(self.other_steps)
        weaver.label_last("value", end, control=self.start)
        return Form(
            text=weaver.text,
            spans=tuple(weaver.spans),
            answer=LEAD[form] + put[end],
            candidates=tuple(LEAD[form] + put[place] for place in self.ring),
            contrast=Contrast(weaver.edited("steps", count[self.other_steps]), LEAD[form] + put[other]),
        )


def draw(rng: random.Random, split: Split, end: str, steps: int) -> Walk:
    """Draw a walk that comes to ``end`` after ``steps`` moves."""
    ring = tuple(rng.sample(PLACES, len(PLACES)))
    return Walk(
        name=rng.choice(PEOPLE[split]),
        function=rng.choice(FUNCTION[split]),
        ring=ring,
        order=tuple(rng.sample(range(len(ring)), len(ring))),
        start=ring[ring.index(end) - steps],
        steps=steps,
        other_steps=steps + 1 if steps % 2 else steps - 1,
    )


@task("loops", "where a walk along a ring of places ends after n moves", {"value": ("code", "prose", "formal")})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced ends and numbers of moves, each end as often after each number."""
    items = []
    for split, size, rng in each_split("loops", n_items, seed):
        for i, (end, steps) in enumerate(crossed(rng, PLACES, STEPS, size)):
            walk = draw(rng, split, end, steps)
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {form: walk.render(form, phrasing) for form, phrasing in chosen.items()}
            group = "/".join([p.id for p in chosen.values()] + [walk.name, walk.function, walk.start])
            items.append(Item(f"loops-{seed}/{split}/{i:04d}", "loops", split, group, steps, forms))
    return items
