"""The words and the templates of the loops task: how the ring is described, how the walk and the question are put."""

from __future__ import annotations

from dataclasses import dataclass

from probes.tasks.items import FormName, Split

PLACES = ("field", "river", "port", "bar", "ground")
FUNCTION: dict[Split, str] = {"train": "fgh", "dev": "uv", "test": "st"}


@dataclass(frozen=True)
class Phrasing:
    """One template: the first, the middle and the last place of the ring, the walk, and the question.

    Templates with ``{next}`` say one link each; the others list the places. The number of moves ``{n}`` and the start
    stand in the walk or in the question.
    """

    id: str
    first: str
    then: str
    last: str
    walk: str
    query: str

    @property
    def listed(self) -> bool:
        """Whether the places are said in the order of the ring."""
        return "{next}" not in self.then


PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            Phrasing("for", 'step = {{"{place}": "{next}", ', '"{place}": "{next}", ', '"{place}": "{next}"}}\n',
                     '{name} = "{start}"\nfor _ in range({n}):\n    {name} = step[{name}]\n', 'assert {name} == "'),
            Phrasing("index", 'ring = ["{place}", ', '"{place}", ', '"{place}"]\n',
                     '{name} = ring.index("{start}")\nfor _ in range({n}):\n    {name} = ({name} + 1) % len(ring)\n',
                     'assert ring[{name}] == "'),
            Phrasing("while", 'step = dict({place}="{next}", ', '{place}="{next}", ', '{place}="{next}")\n',
                     '{name}, left = "{start}", {n}\nwhile left:\n    {name}, left = step[{name}], left - 1\n',
                     'assert {name} == "'),
            Phrasing("rotate", '{name} = ["{place}", ', '"{place}", ', '"{place}"]\n',
                     'while {name}[0] != "{start}":\n    {name} += [{name}.pop(0)]\n'
                     "for _ in range({n}):\n    {name} += [{name}.pop(0)]\n",
                     'assert {name}[0] == "'),
        ),
        "dev": (
            Phrasing("path", 'after = {{}}\nafter["{place}"] = "{next}"\n', 'after["{place}"] = "{next}"\n',
                     'after["{place}"] = "{next}"\n',
                     '{name} = ["{start}"]\nwhile len({name}) <= {n}:\n    {name}.append(after[{name}[-1]])\n',
                     'assert {name}[-1] == "'),
            Phrasing("wrap", 'ring = "{place}", ', '"{place}", ', '"{place}"\n',
                     '{name} = ring.index("{start}")\nfor _ in range({n}):\n'
                     "    {name} += 1\n    if {name} == len(ring): {name} = 0\n",
                     'assert ring[{name}] == "'),
        ),
        "test": (
            Phrasing("pairs", 'ways = [("{place}", "{next}"), ', '("{place}", "{next}"), ', '("{place}", "{next}")]\n',
                     '{name} = "{start}"\nfor _ in range({n}):\n    {name} = dict(ways)[{name}]\n',
                     'assert {name} == "'),
            Phrasing("count", 'ring = "{place} ', "{place} ", '{place}".split()\n',
                     '{name}, i = ring.index("{start}"), 0\nwhile i < {n}:\n'
                     "    {name}, i = ({name} + 1) % len(ring), i + 1\n",
                     'assert ring[{name}] == "'),
        ),
    },
    "prose": {
        "train": (
            Phrasing("way", "From the {place} the way leads to the {next}. ",
                     "From the {place} the way leads to the {next}. ",
                     "From the {place} the way leads to the {next}. ",
                     "The {name} starts at the {start} and moves on by {n}. ", "Now the {name} is at the"),
            Phrasing("circle", "In a circle lie the {place}, ", "the {place}, ", "and the {place}. ",
                     "On day zero the {name} is at the {start}, and each day the {name} moves along. ",
                     "On day {n} the {name} is at the"),
            Phrasing("after", "After the {place} comes the {next}; ", "after the {place}, the {next}; ",
                     "and after the {place}, the {next}. ",
                     "The {name} sees the {start} first and then {n} more. ", "So at last the {name} sees the"),
            Phrasing("turns", "The {place}, ", "the {place}, ", "and the {place} take turns in this order, for ever. ",
                     "At hour zero the {name} has the {start}. ", "At hour {n} the {name} has the"),
        ),
        "dev": (
            Phrasing("sends", "The {place} sends its guests to the {next}. ",
                     "The {place} sends its guests to the {next}. ", "The {place} sends its guests to the {next}. ",
                     "The {name} begins at the {start} and is sent on until the trips come to {n}. ",
                     "Then the {name} stands at the"),
            Phrasing("train", "A train stops at the {place}, ", "the {place}, ", "the {place}, and so on again. ",
                     "The {name} gets on at the {start} and rides for {n}. ", "Thus the {name} gets off at the"),
        ),
        "test": (
            Phrasing("gate", "Behind the {place} is the {next}. ", "Behind the {place} is the {next}. ",
                     "Behind the {place} is the {next}. ",
                     "The {name} enters at the {start}, counts up to {n} and goes a gate further at each number. ",
                     "In the end the {name} reaches the"),
            Phrasing("lake", "Round the lake we meet the {place}, ", "the {place}, ",
                     "the {place}, and the same once more. ",
                     "The {name} leaves from the {start} with {n} to go. ",
                     "When none is left to go, the {name} is at the"),
        ),
    },
    "formal": {
        "train": (
            Phrasing("map", "{name} : {place} → {next} , ", "{place} → {next} , ", "{place} → {next} ; ", "",
                     "{name} ^ {n} ( {start} ) ="),
            Phrasing("cycle", "{name} = ( {place} ", "{place} ", "{place} ) ; ", "", "{name} ^ {n} ( {start} ) ="),
            Phrasing("equal", "{name} {place} = {next} ; ", "{name} {place} = {next} ; ", "{name} {place} = {next} ; ",
                     "x = {start} ; ", "{name} ^ {n} x ="),
            Phrasing("less", "{place} < ", "{place} < ", "{place} < ... ; ", "{name} [ 0 ] = {start} ; ",
                     "{name} [ {n} ] ="),
        ),
        "dev": (
            Phrasing("slash", "{place} / {next} | ", "{place} / {next} | ", "{place} / {next} | ",
                     "{name} @ 0 : {start} | ", "{name} @ {n} :"),
            Phrasing("list", "{name} = [ {place} , ", "{place} , ", "{place} , ... ] & ", "",
                     "{name} [ {start} + {n} ] ="),
        ),
        "test": (
            Phrasing("from", "{next} ← {place} . ", "{next} ← {place} . ", "{next} ← {place} . ",
                     "{name} # 0 = {start} . ", "{name} # {n} ="),
            Phrasing("angle", "{name} = < {place} ", "{place} ", "{place} > . ", "", "{name} * {start} * {n} ="),
        ),
    },
}  # fmt: skip
