"""Scope: two names are defined again and again, each scope inside the last; which definition does a name refer to?

The outermost scope defines both names, every inner one defines one of them anew; the difficulty is how many scopes are
nested in the outermost one. A name read in some scope is the one that this scope defines, or else the nearest scope
around it. The forms are functions, lambdas and comprehensions within one another (code), tales told within tales, whose
characters are others of the same name (prose), and bare brackets (formal). Every scope has the name of its teller.

Shortcuts that were closed: every definition gives a value of its own, said once; the name asked for always has another
definition, around the one that settles the question or inside the scope that is read; a reader who takes the last
definition of the name, or the outermost, is right in fewer than half of the items.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from probes.tasks.crossing import crossed
from probes.tasks.items import Contrast, Form, FormName, Item, Split, Weaver, task
from probes.tasks.pools import PEOPLE, each_split
from probes.tasks.scope_words import CODE, TOLD, VALUES, Functions, Told, Wrapped
from probes.tasks.statements import LEAD

DEPTHS = (1, 2, 3)


@dataclass(frozen=True)
class Scopes:
    """The scopes from the outermost on: tellers, and definitions (the first two are the outermost scope's).

    ``asked`` is read in scope number ``read``; definition number ``settled_by`` is the one that it refers to there.
    """

    tellers: tuple[str, ...]
    definitions: tuple[tuple[str, str], ...]
    asked: str
    read: int
    settled_by: int
    other: str

    def inner(self, scope: int) -> tuple[dict[str, str], dict[str, str | None]]:
        """The words of an inner scope, and their roles."""
        name, value = self.definitions[scope + 1]
        return {"teller": self.tellers[scope], "name": name, "value": value}, {"value": self.role(scope + 1)}

    def role(self, definition: int) -> str:
        """``definition`` for the one that settles the question, else ``distractor``."""
        return "definition" if definition == self.settled_by else "distractor"

    def code(self, phrasing: Functions | Wrapped) -> Form:
        """Python: the outermost scope is the module; ``found`` is what the name is in an inner one."""
        weaver = Weaver()
        for i, (name, value) in enumerate(self.definitions[:2]):
            weaver.add('{name} = "{value}"\n', {"name": name, "value": value}, {"value": self.role(i)})
        if isinstance(phrasing, Functions):
            self._functions(weaver, phrasing, 1)
            weaver.add("found = ", {})
            self._call(weaver, phrasing, 1)
        else:
            weaver.add("found = ", {})
            self._wrapped(weaver, phrasing, 1)
        asked = "found" if self.read else self.asked
        weaver.add('\nassert {asked} == "', {"asked": asked}, {"asked": None if self.read else "query"})
        return self._form(weaver, "code")

    def _call(self, weaver: Weaver, phrasing: Functions, scope: int) -> None:
        words, roles = self.inner(scope)
        weaver.add(phrasing.call, words, roles)

    def _functions(self, weaver: Weaver, phrasing: Functions, scope: int) -> None:
        """Functions from ``scope`` inwards: each returns what the next one returns, or from ``read`` on the name."""
        words, roles = self.inner(scope)
        indent = "    " * scope
        weaver.add("    " * (scope - 1) + phrasing.head, words, roles)
        weaver.add(indent * bool(phrasing.body) + phrasing.body, words, roles)
        if scope + 1 < len(self.tellers):
            self._functions(weaver, phrasing, scope + 1)
            weaver.add(indent if scope >= self.read else f"{indent}return ", {})
            self._call(weaver, phrasing, scope + 1)
            weaver.add("\n", {})
        if scope >= self.read or scope + 1 == len(self.tellers):
            self._read(weaver, f"{indent}return {{asked}}\n", scope)

    def _wrapped(self, weaver: Weaver, phrasing: Wrapped, scope: int) -> None:
        """Expressions from ``scope`` inwards: each is the next one, or from ``read`` on the name beside it."""
        words, roles = self.inner(scope)
        weaver.add(phrasing.before, words, roles)
        if scope + 1 == len(self.tellers):
            self._read(weaver, "{asked}", scope)
        elif scope < self.read:
            self._wrapped(weaver, phrasing, scope + 1)
        else:
            weaver.add("(", {})
            self._wrapped(weaver, phrasing, scope + 1)
            self._read(weaver, ", {asked})[1]", scope)
        weaver.add(phrasing.after, words, roles)

    def _read(self, weaver: Weaver, template: str, scope: int) -> None:
        weaver.add(template, {"asked": self.asked}, {"asked": "query" if scope == self.read else None})

    def told(self, form: FormName, phrasing: Told) -> Form:
        """Prose and formal: scope by scope inwards, then their ends, then the name in the scope that is read."""
        weaver = Weaver()
        weaver.add(phrasing.head, {})
        (first, value), (second, other) = self.definitions[:2]
        weaver.add(
            phrasing.outer,
            {"teller": self.tellers[0], "first": first, "value": value, "second": second, "other": other},
            {"value": self.role(0), "other": self.role(1)},
        )
        for scope in range(1, len(self.tellers)):
            weaver.add(phrasing.inner, *self.inner(scope))
        weaver.add(phrasing.close * len(self.tellers), {})
        words = {"teller": self.tellers[self.read], "asked": self.asked}
        weaver.add(phrasing.query, words, {"teller": "scope", "asked": "query"})
        return self._form(weaver, form)

    def _form(self, weaver: Weaver, form: FormName) -> Form:
        """Label the last character; the control key is the value that the outermost scope states first."""
        values = [value for _, value in self.definitions]
        weaver.label_last("value", values[self.settled_by], control=values[0])
        lead = LEAD[form]
        return Form(
            text=weaver.text,
            spans=tuple(weaver.spans),
            answer=lead + values[self.settled_by],
            candidates=tuple(lead + value for value in (*values, self.other)),
            contrast=Contrast(weaver.edited("definition", self.other), lead + self.other),
        )


def draw(rng: random.Random, split: Split, value: str, depth: int) -> Scopes:
    """Draw ``depth`` scopes inside the outermost one, and a name that refers to a definition with ``value``."""
    asked, rival, *tellers = rng.sample(PEOPLE[split], 2 + depth + 1)
    # Read in the innermost scope and settled by the outermost, a name would have this one definition only.
    places = [(at, read) for read in range(depth + 1) for at in range(read + 1) if (at, read) != (0, depth)]
    settling, read = rng.choice(places)
    shadowing = rng.randint(read + 1, depth) if read < depth else settling
    names = rng.sample((asked, rival), 2)
    for scope in range(1, depth + 1):
        if scope in (settling, shadowing):
            names.append(asked)
        elif settling < scope <= read:
            names.append(rival)
        else:
            names.append(rng.choice((asked, rival)))
    settled_by = settling + 1 if settling else names.index(asked)
    *values, other = rng.sample([word for word in VALUES if word != value], depth + 2)
    values.insert(settled_by, value)
    return Scopes(tuple(tellers), tuple(zip(names, values, strict=True)), asked, read, settled_by, other)


@task("scope", "which definition a name refers to, scope within scope", {"value": ("code", "prose", "formal")})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with values balanced and crossed with the nesting depths."""
    items = []
    for split, size, rng in each_split("scope", n_items, seed):
        for i, (value, depth) in enumerate(crossed(rng, VALUES, DEPTHS, size)):
            scopes = draw(rng, split, value, depth)
            code = rng.choice(CODE[split])
            told = {form: rng.choice(phrasings[split]) for form, phrasings in TOLD.items()}
            forms = {
                "code": scopes.code(code),
                **{form: scopes.told(form, phrasing) for form, phrasing in told.items()},
            }
            ids = [code.id, *(phrasing.id for phrasing in told.values())]
            names = sorted({*scopes.tellers, *(name for name, _ in scopes.definitions)})
            items.append(Item(f"scope-{seed}/{split}/{i:04d}", "scope", split, "/".join(ids + names), depth, forms))
    return items
