"""What a task is made of: items, their forms and contrasts, and the weaver that builds a text with its spans.

An item is one latent problem. It is rendered in several forms (``code``, ``prose``) that share labels and difficulty.
A form's text ends right where its answer begins; a labelled span covers the text's last character, hence exactly its
last token under any tokenizer. Spans without a label name the role of a token (the definition, the query).
"""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from activations.errors import TwinprobeError
from activations.texts import Span, Text

Split = Literal["train", "dev", "test"]
FormName = str


@dataclass(frozen=True)
class Contrast:
    """A minimally edited twin of a form's text, of equal length in words, with the answer that it has instead."""

    text: str
    answer: str


@dataclass(frozen=True)
class Relation:
    """What holds between two places of a text: does this use read that definition.

    ``target`` names the probe target; ``first`` and ``second`` are character offsets (start, end); ``label`` is what a
    probe of both rows predicts, ``control`` the key of its control task.
    """

    target: str
    first: tuple[int, int]
    second: tuple[int, int]
    label: str
    control: str


@dataclass(frozen=True)
class Form:
    """One rendering of an item.

    ``answer`` continues ``text`` (with its leading space where the text needs one). ``candidates`` holds every answer a
    model could plausibly give, the contrast's included: a model is right when it prefers ``answer`` among them.
    ``relations`` are labelled pairs of spans; each of the two is also among ``spans``, named after the relation's target
    and without a label.
    """

    text: str
    spans: tuple[Span, ...]
    answer: str | None = None
    candidates: tuple[str, ...] = ()
    contrast: Contrast | None = None
    relations: tuple[Relation, ...] = ()


@dataclass(frozen=True)
class Item:
    """One latent problem in its forms. Items of one ``group`` always lie in the same split."""

    id: str
    task: str
    split: Split
    group: str
    difficulty: int
    forms: Mapping[FormName, Form]

    def as_text(self, form: FormName) -> Text:
        """The named form as an input of capture; its id is ``item id/form``."""
        return Text(f"{self.id}/{form}", self.forms[form].text, self.forms[form].spans, self.group)


@dataclass(frozen=True)
class Task:
    """A named source of items.

    ``targets`` maps each probe target (a span name) to the forms that label it. ``generate(n_items, seed)`` returns
    items split train/dev/test as 5 : 1.5 : 2.5 with no group in two splits; equal arguments give equal items in every
    process. ``causal`` tasks have answers and contrasts, so that their items can be patched. ``clusters`` says what
    intervals resample: single items, or whole groups where items of one group (a file) are alike. ``relations`` names the
    targets that are labelled between two spans (:class:`Relation`); ``files`` are what a task from a source was read from.
    """

    name: str
    summary: str
    targets: Mapping[str, tuple[FormName, ...]]
    generate: Callable[[int, int], list[Item]]
    causal: bool
    clusters: Literal["item", "group"] = "item"
    relations: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Source:
    """A kind of task that is read from the user's own files, named ``name:PATH``.

    ``path`` says in a few words what PATH is; ``read`` makes the task, whose name is the source's, and raises
    :class:`~activations.errors.TwinprobeError` when it can't.
    """

    name: str
    summary: str
    path: str
    read: Callable[[Path], Task]


def source(name: str, summary: str, path: str) -> Callable[[Callable[[Path], Task]], Source]:
    """Decorate ``read(path) -> Task`` to make it a :class:`Source`."""

    def decorate(read: Callable[[Path], Task]) -> Source:
        return Source(name, summary, path, read)

    return decorate


def task(
    name: str,
    summary: str,
    targets: Mapping[str, tuple[FormName, ...]],
    causal: bool = True,
    clusters: Literal["item", "group"] = "item",
    relations: tuple[str, ...] = (),
) -> Callable[[Callable[[int, int], list[Item]]], Task]:
    """Decorate ``generate(n_items, seed) -> list[Item]`` to make it a :class:`Task`."""

    def decorate(generate: Callable[[int, int], list[Item]]) -> Task:
        return Task(name, summary, targets, generate, causal, clusters, relations)

    return decorate


def restricted(task: Task, forms: Sequence[FormName]) -> Task:
    """The task with some of its forms only; items are drawn as before, and those without any of the forms left out.

    Raises:
        TwinprobeError: no target has any of the forms.
    """
    targets = {target: tuple(form for form in own if form in forms) for target, own in task.targets.items()}
    targets = {target: kept for target, kept in targets.items() if kept}
    if not targets:
        known = sorted({form for own in task.targets.values() for form in own})
        raise TwinprobeError(f"task {task.name!r} has no form {' or '.join(forms)}; it has {', '.join(known)}")

    def generate(n_items: int, seed: int) -> list[Item]:
        drawn = [
            replace(item, forms={form: rendered for form, rendered in item.forms.items() if form in forms})
            for item in task.generate(n_items, seed)
        ]
        return [item for item in drawn if item.forms]

    return replace(task, targets=targets, generate=generate)


@dataclass
class Weaver:
    """Builds a text from templates and remembers where the words with a role landed."""

    text: str = ""
    spans: list[Span] = field(default_factory=list)

    def add(self, template: str, words: Mapping[str, str], roles: Mapping[str, str | None] | None = None) -> None:
        """Append ``template`` with ``{field}`` replaced by ``words[field]``; a field with a role leaves a span."""
        for literal, name, _, _ in string.Formatter().parse(template):
            self.text += literal
            if name is not None:
                role = (roles or {}).get(name)
                if role is not None:
                    self.spans.append(Span(role, len(self.text), len(self.text) + len(words[name])))
                self.text += words[name]

    def label_last(self, target: str, label: str, control: str) -> None:
        """Label the last character: the token after which the answer must come."""
        self.spans.append(Span(target, len(self.text) - 1, len(self.text), label, control))

    def span(self, role: str) -> Span:
        """The first span of that name."""
        return next(span for span in self.spans if span.name == role)

    def edited(self, role: str, replacement: str) -> str:
        """The text with the words of the first span called ``role`` replaced."""
        span = self.span(role)
        return self.text[: span.start] + replacement + self.text[span.end :]
