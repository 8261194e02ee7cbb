"""Agreement: a reader that knows the nouns, and an attractor that tells nothing."""

import re
from collections import Counter

from task_items import covered, drawn, target

from probes.tasks.agreement import ATTRACTORS, BETWEEN, NUMBERS, PHRASINGS, SUBJECTS

WORDS = {
    split: tuple(word for pool in (SUBJECTS, ATTRACTORS) for noun in pool[split] for word in noun) for split in SUBJECTS
}
"""All nouns of a split, subjects and attractors, in both numbers."""
NUMBER = {
    word: number
    for pool in (SUBJECTS, ATTRACTORS)
    for nouns in pool.values()
    for noun in nouns
    for word, number in zip(noun, NUMBERS, strict=True)
}
VERBS = {p.start.split("{")[0]: p.verbs for phrasings in PHRASINGS.values() for p in phrasings}


def solve(form: str, text: str) -> str:
    """The verb of the template's beginning, in the number of the first noun."""
    verbs = max((start for start in VERBS if text.startswith(start)), key=len)
    first = next(word for word in re.findall(r"\w+", text) if word in NUMBER)
    return f" {VERBS[verbs][NUMBERS.index(NUMBER[first])]}"


def test_nouns_differ_between_numbers_and_splits():
    nouns = [noun for pool in (SUBJECTS, ATTRACTORS) for nouns in pool.values() for noun in nouns]
    assert len({word for noun in nouns for word in noun}) == 2 * len(nouns) == len(NUMBER)


def test_the_difficulty_is_what_stands_between():
    for item in drawn("agreement"):
        form = item.forms["prose"]
        subject = next(span for span in form.spans if span.name == "subject")
        between = form.text[subject.end :].split()
        assert len(between) == (0, 1, 3)[item.difficulty]
        assert len(covered(form, "attractor")) == (item.difficulty == len(BETWEEN) - 1)
        assert [NUMBER[word] for word in covered(form, "subject")] == [target(form).label]


def test_the_attractor_is_of_either_number_as_often():
    pairs = Counter(
        (NUMBER[attractor], target(item.forms["prose"]).label)
        for item in drawn("agreement", 3600)
        for attractor in covered(item.forms["prose"], "attractor")
    )
    assert len(pairs) == 4
    assert max(pairs.values()) < 0.29 * pairs.total()
