"""Contrast prompts: a task's items as token ids, aligned between the clean and the corrupted text.

What cannot be aligned or scored is dropped with a reason, and the reasons are counted.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activations.inputs import Encoded, encode
from activations.models import LoadedModel
from activations.texts import Span, Text
from probes.tasks.items import Contrast, Form, Item

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

OTHER_ROLE = "other"
CLEAN, CORRUPTED = 0, 1
"""The two runs of a prompt, where they come in pairs."""
DIRECTIONS = {"denoising": (CORRUPTED, CLEAN), "noising": (CLEAN, CORRUPTED)}
"""The run that is patched, and the one that gives."""


@dataclass(frozen=True)
class Prompt:
    """One item in one form, ready to run: ids of both texts, ids of the answers, and what each token is.

    ``answer`` and ``contrast`` are the first tokens of the two answers; ``candidates`` those of every alternative,
    these two included. ``roles`` names for each position the span that covers it (``other`` where none does).
    ``longer`` says that one of the two answers has further tokens, which are not scored.
    """

    item: str
    group: str
    difficulty: int
    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answer: int
    contrast: int
    candidates: tuple[int, ...]
    tokens: tuple[str, ...]
    roles: tuple[str, ...]
    longer: bool = False

    def right(self, logits: Float[torch.Tensor, "... vocab"], corrupted: bool = False) -> bool:
        """Whether the answer that belongs to this text has the highest logit among the candidates."""
        best = max(self.candidates, key=lambda token: float(logits[token]))
        return best == (self.contrast if corrupted else self.answer)

    def logit_difference(self, logits: Float[torch.Tensor, "... vocab"]) -> Float[torch.Tensor, "..."]:
        """Logit of the clean answer minus logit of the contrast answer."""
        return logits[..., self.answer] - logits[..., self.contrast]


def prompts(loaded: LoadedModel, items: Sequence[Item], form: str, bos: bool) -> tuple[list[Prompt], Counter[str]]:
    """Tokenise the items that have ``form`` with an answer and a contrast; return them and the reasons for drops.

    Raises:
        TwinprobeError: the model is no decoder, or a text is too long for it.
    """
    loaded.require_decoder()
    asked: list[_Asked] = []
    for item in items:
        given = item.forms.get(form)
        if given is not None and given.contrast is not None and given.answer is not None:
            asked.append(_Asked(item, given, given.answer, given.contrast))
    dropped: Counter[str] = Counter()
    if len(asked) < len(items):
        dropped["no contrast"] = len(items) - len(asked)
    texts = [Text(one.item.id, text) for one in asked for text in (one.form.text, one.contrast.text)]
    encoded = encode(loaded.tokenizer, texts, bos, loaded.context)
    tokens = _tokens(loaded, [text + answer for one in asked for text, answer in one.continuations()])
    kept: list[Prompt] = []
    for one, clean, corrupted in zip(asked, encoded[::2], encoded[1::2], strict=True):
        prompt = _prompt(loaded, one, clean, corrupted, tokens)
        if isinstance(prompt, Prompt):
            kept.append(prompt)
        else:
            dropped[prompt] += 1
    return kept, dropped


@dataclass(frozen=True)
class _Asked:
    """An item in a form that has an answer and a contrast."""

    item: Item
    form: Form
    answer: str
    contrast: Contrast

    def continuations(self) -> list[tuple[str, str]]:
        """Each text with an answer that may follow it; the contrast's own comes last, after its own text."""
        after_clean = [(self.form.text, answer) for answer in (self.answer, *self.form.candidates)]
        return [*after_clean, (self.contrast.text, self.contrast.answer)]


def _tokens(loaded: LoadedModel, texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """The tokens of each text alone, however long."""
    different = list(dict.fromkeys(texts))
    encoded = encode(loaded.tokenizer, [Text("", text) for text in different], False, sys.maxsize)
    return {text: one.ids for text, one in zip(different, encoded, strict=True)}


def _prompt(
    loaded: LoadedModel, asked: _Asked, clean: Encoded, corrupted: Encoded, tokens: Mapping[str, tuple[int, ...]]
) -> Prompt | str:
    """The prompt, or why there is none. ``tokens`` has those of the texts with each answer after them."""
    if len(clean) != len(corrupted):
        return "token counts differ"
    own = {one.text.text: one.ids[one.own.start : one.own.stop] for one in (clean, corrupted)}
    first = {answer: _first_token(own[text], tokens[text + answer]) for text, answer in asked.continuations()}
    answer, contrast = first[asked.answer], first[asked.contrast.answer]
    if answer is None or contrast is None:
        return "the answer merges with the prompt's last token"
    if answer == contrast:
        return "the two answers share their first token"
    found = list(first.values())
    if found.count(answer) > 1 or found.count(contrast) > 1:
        return "another candidate shares an answer's first token"
    candidates = {token for token in found if token is not None}
    longest = max(
        len(tokens[text + one]) - len(own[text])
        for text, one in ((asked.form.text, asked.answer), (asked.contrast.text, asked.contrast.answer))
    )
    item = asked.item
    return Prompt(
        item.id, item.group, item.difficulty, clean.ids, corrupted.ids, answer, contrast, tuple(sorted(candidates)),
        tuple(loaded.tokenizer.convert_ids_to_tokens(list(clean.ids))), _roles(asked.form.spans, clean.offsets),
        longest > 1,
    )  # fmt: skip


def _first_token(prefix: tuple[int, ...], whole: tuple[int, ...]) -> int | None:
    """The token that follows ``prefix`` in ``whole``; ``None`` when the answer melts into the prompt's last token."""
    return whole[len(prefix)] if len(whole) > len(prefix) and whole[: len(prefix)] == prefix else None


def _roles(spans: Sequence[Span], offsets: Sequence[tuple[int, int]]) -> tuple[str, ...]:
    """The role of each token: the shortest span that covers it, and ``last`` for the last one."""
    by_length = sorted(spans, key=lambda span: span.end - span.start)
    roles = [
        next(
            (span.name for span in by_length if span.label is None and start < span.end and end > span.start),
            OTHER_ROLE,
        )
        for start, end in offsets
    ]
    roles[-1] = "last"
    return tuple(roles)
