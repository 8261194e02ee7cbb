"""Contrast prompts: what is kept is aligned token by token and scored by first tokens; what is not is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch

from activations.errors import TwinprobeError
from activations.texts import Span
from analyses.prompts import Prompt, prompts
from probes.tasks import TASKS
from probes.tasks.items import Contrast, Form, Item

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

Tiny = Callable[[str], LoadedModel] if TYPE_CHECKING else Any


def item(
    text: str,
    answer: str | None,
    contrast: Contrast | None,
    candidates: tuple[str, ...] = (),
    spans: tuple[Span, ...] = (),
    name: str = "i",
) -> Item:
    return Item(name, "made", "test", "g", 3, {"prose": Form(text, spans, answer, candidates, contrast)})


GOOD = item("the coin is in the", " box", Contrast("the name is in the", " name"), (" box", " name", " red"))


def ids(loaded: LoadedModel, text: str) -> list[int]:
    return list(loaded.tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("bos", [True, False])
def test_a_prompt_is_its_texts_and_first_tokens(tiny: Tiny, bos: bool) -> None:
    loaded = tiny("llama")
    (prompt,), dropped = prompts(loaded, [GOOD], "prose", bos)
    assert dropped == Counter()
    assert (prompt.item, prompt.group, prompt.difficulty) == ("i", "g", 3)
    start = [loaded.tokenizer.bos_token_id] if bos else []
    assert list(prompt.clean) == start + ids(loaded, "the coin is in the")
    assert list(prompt.corrupted) == start + ids(loaded, "the name is in the")
    assert loaded.tokenizer.convert_ids_to_tokens([prompt.answer, prompt.contrast]) == ["Ġbox", "Ġname"]
    assert prompt.candidates == tuple(sorted(ids(loaded, " box name red")))
    assert loaded.tokenizer.convert_tokens_to_ids(list(prompt.tokens)) == list(prompt.clean)


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (item("the coin", None, Contrast("the name", " name")), "no contrast"),
        (item("the coin", " box", None), "no contrast"),
        (Item("i", "made", "test", "g", 0, {"code": GOOD.forms["prose"]}), "no contrast"),
        (item("the coin", " box", Contrast("the zzzzz", " red")), "token counts differ"),
        (item("a re", "turn", Contrast("b re", "d")), "the answer merges with the prompt's last token"),
        (item("the coin", " box", Contrast("a re", "d")), "the answer merges with the prompt's last token"),
        (item("x =", " 12", Contrast("y =", " 13")), "the two answers share their first token"),
        (item("x =", " 1", Contrast("y =", " 1")), "the two answers share their first token"),
        (item("x =", " 12", Contrast("y =", " 34"), (" 13",)), "another candidate shares an answer's first token"),
        (item("x =", " 34", Contrast("y =", " 12"), (" 13",)), "another candidate shares an answer's first token"),
    ],
)
def test_what_can_not_be_aligned_or_scored_is_dropped_with_its_reason(tiny: Tiny, bad: Item, reason: str) -> None:
    loaded = tiny("llama")
    if reason == "the answer merges with the prompt's last token":
        assert ids(loaded, "a return")[:2] != ids(loaded, "a re"), "the tokenizer does not merge it"
    kept, dropped = prompts(loaded, [bad, GOOD, bad], "prose", False)
    assert [prompt.item for prompt in kept] == ["i"]
    assert dropped == {reason: 2}


def test_a_text_that_starts_with_the_answer_s_tokens_is_kept(tiny: Tiny) -> None:
    """Only a change of the prompt's own tokens is a merge; answers of several tokens are scored by their first."""
    loaded = tiny("gpt2")
    (prompt,), _ = prompts(loaded, [item("x =", " 12", Contrast("y =", " 34"))], "prose", True)
    assert [prompt.answer, prompt.contrast] == [ids(loaded, " 1")[0], ids(loaded, " 34")[0]]


@pytest.mark.parametrize(
    ("answer", "contrast", "longer"),
    [(" box", " name", False), (" box in", " name", True), (" box", " name in", True)],
)
def test_answers_of_several_tokens_are_told(tiny: Tiny, answer: str, contrast: str, longer: bool) -> None:
    one = item("the coin is in the", answer, Contrast("the name is in the", contrast), (answer, contrast))
    (prompt,), _ = prompts(tiny("llama"), [one], "prose", bos=True)
    assert prompt.longer == longer
    assert tiny("llama").tokenizer.convert_ids_to_tokens([prompt.answer, prompt.contrast]) == ["Ġbox", "Ġname"]


def test_candidates_that_merge_are_left_out(tiny: Tiny) -> None:
    loaded = tiny("llama")
    (prompt,), dropped = prompts(
        loaded, [item("a re", "(", Contrast("b re", ")"), ("(", ")", "d", "["))], "prose", True
    )
    assert dropped == Counter()
    assert sorted(prompt.candidates) == sorted(ids(loaded, "(") + ids(loaded, ")") + ids(loaded, "["))


def prompt_of(**changes: Any) -> Prompt:
    fields = {
        "item": "i", "group": "g", "difficulty": 0, "clean": (1, 2), "corrupted": (1, 3), "answer": 4, "contrast": 6,
        "candidates": (4, 6, 7), "tokens": ("a", "b"), "roles": ("other", "last"),
    }  # fmt: skip
    return Prompt(**{**fields, **changes})


def test_right_is_the_highest_logit_among_the_candidates() -> None:
    prompt = prompt_of()
    logits = torch.zeros(9)
    logits[[4, 6, 7]] = torch.tensor([3.0, 1.0, 2.0])
    logits[5] = 99.0  # not a candidate
    assert prompt.right(logits)
    assert not prompt.right(logits, corrupted=True)
    logits[7] = 5.0  # a third candidate beats both answers
    assert not prompt.right(logits)
    assert not prompt.right(logits, corrupted=True)
    logits[6] = 6.0
    assert not prompt.right(logits)
    assert prompt.right(logits, corrupted=True)


def test_the_logit_difference_is_clean_minus_contrast() -> None:
    logits = torch.arange(18.0).reshape(2, 9) ** 2
    assert prompt_of().logit_difference(logits).tolist() == [16 - 36, 13**2 - 15**2]


def test_roles_are_the_shortest_unlabelled_span_and_last(tiny: Tiny) -> None:
    loaded = tiny("llama")
    text = "the captain put the red coin into the box"

    def span(name: str, words: str, label: str | None = None) -> Span:
        return Span(name, text.index(words), text.index(words) + len(words), label)

    spans = (
        span("sentence", "captain put the red coin into"),
        span("object", "red coin"),
        span("colour", "red"),
        span("answer", "coin", "labelled, so no role"),
        span("place", "the box"),
    )
    (prompt,), _ = prompts(
        loaded, [item(text, " name", Contrast("the captain put the red name into the box", " coin"), (), spans)],
        "prose", True,
    )  # fmt: skip
    words = [token.removeprefix("Ġ") for token in prompt.tokens]
    assert words[0] == "<|bos|>"
    found = dict(zip(words[3:], prompt.roles[3:], strict=True))
    assert prompt.roles[:3] == ("other", "other", "other")  # BOS and "the" in two tokens
    assert found == {
        "captain": "sentence", "put": "sentence", "red": "colour", "coin": "object", "into": "sentence",
        "the": "place", "box": "last",
    }  # fmt: skip


def test_a_prompt_longer_than_the_context_is_refused(tiny: Tiny) -> None:
    long = "the coin " * 60
    with pytest.raises(TwinprobeError, match="but the model's context is 96"):
        prompts(tiny("llama"), [item(long, " box", Contrast(long, " red"))], "prose", True)


@pytest.mark.parametrize("architecture", ["roberta", "t5"])
def test_a_model_that_does_not_predict_the_next_token_is_refused(tiny: Tiny, architecture: str) -> None:
    with pytest.raises(TwinprobeError, match="is an encoder.*need decoders"):
        prompts(tiny(architecture), [GOOD], "prose", True)


def test_the_tokenizer_is_untouched(make_model: MakeModel) -> None:
    loaded = make_model("gpt2")
    loaded.tokenizer(["a", "b c"], padding=True, truncation=True, max_length=3)
    before = loaded.tokenizer.backend_tokenizer.to_str()
    assert '"max_length":3' in before
    (prompt,), _ = prompts(loaded, [GOOD], "prose", True)
    assert len(prompt.clean) > 3
    assert loaded.tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.causal])
def test_every_causal_task_gives_prompts(tiny: Tiny, name: str) -> None:
    """Under a byte-level tokenizer that knows hardly a word; every item is either a prompt or counted."""
    loaded = tiny("llama")
    items = [item for item in TASKS[name].generate(40, 0) if item.split == "test"]
    for form in sorted({form for item in items for form in item.forms}):
        pairs = [(item.forms[form].text, item.forms[form].contrast.text) for item in items]
        lengths = [max(len(ids(loaded, text)) for text in pair) for pair in pairs]
        short = [item for item, length in zip(items, lengths, strict=True) if length < loaded.context]
        kept, dropped = prompts(loaded, short, form, True)
        assert len(kept) + sum(dropped.values()) == len(short)
        for prompt in kept:
            assert len(prompt.clean) == len(prompt.corrupted) == len(prompt.roles) == len(prompt.tokens)
            assert prompt.clean != prompt.corrupted
            assert {prompt.answer, prompt.contrast} <= set(prompt.candidates)
