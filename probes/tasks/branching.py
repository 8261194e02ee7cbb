"""Branching: of three conditions on one stated word the first that holds picks its outcome, else a fourth is picked.

The difficulty is the number of conditions to judge before the outcome is known: 1 or 2 where the first or second branch
runs, 3 where the third or the last does. Every text has the same four outcomes, one per branch in random order, and
three conditions, one of them negated and two naming two words: neither the words of a text nor its length say which
branch runs. Conditions overlap, so the branch that names the stated word is more often than not another one; the best
guess from places alone, the first or the second branch, is right in one text of three. The contrast states another
word, under which another branch runs.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from probes.tasks.branching_words import LETTERS, PHRASINGS, STATES, THINGS, VARIABLE, Phrasing, Tests
from probes.tasks.crossing import crossed
from probes.tasks.items import Contrast, Form, FormName, Item, Split, Weaver, task
from probes.tasks.pools import PEOPLE, each_split
from probes.tasks.statements import LEAD

OUTCOMES = ("key", "map", "file", "log")
DIFFICULTIES = (1, 2, 3)
CONDITIONS = 3


@dataclass(frozen=True)
class Condition:
    """Whether the stated word is one of ``states``, or is none of them."""

    states: tuple[str, ...]
    negated: bool

    def holds(self, state: str) -> bool:
        """Whether the condition is true of ``state``."""
        return (state in self.states) != self.negated

    def put(self, tests: Tests, thing: str, symbols: Mapping[str, str]) -> str:
        """The condition in the words of a template."""
        if len(self.states) == 1:
            pattern = tests.other if self.negated else tests.one
        else:
            pattern = tests.neither if self.negated else tests.either
        a, b = symbols[self.states[0]], symbols[self.states[-1]]
        return pattern.format(thing=thing, a=a, b=b)


@dataclass(frozen=True)
class Choice:
    """What is stated, the rule, and the outcomes in the order of their branches; ``other`` is stated in the contrast."""

    name: str
    thing: str
    states: tuple[str, ...]
    conditions: tuple[Condition, ...]
    outcomes: tuple[str, ...]
    state: str
    other: str

    def render(self, form: FormName, phrasing: Phrasing, split: Split) -> Form:
        """State, rule and question in one template; in ``formal`` every word is replaced by its letter.

        The target ``value`` lies on the last token; its control key is the outcome of the first branch.
        """
        formal = form == "formal"
        symbols = {word: word for word in (*self.states, *OUTCOMES)}
        if formal:
            symbols = dict(zip(STATES[split], LETTERS[split], strict=True)) | {
                word: word[0].upper() for word in OUTCOMES
            }
        words = {
            "name": VARIABLE[split] if formal else self.name,
            "thing": "x" if formal else self.thing,
            "state": symbols[self.state],
        }
        taken = branch(self.conditions, self.state)
        weaver = Weaver()
        weaver.add(phrasing.head, words, {"state": "stated"})
        for i, (template, outcome) in enumerate(zip(phrasing.branches, self.outcomes, strict=True)):
            test = self.conditions[i].put(phrasing.tests, words["thing"], symbols) if i < CONDITIONS else ""
            weaver.add(
                template,
                {**words, "test": test, "outcome": symbols[outcome]},
                {"outcome": "definition" if i == taken else "distractor"},
            )
        weaver.add(phrasing.tail, words, {"state": "stated", "name": "query"})
        weaver.label_last("value", self.outcomes[taken], control=self.outcomes[0])
        answers = [LEAD[form] + symbols[outcome] for outcome in self.outcomes]
        return Form(
            text=weaver.text,
            spans=tuple(weaver.spans),
            answer=answers[taken],
            candidates=tuple(answers),
            contrast=Contrast(
                weaver.edited("stated", symbols[self.other]), answers[branch(self.conditions, self.other)]
            ),
        )


def branch(conditions: Sequence[Condition], state: str) -> int:
    """The index of the first condition that holds; their number where none does."""
    return next((i for i, condition in enumerate(conditions) if condition.holds(state)), len(conditions))


def draw(rng: random.Random, split: Split, outcome: str, difficulty: int) -> Choice:
    """Draw a rule that comes to ``outcome`` after judging ``difficulty`` conditions."""
    taken = CONDITIONS - rng.randrange(2) if difficulty == CONDITIONS else difficulty - 1
    states = rng.sample(STATES[split], 4)
    here: list[str] = []
    while not here:  # until some word leads to the branch; the other words never all do
        negated, single = rng.randrange(CONDITIONS), rng.randrange(CONDITIONS)
        conditions = tuple(
            Condition(tuple(rng.sample(states, 1 if i == single else 2)), i == negated) for i in range(CONDITIONS)
        )
        here = [state for state in states if branch(conditions, state) == taken]
    outcomes = rng.sample([word for word in OUTCOMES if word != outcome], CONDITIONS)
    outcomes.insert(taken, outcome)
    return Choice(
        name=rng.choice(PEOPLE[split]),
        thing=rng.choice(THINGS[split]),
        states=tuple(states),
        conditions=conditions,
        outcomes=tuple(outcomes),
        state=rng.choice(here),
        other=rng.choice([state for state in states if state not in here]),
    )


@task(
    "branching",
    "which outcome a chain of conditions on a stated word picks",
    {"value": ("code", "prose", "formal")},
)
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced outcomes and difficulties, each outcome as often at each difficulty."""
    items = []
    for split, size, rng in each_split("branching", n_items, seed):
        for i, (outcome, difficulty) in enumerate(crossed(rng, OUTCOMES, DIFFICULTIES, size)):
            choice = draw(rng, split, outcome, difficulty)
            chosen = {form: rng.choice(phrasings[split]) for form, phrasings in PHRASINGS.items()}
            forms = {form: choice.render(form, phrasing, split) for form, phrasing in chosen.items()}
            group = "/".join([p.id for p in chosen.values()] + [choice.name, choice.thing, *sorted(choice.states)])
            items.append(Item(f"branching-{seed}/{split}/{i:04d}", "branching", split, group, difficulty, forms))
    return items
