"""Small solvers of the puzzles that the logic tasks are tested on: forward chaining, and all orders of a few objects."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from itertools import permutations

ANYTHING = ("something", "someone", "it", "they", "?")
Literal = tuple[str, str, str, bool]
"""Subject, verb, object or property, and whether it is so: ("cat", "see", "dog", False)."""


def literal(words: str, subject: str = "") -> Literal:
    """Read "the cat does not see the dog", "Bob is kind" or, given the subject, "is kind" and "not kind"."""
    tokens = [word for word in words.rstrip(".").split() if word.lower() != "the"]
    if not subject:
        at = next(
            i for i, word in enumerate(tokens) if i and (word in ("is", "are", "does", "do") or i == _name(tokens))
        )
        subject, tokens = " ".join(tokens[:at]), tokens[at:]
    so = "not" not in tokens
    tokens = [word for word in tokens if word not in ("not", "does", "do", "a", "an")]
    verb = tokens.pop(0) if tokens[0] in ("is", "are") or len(tokens) > 1 else "is"
    verb = "is" if verb == "are" else verb.removesuffix("s") if verb != "is" else verb
    who = "?" if subject.lower() in ANYTHING else subject.lower()
    return who, verb, " ".join(tokens).lower(), so


def _name(tokens: list[str]) -> int:
    return 2 if tokens[0].lower() == "bald" else 1


def rule(sentence: str) -> tuple[list[Literal], Literal] | None:
    """The conditions and the conclusion of a rule of ProofWriter's English; None for a fact."""
    sentence = sentence.rstrip(".")
    if sentence.startswith("If "):
        before, after = sentence.removeprefix("If ").split(" then ")
        conditions: list[Literal] = []
        for part in before.split(" and "):
            alone = len(part.split()) == 1 or part.startswith("not ")
            conditions.append(literal(part, conditions[-1][0] if alone else ""))
        return conditions, literal(after)
    found = re.fullmatch(r"(?:All )?(.+) (?:things|people) are (.+)", sentence)
    if found is None:
        return None
    return [literal(f"is {word}", "?") for word in re.split(", | and ", found[1])], literal(f"is {found[2]}", "?")


def closure(context: str) -> set[Literal]:
    """All that follows from the facts and rules of a text, negations included (the open world)."""
    sentences = [part for part in re.split(r"(?<=\.)\s+", context.strip()) if part]
    read = [(sentence, rule(sentence)) for sentence in sentences]
    known = {literal(sentence) for sentence, found in read if found is None}
    rules = [found for _, found in read if found is not None]
    names = {name for who, verb, what, _ in known for name in ((who, what) if verb != "is" else (who,))}
    names |= {name for conditions, end in rules for who, verb, what, _ in (*conditions, end)
              for name in ((who, what) if verb != "is" else (who,)) if name != "?"}  # fmt: skip
    while True:
        new = {
            (name if end[0] == "?" else end[0], *end[1:])
            for conditions, end in rules
            for name in names
            if all((name if who == "?" else who, *rest) in known for who, *rest in conditions)
        } - known
        if not new:
            return known
        known |= new


def truth(context: str, claim: str) -> str:
    """Whether a claim of ProofWriter's English follows, is excluded, or neither."""
    known, (who, verb, what, so) = closure(context), literal(claim)
    follows, excluded = (((who, verb, what, way) in known) for way in (so, not so))
    return "true" if follows else "false" if excluded else "unknown"


def chained(context: str, claim: str) -> str:
    """Whether a claim of PrOntoQA's English ("Max is not sour.") is true: walk from kind to kind."""
    *kinds, fact = [sentence for sentence in re.split(r"\.\s*", context) if sentence]
    who, _, first = fact.partition(" is ")
    reached, edges = {_kind(first)}, [_edge(kind) for kind in kinds]
    while True:
        new = {end for start, end in edges if start in reached} - reached
        if not new:
            break
        reached |= new
    subject, _, what = claim.rstrip(".").partition(" is ")
    assert subject == who
    positive = _kind(what.removeprefix("not "))
    return "true" if ("not " if what.startswith("not ") else "") + positive in reached else "false"


def _kind(words: str) -> str:
    word = words.split()[-1].lower()
    return re.sub(r"(us)es$", r"\1", word)


def _edge(sentence: str) -> tuple[str, str]:
    start, end = re.split(r" (?:is|are) ", sentence)
    return _kind(start), ("not " if end.startswith("not ") else "") + _kind(end)


# Words for an end of a row, from its low end, which is the left, the oldest, the cheapest, and the place first.
LOW = ("left", "older", "oldest", "cheapest", "cheaper", "less expensive", "above", "top", "leftmost")
ORDINALS = ("", "second", "third", "fourth", "fifth", "sixth")


def orders(context: str, names: list[str]) -> list[dict[str, int]]:
    """All orders of the objects (name to rank from 0) that fit LogicalDeduction's sentences."""
    sentences = [part for part in re.split(r"(?<=\.)\s+", context.split("\n\n")[1]) if part][1:]
    tests = [placed(sentence, tuple(names)) for sentence in sentences]
    ranked = (dict(zip(names, ranks, strict=True)) for ranks in permutations(range(len(names))))
    return [ranks for ranks in ranked if all(test(ranks) for test in tests)]


@cache
def placed(sentence: str, names: tuple[str, ...]) -> Callable[[dict[str, int]], bool]:
    """What a sentence ("The quail is the second from the left.") asks of an order."""
    text = sentence.rstrip(".").lower()
    mentioned = sorted((text.index(name.lower()), name) for name in names if re.search(rf"\b{name.lower()}\b", text))
    who = mentioned[0][1]
    rest = text.split(who.lower(), 1)[1]
    if len(mentioned) == 2:
        other = mentioned[1][1]
        low = any(re.search(rf"\b{word}\b", rest.split(other.lower())[0]) for word in LOW)
        return lambda ranks: (ranks[who] < ranks[other]) == low
    place = next((i for i, word in enumerate(ORDINALS) if word and re.search(rf"\b{word}\b", rest)), 0)
    from_low = ("finished" in rest and "last" not in rest) or any(re.search(rf"\b{word}\b", rest) for word in LOW)
    return lambda ranks: ranks[who] == (place if from_low else len(names) - 1 - place)
