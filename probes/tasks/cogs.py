"""COGS: who is agent, theme or recipient, on the user's files (Kim & Linzen 2020; SLOG: Li et al. 2023).

Tab-separated lines ``sentence``, ``logical form``, ``category``, in a file or in a folder with files called (or ending in)
train, dev and test. A folder's generalisation set (``gen.tsv``) is left alone, as its cases are out of the distribution
by design; name that file itself to draw from it alone. The logical form is read in both published ways, with variables
or without (Qiu et al. 2022), which give the same roles::

    A cat saw the toy in a bag .  * toy ( x _ 4 ) ; cat ( x _ 1 ) AND see . agent ( x _ 2 , x _ 1 ) AND see . theme (
                                      x _ 2 , x _ 4 ) AND toy . nmod . in ( x _ 4 , x _ 7 ) AND bag ( x _ 7 )
    A cat saw the toy in a bag .  see ( agent = cat , theme = * toy ( nmod . in = bag ) )

Lines whose sentence does not end in ``.`` or ``?`` (primitives, bare noun phrases) are skipped. The category is not used.

A noun's role often follows only from what comes after it ("A toy was ..."), which a causal model has not read at the
noun. So the text is the sentence and a question about one of its nouns (``Here the toy is the``), and the target
``role`` lies on the last token; spans without a label mark the noun in the sentence (``definition``) and in the question
(``query``). Asked about are nouns and names that occur once and have one role; of a sentence, one of them, at random.
The difficulty is the number of clauses and modifiers embedded anywhere in the sentence.

The group is the verb that gives the role, so that no verb's habits carry over from training to test; the splits of the
data hold as well. The control key is the noun asked about. There is no answer to compare, hence no contrast.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from activations.errors import TwinprobeError
from activations.texts import Span, numbered_lines
from probes.tasks.drawing import Example, draw_items, split_files
from probes.tasks.items import Form, Item, Split, Task, source

SUMMARY = "who is agent, theme or recipient in the sentences of your files"
FORM = "prose"
ROLES = ("agent", "theme", "recipient")
EMBEDDED = ("ccomp", "xcomp", "nmod")
CONJUNCT = re.compile(r"(?:\* )?\w+(?: \. (\w+)(?: \. \w+)?)? \( (?:x _ \d+|\S+)(?: , (x _ \d+|\S+))? \)")


@dataclass(frozen=True)
class Link:
    """An edge of a logical form: ``word`` fills ``role`` (or is embedded as ``ccomp`` ..) under the verb or noun ``head``."""

    head: str
    role: str
    word: str


def links_of(logical_form: str, words: Sequence[str]) -> list[Link]:
    """The edges of a logical form with variables (``x _ 2`` is ``words[2]``) or without.

    Raises:
        ValueError: it is neither; says where.
    """
    if "=" in logical_form:
        tokens = list(reversed(logical_form.split()))
        links = list(_without_variables(tokens))
        if tokens:
            raise ValueError(f"the logical form goes on after its end with {tokens[-1]!r}")
        return links
    links = []
    for conjunct in re.split(r" ; | AND ", logical_form):
        found = CONJUNCT.fullmatch(conjunct)
        if found is None:
            raise ValueError(f"{conjunct!r} is not a conjunct such as 'see . agent ( x _ 2 , x _ 1 )'")
        if found[2] is not None:
            links.append(Link(conjunct.removeprefix("* ").split()[0], found[1], _named(found[2], words)))
    return links


def _named(argument: str, words: Sequence[str]) -> str:
    if not argument.startswith("x _ "):
        return argument
    index = int(argument.removeprefix("x _ "))
    if index >= len(words):
        raise ValueError(f"{argument!r} lies behind the sentence's {len(words)} words")
    return words[index]


def _without_variables(tokens: list[str]) -> Iterator[Link]:
    """Read one ``head ( role = filler , .. )`` off the end of the reversed tokens, and yield its edges from the top down."""

    def take(*expected: str) -> str:
        token = tokens.pop() if tokens else "its end"
        if expected and token not in expected:
            raise ValueError(f"the logical form has {token} where {' or '.join(expected)} must stand")
        return token

    head = take()
    if head == "*":
        head = take()
    if not tokens or tokens[-1] != "(":
        return
    closed = take("(")
    while closed != ")":
        role = take()
        if tokens and tokens[-1] == ".":
            take(".")
            take()  # the preposition
        take("=")
        starred = bool(tokens) and tokens[-1] == "*"
        at = len(tokens) - 1 - starred
        yield Link(head, role, tokens[at] if at >= 0 else "")
        yield from _without_variables(tokens)
        closed = take(",", ")")


@source("cogs", SUMMARY, "a .tsv file of COGS' kind, or a folder with train, dev and test .tsv")
def read(path: Path) -> Task:
    """Read the sentences with the nouns that can be asked about.

    Raises:
        TwinprobeError: a file is missing or without sentences, or a line is not as described; names file and line.
    """
    files = split_files(path, ".tsv")
    sentences: dict[str, list[Example]] = {}
    for file, split in files:
        for number, line in numbered_lines(file):
            sentence, examples = _examples(line.rstrip("\r\n"), f"{file}:{number}", split)
            if examples:
                sentences.setdefault(sentence, examples)  # the two logical forms of a sentence say the same
    if not sentences:
        raise TwinprobeError(f"{path}: no sentence gives a noun its role; expected lines of COGS' kind")

    def generate(n_items: int, seed: int) -> list[Item]:
        rng = random.Random(f"cogs-{seed}-nouns")
        return draw_items("cogs", path, [rng.choice(nouns) for nouns in sentences.values()], n_items, seed)

    read_from = tuple(file for file, _ in files)
    return Task("cogs", SUMMARY, {"role": (FORM,)}, generate, causal=False, files=read_from)


def _examples(line: str, where: str, split: Split | None) -> tuple[str, list[Example]]:
    """The sentence of a line, and an example for every noun in it that can be asked about."""
    fields = line.split("\t")
    if len(fields) != 3:
        raise TwinprobeError(f"{where}: expected sentence, logical form and category with tabs between, got {line!r}")
    sentence, logical_form, _ = fields
    words = sentence.split(" ")
    if words[-1] not in (".", "?"):
        return sentence, []
    try:
        links = links_of(logical_form, words)
    except (ValueError, RecursionError) as error:  # brackets hundreds deep
        raise TwinprobeError(f"{where}: {error}") from None
    roles: dict[str, list[Link]] = defaultdict(list)
    for link in links:
        if link.role in ROLES and link.word != "?":
            roles[link.word].append(link)
        elif link.role not in (*ROLES, *EMBEDDED):
            raise TwinprobeError(f"{where}: {link.role!r} is none of {', '.join((*ROLES, *EMBEDDED))}")
    for word in roles:
        if word not in words:
            raise TwinprobeError(f"{where}: the logical form names {word!r}, which the sentence does not have")
    depth = sum(link.role in EMBEDDED for link in links)
    return sentence, [
        _example(words, word, found[0], depth, split)
        for word, found in roles.items()
        if words.count(word) == 1 and len({link.role for link in found}) == 1
    ]


def _example(words: Sequence[str], noun: str, link: Link, depth: int, split: Split | None) -> Example:
    before = "".join(f"{word} " for word in words[: words.index(noun)])
    lead = f"{' '.join(words)} Here {'' if noun[0].isupper() else 'the '}"
    text = f"{lead}{noun} is the"
    spans = (
        Span("definition", len(before), len(before) + len(noun)),
        Span("query", len(lead), len(lead) + len(noun)),
        Span("role", len(text) - 1, len(text), link.role, noun),
    )
    return Example(link.head, link.role, depth, FORM, Form(text, spans), split)
