"""The logits after many prompts: those of each prompt's own plain forward pass, however they were put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import ARCHITECTURES

from analyses import last_logits as module
from analyses.last_logits import last_logits

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

LENGTHS = (9, 14, 2, 9, 30, 9, 1, 14, 9)


def prompts() -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randint(3, 390, (length,), generator=generator).tolist()) for length in LENGTHS]


def plain(loaded: LoadedModel, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(torch.tensor([ids])).logits[0, -1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_to_one_plain_pass_for_each_prompt(make_model: MakeModel, architecture: str) -> None:
    loaded = make_model(architecture)
    found = dict(last_logits(loaded, prompts()))
    assert sorted(found) == list(range(len(LENGTHS)))
    for number, ids in enumerate(prompts()):
        torch.testing.assert_close(found[number], plain(loaded, ids), atol=1e-5, rtol=1e-5)


def test_prompts_of_one_length_share_a_pass_within_the_bound(
    tiny: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tiny("llama")
    monkeypatch.setattr(module, "MAX_TOKENS", 20)
    shapes: list[tuple[int, ...]] = []
    unembedded: list[tuple[int, ...]] = []
    handles = [
        loaded.embedding.register_forward_pre_hook(lambda _module, args: shapes.append(tuple(args[0].shape))),
        loaded.module("unembed").register_forward_hook(
            lambda _module, _args, output: unembedded.append(tuple(output.shape[:2]))
        ),
    ]
    order = [number for number, _logits in last_logits(loaded, prompts())]
    for handle in handles:
        handle.remove()
    # Of four prompts with 9 tokens two fit into 20, of two with 14 one, and one with 30 runs all the same.
    assert shapes == [(1, 1), (1, 2), (2, 9), (2, 9), (1, 14), (1, 14), (1, 30)]
    assert unembedded == [(count, 1) for count, _length in shapes]
    assert order == [6, 2, 0, 3, 5, 8, 1, 7, 4]


def test_the_model_is_left_as_it_was_also_after_an_error(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    before = plain(loaded, prompts()[0])
    next(last_logits(loaded, prompts()))  # and no more: whoever reads may stop

    def fail(_module: torch.nn.Module, _args: Any) -> None:
        raise RuntimeError("out of memory")

    handle = loaded.module("ln_final").register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        list(last_logits(loaded, prompts()))
    handle.remove()
    with torch.no_grad():
        logits = loaded.model(torch.tensor([prompts()[0]])).logits
    assert logits.shape[1] == LENGTHS[0]
    assert torch.equal(logits[0, -1], before)
