"""BERTScore: by hand, on real tiny models against their own hidden states, and the symmetry it must have."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pytest

from activations.errors import TwinprobeError
from analyses.benchmarks.explanation.similarity import (
    f_score,
    inverse_frequencies,
    match,
    similarity_scores,
    similarity_site,
)

if TYPE_CHECKING:
    from activations.models import LoadedModel

Tiny = Callable[[str], "LoadedModel"]
KINDS = ("llama", "roberta", "t5")
ONE, OTHER = "x = 1\nprint(y)", "The captain put the coin into the red box."


def test_a_match_by_hand() -> None:
    """Cosines [[1, 0], [0.6, 0.8], [0, 1]]: best of rows 1, 0.8, 1, best of columns 1, 1."""
    hypothesis, reference = np.array([[1, 0], [0.6, 0.8], [0, 1]]), np.eye(2)
    precision, recall, f1, f3 = match(hypothesis, reference, np.ones(3), np.ones(2))
    assert (precision, recall) == pytest.approx((2.8 / 3, 1))
    assert f1 == pytest.approx(2 * precision / (precision + 1))
    assert f3 == pytest.approx(10 * precision / (9 * precision + 1))
    weighted = match(hypothesis, reference, np.array([1, 3, 0]), np.array([0, 2]))
    assert weighted[:2] == pytest.approx(((1 + 3 * 0.8) / 4, 1))
    assert match(hypothesis, reference, np.zeros(3), np.zeros(2))[0] == pytest.approx(2.8 / 3)
    assert f_score(0, 0, 1) == 0


def test_rare_tokens_weigh_more() -> None:
    weight = inverse_frequencies([[1, 1, 2], [1, 3], [1]])
    assert [weight(token) for token in (1, 2, 9)] == pytest.approx([0, math.log(2), math.log(4)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("idf", [False, True])
def test_identical_texts_give_1_and_a_swap_swaps_precision_and_recall(tiny: Tiny, kind: str, idf: bool) -> None:
    loaded = tiny(kind)
    same = similarity_scores(loaded, [ONE, OTHER], [[ONE], [OTHER, ONE]], bos=True, idf=idf)
    assert same.to_numpy() == pytest.approx(1.0, abs=1e-6)
    # Weights are taken from the references of both calls alike.
    there = similarity_scores(loaded, [ONE, OTHER], [[OTHER], [ONE]], bos=True, idf=idf)
    assert there.f1[0] == pytest.approx(there.f1[1], abs=1e-9)
    assert there.precision[0] == pytest.approx(there.recall[1], abs=1e-9)
    assert abs(there.precision[0] - there.recall[0]) > 1e-4 and there.f1[0] < 0.999


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_scores_are_those_of_the_models_hidden_states(tiny: Tiny, kind: str) -> None:
    """The mean over tokens of the best cosine, one text at a time; the last layer but one, without what opens and closes."""
    import torch

    loaded = tiny(kind)
    states = []
    for text in (ONE, OTHER):
        own = loaded.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids = torch.tensor(
            [[loaded.tokenizer.bos_token_id, *own, *([loaded.closing] if loaded.closing is not None else [])]]
        )
        with torch.inference_mode():
            given = loaded.model(input_ids=ids, output_hidden_states=True).hidden_states[2][0, 1 : 1 + len(own)]
        states.append(torch.nn.functional.normalize(given.double(), dim=-1))
    cosines = states[0] @ states[1].T
    expected = [cosines.max(1).values.mean().item(), cosines.max(0).values.mean().item()]
    found = similarity_scores(loaded, [ONE], [[OTHER]], bos=True, layer=1)
    assert found[["precision", "recall"]].to_numpy()[0] == pytest.approx(expected, abs=1e-5)


def test_the_best_reference_counts_and_silence_scores_0(tiny: Tiny) -> None:
    seen: list[tuple[int, int]] = []
    found = similarity_scores(
        tiny("llama"), [ONE, "", " "], [[OTHER, ONE]] * 3, bos=True, progress=lambda *now: seen.append(now)
    )
    assert found.to_numpy()[0] == pytest.approx(1.0, abs=1e-6)
    assert (found.to_numpy()[1:] == 0).all()
    assert seen[-1] == (2, 2), "each different text is read once"


def test_layers(tiny: Tiny) -> None:
    assert str(similarity_site(tiny("llama"))) == "resid_post.1"
    assert str(similarity_site(tiny("t5"))) == "encoder.resid_post.1"
    with pytest.raises(TwinprobeError, match="layer 9 does not exist"):
        similarity_scores(tiny("llama"), [ONE], [[ONE]], bos=True, layer=9)
    with pytest.raises(TwinprobeError, match="1 references give no tokens"):
        similarity_scores(tiny("llama"), [ONE], [[" "]], bos=True)
