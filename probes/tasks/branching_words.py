"""The words and the templates of the branching task: what is stated, how a condition is put, how a branch."""

from __future__ import annotations

from dataclasses import dataclass

from probes.tasks.items import FormName, Split

# Words that a sign may say, no two at once. Within a split most tokenizers, small ones too, cut them into equally many
# tokens, after a space and after a quote: so the contrast, which states another word, is aligned with its text.
STATES: dict[Split, tuple[str, ...]] = {
    "train": ("free", "next", "long", "list", "post", "back", "port", "less", "page"),
    "dev": ("open", "home", "done", "side", "road", "out"),
    "test": ("ready", "rest", "start", "work", "time", "room"),
}
THINGS: dict[Split, tuple[str, ...]] = {
    "train": ("sign", "note", "card", "letter", "message"),
    "dev": ("paper", "poster"),
    "test": ("board", "book", "screen"),
}
LETTERS: dict[Split, str] = {"train": "abdefghjk", "dev": "lmnpuv", "test": "ciorst"}  # one for each state
VARIABLE: dict[Split, str] = {"train": "y", "dev": "w", "test": "z"}


@dataclass(frozen=True)
class Tests:
    """How a condition is put: the thing says a word, one of two, not this word, neither of two."""

    one: str
    either: str
    other: str
    neither: str


@dataclass(frozen=True)
class Phrasing:
    """One template: what comes first, the four branches with ``{test}`` and ``{outcome}``, and the question.

    ``{state}``, the word that is stated, stands in the head or in the tail.
    """

    id: str
    head: str
    branches: tuple[str, str, str, str]
    tail: str
    tests: Tests


PYTHON = Tests('{thing} == "{a}"', '{thing} in ("{a}", "{b}")', '{thing} != "{a}"', '{thing} not in ("{a}", "{b}")')
FORMAL = Tests("{thing} = {a}", "{thing} ∈ {{ {a} {b} }}", "{thing} ≠ {a}", "{thing} ∉ {{ {a} {b} }}")


def _verb(subject: str, says: str, say: str) -> Tests:
    """The conditions of an English template."""
    return Tests(
        f"{subject} {says} {{a}}",
        f"{subject} {says} {{a}} or {{b}}",
        f"{subject} does not {say} {{a}}",
        f"{subject} {says} neither {{a}} nor {{b}}",
    )


def _same(first: str, then: str, last: str) -> tuple[str, str, str, str]:
    return first, then, then, last


PHRASINGS: dict[FormName, dict[Split, tuple[Phrasing, ...]]] = {
    "code": {
        "train": (
            Phrasing("elif", '{thing} = "{state}"\n', _same('if {test}:\n    {name} = "{outcome}"\n',
                     'elif {test}:\n    {name} = "{outcome}"\n', 'else:\n    {name} = "{outcome}"\n'),
                     'assert {name} == "', PYTHON),
            Phrasing("nested", '{thing} = "{state}"\n', ('if {test}:\n    {name} = "{outcome}"\nelse:\n',
                     '    if {test}:\n        {name} = "{outcome}"\n    else:\n',
                     '        if {test}:\n            {name} = "{outcome}"\n        else:\n',
                     '            {name} = "{outcome}"\n'),
                     'assert {name} == "', PYTHON),
            Phrasing("return", "def {name}({thing}):\n", _same('    if {test}: return "{outcome}"\n',
                     '    if {test}: return "{outcome}"\n', '    return "{outcome}"\n'),
                     'assert {name}("{state}") == "', PYTHON),
            Phrasing("ternary", '{thing} = "{state}"\n', _same('{name} = "{outcome}" if {test}',
                     ' else "{outcome}" if {test}', ' else "{outcome}"\n'),
                     'assert {name} == "', PYTHON),
        ),
        "dev": (
            Phrasing("match", '{thing} = "{state}"\nmatch {thing}:\n',
                     _same('    case _ if {test}: {name} = "{outcome}"\n',
                           '    case _ if {test}: {name} = "{outcome}"\n', '    case _: {name} = "{outcome}"\n'),
                     'assert {name} == "', PYTHON),
            Phrasing("or", "{name} = lambda {thing}: (", _same('{test} and "{outcome}"',
                     ' or {test} and "{outcome}"', ' or "{outcome}")\n'),
                     'assert {name}("{state}") == "', PYTHON),
        ),
        "test": (
            Phrasing("break", '{thing} = "{state}"\nwhile True:\n', _same('    {name} = "{outcome}"\n    if {test}: break\n',
                     '    {name} = "{outcome}"\n    if {test}: break\n', '    {name} = "{outcome}"\n    break\n'),
                     'assert {name} == "', PYTHON),
            Phrasing("first", '{thing} = "{state}"\n{name} = [', _same('("{outcome}", {test}), ',
                     '("{outcome}", {test}), ', '("{outcome}", True)]\n'),
                     'assert next(a for a, b in {name} if b) == "', PYTHON),
        ),
    },
    "prose": {
        "train": (
            Phrasing("takes", "The {thing} says {state}. ", _same("If {test}, the {name} takes the {outcome}; ",
                     "otherwise, if {test}, the {outcome}; ", "otherwise the {outcome}. "),
                     "So the {name} takes the", _verb("it", "says", "say")),
            Phrasing("gets", "", _same("The {name} gets the {outcome} if {test}, ",
                     "else the {outcome} if {test}, ", "or else the {outcome}. "),
                     "Today the {thing} gives {state}, so the {name} gets the", _verb("the {thing}", "gives", "give")),
            Phrasing("wants", "You see that the {thing} has {state} on it. ",
                     _same("If {test}, then the {name} wants the {outcome}. ",
                           "Or else, if {test}, the {name} wants the {outcome}. ",
                           "Or else the {name} wants the {outcome}. "),
                     "It follows that the {name} wants the", _verb("it", "has", "have")),
            Phrasing("leaves", "For the {name} the first rule that fits counts: ",
                     _same("when {test}, leave with the {outcome}; ", "when {test}, leave with the {outcome}; ",
                           "in any other case, leave with the {outcome}. "),
                     "The {thing} reads {state}. Thus the {name} leaves with the",
                     _verb("the {thing}", "reads", "read")),
        ),
        "dev": (
            Phrasing("picks", "The {thing} tells the {name} {state}. ",
                     _same("If {test}, the {name} picks the {outcome}. ",
                           "Failing that, if {test}, it is the {outcome}. ",
                           "Failing all of that, it is the {outcome}. "),
                     "Hence the {name} picks the", _verb("it", "tells", "tell")),
            Phrasing("carries", "", _same("The {name} carries the {outcome} where {test}; ",
                     "if none of this is so, it is the {outcome} where {test}; ",
                     "in all that remains, it is the {outcome}. "),
                     "There the {thing} bears {state}, and so the {name} carries the",
                     _verb("the {thing}", "bears", "bear")),
        ),
        "test": (
            Phrasing("chooses", "Look, the {thing} shows {state}. ",
                     _same("In case {test}, the {name} chooses the {outcome}; ",
                           "if this fails and {test}, the {name} chooses the {outcome}; ",
                           "if everything fails, the {name} chooses the {outcome}. "),
                     "Here the {name} chooses the", _verb("it", "shows", "show")),
            Phrasing("finds", "", _same("The {name} finds the {outcome} whenever {test}. ",
                     "Short of this, it is the {outcome} whenever {test}. ", "Short of all this, it is the {outcome}. "),
                     "The {thing} now displays {state}, which means that the {name} finds the",
                     _verb("the {thing}", "displays", "display")),
        ),
    },
    "formal": {
        "train": (
            Phrasing("arrow", "{thing} = {state} ; ", _same("{test} → {outcome} ; ", "{test} → {outcome} ; ",
                     "⊤ → {outcome} ; "), "{name} =", FORMAL),
            Phrasing("cases", "{name} ( {thing} ) = [ ", _same("{outcome} , {test} ; ", "{outcome} , {test} ; ",
                     "{outcome} ] "), "{name} ( {state} ) =", FORMAL),
            Phrasing("query", "{thing} = {state} . {name} = ", _same("{test} ? {outcome} : ",
                     "{test} ? {outcome} : ", "{outcome} . "), "{name} =", FORMAL),
            Phrasing("implies", "", _same("{test} ⇒ {outcome} , ", "{test} ⇒ {outcome} , ", "⊤ ⇒ {outcome} , "),
                     "{thing} = {state} ⊢ {name} =", FORMAL),
        ),
        "dev": (
            Phrasing("slash", "{thing} = {state} / ", _same("{test} : {outcome} / ", "{test} : {outcome} / ",
                     "* : {outcome} / "), "{name} :", FORMAL),
            Phrasing("from", "{name} ( {thing} ) : ", _same("{outcome} ← {test} , ", "{outcome} ← {test} , ",
                     "{outcome} ← ⊤ , "), "{name} ( {state} ) :", FORMAL),
        ),
        "test": (
            Phrasing("and", "{thing} = {state} & ", _same("( {test} ) ⊃ {outcome} & ", "( {test} ) ⊃ {outcome} & ",
                     "( ⊤ ) ⊃ {outcome} & "), "{name} =", FORMAL),
            Phrasing("bar", "{name} [ {thing} ] = ", _same("{outcome} | {test} + ", "{outcome} | {test} + ",
                     "{outcome} + "), "{name} [ {state} ] =", FORMAL),
        ),
    },
}  # fmt: skip
