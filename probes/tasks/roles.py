"""Roles: who is the agent, the theme or the recipient of an event (after COGS, Kim & Linzen 2020).

One to three events happen to the same three people, each at a place of its own; all use one verb. The question names an
event by its place and one of the people, and asks for the role. The difficulty is the number of events.

Word identity and place in the text do not tell the role. All three are people. A name has another role in each event,
so the event must be found first. The three roles are said in any of the six orders: in code, keywords in shuffled
order, or positional arguments that only the order of the parameters explains; in prose, actives with one or two objects
and passives, three orders each.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import permutations

from probes.tasks.items import Contrast, Form, FormName, Item, Split, Weaver, task
from probes.tasks.pools import PEOPLE, VALUES, each_split
from probes.tasks.statements import LEAD

ROLES = ("agent", "theme", "recipient")
ORDERS = tuple(permutations(ROLES))
EVENTS = (1, 2, 3)

#: Verbs that take two objects or one with "to", with their past and their participle. They are the keys of the control
#: task and therefore, like the values that serve as places, shared by all splits.
VERBS = {
    "give": ("gave", "given"),
    "send": ("sent", "sent"),
    "sell": ("sold", "sold"),
    "bring": ("brought", "brought"),
    "show": ("showed", "shown"),
    "lend": ("lent", "lent"),
    "offer": ("offered", "offered"),
    "hand": ("handed", "handed"),
}

#: English for each order of the roles.
CLAUSES: dict[tuple[str, ...], str] = {
    ("agent", "theme", "recipient"): "the {agent} {past} the {theme} to the {recipient}",
    ("agent", "recipient", "theme"): "the {agent} {past} the {recipient} the {theme}",
    ("recipient", "agent", "theme"): "to the {recipient} the {agent} {past} the {theme}",
    ("theme", "recipient", "agent"): "the {theme} was {done} to the {recipient} by the {agent}",
    ("theme", "agent", "recipient"): "the {theme} was {done} by the {agent} to the {recipient}",
    ("recipient", "theme", "agent"): "the {recipient} was {done} the {theme} by the {agent}",
}


@dataclass(frozen=True)
class Phrasing:
    """One template: what is said first, one event, and the question.

    ``CLAUSE`` in the event is an English clause or, where the template has an ``argument``, one argument per role
    (``ROLE``) in the event's order. In a ``positional`` template all events have one order, which the head says
    (``ORDER``).
    """

    id: str
    head: str
    event: str
    query: str
    argument: str = ""
    joint: str = ", "
    positional: bool = False

    def clause(self, order: tuple[str, ...]) -> str:
        """The template of an event whose roles are said in ``order``."""
        arguments = self.joint.join(self.argument.replace("ROLE", role) for role in order)
        return self.event.replace("CLAUSE", arguments if self.argument else CLAUSES[order])


_NAMED = 'ROLE="{ROLE}"'
_PLAIN = '"{ROLE}"'
_CALL = "{place} = {verb}(CLAUSE)\n"
_LOOK = 'assert {place}["{x}"] == "'
_SEARCH = 'assert {{who: role for role, who in %s.items()}}["{x}"] == "'

PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            Phrasing("keywords", "def {verb}(agent, theme, recipient):\n"
                     "    return {{who: role for role, who in locals().items()}}\n", _CALL, _LOOK, _NAMED),
            Phrasing("kwargs", "def {verb}(**roles): return {{roles[role]: role for role in roles}}\n",
                     _CALL, _LOOK, _NAMED),
            Phrasing("tuple", 'from collections import namedtuple\n{verb} = namedtuple("{verb}", "ORDER")\n',
                     _CALL, 'assert {verb}._fields[{place}.index("{x}")] == "', _PLAIN, positional=True),
            Phrasing("lambda", '{verb} = lambda ORDER: {{agent: "agent", theme: "theme", recipient: "recipient"}}\n',
                     _CALL, _LOOK, _PLAIN, positional=True),
        ),
        "dev": (
            Phrasing("positional", "def {verb}(ORDER):\n    return {{who: role for role, who in locals().items()}}\n",
                     _CALL, _LOOK, _PLAIN, positional=True),
            Phrasing("zip", "{verb} = lambda **roles: dict(zip(roles.values(), roles))\n", _CALL, _LOOK, _NAMED),
        ),
        "test": (
            Phrasing("locals", "def {verb}(ORDER): return locals()\n", _CALL, _SEARCH % "{place}", _PLAIN,
                     positional=True),
            Phrasing("dict", "{verb} = {{}}\n", '{verb}["{place}"] = dict(CLAUSE)\n', _SEARCH % '{verb}["{place}"]',
                     _NAMED),
        ),
    },
    "prose": {
        "train": (
            Phrasing("at", "", "At the {place}, CLAUSE. ", "So at the {place}, the {x} was the"),
            Phrasing("near", "", "Near the {place} CLAUSE. ", "In short, near the {place} the {x} was the"),
            Phrasing("behind", "", "Behind the {place}, CLAUSE. ", "Thus behind the {place}, the {x} acted as the"),
            Phrasing("with", "Here is all that we know. ", "With the {place} in sight, CLAUSE. ",
                     "With the {place} in sight, the {x} was the"),
        ),
        "dev": (
            Phrasing("inside", "", "Inside the {place}, CLAUSE. ", "As told, inside the {place}, the {x} was the"),
            Phrasing("around", "", "Around the {place}, CLAUSE. ", "Hence around the {place} the {x} played the"),
        ),
        "test": (
            Phrasing("under", "", "Under the {place} CLAUSE. ", "This means that under the {place} the {x} was the"),
            Phrasing("far", "", "Not far from the {place}, CLAUSE. ", "Not far from the {place}, the {x} served as the"),
        ),
    },
    "formal": {
        "train": (
            Phrasing("call", "", "{verb} {place}: CLAUSE; ", "{place} ({x}) =", "ROLE({ROLE})", " & "),
            Phrasing("event", "", "{place} : {verb} . CLAUSE\n", "{place} . {x} :", "ROLE = {ROLE}", " . "),
            Phrasing("arrow", "", "[{place}] {verb} CLAUSE ", "| [{place}] {x} ->", "{ROLE} -> ROLE", ", "),
            Phrasing("order", "{verb}: ORDER\n", "{place}: CLAUSE\n", "{place}: {x} =", "{ROLE}", ", ", positional=True),
        ),
        "dev": (
            Phrasing("lf", "", "{verb} ({place}) CLAUSE; ", "({place}, {x}) :", "AND ROLE ({ROLE})", " "),
            Phrasing("table", "{verb} | ORDER\n", "{place} | CLAUSE\n", "{place} | {x} |", "{ROLE}", ", ", positional=True),
        ),
        "test": (
            Phrasing("pairs", "", "<{place} {verb}> CLAUSE. ", "<{place}> {x} =", "ROLE: {ROLE}", ", "),
            Phrasing("slots", "{verb} / ORDER / ", "{place} / CLAUSE / ", "{place} / {x} /", "{ROLE}", ", ", positional=True),
        ),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Event:
    """Something at a ``place``: who has which role, and the order in which the roles are said."""

    place: str
    cast: Mapping[str, str]
    order: tuple[str, ...]


@dataclass(frozen=True)
class Scene:
    """The events in the order in which they are told; ``asked`` is a person, ``settled_by`` the event asked about.

    The contrast exchanges the person asked about with the ``rival`` in that event.
    """

    verb: str
    events: tuple[Event, ...]
    settled_by: int
    asked: str
    rival: str

    @property
    def role(self) -> str:
        """The role that is asked for."""
        return next(role for role, name in self.events[self.settled_by].cast.items() if name == self.asked)

    def exchanged(self) -> Scene:
        """The same with the two people exchanged in the event asked about."""
        swap = {self.asked: self.rival, self.rival: self.asked}
        event = self.events[self.settled_by]
        cast = {role: swap.get(name, name) for role, name in event.cast.items()}
        events = list(self.events)
        events[self.settled_by] = replace(event, cast=cast)
        return replace(self, events=tuple(events))

    def weave(self, phrasing: Phrasing) -> Weaver:
        """Tell the events and ask; spans name the two people of the contrast where they are told of."""
        weaver = Weaver()
        settling = self.events[self.settled_by]
        past, done = VERBS[self.verb]
        words = {"verb": self.verb, "past": past, "done": done}
        weaver.add(phrasing.head.replace("ORDER", ", ".join(settling.order)), words)
        for event in self.events:
            named = {self.asked: "definition", self.rival: "rival"} if event is settling else {self.asked: "distractor"}
            weaver.add(
                phrasing.clause(settling.order if phrasing.positional else event.order),
                {**words, **event.cast, "place": event.place},
                {role: named.get(name) for role, name in event.cast.items()},
            )
        weaver.add(
            phrasing.query, {**words, "place": settling.place, "x": self.asked}, {"place": "place", "x": "query"}
        )
        return weaver

    def render(self, form: FormName, phrasing: Phrasing) -> Form:
        """The form. The key of the control task is the verb: an arbitrary function of a word of the event."""
        weaver, contrast = self.weave(phrasing), self.exchanged()
        weaver.label_last("role", self.role, control=self.verb)
        lead = LEAD[form]
        return Form(
            text=weaver.text,
            spans=tuple(weaver.spans),
            answer=lead + self.role,
            candidates=tuple(lead + role for role in ROLES),
            contrast=Contrast(contrast.weave(phrasing).text, lead + contrast.role),
        )


def draw(rng: random.Random, split: Split, role: str, n_events: int, order: tuple[str, ...]) -> Scene:
    """Draw ``n_events`` events; the one asked about says the roles in ``order``, and the name has ``role`` in it."""
    settled_by = rng.randrange(n_events)
    names = rng.sample(PEOPLE[split], 3)
    at = ROLES.index(role)
    # Each event moves every name one role or two on from the settling one: nobody has a role twice.
    shifts = rng.sample((1, 2), n_events - 1)
    shifts.insert(settled_by, 0)
    events = tuple(
        Event(
            place,
            {ROLES[(at + i + shift) % 3]: name for i, name in enumerate(names)},
            rng.choice(ORDERS) if shift else order,
        )
        for place, shift in zip(rng.sample(VALUES, n_events), shifts, strict=True)
    )
    return Scene(rng.choice(tuple(VERBS)), events, settled_by, names[0], rng.choice(names[1:]))


@task("roles", "who is agent, theme or recipient of an event", {"role": ("code", "prose", "formal")})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced roles, numbers of events and orders of the roles.

    Raises:
        TwinprobeError: fewer items than the splits need.
    """
    items = []
    for split, size, rng in each_split("roles", n_items, seed):
        roles, levels, orders = rng.sample(ROLES, 3), rng.sample(EVENTS, 3), rng.sample(ORDERS, 6)
        for i, k in enumerate(rng.sample(range(size), size)):
            # Counted such that all three are balanced, and crossed within every 54 items.
            role, n_events, order = roles[k % 3], levels[(k + k // 3) % 3], orders[k // 9 % 6]
            scene = draw(rng, split, role, n_events, order)
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {form: scene.render(form, phrasing) for form, phrasing in chosen.items()}
            names = sorted(scene.events[0].cast.values())
            group = "/".join([p.id for p in chosen.values()] + names)
            items.append(Item(f"roles-{seed}/{split}/{i:04d}", "roles", split, group, n_events, forms))
    return items
