"""Drafts of questions about truth values, brackets and ways: boolean expressions, Dyck languages, navigate."""

from __future__ import annotations

import random

from analyses.benchmarks.local.generated_balance import Draft

BRACKETS = {"(": ")", "[": "]", "{": "}", "<": ">"}
TURNS = {"left": 1j, "right": -1j, "around": -1 + 0j}
SIDES = {"forward": 1 + 0j, "back": -1 + 0j, "to the left": 1j, "to the right": -1j}
MOST_STEPS = 9


def boolean_expression(rng: random.Random) -> Draft:
    """Three to five truth values joined by ``and``, ``or`` and ``not``; every inner operation stands in brackets."""
    text, value = _expression(rng, rng.randint(3, 5), outer=True)
    words = text.split()
    values = [word for word in words if word in ("True", "False")]
    right, wrong = str(value), str(not value)

    def says(true: bool) -> tuple[str, ...]:
        return (str(true),)

    return Draft(
        f"Work out the truth value of: {text}\nAnswer: ", right, (wrong,),
        {
            "first value": (values[0],),
            "last value": (values[-1],),
            "commonest value": says(2 * values.count("True") > len(values)) if len(values) % 2 else (),
            "more or than and": says(words.count("or") > words.count("and")),
            "evenly many not": says(words.count("not") % 2 == 0),
            "begins with not": says(words[0] != "not"),
            "is long": says(len(words) > 11),
        },
        in_order=True,
    )  # fmt: skip


def _expression(rng: random.Random, values: int, outer: bool = False) -> tuple[str, bool]:
    if values == 1:
        value = rng.random() < 0.5
        text = str(value)
    else:
        first = rng.randint(1, values - 1)
        (left, one), (right, other) = _expression(rng, first), _expression(rng, values - first)
        operation = rng.choice(("and", "or"))
        value = (one and other) if operation == "and" else (one or other)
        text = f"{left} {operation} {right}"
        if outer:
            return text, value
        text = f"( {text} )"
    return (f"not {text}", not value) if rng.random() < 0.35 else (text, value)


def dyck_language(rng: random.Random) -> Draft:
    """Brackets of which three or four stay open; the choices are orders of the ones that close them."""
    depth = rng.choice((3, 4))
    while True:
        brackets, still = _brackets(rng, depth)
        if len(set(still)) > 2:
            break
    closers = [BRACKETS[opener] for opener in reversed(still)]
    right = " ".join(closers)
    wrong: set[str] = set()
    while len(wrong) < 3:
        wrong.add(" ".join(rng.sample(closers, depth)))
        wrong.discard(right)
    choices = (right, *sorted(wrong))
    openers = [bracket for bracket in brackets if bracket in BRACKETS]
    kept = {"closes the last opened": (openers[-1], 0), "ends with the first opened": (openers[0], -1)}
    return Draft(
        f"Close all brackets that are still open: {' '.join(brackets)}\nAnswer: ", right, tuple(sorted(wrong)),
        {
            **{
                name: tuple(choice for choice in choices if choice[end] == BRACKETS[opener])
                for name, (opener, end) in kept.items()
            },
            "order of opening": tuple(choice for choice in choices if choice == " ".join(reversed(closers))),
        },
    )  # fmt: skip


def _brackets(rng: random.Random, depth: int) -> tuple[list[str], list[str]]:
    """Brackets in a row, and those left open."""
    row: list[str] = []
    still: list[str] = []
    while len(row) < 7 or len(still) != depth:
        if still and (len(still) > depth or rng.random() < 0.45):
            row.append(BRACKETS[still.pop()])
        else:
            still.append(rng.choice(list(BRACKETS)))
            row.append(still[-1])
    return row, still


def navigate(rng: random.Random) -> Draft:
    """Steps with turns, or to four sides without turning; half of the ways lead back. All have evenly many steps."""
    turning = rng.random() < 0.5
    back = rng.random() < 0.5
    while not (way := (_turning if turning else _sideways)(rng, back)):
        pass
    sentences, steps = way
    told = "" if turning else "Face forward all the time. "
    text = f"Do you end where you began if you follow these instructions? {told}{' '.join(sentences)}\nAnswer: "

    def says(yes: bool) -> tuple[str, ...]:
        return ("Yes",) if yes else ("No",)

    names = (*TURNS, *SIDES)
    return Draft(
        text, "Yes" if back else "No", ("No" if back else "Yes",),
        {
            "turning": says(turning),
            "is long": says(len(sentences) > (6 if turning else 4)),
            "many steps": says(sum(steps) > 14),
            "last as first": says(steps[0] == steps[-1]),
            "a number twice": says(len(set(steps)) < len(steps)),
            **{f"says {name}": says(any(name in sentence for sentence in sentences)) for name in names},
        },
        in_order=True,
    )  # fmt: skip


Way = tuple[list[str], list[int]] | None
"""Sentences and numbers of steps; None for a draw that can not be ended in one go."""


def _sideways(rng: random.Random, back: bool) -> Way:
    moves = [(rng.choice(list(SIDES)), rng.randint(1, 6)) for _ in range(rng.randint(2, 4))]
    end = _last(rng, -sum((SIDES[side] * steps for side, steps in moves), 0j), back)
    if end is None:
        return None
    heading, steps = end
    moves.append((next(side for side, way in SIDES.items() if way == heading), steps))
    rng.shuffle(moves)
    return [_take(steps, side) for side, steps in moves], [steps for _, steps in moves]


def _turning(rng: random.Random, back: bool) -> Way:
    heading, place, sentences, steps = 1 + 0j, 0j, [], []
    for number in range(rng.randint(2, 4)):
        if number:
            turn = rng.choice(list(TURNS))
            heading *= TURNS[turn]
            sentences.append(f"Turn {turn}.")
        steps.append(rng.randint(1, 6))
        place += heading * steps[-1]
        sentences.append(_take(steps[-1]))
    end = _last(rng, -place, back)
    if end is None:
        return None
    if end[0] != heading:
        sentences.append(f"Turn {next(turn for turn, angle in TURNS.items() if heading * angle == end[0])}.")
    return [*sentences, _take(end[1])], [*steps, end[1]]


def _last(rng: random.Random, missing: complex, back: bool) -> tuple[complex, int] | None:
    """Direction and steps of the last move: ``missing`` itself, or another one with as even a number of steps."""
    if bool(missing.real) == bool(missing.imag):
        return None
    steps = int(abs(missing.real + missing.imag))
    way = missing / steps
    if not back:
        longer = [other for other in range(1, MOST_STEPS + 1) if other != steps and (other - steps) % 2 == 0]
        way, steps = rng.choice(
            [*((way, other) for other in longer), *((way * turn, steps) for turn in TURNS.values())]
        )
    return (way, steps) if steps <= MOST_STEPS else None


def _take(steps: int, side: str = "") -> str:
    return f"Take {steps} step{'s' if steps > 1 else ''}{side and ' ' + side}."
