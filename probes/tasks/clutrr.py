"""CLUTRR: how two people of a story are related, on the user's files (Sinha et al. 2019).

CSV files with a header, in any number in a folder (``1.2_test.csv`` ..) or one. Of the columns these are used: ``story``
(names in square brackets), ``query`` (``('Ann', 'Bob')``), ``target`` (what Bob is to Ann, one of :data:`RELATIONS`) and
``f_comb`` (the relations on the chain from Ann to Bob, joined by ``-``, where ``mother-in-law`` is one).

The text is the story without the brackets and the beginning of a sentence, ``So Bob is Ann's``. The target ``relation``
is the relation without the gender, which a name mostly tells: :data:`RELATIONS` says which. The difficulty is the number
of relations on the chain (hops). All stories with one ``f_comb`` are a group and lie in one split, so that a chain seen in
training never comes back; the published splits, which are by hops, are not used. Relations are drawn as evenly as the
files allow (there are few in-laws). The control key is the first relation of the chain. There is no contrast: another
answer would need another story.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping
from pathlib import Path

from activations.errors import TwinprobeError
from probes.tasks.drawing import Example, draw_items
from probes.tasks.items import Form, Item, Task, Weaver, source

SUMMARY = "how two people of a story are related, on your files"
FORM = "prose"
COLUMNS = ("story", "query", "target", "f_comb")

#: What each relation is called without its gender: the label.
RELATIONS: Mapping[str, str] = {
    **dict.fromkeys(("father", "mother"), "parent"),
    **dict.fromkeys(("grandfather", "grandmother"), "grandparent"),
    **dict.fromkeys(("son", "daughter"), "child"),
    **dict.fromkeys(("grandson", "granddaughter"), "grandchild"),
    **dict.fromkeys(("brother", "sister"), "sibling"),
    **dict.fromkeys(("uncle", "aunt"), "uncle or aunt"),
    **dict.fromkeys(("nephew", "niece"), "nephew or niece"),
    **dict.fromkeys(("husband", "wife"), "spouse"),
    **dict.fromkeys(
        (f"{relation}-in-law" for relation in ("father", "mother", "son", "daughter", "brother", "sister")), "in-law"
    ),
}
_CHAIN = re.compile("(?:^|-)({})(?=-|$)".format("|".join(sorted(RELATIONS, key=len, reverse=True))))


@source("clutrr", SUMMARY, "a .csv file of CLUTRR's, or a folder of them")
def read(path: Path) -> Task:
    """Read the stories of every CSV file.

    Raises:
        TwinprobeError: a file is missing, empty or without a column, or a line is not as described; names file and line.
    """
    files = tuple(sorted(path.glob("*.csv"))) if path.is_dir() else (path,)
    examples = [example for file in files for example in _examples(file)]
    if not examples:
        raise TwinprobeError(f"{path}: no stories found; expected .csv files with {', '.join(COLUMNS)}")

    def generate(n_items: int, seed: int) -> list[Item]:
        return draw_items("clutrr", path, examples, n_items, seed)

    return Task("clutrr", SUMMARY, {"relation": (FORM,)}, generate, causal=False, clusters="group", files=files)


def chain(f_comb: str) -> list[str]:
    """The relations that ``f_comb`` joins by hyphens; empty when it is not made of :data:`RELATIONS`."""
    relations = [found[1] for found in _CHAIN.finditer(f_comb)]
    return relations if "-".join(relations) == f_comb else []


def _examples(file: Path) -> list[Example]:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise TwinprobeError(f"{file}: not UTF-8 (byte {error.start}); save the file as UTF-8") from None
    rows = csv.DictReader(io.StringIO(text, newline=""))
    try:
        missing = [column for column in COLUMNS if column not in (rows.fieldnames or ())]
        if missing:
            raise TwinprobeError(f"{file}:1: no column {missing[0]!r}; a CLUTRR file has {', '.join(COLUMNS)}")
        return [_example(row, f"{file}:{rows.line_num}") for row in rows]
    except csv.Error as error:
        raise TwinprobeError(f"{file}:{rows.line_num}: not readable as CSV ({error})") from None


def _example(row: Mapping[str, str | None], where: str) -> Example:
    story, query, target, f_comb = (row[column] or "" for column in COLUMNS)
    pair = re.fullmatch(r"\('([^']+)', '([^']+)'\)", query)
    if pair is None:
        raise TwinprobeError(f"{where}: 'query' must be two names such as ('Ann', 'Bob'), got {query!r}")
    for name in pair.groups():
        if f"[{name}]" not in story:
            raise TwinprobeError(f"{where}: 'query' asks about {name!r}, but the story has no [{name}]")
    if target not in RELATIONS:
        raise TwinprobeError(f"{where}: 'target' must be one of {', '.join(RELATIONS)}, got {target!r}")
    relations = chain(f_comb)
    if not relations:
        raise TwinprobeError(f"{where}: 'f_comb' must be relations joined by '-', got {f_comb!r}")
    weaver = Weaver()
    weaver.add("{story}", {"story": re.sub(r"\[([^\]]*)\]", r"\1", story.strip())})
    weaver.add(" So {b} is {a}'s", {"a": pair[1], "b": pair[2]}, {"a": "anchor", "b": "query"})
    weaver.label_last("relation", RELATIONS[target], control=relations[0])
    return Example(f_comb, RELATIONS[target], len(relations), FORM, Form(weaver.text, tuple(weaver.spans)))
