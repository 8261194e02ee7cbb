"""The Porter stemmer with the small departures that NLTK makes by default.

M. F. Porter 1980, "An algorithm for suffix stripping"; the departures (irregular words, short words in -ies and -ied, -y after
a consonant, -bli, -alli, -fulli and -logi) are those of ``nltk.stem.PorterStemmer``, so that METEOR needs no NLTK.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

Rule = tuple[str, str]

IRREGULAR = {
    **{"skies": "sky", "sky": "sky", "dying": "die", "lying": "lie", "tying": "tie", "news": "news", "howe": "howe"},
    **{"innings": "inning", "inning": "inning", "outings": "outing", "outing": "outing"},
    **{"cannings": "canning", "canning": "canning", "proceed": "proceed", "exceed": "exceed", "succeed": "succeed"},
}
PLURALS = (("sses", "ss"), ("ies", "i"), ("ss", "ss"), ("s", ""))
DOUBLE_SUFFIXES = (
    *(("ational", "ate"), ("tional", "tion"), ("enci", "ence"), ("anci", "ance"), ("izer", "ize"), ("bli", "ble")),
    *(("alli", "al"), ("entli", "ent"), ("eli", "e"), ("ousli", "ous"), ("ization", "ize"), ("ation", "ate")),
    *(("ator", "ate"), ("alism", "al"), ("iveness", "ive"), ("fulness", "ful"), ("ousness", "ous"), ("aliti", "al")),
    *(("iviti", "ive"), ("biliti", "ble"), ("fulli", "ful")),
)
FULL_SUFFIXES = (
    *(("icate", "ic"), ("ative", ""), ("alize", "al"), ("iciti", "ic"), ("ical", "ic"), ("ful", ""), ("ness", "")),
)
LAST_SUFFIXES = (
    *(("al", ""), ("ance", ""), ("ence", ""), ("er", ""), ("ic", ""), ("able", ""), ("ible", ""), ("ant", "")),
    *(("ement", ""), ("ment", ""), ("ent", ""), ("ion", ""), ("ou", ""), ("ism", ""), ("ate", ""), ("iti", "")),
    *(("ous", ""), ("ive", ""), ("ize", "")),
)


@lru_cache(maxsize=100_000)
def stem(word: str) -> str:
    """The stem of a word, in lower case."""
    word = word.lower()
    if word in IRREGULAR:
        return IRREGULAR[word]
    if len(word) <= 2:
        return word
    word = _without_y(_without_past(_without_plural(word)))
    word = _without_double_suffix(word)
    word = _replaced(word, FULL_SUFFIXES, lambda rest, _: _measure(rest) > 0)
    word = _replaced(
        word, LAST_SUFFIXES, lambda rest, suffix: _measure(rest) > 1 and (suffix != "ion" or rest[-1] in "st")
    )
    if word.endswith("e"):
        rest = word[:-1]
        if _measure(rest) > 1 or (_measure(rest) == 1 and not _ends_short(rest)):
            word = rest
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _pattern(word: str) -> str:
    """``c`` or ``v`` for every character: vowels are a, e, i, o, u, and y after a consonant."""
    kinds: list[str] = []
    for letter in word:
        vowel = letter in "aeiou" or (letter == "y" and kinds[-1:] == ["c"])
        kinds.append("v" if vowel else "c")
    return "".join(kinds)


def _measure(word: str) -> int:
    """Porter's m: how often a vowel is followed by a consonant."""
    return _pattern(word).count("vc")


def _ends_short(word: str) -> bool:
    """Porter's *o, consonant, vowel and a consonant other than w, x, y; or a word of a vowel and a consonant."""
    pattern = _pattern(word)
    return pattern == "vc" or (pattern.endswith("cvc") and word[-1] not in "wxy")


def _replaced(word: str, rules: Sequence[Rule], allowed: Callable[[str, str], bool]) -> str:
    """The word with the first suffix that it has replaced, where that is allowed."""
    for suffix, replacement in rules:
        if word.endswith(suffix):
            rest = word[: -len(suffix)]
            return rest + replacement if allowed(rest, suffix) else word
    return word


def _without_plural(word: str) -> str:
    if len(word) == 4 and word.endswith("ies"):
        return word[:-1]
    return _replaced(word, PLURALS, lambda rest, suffix: True)


def _without_past(word: str) -> str:
    if word.endswith("ied"):
        return word[:-1] if len(word) == 4 else word[:-2]
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    match = re.fullmatch("(.*)(?:ed|ing)", word, re.DOTALL)
    if match is None or "v" not in _pattern(match[1]):
        return word
    rest = match[1]
    if rest.endswith(("at", "bl", "iz")):
        return rest + "e"
    if len(rest) > 1 and rest[-1] == rest[-2] and _pattern(rest)[-1] == "c":
        return rest if rest[-1] in "lsz" else rest[:-1]
    return rest + "e" if _measure(rest) == 1 and _ends_short(rest) else rest


def _without_y(word: str) -> str:
    rest = word[:-1]
    return rest + "i" if word.endswith("y") and len(rest) > 1 and _pattern(rest)[-1] == "c" else word


def _without_double_suffix(word: str) -> str:
    if word.endswith("alli") and _measure(word[:-4]) > 0:
        return _without_double_suffix(word[:-2])
    if word.endswith("logi"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    return _replaced(word, DOUBLE_SUFFIXES, lambda rest, _: _measure(rest) > 0)
