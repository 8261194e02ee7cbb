"""Boolean: names are true or false, and a nested formula over half of them is to be evaluated.

The difficulty is the depth of the formula: every level joins one more name by ``and`` or ``or``, on either side, and
names and levels are negated at random. Shortcuts that were closed:

- The formula is drawn before its value, and the names outside of it are true where those inside are false, as often: a
  text's words are the same whatever the value, so a bag of tokens knows nothing.
- Which name settles the value (would change it, were it otherwise) is drawn evenly among those of the formula, and
  given the others it alone depends on the value: the fact said first or last, or any fixed place in the formula, is a
  poor guess.

The contrast exchanges the truth of the settling name with that of a name outside of the formula, so that it consists of
the same words (symmetric token replacement; Zhang & Nanda 2024).
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from probes.tasks.crossing import crossed
from probes.tasks.items import Contrast, Form, FormName, Item, Split, Weaver, task
from probes.tasks.pools import PEOPLE, each_split

DEPTHS = (1, 2, 3)
ANSWERS: dict[FormName, dict[bool, str]] = {
    "code": {True: " True", False: " False"},
    "prose": {True: " True", False: " False"},
    "formal": {True: " T", False: " F"},
}

#: Names of the formal form.
LETTERS: dict[Split, str] = {"train": "abcdefghij", "dev": "klmnopqr", "test": "stuvwxyz"}


@dataclass(frozen=True)
class Logic:
    """How a formula is put: a name that is true (``yes``) or false (``no``), two parts joined, a joined part denied."""

    yes: str
    no: str
    both: str = "({left} and {right})"
    either: str = "({left} or {right})"
    deny: str = "(not {whole})"


@dataclass(frozen=True)
class Phrasing:
    """One template: how a ``fact`` and its two ``states`` (true, false), formulas and the question are put."""

    id: str
    fact: str
    states: tuple[str, str]
    logic: Logic
    query: str
    head: str = ""

    def state(self, truth: bool) -> str:
        """The word for true or false."""
        return self.states[0 if truth else 1]


def _code(id: str, fact: str, read: str, query: str, head: str = "") -> Phrasing:
    return Phrasing(id, fact, ("True", "False"), Logic(read, f"not {read}"), query, head)


def _formal(id: str, fact: str, signs: str, query: str) -> Phrasing:
    """``signs`` are those of and, or, not."""
    both, either, deny = signs.split()
    deny += " " * deny.isalpha()
    logic = Logic("{name}", f"{deny}{{name}}", f"({{left}} {both} {{right}})", f"({{left}} {either} {{right}})",
                  f"{deny}{{whole}}")  # fmt: skip
    return Phrasing(id, fact, ("T", "F"), logic, query)


def _prose(id: str, fact: str, states: tuple[str, str], deny: str, query: str) -> Phrasing:
    """``both``, ``either`` and the denial stand before what they join, so that no brackets are needed."""
    logic = Logic(f"the {{name}} is {states[0]}", f"the {{name}} is not {states[0]}", "both {left} and {right}",
                  "either {left} or {right} or both", f"{deny} {{whole}}")  # fmt: skip
    return Phrasing(id, fact, states, logic, query)


PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            _code("assign", "{name} = {state}\n", "{name}", "assert {formula} is"),
            _code("line", "{name} = {state}; ", "{name}", "own = {formula}; assert own is"),
            _code("index", 'at["{name}"] = {state}\n', 'at["{name}"]', "assert {formula} ==", "at = {{}}\n"),
            _code("lambda", "{name} = lambda: {state}\n", "{name}()", "assert {formula} is"),
        ),
        "dev": (
            _code("attribute", "at.{name} = {state}\n", "at.{name}", "assert {formula} is", "class at: pass\n"),
            _code("walrus", "({name} := {state})\n", "{name}", "(own := {formula})\nassert own =="),
        ),
        "test": (
            _code("typed", "{name}: bool = {state}\n", "{name}", "own: bool = {formula}\nassert own is"),
            _code("list", "{name} = [{state}]\n", "{name}[0]", "assert {formula} =="),
        ),
    },
    "prose": {
        "train": (
            _prose("early", "The {name} is {state}. ", ("early", "late"), "it is not so that",
                   "True or False: {formula}. The answer is"),
            _prose("free", "We found the {name} {state}. ", ("free", "bound"), "it is false that",
                   "Is it True or False that {formula}? It is"),
            _prose("strong", "They call the {name} {state}. ", ("strong", "weak"), "we deny that",
                   "Say of these words if they are True or False: {formula}. They are"),
            _prose("up", "By now the {name} is {state}. ", ("up", "down"), "nobody can say that",
                   "A child wrote that {formula}. Is it True or False? That is"),
        ),
        "dev": (
            _prose("right", "You know that the {name} is {state}. ", ("right", "wrong"), "it is a lie that",
                   "Mark this with True or False: {formula}. The mark is"),
            _prose("present", "Here the {name} is {state}. ", ("present", "absent"), "it can not be that",
                   "If one said that {formula}, would it be True or False? It would be"),
        ),
        "test": (
            _prose("old", "I think of the {name} as {state}. ", ("old", "young"), "it does not hold that",
                   "A book states that {formula}. Is that True or False? In fact it is"),
            _prose("good", "It seems the {name} is {state}. ", ("good", "bad"), "there is no way that",
                   "Choose between True and False: {formula}. I choose"),
        ),
    },
    "formal": {
        "train": (
            _formal("equal", "{name} = {state} ; ", "& | ~", "{formula} ="),
            _formal("colon", "{name} : {state} , ", "and or not", "{formula} :"),
            _formal("row", "{name} {state} | ", "/\\ \\/ ~", "{formula} ="),
            _formal("arrow", "{name} <- {state}\n", "&& || !", "{formula} ->"),
        ),
        "dev": (
            _formal("becomes", "{name} := {state} ; ", "AND OR NOT", "{formula} ="),
            _formal("round", "({name} {state}) ", "& | !", "{formula} ->"),
        ),
        "test": (
            _formal("square", "[{name}] = {state}\n", "&& || ~", "{formula} =="),
            _formal("comma", "{name}, {state} ; ", "And Or Not", "{formula}, value"),
        ),
    },
}  # fmt: skip


@dataclass(frozen=True)
class Formula:
    """A name (no ``parts``; ``name`` is its index) or two parts joined by ``and`` (``every``) or ``or``, or its denial."""

    negated: bool
    name: int = 0
    every: bool = False
    parts: tuple[Formula, ...] = ()

    def value(self, truths: Sequence[bool]) -> bool:
        """The value of the formula when ``truths[i]`` is that of name ``i``."""
        values = [part.value(truths) for part in self.parts]
        return self.negated != ((all(values) if self.every else any(values)) if values else truths[self.name])

    def say(self, logic: Logic, names: Sequence[str]) -> str:
        """The formula in words or signs."""
        if not self.parts:
            return (logic.no if self.negated else logic.yes).format(name=names[self.name])
        left, right = (part.say(logic, names) for part in self.parts)
        whole = (logic.both if self.every else logic.either).format(left=left, right=right)
        return logic.deny.format(whole=whole) if self.negated else whole


@dataclass(frozen=True)
class Claims:
    """A formula over the first half of the names, the truth of every name, and the order in which they are said.

    The value hangs on the name ``settling``; in the contrast it and ``partner``, outside of the formula, exchange truths.
    """

    formula: Formula
    truths: tuple[bool, ...]
    order: tuple[int, ...]
    settling: int
    partner: int

    def exchanged(self) -> Claims:
        """The claims of the contrast."""
        truths = list(self.truths)
        truths[self.settling], truths[self.partner] = truths[self.partner], truths[self.settling]
        return replace(self, truths=tuple(truths))

    def weave(self, phrasing: Phrasing, names: Sequence[str]) -> Weaver:
        """Say the facts and ask for the formula's value."""
        weaver = Weaver()
        weaver.add(phrasing.head, {})
        for i in self.order:
            role = "distractor" if i >= len(names) // 2 else "definition" if i == self.settling else "operand"
            weaver.add(phrasing.fact, {"name": names[i], "state": phrasing.state(self.truths[i])}, {"state": role})
        weaver.add(phrasing.query, {"formula": self.formula.say(phrasing.logic, names)}, {"formula": "query"})
        return weaver

    def render(self, form: FormName, phrasing: Phrasing, names: Sequence[str]) -> Form:
        """Put text and contrast; the control key is the truth said first, an arbitrary fact of the same kind."""
        weaver = self.weave(phrasing, names)
        value = self.formula.value(self.truths)
        weaver.label_last("value", str(value), control=str(self.truths[self.order[0]]))
        answers = ANSWERS[form]
        contrast = Contrast(self.exchanged().weave(phrasing, names).text, answers[not value])
        return Form(weaver.text, tuple(weaver.spans), answers[value], tuple(answers.values()), contrast)


def draw_formula(rng: random.Random, depth: int) -> Formula:
    """Draw a formula over ``depth + 1`` names that are numbered from the innermost level on."""
    formula = Formula(rng.random() < 0.5, name=0)
    for name in range(1, depth + 1):
        parts = rng.sample([formula, Formula(rng.random() < 0.5, name=name)], 2)
        formula = Formula(rng.random() < 0.3, every=rng.random() < 0.5, parts=tuple(parts))
    return formula


def draw(rng: random.Random, value: bool, depth: int) -> Claims:
    """Draw a formula of that depth and truths that give it ``value``."""
    formula, used = draw_formula(rng, depth), depth + 1
    settling = rng.randrange(used)
    fitting = []
    for truths in itertools.product((False, True), repeat=used):
        flipped = [truth != (i == settling) for i, truth in enumerate(truths)]
        if formula.value(truths) == value != formula.value(flipped):
            fitting.append(truths)
    inside = rng.choice(fitting)
    outside = rng.sample([not truth for truth in inside], used)
    partner = rng.choice([used + i for i, truth in enumerate(outside) if truth != inside[settling]])
    return Claims(formula, (*inside, *outside), tuple(rng.sample(range(2 * used), 2 * used)), settling, partner)


@task(
    "boolean", "the value of a nested formula over names that are true or false", {"value": ("code", "prose", "formal")}
)
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with values balanced and crossed with depths."""
    items = []
    for split, size, rng in each_split("boolean", n_items, seed):
        for i, (value, depth) in enumerate(crossed(rng, (True, False), DEPTHS, size)):
            claims = draw(rng, value, depth)
            count = len(claims.truths)
            names, letters = rng.sample(PEOPLE[split], count), rng.sample(LETTERS[split], count)
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {
                form: claims.render(form, phrasing, letters if form == "formal" else names)
                for form, phrasing in chosen.items()
            }
            group = "/".join([p.id for p in chosen.values()] + sorted(names) + sorted(letters))
            items.append(Item(f"boolean-{seed}/{split}/{i:04d}", "boolean", split, group, depth, forms))
    return items
