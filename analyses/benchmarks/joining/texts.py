"""The texts whose last token is read: context and choice, without their beginning where they are too long."""

from __future__ import annotations

import sys

import numpy as np
from numpy.typing import NDArray

from activations.errors import TwinprobeError
from activations.inputs import Encoded, encode
from activations.models import LoadedModel
from activations.texts import Text
from analyses.benchmarks.joining.questions import Questions


def texts(loaded: LoadedModel, asked: Questions, bos: bool) -> tuple[list[Text], NDArray[np.int64]]:
    """A text per choice that fits the model, named ``subject/item/choice``.

    Tokens are lost from the left, as where the answer is scored; there the last token is predicted and not read, so that
    a text may lose one more token here.

    Returns:
        The texts, and how many tokens each has lost, ``[rows]``.

    Raises:
        TwinprobeError: a choice does not fit the model's context.
    """
    whole = [
        Text(f"{item.subject}/{item.id}/{number}", item.before(number) + choice, group=unit)
        for item, unit in zip(asked.items, asked.units, strict=True)
        for number, choice in enumerate(item.choices)
    ]
    encoded = encode(loaded.tokenizer, whole, bos, sys.maxsize)
    choices = [len(choice) for item in asked.items for choice in item.choices]
    fitted = [_end(loaded, one, bos, length) for one, length in zip(encoded, choices, strict=True)]
    return [text for text, _ in fitted], np.array([lost for _, lost in fitted], dtype=np.int64)


def _end(loaded: LoadedModel, one: Encoded, bos: bool, choice: int) -> tuple[Text, int]:
    """The longest end of a text that fits, and the tokens it has lost."""
    lost, length, text = 0, len(one), one.text
    while length > loaded.context:
        lost += length - loaded.context
        # From the end of the last token that is left out: white space before a word belongs to the word's token.
        start = int(one.ranges[one.own][lost - 1, 1]) if lost < len(one.own) else len(one.text.text)
        if start >= len(one.text.text) or start > len(one.text.text) - choice + 1:
            raise TwinprobeError(
                f"{text.id}: the choice alone does not fit the model's context of {loaded.context}; leave such items out"
            )
        text = Text(one.text.id, one.text.text[start:], group=one.text.group)
        # An end by itself may be tokenised a little differently where it begins.
        length = len(encode(loaded.tokenizer, [text], bos, sys.maxsize)[0])
    return text, lost
