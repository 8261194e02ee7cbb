"""Identifiers: token roles on real text that every Python carries: its own sources, and its own documentation.

Code comes from the standard library modules in :data:`HELD_OUT_MODULES`, which the embedded twins' training leaves out,
prose from ``pydoc_data.topics``. The two forms are different texts, not two renderings of one latent item, so an item
has one form. ``role`` (identifier, keyword, literal, operator; brackets and other delimiters have none) is labelled in
both forms: every token in code, the tokens of short quoted fragments (``"None"``, ``"x + y"``) in prose. ``use``
(definition or use of a name, by its syntax-tree context) is labelled in code. The control key is the span's own text.
There is no answer to give, hence no contrast, and no difficulty (always 0).
"""

from __future__ import annotations

import ast
import importlib
import random
import re
import sysconfig
import tokenize
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

from activations.errors import TwinprobeError
from activations.texts import Span
from probes.tasks.items import Form, FormName, Item, task
from probes.tasks.pools import balanced, check_size, split_sizes
from probes.tasks.python_tokens import Mark, role_marks, statements, tokens_of, use_marks
from probes.tasks.windows import MAX_CHARACTERS, Window, cut_windows, distinct, holders, split_groups

HELD_OUT_MODULES = (
    "bisect", "difflib", "email", "fractions", "heapq", "http", "json", "logging", "shlex", "statistics", "textwrap",
    "unittest", "wsgiref", "xml",
)  # fmt: skip
LABELS = {"role": ("identifier", "keyword", "literal", "operator"), "use": ("definition", "use")}
SOFT_KEYWORDS = ("match", "case", "type", "_")  # ambiguous without their statement, so skipped in prose
# Grammar, examples, tables, headings, and whatever ends on an opening bracket or an equals sign.
CODE_LIKE = re.compile(r"::=|>>>|^\s*(\||\+-|#|[-=*~^]{3})|[\[({=]$", re.MULTILINE)
SENTENCES = re.compile(r"(\* |\d+\. )?[\"*(]?[A-Z][\w\"*-]*,? (\S+ ){4,}\S+[.:;)]$")


def held_out_sources() -> list[tuple[str, str]]:
    """``(relative path, source)`` of every held-out standard library file of the running Python, in path order."""
    root = Path(sysconfig.get_path("stdlib"))
    found = [path for name in HELD_OUT_MODULES for path in (root / f"{name}.py", *(root / name).rglob("*.py"))]
    sources = []
    for path in sorted(path.relative_to(root) for path in found if path.is_file()):
        if not {"test", "tests"} & set(path.parts):
            with tokenize.open(root / path) as handle:
                sources.append((path.as_posix(), handle.read()))
    return sources


def python_docs_prose() -> list[tuple[str, str]]:
    """``(topic, paragraphs)`` of the documentation that Python ships: one line per paragraph, a blank line between.

    Grammar, examples, tables and headings are left out, and so is a paragraph that an earlier topic already had.
    """
    try:
        topics: Mapping[str, str] = importlib.import_module("pydoc_data.topics").topics
    except ImportError:
        return []
    seen: set[str] = set()
    documents = []
    for topic, text in sorted(topics.items()):
        paragraphs = []
        for block in text.split("\n\n"):
            paragraph = " ".join(block.split())
            if not CODE_LIKE.search(block) and SENTENCES.match(paragraph) and paragraph not in seen:
                seen.add(paragraph)
                paragraphs.append(paragraph)
        if paragraphs:
            documents.append((topic, "\n\n".join(paragraphs)))
    return documents


def code_windows(path: str, source: str) -> Iterator[Window]:
    """Cut a source file into windows with the roles and uses of its tokens."""
    tokens = tokens_of(source)
    return cut_windows(path, source, statements(tokens), role_marks(tokens) + use_marks(source, tokens))


def _fragment_marks(fragment: str) -> list[Mark]:
    """Roles in a quoted fragment: one keyword or operator, or a short expression; nothing where it is English."""
    marks = role_marks(tokens_of(fragment))
    if fragment in SOFT_KEYWORDS or re.search(r"(^|\W)-[A-Za-z]\b|[a-z]{2}-[a-z]{2}", fragment):  # options, hyphens
        return []
    if len(marks) == 1 and marks[0].text == fragment:
        return marks
    try:
        ast.parse(fragment)
    except SyntaxError:
        return []
    return marks


def prose_windows(topic: str, document: str) -> Iterator[Window]:
    """Cut documentation into runs of whole sentences of one paragraph; only quoted fragments are labelled."""
    for paragraph in document.split("\n\n"):
        runs = [""]
        for sentence in re.split(r"(?<=[.:;]) (?=[A-Z\"*])", paragraph):
            if runs[-1] and len(runs[-1]) + len(sentence) >= MAX_CHARACTERS:
                runs.append("")
            runs[-1] += (" " if runs[-1] else "") + sentence
        for text in runs:
            if len(text) <= MAX_CHARACTERS and text.count('"') % 2 == 0:
                spans = [
                    Span("role", start, start + len(mark.text), mark.label, mark.text)
                    for quoted in re.finditer(r'"([^"\s]|[^"\s][^"]{0,38}[^"\s])"', text)
                    for mark in _fragment_marks(quoted[1])
                    for start in [quoted.start(1) + mark.column]
                ]
                yield Window(topic, text, tuple(spans))


@cache
def _windows(form: FormName) -> tuple[Window, ...]:
    if form == "code":
        found = [window for path, source in held_out_sources() for window in code_windows(path, source)]
    else:
        found = [window for topic, text in python_docs_prose() for window in prose_windows(topic, text)]
    return distinct(found)


def _pick_texts(windows: Sequence[Window], size: int, where: str, rng: random.Random) -> list[tuple[Window, str]]:
    """Choose ``size`` windows, each with the role it was chosen for, so that the roles come out even.

    Raises:
        TwinprobeError: too few windows hold some role.
    """
    wanted = balanced(rng, LABELS["role"], size)
    holding = holders(windows, "role", LABELS["role"])
    picked: dict[int, tuple[Window, str]] = {}
    for role in sorted(holding, key=lambda role: len(holding[role])):  # the scarce first, while they are free
        free = [window for window in holding[role] if id(window) not in picked]
        if len(free) < wanted.count(role):
            raise TwinprobeError(
                f"task 'identifiers': {size} {where} texts asked for, {wanted.count(role)} of them with a {role}, "
                f"but this Python's own texts have only {len(free)} such; ask for fewer items"
            )
        for window in rng.sample(free, wanted.count(role)):
            picked[id(window)] = (window, role)
    return list(picked.values())


def _by_label(window: Window, rng: random.Random) -> dict[str, list[Span]]:
    """Its spans by label, in random order, each word once per label so that ``self`` or ``=`` can't crowd it."""
    once = {(span.label, span.control): span for span in rng.sample(window.spans, len(window.spans))}
    found: dict[str, list[Span]] = defaultdict(list)
    for (label, _), span in once.items():
        found[str(label)].append(span)
    return found


def _level(texts: Sequence[tuple[Window, str]], rng: random.Random) -> list[tuple[Window, list[Span]]]:
    """Keep equally many spans of every label of a target, at most one per text on average."""
    found = [_by_label(window, rng) for window, _ in texts]
    kept: list[list[Span]] = [[] for _ in texts]
    for labels in LABELS.values():
        pools = {label: [(i, span) for i, spans in enumerate(found) for span in spans[label]] for label in labels}
        size = min(len(texts), *(len(pool) for pool in pools.values()))
        for label, pool in pools.items():
            due = {i: span for i, span in pool if texts[i][1] == label}  # what the text was chosen for
            rest = [(i, span) for i, span in pool if due.get(i) is not span]
            for i, span in [*due.items(), *rng.sample(rest, max(0, size - len(due)))]:
                kept[i].append(span)
    return [(window, spans) for (window, _), spans in zip(texts, kept, strict=True)]


@task(
    "identifiers",
    "token roles, and definition or use of names, on Python's own sources and documentation",
    {"role": ("code", "prose"), "use": ("code",)},
    causal=False,
    clusters="group",
)
def generate(n_items: int, seed: int) -> list[Item]:
    """Draw ``n_items`` texts, half of them code; whole files and topics go to one split; labels are balanced.

    Raises:
        TwinprobeError: this Python carries too few texts.
    """
    check_size("identifiers", n_items)
    rng = random.Random(f"identifiers-{seed}")
    items = []
    sizes: dict[FormName, int] = {"code": n_items - n_items // 2, "prose": n_items // 2}
    for form, size in sizes.items():
        windows = split_groups(_windows(form), "role", LABELS["role"], rng)
        for split, count in split_sizes(size).items():
            texts = _pick_texts(windows[split], count, f"{form} {split}", rng)
            for i, (window, spans) in enumerate(_level(texts, rng)):
                item_id = f"identifiers-{seed}/{split}/{form}-{i:04d}"
                rendered = Form(window.text, tuple(sorted(spans, key=lambda span: (span.start, span.name))))
                items.append(Item(item_id, "identifiers", split, f"{form}/{window.group}", 0, {form: rendered}))
    return items
