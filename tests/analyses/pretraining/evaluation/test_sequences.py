"""Examples as tokens: what is scored, and in which order they come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from analyses.pretraining.evaluation.sequences import by_length, encode, training_order
from analyses.pretraining.evaluation.transformations import Example
from analyses.pretraining.loop import UNSCORED
from analyses.pretraining.prompted import Prompted, pad

if TYPE_CHECKING:
    from conftest import MakeTokenizer
    from transformers import PreTrainedTokenizerFast


def test_an_example_is_source_separator_target_and_end(tokenizer: PreTrainedTokenizerFast) -> None:
    (encoded,) = encode(tokenizer, [Example("the box", "box the", "")], "\n")
    assert tokenizer.decode(encoded.ids) == "<|bos|> the box\n box the<|eos|>"
    assert tokenizer.decode(encoded.ids[encoded.scored_from :]) == " box the<|eos|>"
    the, box = (tokenizer(f" {word}", add_special_tokens=False)["input_ids"] for word in ("the", "box"))
    assert encoded.ids[1:-1].tolist() == [*the, *box, *tokenizer("\n")["input_ids"], *box, *the]


def test_without_a_first_token_a_text_begins_with_the_last(make_tokenizer: MakeTokenizer) -> None:
    tokenizer = make_tokenizer()
    tokenizer.bos_token = None
    (encoded,) = encode(tokenizer, [Example("a", "b", "")], "\n")
    assert encoded.ids[0] == encoded.ids[-1] == tokenizer.eos_token_id
    tokenizer.eos_token = None
    with pytest.raises(TwinprobeError, match="no end-of-text token"):
        encode(tokenizer, [Example("a", "b", "")], "\n")


def test_only_targets_are_scored() -> None:
    batch = pad([Prompted(np.array([5, 6, 7, 8]), 2), Prompted(np.array([5, 9]), 1)])
    assert batch.ids.tolist() == [[5, 6, 7, 8], [5, 9, 0, 0]]
    assert batch.labels.tolist() == [[UNSCORED, UNSCORED, 7, 8], [UNSCORED, 9, UNSCORED, UNSCORED]]


@given(st.lists(st.integers(2, 60), min_size=1, max_size=200), st.integers(1, 17), st.integers(0, 5))
def test_every_epoch_has_every_example_once(lengths: list[int], batch: int, seed: int) -> None:
    order = training_order(lengths, batch, 2, seed)
    half = len(order) // 2
    for epoch in (order[:half], order[half:]):
        assert sorted(np.concatenate(epoch)) == [*range(len(lengths))]
        assert max(map(len, epoch)) <= batch
    again = training_order(lengths, batch, 2, seed)
    assert all(np.array_equal(one, other) for one, other in zip(order, again, strict=True))


def test_batches_are_about_equally_long_and_in_random_order() -> None:
    generator = np.random.default_rng(0)
    lengths = generator.integers(10, 100, 4000)
    order = training_order(lengths.tolist(), 32, 1, 0)
    widest = sum(len(places) * lengths[places].max() for places in order)
    assert lengths.sum() / widest > 0.95
    means = [lengths[places].mean() for places in order]
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.3
    assert not np.array_equal(order[0], training_order(lengths.tolist(), 32, 1, 1)[0])


def test_part_of_an_epoch_is_part_of_its_steps() -> None:
    assert len(training_order([5] * 100, 10, 0.5, 0)) == 5
    assert len(training_order([5] * 100, 10, 0.001, 0)) == 1


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 120))
def test_every_sequence_is_scored_once_within_the_tokens(lengths: list[int], tokens: int) -> None:
    sequences = [Prompted(np.zeros(length, np.int32), 0) for length in lengths]
    parts = [*by_length(sequences, tokens)]
    assert sorted(place for part in parts for place in part) == [*range(len(lengths))]
    assert all(len(part) == 1 or len(part) * max(lengths[place] for place in part) <= tokens for part in parts)
