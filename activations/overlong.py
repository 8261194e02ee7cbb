"""Texts longer than a model's context: refused, cut off, or split into pieces, as asked for and never silently."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from activations.errors import TwinprobeError
from activations.inputs import Encoded, encode
from activations.texts import Text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

RULES = ("error", "truncate", "split")


@dataclass(frozen=True, eq=False)
class Fitted:
    """Texts that fit, tokenised; how many were too long, and how many spans did not survive."""

    encoded: list[Encoded]
    overlong: int = 0
    lost_spans: int = 0


def fit(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[Text],
    bos: bool,
    context: int,
    rule: str = "error",
    closing: int | None = None,
) -> Fitted:
    """Tokenise ``texts``; one that is too long is an error, or becomes texts of its own that are not.

    ``truncate`` keeps the beginning under the same id. ``split`` makes consecutive pieces ``id#0``, ``id#1``, ... of the
    same group. A piece is a text like any other: it is tokenised by itself and the store holds it as it was read. Spans
    that lie in one piece go with it; the rest are counted as lost.

    Raises:
        TwinprobeError: an unknown rule; a text that is too long, under ``error``; a context no token fits into.
    """
    if rule not in RULES:
        raise TwinprobeError(f"overlong rule {rule!r} is not known; expected one of {', '.join(RULES)}")
    if rule == "error":
        return Fitted(encode(tokenizer, texts, bos, context, closing))
    fitted: list[Encoded] = []
    overlong = lost = 0
    for item in encode(tokenizer, texts, bos, _NO_LIMIT, closing):
        if len(item) <= context:
            fitted.append(item)
            continue
        overlong += 1
        pieces = _pieces(lambda part: encode(tokenizer, [part], bos, _NO_LIMIT, closing)[0], item, context, rule)
        lost += len(item.text.spans) - sum(len(piece.text.spans) for piece in pieces)
        fitted += pieces
    return Fitted(fitted, overlong, lost)


_NO_LIMIT = 2**62


def _pieces(tokenise: Callable[[Text], Encoded], item: Encoded, context: int, rule: str) -> list[Encoded]:
    """The pieces of one text, each as long as fits."""
    room = context - (len(item) - len(item.own))
    pieces: list[Encoded] = []
    start = 0
    while start < len(item.text.text):
        inside = [place for place in item.own if item.ranges[place, 1] > start]
        stop = int(item.ranges[inside[room - 1], 1]) if len(inside) > room > 0 else len(item.text.text)
        # A piece by itself may be tokenised a little differently at its ends: cut until it fits.
        while (
            len(piece := tokenise(_part(item.text, start, stop, f"#{len(pieces)}" if rule == "split" else "")))
            > context
        ):
            stop = start + (stop - start) * room // max(len(piece.own), 1) if len(piece.own) > room + 8 else stop - 1
            if stop <= start or room < 1:
                raise TwinprobeError(f"text {item.text.id!r}: not one token fits into the model's context of {context}")
        pieces.append(piece)
        if rule == "truncate":
            break
        start = stop
    return pieces


def _part(text: Text, start: int, stop: int, suffix: str) -> Text:
    spans = tuple(
        replace(span, start=span.start - start, end=span.end - start)
        for span in text.spans
        if start <= span.start and span.end <= stop
    )
    return Text(text.id + suffix, text.text[start:stop], spans, text.group)
