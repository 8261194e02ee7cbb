"""METEOR with exact and stem matches, without synonyms: no WordNet, no network.

Banerjee & Lavie 2005, "METEOR: An Automatic Metric for MT Evaluation with Improved Correlation with Human Judgments", in the
form of Lavie & Agarwal 2007 with :data:`ALPHA`, :data:`BETA`, :data:`GAMMA` (which are the constants of 2005): not METEOR 1.5
of Denkowski & Lavie 2014, which weighs function words and paraphrases. Alignment is that of ``nltk.translate.meteor_score``:
words are matched from the last to the first, each with the last equal word left; fewest crossings are not searched for. The
score equals NLTK's with a WordNet that knows no synonyms.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from analyses.benchmarks.explanation.porter import stem

ALPHA = 0.9
"""Weight of recall in the harmonic mean ``P R / (alpha P + (1 - alpha) R)``; 0.9 is the 10 P R / (R + 9 P) of 2005."""
BETA = 3.0
"""Exponent of the fragmentation penalty."""
GAMMA = 0.5
"""Largest fragmentation penalty."""


def words(text: str) -> list[str]:
    """Runs of letters, digits and underscores, and every other sign that is not white space by itself; lower case."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


def meteor(hypothesis: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """The best score of a hypothesis against any of its references, 0 to 1; all of them as words in lower case."""
    return max(_against(hypothesis, reference) for reference in references)


def _against(hypothesis: Sequence[str], reference: Sequence[str]) -> float:
    matches = align(hypothesis, reference)
    if not matches:
        return 0.0
    precision, recall = len(matches) / len(hypothesis), len(matches) / len(reference)
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall)
    chunks = 1 + sum((after[0] - before[0], after[1] - before[1]) != (1, 1) for before, after in pairwise(matches))
    return (1 - GAMMA * (chunks / len(matches)) ** BETA) * mean


def align(hypothesis: Sequence[str], reference: Sequence[str]) -> list[tuple[int, int]]:
    """Matched positions in both, in the order of the hypothesis: equal words first, then equal stems of what is left."""
    exact = _matched(dict(enumerate(hypothesis)), dict(enumerate(reference)))
    taken = [set(side) for side in zip(*exact, strict=True)] or [set(), set()]
    left = [
        {place: stem(word) for place, word in enumerate(text) if place not in used}
        for text, used in zip((hypothesis, reference), taken, strict=True)
    ]
    return sorted(exact + _matched(*left))


def _matched(hypothesis: dict[int, str], reference: dict[int, str]) -> list[tuple[int, int]]:
    places: dict[str, list[int]] = {}
    for place, word in reference.items():
        places.setdefault(word, []).append(place)
    return [(place, places[word].pop()) for place, word in reversed(hypothesis.items()) if places.get(word)]
