"""What the surface of a task's texts betrays, shared by the tests of generated tasks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import cache

import numpy as np
from task_items import drawn
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from activations.inputs import encode
from activations.models import ModelSpec, load_tokenizer
from probes.baselines import Baselines, baselines
from probes.rows import RowLabels
from probes.tasks.items import Item

GENERATED = (
    "nesting", "binding", "aliasing", "arithmetic", "boolean", "branching", "loops", "ordering", "roles", "types",
    "scope", "closers", "indentation", "induction", "agreement",
)  # fmt: skip
"""The tasks that are made of templates."""


def surface(items: Sequence[Item], form: str, target: str, tokenizer: PreTrainedTokenizerBase) -> Baselines:
    """The surface baselines of one target in one form."""
    rows = []
    for item, text in zip(items, encode(tokenizer, [i.as_text(form) for i in items], False, sys.maxsize), strict=True):
        for span in text.text.spans:
            if span.name == target:
                rows.append((item, span, text.ids, text.positions(span)[-1]))
    return baselines(
        RowLabels(
            labels=np.array([span.label for _, span, _, _ in rows]),
            controls=np.array([span.control for _, span, _, _ in rows]),
            items=np.array([item.id for item, *_ in rows]),
            groups=np.array([item.group for item, *_ in rows]),
            splits=np.array([item.split for item, *_ in rows]),
            texts=[ids[: at + 1] for _, _, ids, at in rows],
            tokens=[(ids[at],) for _, _, ids, at in rows],
            positions=np.array([at for *_, at in rows]),
        )
    )


def aligned(items: Sequence[Item], form: str, tokenizer: PreTrainedTokenizerBase) -> float:
    """Share of the items whose text and contrast have the same number of tokens."""
    texts = [item.forms[form] for item in items]
    clean, twins = (_ids(tokenizer, each) for each in ([f.text for f in texts], [f.contrast.text for f in texts]))
    return float(np.mean([len(a) == len(b) for a, b in zip(clean, twins, strict=True)]))


def scorable(items: Sequence[Item], form: str, tokenizer: PreTrainedTokenizerBase) -> float:
    """Share of the items whose candidates, put after the text, begin with different tokens of their own."""
    texts = [item.forms[form] for item in items]
    prefixes = _ids(tokenizer, [f.text for f in texts])
    wholes = iter(_ids(tokenizer, [f.text + word for f in texts for word in f.candidates]))
    good = 0
    for text, prefix in zip(texts, prefixes, strict=True):
        ends = [next(wholes) for _ in text.candidates]
        first = {ids[len(prefix)] for ids in ends if len(ids) > len(prefix) and ids[: len(prefix)] == prefix}
        good += len(first) == len(text.candidates)
    return good / len(items)


def _ids(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    return [found.ids for found in tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)]


@cache
def tokenizer_families() -> tuple[PreTrainedTokenizerBase, ...]:
    """The embedded twins' tokenizer and two that have learned the generated tasks, digits apart and not; made once."""
    forms = [form for name in GENERATED for item in drawn(name, 90, 1) for form in item.forms.values()]
    texts = [text for form in forms for text in (form.text + form.answer, form.contrast.text + form.contrast.answer)]
    return load_tokenizer(ModelSpec("embedded:code")), *(
        _trained(texts, digits_apart) for digits_apart in (True, False)
    )


def _trained(texts: Sequence[str], digits_apart: bool) -> PreTrainedTokenizerBase:
    """A byte-level BPE tokenizer trained on ``texts``: digits alone as in Llama 3 and Qwen2, or as GPT-2 and CodeGen."""
    backend = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if digits_apart else []
    backend.pre_tokenizer = pre_tokenizers.Sequence([*digits, level])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=2000, show_progress=False, initial_alphabet=alphabet)
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend)
