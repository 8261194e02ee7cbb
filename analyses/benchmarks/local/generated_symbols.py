"""Drafts of questions about numbers and words: arithmetic, sorting words."""

from __future__ import annotations

import random

from analyses.benchmarks.local.generated_balance import Draft

WORDS = (
    "apple", "arm", "bank", "bed", "bird", "boat", "bread", "bridge", "car", "cat", "chair", "city", "cloud", "coat", "corn",
    "day", "desk", "dog", "door", "ear", "egg", "eye", "farm", "field", "fire", "fish", "flag", "foot", "game", "gate",
    "girl", "glass", "gold", "grass", "hand", "heart", "hill", "horse", "house", "ice", "iron", "key", "king", "lake",
    "land", "leaf", "letter", "light", "line", "map", "milk", "moon", "nail", "name", "night", "oil", "page", "paper",
    "park", "pen", "rain", "ring", "river", "road", "rock", "room", "salt", "sand", "sea", "ship", "shoe", "sky", "snow",
    "star", "stone", "sun", "table", "tail", "tea", "time", "town", "train", "tree", "wall", "water", "wind", "wood", "year",
)  # fmt: skip


def arithmetic(rng: random.Random) -> Draft:
    """Two operations on numbers up to 20; the right number is as often the largest choice as any other.

    All choices have two digits.
    """
    while True:
        one, other, third = (rng.randint(2, 20) for _ in range(3))
        times = rng.randint(2, 6)
        text, value = rng.choice((
            (f"{one} + {other} + {third}", one + other + third),
            (f"{one} + {other} - {third}", one + other - third),
            (f"{one} - {other} + {third}", one - other + third),
            (f"{one} + {times} * {other}", one + times * other),
            (f"( {one} + {other} ) * {times}", (one + other) * times),
            (f"( {one} - {other} ) * {times}", (one - other) * times),
        ))  # fmt: skip
        if 25 <= value <= 80:
            break
    # The distances between the choices are drawn before the right one's rank, so their pattern does not give it away.
    distances = [rng.randint(1, 4) for _ in range(3)]
    heights = [sum(distances[:rank]) for rank in range(4)]
    own = rng.choice(heights)
    ordered = [value + height - own for height in heights]
    wrong = tuple(str(number) for number in ordered if number != value)
    ranks = {f"number {rank + 1} in size": (str(number),) for rank, number in enumerate(ordered)}
    even = tuple(str(number) for number in ordered if number % 2 == 0)
    return Draft(f"What is {text}?\nAnswer: ", str(value), wrong, {**ranks, "even": even})


def word_sorting(rng: random.Random) -> Draft:
    """Three words that are to be put in alphabetical order; the choices are orders of them."""
    words = rng.sample(WORDS, 3)
    ordered = sorted(words)
    wrong: set[str] = set()
    while len(wrong) < 2:
        wrong.add(", ".join(rng.sample(words, 3)))
        wrong.discard(", ".join(ordered))
    choices = (", ".join(ordered), *sorted(wrong))

    def opens(word: str) -> tuple[str, ...]:
        return tuple(choice for choice in choices if choice.startswith(f"{word}, "))

    return Draft(
        f"Put these words into alphabetical order: {', '.join(words)}\nAnswer: ", choices[0], tuple(sorted(wrong)),
        {
            **{f"opens with word {number + 1}": opens(word) for number, word in enumerate(words)},
            "as given": tuple(choice for choice in choices if choice == ", ".join(words)),
            "opens with the shortest": opens(min(words, key=len)),
            "opens with the longest": opens(max(words, key=len)),
        },
    )  # fmt: skip
