"""A recorded run is the model's own, and what leaves the last block gives its logits, on every architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from conftest import ARCHITECTURES
from other_models import CLEAN, CORRUPTED, REGISTERED, SMALL, other_model, state

from activations.errors import TwinprobeError
from analyses.patching.head import check_head
from analyses.patching.recording import record
from analyses.patching.runs import run

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_run_records_the_model_s_own_forward_pass(make_model: MakeModel, architecture: str) -> None:
    loaded = make_model(architecture)
    found = run(loaded, CLEAN)
    with torch.no_grad():
        expected = loaded.model(torch.tensor([CLEAN]), output_hidden_states=True)
    assert error(found.logits, expected.logits[0, -1]) < 1e-6
    assert error(found.resid_pre, torch.cat(expected.hidden_states[:-1])) < 1e-5
    recording = record(loaded, CLEAN, suffixes=False)
    check_head(loaded, recording.stream[-1, -1], recording.logits)


def test_hooks_are_removed_after_an_error(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    before = state(loaded)
    with pytest.raises(IndexError):
        run(loaded, (3, 99_999))
    assert state(loaded) == before


@pytest.mark.parametrize("name", REGISTERED)
def test_the_other_architectures_of_the_registry_have_their_logits(
    tiny: Callable[[str], LoadedModel], name: str
) -> None:
    loaded = other_model(tiny, name, REGISTERED[name])
    recording = record(loaded, CORRUPTED, suffixes=False)
    check_head(loaded, recording.stream[-1, -1], recording.logits)


def test_logits_that_are_not_accounted_for_are_refused(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = other_model(tiny, "CohereConfig", {**SMALL, "logit_scale": 0.0625})
    recording = record(loaded, CLEAN, suffixes=False)
    with pytest.raises(TwinprobeError) as caught:
        check_head(loaded, recording.stream[-1, -1], recording.logits)
    assert "patching CohereForCausalLM is not exact" in str(caught.value)
    assert "\n" not in str(caught.value)
