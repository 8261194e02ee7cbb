"""Texts that are a row of statements and a question about one name: the shape that binding and aliasing share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from probes.tasks.items import Contrast, Form, FormName, Weaver

LEAD: dict[FormName, str] = {"code": "", "prose": " ", "formal": " "}  # code asks inside a string literal


@dataclass(frozen=True)
class Phrasing:
    """One template: how a first fact (``state``), a later one (``then``) and the question are put.

    ``{name}`` and ``{word}`` are filled in; the question ends right where the answer begins.
    """

    id: str
    state: str
    then: str
    query: str
    head: str = ""


@dataclass(frozen=True)
class Statement:
    """One fact: ``name`` gets ``word``, a value or another name. ``first`` chooses the template's ``state``.

    The roles name the spans of the two words: the value that settles the question is the ``definition``, any other
    value a ``distractor``; ``None`` leaves no span.
    """

    name: str
    word: str
    first: bool
    name_role: str | None = None
    word_role: str | None = None


def render(
    form: FormName, phrasing: Phrasing, statements: Sequence[Statement], asked: str, value: str, other: str
) -> Form:
    """Say the statements, ask for ``asked``, and swap the settling ``value`` for ``other`` in the contrast.

    The target ``value`` lies on the last token. Its control key is the value stated first: the control task then asks
    for an arbitrary function of a context word, which needs what the task needs except knowing which word matters.
    """
    weaver = Weaver()
    weaver.add(phrasing.head, {})
    for fact in statements:
        weaver.add(
            phrasing.state if fact.first else phrasing.then,
            {"name": fact.name, "word": fact.word},
            {"name": fact.name_role, "word": fact.word_role},
        )
    weaver.add(phrasing.query, {"name": asked}, {"name": "query"})
    stated = [fact.word for fact in statements if fact.word_role in ("definition", "distractor")]
    weaver.label_last("value", value, control=stated[0])
    lead = LEAD[form]
    return Form(
        text=weaver.text,
        spans=tuple(weaver.spans),
        answer=lead + value,
        candidates=tuple(lead + word for word in (*stated, other)),
        contrast=Contrast(weaver.edited("definition", other), lead + other),
    )
