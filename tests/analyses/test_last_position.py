"""Variants of the last position, run side by side: equal to one plain forward pass with an edit for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES
from other_models import SMALL, other_model, state

from activations.engines.hooks import editing, first_tensor
from activations.sites import parse_site
from analyses.last_position import Edit, EditedRuns, edited_runs, shares_prefix

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

LENGTHS = (9, 14, 2, 9, 30, 5)
COUNT = 4
SEQUENTIAL = ("llama", "gpt2", "gemma2", "qwen2", "granite")
"""Architectures with a residual stream between attention and MLP."""


def prompts_of(lengths: Sequence[int]) -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randint(3, 390, (length,), generator=generator).tolist()) for length in lengths]


def pushes(n_prompts: int, width: int) -> torch.Tensor:
    """One edit per prompt and variant ``[prompt, variant, width]``; the first variant is the prompt as it is."""
    drawn = torch.randn(n_prompts, COUNT, width, generator=torch.Generator().manual_seed(2))
    drawn[:, 0] = 0
    return drawn


def adding(site: str, added: torch.Tensor) -> Edit:
    """Variants of a state: half of it, and something added."""

    def variants(states: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
        here = added[list(numbers)].to(states)
        return torch.where(here == 0, states[:, None], states[:, None] / 2 + here)

    return Edit(parse_site(site), COUNT, variants)


def run_all(loaded: LoadedModel, prompts: Sequence[tuple[int, ...]], edit: Edit) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and states in the order of the prompts; every prompt must come exactly once."""
    runs: list[EditedRuns] = list(edited_runs(loaded, prompts, edit))
    numbers = [number for part in runs for number in part.numbers]
    assert sorted(numbers) == list(range(len(prompts)))
    order = np.argsort(numbers).tolist()
    return torch.cat([part.logits for part in runs])[order], torch.cat([part.states for part in runs])[order]


def plain(loaded: LoadedModel, ids: tuple[int, ...], site: str, added: torch.Tensor) -> torch.Tensor:
    """One variant by a full forward pass of its own."""

    def put(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed[0, -1] = tensor[0, -1] / 2 + added.to(tensor)
        return changed

    tokens = torch.tensor([ids])
    with torch.no_grad():
        if not added.any():
            return loaded.model(input_ids=tokens).logits[0, -1]
        with editing(loaded, parse_site(site), put):
            return loaded.model(input_ids=tokens).logits[0, -1]


def error(loaded: LoadedModel, site: str, lengths: Sequence[int] = LENGTHS) -> float:
    """The largest difference of any logit from the plain passes'."""
    prompts, added = prompts_of(lengths), pushes(len(lengths), loaded.d_model)
    logits, states = run_all(loaded, prompts, adding(site, added))
    assert states.shape == (len(prompts), COUNT, loaded.d_model)
    expected = torch.stack(
        [
            torch.stack([plain(loaded, ids, site, each) for each in line])
            for ids, line in zip(prompts, added, strict=True)
        ]
    )
    assert (expected[:, 1:] - expected[:, :1]).abs().amax(-1).min() > 0.01, "the edits change nothing"
    return float((logits - expected).abs().max())


@contextmanager
def tokens_read(loaded: LoadedModel) -> Iterator[list[int]]:
    """While active, lists how many tokens the last block reads in each pass."""
    seen: list[int] = []

    def note(_module: Any, _args: Any, result: Any) -> None:
        seen.append(int(np.prod(first_tensor(result).shape[:2])))

    handle = loaded.module(f"blocks.{loaded.n_layers - 1}").register_forward_hook(note)
    try:
        yield seen
    finally:
        handle.remove()


def edit_of(loaded: LoadedModel, site: str = "resid_post.1", n_prompts: int = len(LENGTHS)) -> Edit:
    return adding(site, pushes(n_prompts, loaded.d_model))


@pytest.mark.parametrize("site", ["embed", "resid_pre.1", "resid_post.0", "resid_post.2"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_side_by_side_is_one_plain_pass_per_variant(
    tiny: Callable[[str], LoadedModel], architecture: str, site: str
) -> None:
    loaded = tiny(architecture)
    assert shares_prefix(loaded, prompts_of(LENGTHS), edit_of(loaded, site))
    assert error(loaded, site) < 1e-5


@pytest.mark.parametrize("site", ["resid_mid.1", "mlp_out.1", "ln_final"])
@pytest.mark.parametrize("architecture", SEQUENTIAL)
def test_so_it_is_at_other_sites(tiny: Callable[[str], LoadedModel], architecture: str, site: str) -> None:
    assert error(tiny(architecture), site) < 1e-5


def test_earlier_tokens_are_read_once(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("llama")
    prompts = prompts_of((40,) * 20)
    with tokens_read(loaded) as seen:
        list(edited_runs(loaded, prompts, edit_of(loaded, n_prompts=20)))
    check = [39, COUNT, 40 * COUNT]  # the longest prompt, which is the shortest too: side by side, and in full
    assert seen == [*check, 20 * 39, 20 * COUNT]


def test_states_are_what_the_variants_were(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("gpt2")
    prompts = prompts_of(LENGTHS)
    _, states = run_all(loaded, prompts, edit_of(loaded))
    for ids, found, added in zip(prompts, states, pushes(len(prompts), loaded.d_model), strict=True):
        with torch.no_grad():
            own = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0, -1]
        assert (found[0] - own).abs().max() < 1e-5
        assert (found[1:] - (own / 2 + added[1:])).abs().max() < 1e-5


UNSHARED: dict[str, tuple[str, dict[str, Any]]] = {
    "a window shorter than a prompt": ("MistralConfig", {**SMALL, "num_key_value_heads": 2, "sliding_window": 8}),
    "windows inside ordinary caches": (
        "GPTNeoConfig",
        {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]]}
        | {"window_size": 8, "vocab_size": 397, "max_position_embeddings": 96},
    ),
    "positions from the mask": ("BloomConfig", {"hidden_size": 16, "n_layer": 2, "n_head": 4, "vocab_size": 397}),
}


@pytest.mark.parametrize("case", UNSHARED)
def test_what_can_not_be_shared_is_run_in_full(tiny: Callable[[str], LoadedModel], case: str) -> None:
    loaded = other_model(tiny, *UNSHARED[case])
    assert not shares_prefix(loaded, prompts_of(LENGTHS), edit_of(loaded, "resid_post.0"))
    assert error(loaded, "resid_post.0") < 1e-5


def test_a_window_that_holds_every_prompt_is_no_hindrance(tiny: Callable[[str], LoadedModel]) -> None:
    name, fields = UNSHARED["a window shorter than a prompt"]
    loaded = other_model(tiny, name, {**fields, "sliding_window": max(LENGTHS)})
    assert shares_prefix(loaded, prompts_of(LENGTHS), edit_of(loaded))
    assert error(loaded, "resid_post.0") < 1e-5


def test_recurrent_layers_are_never_shared(tiny: Callable[[str], LoadedModel]) -> None:
    """With weights this small the logits would hardly show that one variant has read another."""
    kinds = {"num_key_value_heads": 2, "layer_types": ["conv", "full_attention"]}
    loaded = other_model(tiny, "Lfm2Config", {**SMALL, **kinds})
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter *= 0.1 if parameter.ndim > 1 else 1
    assert not shares_prefix(loaded, prompts_of(LENGTHS), edit_of(loaded))


@pytest.mark.parametrize("lengths", [(), (1,), (1, 7), (7,)])
def test_few_and_short_prompts(tiny: Callable[[str], LoadedModel], lengths: tuple[int, ...]) -> None:
    loaded = tiny("llama")
    if lengths:
        assert error(loaded, "resid_post.1", lengths) < 1e-5
    else:
        assert list(edited_runs(loaded, [], edit_of(loaded))) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(make_model: MakeModel, dtype: torch.dtype) -> None:
    loaded = make_model("llama")
    loaded.model.to(dtype)
    assert shares_prefix(loaded, prompts_of(LENGTHS), edit_of(loaded))
    assert error(loaded, "resid_post.1") < (0.1 if dtype == torch.bfloat16 else 0.02)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_the_model_is_left_as_it_was(make_model: MakeModel, architecture: str) -> None:
    loaded = make_model(architecture)
    prompts, before = prompts_of(LENGTHS), state(loaded)
    run_all(loaded, prompts, edit_of(loaded))
    assert state(loaded) == before

    class OutOfIdeasError(Exception):
        pass

    calls: list[int] = []

    def fails(late: int) -> Callable[[torch.Tensor, Sequence[int]], torch.Tensor]:
        def variants(states: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
            calls.append(len(numbers))
            if len(calls) > late:
                raise OutOfIdeasError
            return states[:, None].expand(-1, COUNT, -1)

        return variants

    for late in (0, 1, 3):  # in the check, side by side and in full; in the runs after it
        calls.clear()
        with pytest.raises(OutOfIdeasError):
            list(edited_runs(loaded, prompts, Edit(parse_site("resid_post.1"), COUNT, fails(late))))
        assert state(loaded) == before


def test_an_error_of_the_caller_s_own_comes_up(tiny: Callable[[str], LoadedModel]) -> None:
    def variants(states: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
        raise ValueError("no such prompt")

    with pytest.raises(ValueError, match="no such prompt"):
        list(edited_runs(tiny("llama"), prompts_of(LENGTHS), Edit(parse_site("resid_post.1"), COUNT, variants)))
