"""The words and templates of :mod:`probes.tasks.scope`."""

from __future__ import annotations

from dataclasses import dataclass

from probes.tasks.items import FormName, Split

#: Common words of four letters, so that tokenizers give them equally many tokens after a space and after a quote.
VALUES = ("case", "room", "size", "sock", "task", "text", "word", "work")


@dataclass(frozen=True)
class Functions:
    """A code template of functions in one another, each called where it is defined.

    ``head`` starts a function, ``body`` is its first line where the definition stands there, and ``call`` calls it.
    """

    id: str
    head: str
    body: str
    call: str


@dataclass(frozen=True)
class Wrapped:
    """A code template of expressions in one another: what comes before and after the expression inside a scope."""

    id: str
    before: str
    after: str


@dataclass(frozen=True)
class Told:
    """A template of the other forms: how the outermost scope, each inner one, their ends and the question are put."""

    id: str
    outer: str
    inner: str
    query: str
    head: str = ""
    close: str = ""


CODE: dict[Split, tuple[Functions | Wrapped, ...]] = {
    "train": (
        Functions("local", "def {teller}():\n", '{name} = "{value}"\n', "{teller}()"),
        Functions("default", 'def {teller}({name}="{value}"):\n', "", "{teller}()"),
        Wrapped("comprehension", "[", ' for {name} in ["{value}"]][0]'),
        Wrapped("lambda", '(lambda {name}="{value}": ', ")()"),
    ),
    "dev": (
        Functions("parameter", "def {teller}({name}):\n", "", '{teller}("{value}")'),
        Wrapped("generator", "next(", ' for {name} in ["{value}"])'),
    ),
    "test": (
        Functions("typed", "def {teller}():\n", '{name}: str = "{value}"\n', "{teller}()"),
        Wrapped("argument", "(lambda {name}: ", ')("{value}")'),
    ),
}

TOLD: dict[FormName, dict[Split, tuple[Told, ...]]] = {
    "prose": {
        "train": (
            Told("tale", "The {teller} tells a tale where the {first} has the {value} and the {second} has the {other}. ",
                 "In that tale, the {teller} tells a tale where the {name} has the {value}. ",
                 "In the tale of the {teller}, the {asked} has the",
                 "What a tale leaves out is as in the tale around it. "),
            Told("dream", "The {teller} dreams that the {first} holds the {value} and the {second} holds the {other}. ",
                 "There, the {teller} dreams that the {name} holds the {value}. ",
                 "So in the dream of the {teller}, the {asked} holds the",
                 "A dream within a dream keeps all that it does not change. "),
            Told("play", "The {teller} puts on a play. In it, the {first} wants the {value}, the {second} the {other}. ",
                 "In that play, the {teller} puts on a play. In it, the {name} wants the {value}. ",
                 "We see that in the play of the {teller}, the {asked} wants the",
                 "Whoever does not come up in a play is as in the play around it. "),
            Told("song", "The {teller} sings of the {first} with the {value} and the {second} with the {other}. ",
                 "In this song the {teller} sings of a {name} with the {value}. ",
                 "Thus the song of the {teller} knows the {asked} with the",
                 "Each song takes over what it does not say from the song it is sung in. "),
        ),
        "dev": (
            Told("letter", "The {teller} writes that the {first} found the {value} and the {second} found the {other}. ",
                 "This letter quotes how the {teller} writes that the {name} found the {value}. ",
                 "Hence in what the {teller} writes, the {asked} found the",
                 "A letter quoted in a letter agrees with it on all that it does not say. "),
            Told("game", "In the game of the {teller}, the {first} owns the {value} and the {second} the {other}. ",
                 "People there play the game of the {teller}, where the {name} owns the {value}. ",
                 "Back to the game of the {teller}: its {asked} owns the",
                 "A game that is played in another changes only what it must. "),
        ),
        "test": (
            Told("vision", "The {teller} sees a world in which the {first} keeps the {value}, the {second} the {other}. ",
                 "In this world the {teller} sees a world in which the {name} keeps the {value}. ",
                 "This means that in the world the {teller} sees, the {asked} keeps the",
                 "Any world is like the one around it unless we hear of a change. "),
            Told("report", "The {teller} reports: the {first} took the {value} and the {second} took the {other}. ",
                 "Within that, the {teller} reports: the {name} took the {value}. ",
                 "All in all, as the {teller} reports, the {asked} took the",
                 "Reports inside reports repeat what they do not replace. "),
        ),
    },
    "formal": {
        "train": (
            Told("braces", "{teller} {{ {first} : {value} , {second} : {other}", " , {teller} {{ {name} : {value}",
                 " . {teller} . {asked} :", close=" }}"),
            Told("round", "{teller} ( {first} = {value} ; {second} = {other}", " ; {teller} ( {name} = {value}",
                 " ; {teller} / {asked} =", close=" )"),
            Told("square", "[ {teller} | {first} -> {value} | {second} -> {other}", " [ {teller} | {name} -> {value}",
                 " ; {teller} | {asked} ->", close=" ]"),
            Told("angles", "< {teller} > {first} : {value} , {second} : {other}", " < {teller} > {name} : {value}",
                 " < {teller} > ? {asked} :", close=" < / >"),
        ),
        "dev": (
            Told("arrows", "{teller} => ( {first} : {value} , {second} : {other}", " , {teller} => ( {name} : {value}",
                 " , {teller} => {asked} :", close=" )"),
            Told("bars", "{teller} [ {first} | {value} , {second} | {other}", " , {teller} [ {name} | {value}",
                 " ; {teller} , {asked} |", close=" ]"),
        ),
        "test": (
            Told("equals", "{teller} == {{ {first} := {value} ; {second} := {other}", " ; {teller} == {{ {name} := {value}",
                 " ; {teller} ; {asked} :=", close=" }}"),
            Told("slashes", "( {teller} / {first} / {value} / {second} / {other}", " ( {teller} / {name} / {value}",
                 " ? {teller} / {asked} /", close=" )"),
        ),
    },
}  # fmt: skip
