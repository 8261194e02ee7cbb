"""Let a model go on with a text, greedily, until a stop."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from activations.inputs import encode, pad_id
from activations.models import LoadedModel
from activations.texts import Text
from analyses.benchmarks.local.questions import Prompt

BATCH = 8
"""Texts that are gone on with together."""


def written(
    loaded: LoadedModel,
    prompts: Sequence[Prompt],
    *,
    bos: bool,
    tokens: int,
    batch: int = BATCH,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[str]:
    """What the model writes after each prompt: its most probable tokens, at most ``tokens``, up to the first stop.

    A prompt that leaves no room for ``tokens`` loses tokens from the left, after BOS, as in lm-evaluation-harness; where the
    context is no longer than ``tokens``, half of it is for the answer.
    """
    room = min(tokens, loaded.context // 2)
    encoded = encode(loaded.tokenizer, [Text("", prompt.text) for prompt in prompts], False, sys.maxsize)
    opening = (int(loaded.tokenizer.bos_token_id),) if bos else ()
    rows = [(*opening, *one.ids[-(loaded.context - room - len(opening)) :]) for one in encoded]
    found = [""] * len(prompts)
    order = sorted(range(len(rows)), key=lambda row: -len(rows[row]))
    for start in range(0, len(order), batch):
        numbers = order[start : start + batch]
        stops = [prompts[number].stops for number in numbers]
        for number, text in zip(numbers, _go_on(loaded, [rows[n] for n in numbers], stops, room), strict=True):
            found[number] = text
        progress(min(start + batch, len(rows)), len(rows))
    return found


def until(text: str, stops: Sequence[str]) -> str:
    """``text`` up to the first stop in it."""
    return text[: min((place for stop in stops if (place := text.find(stop)) >= 0), default=len(text))]


def _go_on(loaded: LoadedModel, rows: Sequence[Sequence[int]], stops: Sequence[Sequence[str]], room: int) -> list[str]:
    import torch
    from transformers import GenerationConfig, StoppingCriteria

    width, pad = max(map(len, rows)), pad_id(loaded.tokenizer)
    # Padding goes to the left here: what is written follows the last token of every row.
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows], device=loaded.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=loaded.device)

    def said(line: Any) -> str:
        return str(loaded.tokenizer.decode(line[width:], skip_special_tokens=True))

    class Stopped(StoppingCriteria):
        def __call__(self, input_ids: torch.LongTensor, scores: Any, **_kwargs: Any) -> torch.BoolTensor:
            ended = [until(text := said(line), own) != text for line, own in zip(input_ids, stops, strict=True)]
            return torch.tensor(ended, device=input_ids.device)  # type: ignore[return-value]

    # A configuration of its own: a checkpoint's may sample, or punish repetition.
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=room, pad_token_id=pad, eos_token_id=loaded.tokenizer.eos_token_id
    )  # fmt: skip
    with torch.inference_mode():
        out = loaded.model.generate(
            input_ids=ids, attention_mask=mask, generation_config=settings, stopping_criteria=[Stopped()]
        )
    return [until(said(line), own) for line, own in zip(out, stops, strict=True)]
