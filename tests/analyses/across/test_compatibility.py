"""Which two models can exchange activations and weights, and what is said of those that can not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from activations.errors import TwinprobeError
from activations.models import LoadedModel, load_model, wrap
from analyses.across.compatibility import check_compatible, incompatibility, shared_prompts
from analyses.prompts import prompts
from probes.tasks import TASKS
from probes.tasks.items import Contrast, Form, Item

if TYPE_CHECKING:
    from conftest import MakeModel

Edit = Callable[[dict[str, Any]], None]


def item(name: str, clean: str, corrupted: str) -> Item:
    contrast = Contrast(f'the {corrupted} is in the "', "name")
    return Item(name, "made", "test", "g", 1, {"prose": Form(f'the {clean} is in the "', (), "box", (), contrast)})


GOOD = item("first", "coin", "name")
UNEVEN = item("uneven", "coin", "box")
"""As many tokens in both texts for the tiny tokenizer, but not as many letters."""


def with_tokenizer(loaded: LoadedModel, edit: Edit) -> LoadedModel:
    """The model with its tokenizer's BPE model edited."""
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    described = json.loads(loaded.tokenizer.backend_tokenizer.to_str())
    edit(described)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)), bos_token="<|bos|>", eos_token="<|eos|>"
    )
    return wrap(loaded.model, tokenizer, "other")


def swap_two_ids(described: dict[str, Any]) -> None:
    vocabulary = described["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]


def forget_merges(described: dict[str, Any]) -> None:
    described["model"]["merges"] = []


def refusal(base: LoadedModel, code: LoadedModel) -> str:
    with pytest.raises(TwinprobeError) as caught:
        check_compatible(base, code)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_models_of_one_shape_and_vocabulary_are_compatible(make_model: MakeModel) -> None:
    base, code = make_model("llama"), make_model("llama", seed=1)
    assert incompatibility(base, code) is None
    check_compatible(base, code)
    assert incompatibility(base, make_model("llama", tie_word_embeddings=True)) is None


@pytest.mark.parametrize(
    ("other", "fields", "reason"),
    [
        ("qwen2", {}, "the architecture is LlamaForCausalLM and Qwen2ForCausalLM"),
        ("llama", {"num_hidden_layers": 4}, "the number of layers is 3 and 4"),
        ("llama", {"hidden_size": 32}, "the width is 16 and 32"),
        ("llama", {"num_attention_heads": 2}, "the number of heads is 4 and 2"),
        ("llama", {"num_key_value_heads": 1}, "the number of key and value heads is 2 and 1"),
        ("llama", {"head_dim": 8}, "the width of a head is 4 and 8"),
        ("llama", {"vocab_size": 450}, "the size of the vocabulary is 400 and 450"),
        (
            "llama",
            {"intermediate_size": 30},
            "the shape of model.layers.0.mlp.gate_proj.weight is (24, 16) and (30, 16)",
        ),
        (
            "llama",
            {"attention_bias": True},
            "the shape of model.layers.0.self_attn.q_proj.bias is absent and (16,)",
        ),
    ],
)
def test_the_first_difference_is_named(make_model: MakeModel, other: str, fields: dict[str, Any], reason: str) -> None:
    base, code = make_model("llama"), make_model(other, **fields)
    size = base.embedding.weight.shape[0]
    assert reason.replace("is 400", f"is {size}") in refusal(base, code)


def test_encoders_are_refused(make_model: MakeModel) -> None:
    assert "is an encoder" in refusal(make_model("llama"), make_model("roberta"))


def test_another_vocabulary_is_refused(make_model: MakeModel) -> None:
    base = make_model("llama")
    ids = base.tokenizer.convert_tokens_to_ids(["a", "b"])
    reason = refusal(base, with_tokenizer(base, swap_two_ids))
    assert f"the id of token 'a' is {ids[0]} and {ids[1]}" in reason


@pytest.mark.parametrize("bos", [True, False])
def test_prompts_that_are_read_alike_are_shared(make_model: MakeModel, bos: bool) -> None:
    base, code = make_model("llama"), make_model("llama", seed=1)
    assert shared_prompts(base, code, [GOOD], "prose", bos) == prompts(base, [GOOD], "prose", bos)


def test_the_first_token_that_is_read_otherwise_is_named(make_model: MakeModel) -> None:
    base = make_model("llama")
    other = with_tokenizer(base, forget_merges)
    assert incompatibility(base, other) is None, "the vocabularies differ"
    ids = [loaded.tokenizer(GOOD.forms["prose"].text)["input_ids"] for loaded in (base, other)]
    position, tokens = next((i, pair) for i, pair in enumerate(zip(*ids, strict=False)) if pair[0] != pair[1])
    with pytest.raises(TwinprobeError) as caught:
        shared_prompts(base, other, [GOOD], "prose", bos=True)
    assert f"position {position + 1} of the text of item 'first' is token {tokens[0]} and {tokens[1]};" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)


def test_items_that_only_one_can_use_are_named(make_model: MakeModel) -> None:
    base = make_model("llama")
    for items, expected in (([UNEVEN], "no more items"), ([UNEVEN, GOOD], "item 'first'")):
        with pytest.raises(TwinprobeError) as caught:
            shared_prompts(base, with_tokenizer(base, forget_merges), items, "prose", bos=False)
        assert f"where one has item 'uneven', the other has {expected}" in str(caught.value)


def test_the_embedded_twins_share_their_prompts() -> None:
    base, code = (load_model(f"embedded:{name}", check=False) for name in ("text", "code"))
    shared, dropped = shared_prompts(base, code, TASKS["nesting"].generate(20, 0), "code", bos=True)
    assert len(shared) + sum(dropped.values()) == 20
    assert shared
