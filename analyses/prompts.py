"""Contrast prompts: a task's items as token ids, aligned between the clean and the corrupted text.

What cannot be aligned or scored is dropped with a reason, and the reasons are counted.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activations.inputs import encode
from activations.models import LoadedModel
from activations.texts import Span, Text
from probes.tasks.items import Form, Item

if TYPE_CHECKING:
    import torch
    from jaxtyping import Float

OTHER_ROLE = "other"


@dataclass(frozen=True)
class Prompt:
    """One item in one form, ready to run: ids of both texts, ids of the answers, and what each token is.

    ``answer`` and ``contrast`` are the first tokens of the two answers; ``candidates`` those of every alternative,
    these two included. ``roles`` names for each position the span that covers it (``other`` where none does).
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
    kept: list[Prompt] = []
    dropped: Counter[str] = Counter()
    for item in items:
        rendered = item.forms.get(form)
        if rendered is None or rendered.contrast is None or rendered.answer is None:
            dropped["no contrast"] += 1
            continue
        prompt = _prompt(loaded, item, rendered, bos)
        if isinstance(prompt, Prompt):
            kept.append(prompt)
        else:
            dropped[prompt] += 1
    return kept, dropped


def _prompt(loaded: LoadedModel, item: Item, form: Form, bos: bool) -> Prompt | str:
    """The prompt, or why there is none."""
    assert form.contrast is not None  # the caller checked both
    assert form.answer is not None
    clean, corrupted = (
        encode(loaded.tokenizer, [Text(item.id, text, spans)], bos, loaded.context)[0]
        for text, spans in ((form.text, form.spans), (form.contrast.text, ()))
    )
    if len(clean.ids) != len(corrupted.ids):
        return "token counts differ"
    first = {answer: _first_token(loaded, form.text, answer) for answer in (form.answer, *form.candidates)}
    first[form.contrast.answer] = _first_token(loaded, form.contrast.text, form.contrast.answer)
    answer, contrast = first[form.answer], first[form.contrast.answer]
    if answer is None or contrast is None:
        return "the answer merges with the prompt's last token"
    if answer == contrast:
        return "the two answers share their first token"
    found = list(first.values())
    if found.count(answer) > 1 or found.count(contrast) > 1:
        return "another candidate shares an answer's first token"
    candidates = {token for token in found if token is not None}
    tokens = tuple(loaded.tokenizer.convert_ids_to_tokens(list(clean.ids)))
    return Prompt(
        item.id, item.group, item.difficulty, clean.ids, corrupted.ids, answer, contrast, tuple(sorted(candidates)),
        tokens, _roles(form.spans, clean.offsets),
    )  # fmt: skip


def _first_token(loaded: LoadedModel, text: str, answer: str) -> int | None:
    """The first token of ``answer`` when it continues ``text``; ``None`` when the two melt into one token."""
    prefix, whole = (
        encode(loaded.tokenizer, [Text("", piece)], False, sys.maxsize)[0].ids for piece in (text, text + answer)
    )
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
