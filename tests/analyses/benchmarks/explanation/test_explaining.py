"""Explanations by a model: batched and padded, yet what greedy decoding of each prompt alone gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from activations.errors import TwinprobeError
from analyses.benchmarks.explanation.writing import TEMPLATE, explain

if TYPE_CHECKING:
    from conftest import MakeModel

SOURCES = ["x", "total = {width}", "y = x + 2"]


def _alone(loaded, source: str, count: int) -> str:  # type: ignore[no-untyped-def]
    """Step by step, without padding or cache."""
    import torch

    prompt = loaded.tokenizer(TEMPLATE.format(source=source), add_special_tokens=False)["input_ids"]
    ids = [loaded.tokenizer.bos_token_id, *prompt]
    for _ in range(count):
        with torch.inference_mode():
            ids.append(int(loaded.model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
        if ids[-1] == loaded.tokenizer.eos_token_id:
            break
    said = loaded.tokenizer.decode(ids[1 + len(prompt) :], skip_special_tokens=True)
    return str(said.lstrip("# \n").split("\n", 1)[0].strip())


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_explanations_are_greedy_whatever_else_is_in_the_batch(make_model: MakeModel, architecture: str) -> None:
    sizes = {"n_positions": 256} if architecture == "gpt2" else {"max_position_embeddings": 256}
    loaded = make_model(architecture, seed=2, **sizes)
    loaded.model.generation_config.update(do_sample=True, temperature=5.0, repetition_penalty=3.0)
    seen: list[tuple[int, int]] = []
    found = explain(loaded, SOURCES, bos=True, new_tokens=12, progress=lambda *now: seen.append(now))
    assert found == [_alone(loaded, source, 12) for source in SOURCES]
    assert seen[-1] == (3, 3) and any(found)


def test_what_does_not_fit_is_refused(make_model: MakeModel) -> None:
    with pytest.raises(TwinprobeError, match="do not fit the context of tiny-llama, 96"):
        explain(make_model("llama"), SOURCES, bos=True, new_tokens=90)
    with pytest.raises(TwinprobeError, match="encoder"):
        explain(make_model("roberta"), SOURCES, bos=True)
