"""Syntax: where names stand in the syntax tree, on the source files that every Python carries.

The files are those of the identifiers task, which the embedded twins' training leaves out, parsed whole by ``ast`` and
cut into runs of whole statements. All labels are of names, and each is drawn with a rival, the same name under another
label (:mod:`probes.tasks.rivals`), so that knowing the word doesn't help.

``node`` is the class of the innermost syntax-tree node that the name is a part of. Keyword arguments' names are left
out: nothing before them tells. ``parent``, ``depth`` and ``siblings`` say where that node stands
(:mod:`probes.tasks.syntax_trees`). The control key is the name itself. There is no answer to give, hence no contrast,
and no difficulty (always 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from probes.tasks.identifiers import held_out_sources
from probes.tasks.items import Item, task
from probes.tasks.pools import check_size
from probes.tasks.python_syntax import python_names
from probes.tasks.python_tokens import Mark, statements, tokens_of
from probes.tasks.rivals import draw_items
from probes.tasks.syntax_trees import place_marks
from probes.tasks.windows import Window, cut_windows, distinct

LABELS = {
    "parent": ("Assign", "BinOp", "Call", "Compare", "For", "If", "Return", "Tuple"),
    "node": ("Attribute", "FunctionDef", "Name", "arg"),
    "depth": ("1", "2", "3", "4"),
    "siblings": ("0", "1", "2", "3"),
}


def python_windows(path: str, source: str) -> Iterator[Window]:
    """Cut a source that parses into windows with the names that are labelled in it."""
    tokens = tokens_of(source)
    nodes, names = python_names(source, tokens)
    marks = [Mark(row, column, text, "node", nodes[node].kind) for row, column, text, node in names]
    marks += place_marks(nodes, names)
    kept = (mark for mark in marks if mark.label in LABELS[mark.target])
    return cut_windows(path, source, statements(tokens), kept)


@cache
def _windows() -> tuple[Window, ...]:
    return distinct(window for path, source in held_out_sources() for window in python_windows(path, source))


@task(
    "syntax",
    "the syntax-tree node of a name, its parent, depth and siblings, on Python's own sources",
    {target: ("code",) for target in LABELS},
    causal=False,
    clusters="group",
)
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw ``n_items`` texts, each with a ``node``; whole files go to one split; labels are balanced.

    Raises:
        TwinprobeError: this Python carries too few texts.
    """
    check_size("syntax", n_items)
    return draw_items("syntax", "code", _windows(), LABELS, n_items, seed)
