"""The words and templates of :mod:`probes.tasks.value_types`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from probes.tasks.items import FormName, Split

PYTHON_TYPES = {"number": "int", "text": "str", "list": "list", "answer": "bool"}
KINDS = tuple(PYTHON_TYPES)

#: What shows or says something. Common words of four letters, so that tokenizers give them equally many tokens.
SPEAKERS: dict[Split, tuple[str, ...]] = {
    "train": (
        "lady", "wife", "crow", "bank", "city", "part", "hand", "room", "rock", "word", "sign", "rose", "plan", "rule",
    ),
    "dev": ("mind", "soul", "rest", "land", "gold", "year", "week", "step", "line", "half"),
    "test": ("test", "wood", "wish", "task", "mark", "hair", "view", "file", "sock", "link"),
}  # fmt: skip

WORDS = ("sun", "sea", "dog", "war", "day", "eye", "law", "sky")
NUMBERS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
ANSWERS = {"yes": True, "no": False}


@dataclass(frozen=True)
class Phrasing:
    """One template: how a literal, a copy, a conversion to each type and the question are put.

    ``{name}`` gets a value, ``{source}`` has the one that it is made from; the question ends where the answer begins.
    """

    id: str
    state: str
    copy: str
    convert: Mapping[str, str]
    query: str
    head: str = ""


def _conversions(frame: str, number: str, text: str, list_: str, answer: str) -> dict[str, str]:
    """The four conversions: ``frame`` with its ``<>`` replaced by each of the given phrases."""
    return {kind: frame.replace("<>", made) for kind, made in zip(KINDS, (number, text, list_, answer), strict=True)}


def _code(id_: str, head: str, kinds: str, frame: str, query: str, *conversions: str) -> Phrasing:
    """A code template: ``kinds`` orders the table of types that replaces the ``<>`` of ``head``."""
    table = ", ".join(f'{PYTHON_TYPES[kind]}: "{kind}"' for kind in kinds.split())
    return Phrasing(
        id_, frame.replace("<>", "{literal}"), frame.replace("<>", "{source}"), _conversions(frame, *conversions), query,
        head.replace("<>", "{{" + table + "}}"),
    )  # fmt: skip


def _prose(id_: str, state: str, make: str, query: str, *conversions: str) -> Phrasing:
    """A prose template: a copy is ``make`` without a phrase in its place."""
    return Phrasing(id_, state, make.replace("<> ", ""), _conversions(make, *conversions), query)


PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            _code("table", "kinds = <>\n", "number text list answer", "{name} = <>\n", 'assert kinds[type({name})] == "',
                  "len(repr({source}))", "str({source})", "[{source}]", "bool({source})"),
            _code("semicolon", "kinds = <>; ", "answer list number text", "{name} = <>; ", 'assert kinds[type({name})] == "',
                  "id({source})", "repr({source})", "list(repr({source}))", "not {source}"),
            _code("function", "def kind(it):\n    return <>[type(it)]\n", "text answer list number", "{name} = <>\n",
                  'assert kind({name}) == "',
                  "len(str({source}))", 'f"{{{source}}}"', "[{source}, {source}]", "{source} == {source}"),
            _code("lambda", "kind = lambda it: <>[type(it)]\n", "list number answer text", "{name} = <>\n",
                  'assert kind({name}) == "',
                  "len([{source}])", "ascii({source})", "[{source}] * 2", "{source} is None"),
        ),
        "dev": (
            _code("walrus", "kinds = <>\n", "text list number answer", "({name} := <>)\n",
                  'assert kinds[type({name})] == "',
                  "len(repr({source}))", "str({source})", "[{source}]", "not {source}"),
            _code("object", "def kind(it):\n    return <>[type(it)]\n", "number answer text list",
                  "{name}: object = <>\n", 'assert kind({name}) == "',
                  "id({source})", "repr({source})", "[{source}, {source}]", "bool({source})"),
        ),
        "test": (
            _code("chained", "kinds = <>\n", "list text answer number", "last = {name} = <>\n",
                  'assert kinds[type({name})] == "',
                  "len(str({source}))", "repr({source})", "[{source}]", "bool({source})"),
            _code("unpacked", "kind = lambda it: <>[type(it)]\n", "answer number text list", "{name}, = <>,\n",
                  'assert kind({name}) == "',
                  "len(repr({source}))", "str({source})", "list(repr({source}))", "not {source}"),
        ),
    },
    "prose": {
        "train": (
            _prose("shows", "The {name} shows {literal}. ", "The {name} shows <> what the {source} shows. ",
                   "So what the {name} shows is a kind of",
                   "the length of", "the spelling of", "the parts of", "whether anyone trusts"),
            _prose("says", "The {name} says {literal}. ", "The {name} says <> what the {source} says. ",
                   "Thus what the {name} says is some sort of",
                   "the size of", "the wording of", "the letters in", "whether one doubts"),
            _prose("stands", "On the {name} stands {literal}. ",
                   "On the {name} stands <> what stands on the {source}. ",
                   "It is clear that on the {name} stands a form of",
                   "the length of", "the wording of", "all parts of", "whether we believe"),
            _prose("gives", "The {name} gives {literal}. ", "The {name} gives <> what the {source} gives. ",
                   "In short, the {name} gives a sort of",
                   "the size of", "the spelling of", "all letters in", "whether one may trust"),
        ),
        "dev": (
            _prose("holds", "The {name} holds {literal}. ", "The {name} holds <> what the {source} holds. ",
                   "Hence what the {name} holds is some kind of",
                   "the length of", "the wording of", "the letters in", "whether anyone trusts"),
            _prose("brings", "The {name} brings us {literal}. ", "The {name} brings us <> what the {source} brings. ",
                   "What the {name} brings us is one type of",
                   "the size of", "the spelling of", "the parts of", "whether we believe"),
        ),
        "test": (
            _prose("read", "On the {name} we read {literal}. ", "On the {name} we read <> what is on the {source}. ",
                   "All in all, on the {name} we read a kind of",
                   "the size of", "the wording of", "all parts of", "whether one may trust"),
            _prose("tells", "The {name} tells us {literal}. ", "The {name} tells us <> what the {source} tells. ",
                   "This means the {name} tells us some form of",
                   "the length of", "the spelling of", "all letters in", "whether we believe"),
        ),
    },
}  # fmt: skip
