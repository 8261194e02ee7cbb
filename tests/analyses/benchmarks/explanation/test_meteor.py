"""METEOR and its stemmer: NLTK's numbers, committed and, where NLTK is importable, computed afresh."""

from __future__ import annotations

import random

import pytest

from analyses.benchmarks.explanation.meteor import align, meteor, words
from analyses.benchmarks.explanation.porter import stem

KNOWN = [
    ("sorts the list in place", ["sort the list in place"], 0.996),
    ("the list of the numbers is sorted", ["sort the numbers of the list"], 0.6989981785063752),
    (
        "open file and read lines",
        ["read all lines of an open file", "opens a file, reading its lines"],
        0.4641544117647058,
    ),
    ("nothing alike", ["sort a list"], 0.0),
    ("a a a b", ["b a a"], 0.8243727598566307),
    ("", ["sort a list"], 0.0),
]
"""NLTK 3.10's scores, with a WordNet that knows no synonyms."""
STEMS = """caresses caress ponies poni ties tie cats cat feed feed agreed agre plastered plaster sing sing hopping hop falling
fall filing file happy happi enjoy enjoy relational relat rational ration digitizer digit radically radic analogously analog
geology geolog hopefully hope electrical electr revival reviv adoption adopt replacement replac probate probat rate rate
controlling control roll roll dying die skies sky as as spied spi died die innings inning generalizations gener
oscillators oscil"""
"""Words and NLTK's stems, in turns."""
ENDINGS = """s ies sses ed ing eed ied y ational tional enci izer bli alli entli eli ousli ization ator alism iveness fulness
fulli logi logy icate ative alize ical ful ness al ance ement ment ion ism ate ize ll e es"""


@pytest.mark.parametrize(("hypothesis", "references", "score"), KNOWN)
def test_known_scores(hypothesis: str, references: list[str], score: float) -> None:
    assert meteor(words(hypothesis), [words(text) for text in references]) == pytest.approx(score, abs=1e-15)


def test_known_stems() -> None:
    listed = STEMS.split()
    assert [stem(word) for word in listed[::2]] == listed[1::2]


def test_a_score_by_hand() -> None:
    """Three of four words match, of five; in two chunks."""
    hypothesis, reference = list("abxc"), list("abcde")
    assert align(hypothesis, reference) == [(0, 0), (1, 1), (3, 2)]
    mean = 10 * 0.75 * 0.6 / (0.6 + 9 * 0.75)
    assert meteor(hypothesis, [reference]) == pytest.approx(mean * (1 - 0.5 * (2 / 3) ** 3))


def test_exact_matches_come_before_stems() -> None:
    assert align(["sorting", "sorted"], ["sorted", "sort"]) == [(0, 1), (1, 0)]


def test_words_are_lower_case_and_signs_stand_alone() -> None:
    assert words("Sort `x_1`, ascending!") == ["sort", "`", "x_1", "`", ",", "ascending", "!"]


def _spelled(generator: random.Random) -> str:
    start = "".join(generator.choice("aeioubtlsyzcwx") for _ in range(generator.randrange(6)))
    return start + "".join(generator.sample(ENDINGS.split(), generator.randrange(1, 3)))


def test_nltk_gives_the_same() -> None:
    reason = "NLTK is not installed (it is no dependency): METEOR is checked against committed numbers only"
    theirs = pytest.importorskip("nltk.translate.meteor_score", reason=reason)
    porter = pytest.importorskip("nltk.stem.porter", reason=reason).PorterStemmer()

    class NoSynonyms:
        def synsets(self, word: str) -> list[str]:
            return []

    generator = random.Random(0)
    spelled = [_spelled(generator) for _ in range(20_000)]
    assert [stem(word) for word in spelled] == [porter.stem(word) for word in spelled]
    for _ in range(500):
        some = [*generator.sample(spelled, 6), "sort", "sorts", "sorted", "list", "lists"]
        hypothesis, *references = [generator.choices(some, k=generator.randrange(1, 12)) for _ in range(3)]
        expected = theirs.meteor_score(references, hypothesis, wordnet=NoSynonyms())
        assert meteor(hypothesis, references) == pytest.approx(expected, abs=1e-14)
