"""Agreement: the verb has the number of its subject, whatever stands between the two (Linzen et al. 2016).

The difficulty is what stands between: nothing, an adverb, or a phrase with another noun, the attractor, which is as often
of the other number as of the same. There is no form in code, where nothing agrees in this way. Singular and plural are
words of one token in most tokenizers. Nouns are disjoint between the splits, so that a noun's own tokens do not give
the label (Linzen et al. 2016, "Assessing the Ability of LSTMs to Learn Syntax-Sensitive Dependencies").
"""

from __future__ import annotations

from dataclasses import dataclass

from probes.tasks.crossing import crossed
from probes.tasks.items import Contrast, Form, Item, Split, Weaver, task
from probes.tasks.pools import balanced, each_split

NUMBERS = ("singular", "plural")
BETWEEN = ("", " {adverb}", " {preposition} the {attractor}")
DISTANCES = tuple(range(len(BETWEEN)))
LEAD = " "

Noun = tuple[str, str]
SUBJECTS: dict[Split, tuple[Noun, ...]] = {
    "train": (
        ("man", "men"), ("boy", "boys"), ("friend", "friends"), ("child", "children"), ("eye", "eyes"),
        ("day", "days"), ("name", "names"), ("thing", "things"),
    ),
    "dev": (("woman", "women"), ("hour", "hours"), ("year", "years"), ("way", "ways")),
    "test": (
        ("horse", "horses"), ("hand", "hands"), ("arm", "arms"), ("foot", "feet"), ("line", "lines"), ("word", "words"),
    ),
}  # fmt: skip
ATTRACTORS: dict[Split, tuple[Noun, ...]] = {
    "train": (("house", "houses"), ("door", "doors"), ("road", "roads"), ("field", "fields"), ("tree", "trees")),
    "dev": (("room", "rooms"), ("street", "streets"), ("river", "rivers")),
    "test": (("garden", "gardens"), ("town", "towns"), ("book", "books"), ("wall", "walls")),
}
ADJECTIVES = (
    "old", "new", "good", "great", "little", "poor", "first", "last", "same", "other", "best", "small", "long", "white",
    "dark", "black", "strange", "fine", "common", "true", "large", "second", "next", "only", "real", "plain", "simple",
    "heavy", "bright", "kind",
)  # fmt: skip
ADVERBS = ("there", "also", "now", "then", "still")
PREPOSITIONS = ("of", "in", "near", "from")


@dataclass(frozen=True)
class Phrasing:
    """One template: the words before the subject, and the verb in the singular and the plural."""

    id: str
    start: str
    verbs: tuple[str, str]


PHRASINGS: dict[Split, tuple[Phrasing, ...]] = {
    "train": (
        Phrasing("all", "After all, the {adjective} {noun}", ("was", "were")),
        Phrasing("think", "I think the {adjective} {noun}", ("is", "are")),
        Phrasing("so", "So the {adjective} {noun}", ("is", "are")),
        Phrasing("knew", "He knew that the {adjective} {noun}", ("was", "were")),
    ),
    "dev": (
        Phrasing("but", "But the {adjective} {noun}", ("is", "are")),
        Phrasing("say", "They say the {adjective} {noun}", ("has", "have")),
    ),
    "test": (
        Phrasing("the", "The {adjective} {noun}", ("was", "were")),
        Phrasing("and", "And the {adjective} {noun}", ("has", "have")),
    ),
}


def render(phrasing: Phrasing, number: str, distance: int, subject: Noun, words: dict[str, str]) -> Form:
    """Say the subject and what stands between; the contrast has the subject in the other number.

    The control key is the adjective: as far back as the noun, and of words that all splits share.
    """
    own = NUMBERS.index(number)
    weaver = Weaver()
    weaver.add(
        phrasing.start + BETWEEN[distance],
        {**words, "noun": subject[own]},
        {"noun": "subject", "attractor": "attractor"},
    )
    weaver.label_last("number", number, control=words["adjective"])
    verbs = tuple(LEAD + verb for verb in phrasing.verbs)
    contrast = Contrast(weaver.edited("subject", subject[1 - own]), verbs[1 - own])
    return Form(weaver.text, tuple(weaver.spans), verbs[own], verbs, contrast)


@task("agreement", "whether the verb is to be singular or plural", {"number": ("prose",)})
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw items with balanced numbers, crossed with what stands between subject and verb."""
    items = []
    for split, size, rng in each_split("agreement", n_items, seed):
        latents = zip(crossed(rng, NUMBERS, DISTANCES, size), balanced(rng, SUBJECTS[split], size), strict=True)
        for i, ((number, distance), subject) in enumerate(latents):
            phrasing, attractor = rng.choice(PHRASINGS[split]), rng.choice(ATTRACTORS[split])
            words = {
                "adjective": rng.choice(ADJECTIVES),
                "adverb": rng.choice(ADVERBS),
                "preposition": rng.choice(PREPOSITIONS),
                "attractor": rng.choice(attractor),
            }
            form = render(phrasing, number, distance, subject, words)
            group = "/".join([phrasing.id, subject[0], *([attractor[0]] if distance == len(BETWEEN) - 1 else [])])
            items.append(
                Item(f"agreement-{seed}/{split}/{i:04d}", "agreement", split, group, distance, {"prose": form})
            )
    return items
