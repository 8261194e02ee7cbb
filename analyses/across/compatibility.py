"""Whether activations and weights of one model of a pair mean anything in the other: same shapes, same tokens.

Two models can only exchange parts position by position and number by number when they are of one architecture, have the
same shapes and read a text as the same tokens. What differs first is named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

from activations.errors import TwinprobeError
from activations.models import LoadedModel
from analyses.prompts import Prompt, prompts
from probes.tasks.items import Item


def check_compatible(base: LoadedModel, code: LoadedModel) -> None:
    """Make sure that the two models can exchange activations.

    Raises:
        TwinprobeError: one is no decoder, or architecture, shapes or vocabulary differ.
    """
    for loaded in (base, code):
        loaded.require_decoder()
    if reason := incompatibility(base, code):
        raise TwinprobeError(
            f"{base.spec.name} and {code.spec.name} can not exchange activations or weights: {reason}; "
            "expected two models of one shape and vocabulary"
        )


def incompatibility(base: LoadedModel, code: LoadedModel) -> str | None:
    """The first thing in which two decoders differ of architecture, shapes and vocabulary; ``None`` where nothing does.

    Tokens added on top of a tokenizer's vocabulary are not compared: :func:`shared_prompts` looks at those that texts use.
    """
    return _shapes(base, code) or _weights(base, code) or _vocabulary(base, code)


def shared_prompts(
    base: LoadedModel, code: LoadedModel, items: Sequence[Item], form: str, bos: bool
) -> tuple[list[Prompt], Counter[str]]:
    """The prompts of ``items`` for two models that can exchange activations; see :func:`same_prompts`.

    Raises:
        TwinprobeError: the models are not compatible, or do not read every text and answer as the same tokens.
    """
    check_compatible(base, code)
    return same_prompts(base, code, items, form, bos)


def same_prompts(
    base: LoadedModel, code: LoadedModel, items: Sequence[Item], form: str, bos: bool
) -> tuple[list[Prompt], Counter[str]]:
    """The prompts of ``items`` (see :func:`analyses.prompts.prompts`), which both models read alike, whatever their shapes.

    Raises:
        TwinprobeError: the models do not read every text and answer as the same tokens.
    """
    ours, dropped = prompts(base, items, form, bos)
    theirs = ours if _read_alike(base, code) else prompts(code, items, form, bos)[0]
    for one, other in zip_longest(ours, theirs):
        if _as_ids(one) != _as_ids(other):
            raise TwinprobeError(
                f"{base.spec.name} and {code.spec.name} do not read form {form!r} as the same tokens: "
                f"{_prompt_difference(one, other)}; use a pair with one tokenizer, or leave the item out"
            )
    return ours, dropped


def _read_alike(base: LoadedModel, code: LoadedModel) -> bool:
    """Whether two models have the very same tokenizer and context, so that one of them need not be asked."""
    ours, theirs = (
        (loaded.tokenizer.backend_tokenizer.to_str(), loaded.tokenizer.bos_token_id, loaded.context)
        for loaded in (base, code)
    )
    return ours == theirs


def _shapes(base: LoadedModel, code: LoadedModel) -> str | None:
    compared: dict[str, Callable[[LoadedModel], str | int]] = {
        "the architecture": lambda loaded: type(loaded.model).__name__,
        "the number of layers": lambda loaded: loaded.n_layers,
        "the width": lambda loaded: loaded.d_model,
        "the number of heads": lambda loaded: loaded.n_heads,
        "the number of key and value heads": lambda loaded: loaded.n_kv_heads,
        "the width of a head": lambda loaded: loaded.d_head,
        "the size of the vocabulary": lambda loaded: loaded.model.get_input_embeddings().weight.shape[0],
    }
    for what, read in compared.items():
        if read(base) != read(code):
            return f"{what} is {read(base)} and {read(code)}"
    return None


def _weights(base: LoadedModel, code: LoadedModel) -> str | None:
    ours, theirs = (
        # Under all their names, so that a model with tied embeddings is like one without.
        {name: tuple(weight.shape) for name, weight in loaded.model.named_parameters(remove_duplicate=False)}
        for loaded in (base, code)
    )
    for name in {**ours, **theirs}:
        if ours.get(name) != theirs.get(name):
            return f"the shape of {name} is {ours.get(name, 'absent')} and {theirs.get(name, 'absent')}"
    return None


def _vocabulary(base: LoadedModel, code: LoadedModel) -> str | None:
    ours, theirs = (loaded.tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False) for loaded in (base, code))
    for token, _ in sorted({**theirs, **ours}.items(), key=lambda entry: entry[1]):
        if ours.get(token) != theirs.get(token):
            return f"the id of token {token!r} is {ours.get(token, 'absent')} and {theirs.get(token, 'absent')}"
    return None


def _as_ids(prompt: Prompt | None) -> tuple[Any, ...] | None:
    """What a model is given and asked; a token's name may differ where its id does not (BOS)."""
    if prompt is None:
        return None
    return prompt.item, prompt.clean, prompt.corrupted, prompt.answer, prompt.contrast, prompt.candidates


def _prompt_difference(one: Prompt | None, other: Prompt | None) -> str:
    if one is None or other is None or one.item != other.item:
        items = [f"item {prompt.item!r}" if prompt else "no more items" for prompt in (one, other)]
        return f"where one has {items[0]}, the other has {items[1]}, as they drop different items"
    for text, ids, others in (("text", one.clean, other.clean), ("contrast", one.corrupted, other.corrupted)):
        for position, pair in enumerate(zip_longest(ids, others)):
            if pair[0] != pair[1]:
                return f"position {position} of the {text} of item {one.item!r} is token {pair[0]} and {pair[1]}"
    return f"the answers of item {one.item!r} open with other tokens"
