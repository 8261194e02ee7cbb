"""Draw questions so that no shortcut answers them better than a blind guess.

A shortcut is an answer that can be had without solving the question: the option at some place, the longest one, the one
that the text names most often, or what a task says of itself. Of several drafts that could come next, the one is taken that
brings the hits of all shortcuts closest to what chance gives them (minimisation, Pocock & Simon 1975, as trials use it to
balance arms); so every beginning of the list is balanced too, and a limit takes nothing away.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from analyses.benchmarks.local.questions import Question, chosen

CANDIDATES = 8
"""Drafts that compete for the next place."""


@dataclass(frozen=True)
class Draft:
    """A question whose right answer is known by its construction.

    Attributes:
        text: all that stands before the answer, with the space that parts them.
        right: the right choice.
        wrong: the other ones.
        shortcuts: by name, the choices that a reader would take who goes by that shortcut; none where it is silent.
        in_order: whether the choices are shown in the order ``right, *wrong`` sorted downwards (``Yes`` before ``No``), and
            the right one's place is therefore not free.
    """

    text: str
    right: str
    wrong: tuple[str, ...]
    shortcuts: Mapping[str, tuple[str, ...]]
    in_order: bool = False


Draw = Callable[[random.Random], Draft]


def balanced(draw: Draw, count: int, seed: str) -> tuple[Question, ...]:
    """``count`` different questions; the right choice is at every place once in as many questions as there are choices."""
    rng = random.Random(seed)
    excess: dict[str, float] = defaultdict(float)
    questions: list[Question] = []
    seen: set[str] = set()
    places: list[int] = []
    while len(questions) < count:
        if not places:
            options = 1 + len(draw(rng).wrong)
            places = rng.sample(range(options), options)
        drafts: list[tuple[Draft, tuple[str, ...]]] = []
        while len(drafts) < CANDIDATES:
            draft = draw(rng)
            choices = _ordered(draft, places[0], rng)
            if choices[places[0]] == draft.right and draft.text not in seen:
                drafts.append((draft, choices))
        scored = [(hits(draft, choices), draft, choices) for draft, choices in drafts]
        gains, draft, choices = min(scored, key=lambda one: _imbalance(excess, one[0]))
        for name, gain in gains.items():
            excess[name] += gain
        seen.add(draft.text)
        questions.append(chosen(str(len(questions)), draft.text, choices, [places.pop(0)]))
    return tuple(questions)


def hits(draft: Draft, choices: tuple[str, ...]) -> dict[str, float]:
    """For every shortcut, how much more often than a blind guess it is right here: ties are broken blindly."""
    named = {choice: _mentions(draft.text, choice) for choice in choices}
    longest, most = max(map(len, choices)), max(map(len, named.values()))
    mentioned = {choice: places for choice, places in named.items() if places}
    common = {
        "longest": tuple(choice for choice in choices if len(choice) == longest),
        "named most": tuple(choice for choice in choices if len(named[choice]) == most),
        "named first": tuple(sorted(mentioned, key=lambda choice: mentioned[choice][0])[:1]),
        "named last": tuple(sorted(mentioned, key=lambda choice: mentioned[choice][-1])[-1:]),
        **{f"always {choice}": (choice,) for choice in choices},
        **draft.shortcuts,
    }
    chance = 1 / len(choices)
    return {name: ((draft.right in guess) / len(guess) if guess else chance) - chance for name, guess in common.items()}


def _ordered(draft: Draft, place: int, rng: random.Random) -> tuple[str, ...]:
    if draft.in_order:
        return tuple(sorted((draft.right, *draft.wrong), reverse=True))
    wrong = rng.sample(draft.wrong, len(draft.wrong))
    return (*wrong[:place], draft.right, *wrong[place:])


def _imbalance(excess: Mapping[str, float], gains: Mapping[str, float]) -> float:
    """What taking a draft adds to the sum of squared excesses."""
    return sum(gain * (2 * excess[name] + gain) for name, gain in gains.items())


def _mentions(text: str, choice: str) -> list[int]:
    """Where the text has the choice as words of its own."""
    found, low, word = [], text.lower(), choice.lower()
    place = low.find(word)
    while place >= 0:
        around = low[max(0, place - 1) : place] + low[place + len(word) : place + len(word) + 1]
        if not any(map(str.isalnum, around)):
            found.append(place)
        place = low.find(word, place + 1)
    return found
