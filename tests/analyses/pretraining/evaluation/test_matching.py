"""One forward pass says what decoding token by token would have given."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from analyses.pretraining.evaluation.finetuning import Finetune, train_model
from analyses.pretraining.evaluation.matching import exact_matches, fits
from analyses.pretraining.evaluation.sequences import encode
from analyses.pretraining.evaluation.transformations import Example
from analyses.pretraining.prompted import Prompted

if TYPE_CHECKING:
    from conftest import MakeModel
    from transformers import PreTrainedModel

WORDS = ("the", "box", "girl", "sea", "man", "rain", "coin", "red")
LEARNT = [Example(f"{a} {b}", f"{b} and {a}", "") for a, b in itertools.pairwise(WORDS)]
OTHERS = [
    *(Example(f"{a} {b}", f"{b} and {a}", "") for a, b in zip(WORDS, WORDS[2:], strict=False)),
    *(Example(example.source, example.target.rsplit(" ", 1)[0], "") for example in LEARNT),
    *(Example(example.source, f"{example.target} box", "") for example in LEARNT),
]


def generated(model: PreTrainedModel, sequence: Prompted) -> bool:
    """Whether the model itself, decoding greedily, gives the target and ends there."""
    prompt = torch.tensor([sequence.ids[: sequence.scored_from].tolist()])
    answer = model.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        max_new_tokens=len(sequence.ids) - sequence.scored_from + 2,
        do_sample=False,
        eos_token_id=int(sequence.ids[-1]),
        pad_token_id=2,
    )
    return bool(answer[0].tolist() == sequence.ids.tolist())


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "neox-parallel"])
def test_a_forward_pass_says_what_greedy_decoding_gives(
    make_model: MakeModel, tmp_path: Path, architecture: str
) -> None:
    loaded = make_model(architecture)
    table = Finetune(
        name="toy", train="-", test="-", epochs=60, batch=7, learning_rate=2e-2, precision="float32", weight_decay=0
    )
    learnt, others = (encode(loaded.tokenizer, examples, "\n") for examples in (LEARNT, OTHERS))
    train_model(loaded.model, learnt, table, 0, tmp_path / "none.pt", "", lambda *_: None)
    sequences = [*others, *learnt]
    matches = exact_matches(loaded.model, sequences)
    assert matches.tolist() == [generated(loaded.model, sequence) for sequence in sequences]
    assert matches[-len(learnt) :].sum() >= 5 and not matches[: len(others)].all()
    # The rightly learnt sentence, cut short or drawn out, is wrong: the end of the text is part of the target.
    assert not matches[len(others) - 2 * len(learnt) : len(others)][np.tile(matches[-len(learnt) :], 2)].any()


def test_a_match_depends_neither_on_what_else_is_scored_nor_on_padding(make_model: MakeModel, tmp_path: Path) -> None:
    loaded = make_model("llama")
    table = Finetune(name="toy", train="-", test="-", epochs=40, batch=7, learning_rate=2e-2, precision="float32")
    sequences = encode(loaded.tokenizer, [*LEARNT, *OTHERS], "\n")
    train_model(loaded.model, sequences[: len(LEARNT)], table, 0, tmp_path / "none.pt", "", lambda *_: None)
    together = exact_matches(loaded.model, sequences)
    assert together.any() and not together.all()
    assert together.tolist() == [bool(exact_matches(loaded.model, [sequence])[0]) for sequence in sequences]


def test_what_the_context_can_not_hold_is_wrong(make_model: MakeModel) -> None:
    model = make_model("llama").model
    context = model.config.max_position_embeddings
    sequence = [5]
    while len(sequence) <= context:  # the model's own greedy text, which is right as far as the context goes
        ids = torch.tensor([sequence])
        with torch.inference_mode():
            sequence.append(int(model(ids).logits[0, -1].argmax()))
    whole, longer = Prompted(np.array(sequence[:context]), 1), Prompted(np.array(sequence), 1)
    assert exact_matches(model, [whole, longer]).tolist() == [True, False]
    assert (fits(model, whole), fits(model, longer)) == (True, False)
