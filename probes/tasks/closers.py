"""Closers: two brackets are open in a short text, one of each kind; which must close next?

The templates and spans are those of nesting, whose longer texts this task prepares for: nothing is closed yet, and the
bracket opened last is the pending one. The difficulty is the number of words behind that bracket. As one round and one
square bracket are open whichever is pending, a bag of tokens does not give the closer; only their order does.
"""

from __future__ import annotations

import random
from dataclasses import replace

from probes.tasks.crossing import crossed
from probes.tasks.items import Item, Split, task
from probes.tasks.nesting import CLOSERS, PHRASINGS, Nest
from probes.tasks.pools import CALLEES, PEOPLE, VALUES, each_split

DISTANCES = (1, 2, 3)
OPEN = 2


def draw(rng: random.Random, split: Split, pending: str, distance: int) -> Nest:
    """Draw a text that opens the other bracket, then ``pending``, then says ``distance`` words.

    The word behind the outer bracket is a value, as in nesting: the key of the control task.
    """
    (outer,) = set(CLOSERS) - {pending}
    moves = outer + pending + "w" * (distance - 1)
    words = [rng.choice(VALUES), *rng.sample(PEOPLE[split], distance)]
    callees = ["", ""] if rng.random() < 0.5 else rng.sample(CALLEES[split], OPEN)
    callees += [""] * (distance - 1)
    return Nest(moves, 1, rng.choice(PEOPLE[split]), tuple(words), tuple(callees))


@task("closers", "which of two open brackets must close next", {"closer": ("code", "prose")})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced pending brackets, crossed with the distances."""
    items = []
    for split, size, rng in each_split("closers", n_items, seed):
        for i, (pending, distance) in enumerate(crossed(rng, tuple(CLOSERS), DISTANCES, size)):
            nest = draw(rng, split, pending, distance)
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {}
            for form, phrasing in chosen.items():
                rendered = nest.render(phrasing, OPEN)
                spans = tuple(
                    replace(span, control=nest.words[0]) if span.label else span
                    for span in rendered.spans
                    if span.name != "depth"
                )
                forms[form] = replace(rendered, spans=spans)
            group = "/".join([p.id for p in chosen.values()] + sorted({nest.subject, *nest.words} - set(VALUES)))
            items.append(Item(f"closers-{seed}/{split}/{i:04d}", "closers", split, group, distance, forms))
    return items
