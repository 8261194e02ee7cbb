"""Attribution: equal to exact patching where the model is linear, and to small differences everywhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ARCHITECTURES, PARALLEL
from linear_models import linearise, spread_attention
from other_models import CLEAN, CORRUPTED, WINDOWED, state

from activations.engines.hooks import editing, forward
from activations.errors import TwinprobeError
from activations.sites import WITH_HEADS, Site
from analyses.attribution.agreement import exact_effects, sample_cells
from analyses.attribution.nodes import METHODS, NODES, attribute
from analyses.prompts import DIRECTIONS, Prompt

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

PROMPT = Prompt(
    "item",
    "group",
    1,
    CLEAN,
    CORRUPTED,
    300,
    310,
    (300, 310),
    tuple(f"t{i}" for i in range(9)),
    ("other",) * 8 + ("last",),
)
LENGTH = len(CLEAN)


@pytest.fixture(scope="module", params=ARCHITECTURES)
def every(request: pytest.FixtureRequest, make_model: MakeModel) -> LoadedModel:
    return make_model(request.param, **WINDOWED.get(request.param, {}))


def difference(loaded: LoadedModel, row: int) -> float:
    with torch.no_grad():
        logits = loaded.model(torch.tensor([(CLEAN, CORRUPTED)[row]]), use_cache=False).logits[0, -1]
    return float(PROMPT.logit_difference(logits))


def slope_along(loaded: LoadedModel, site: Site, row: int, towards: torch.Tensor, step: float = 0.02) -> float:
    """How fast the logit difference of a run changes as its activation sets out along ``towards``.

    The five-point rule: float32 is too coarse for a step that is small enough for two points.
    """
    slope = 0.0
    for steps, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
        with editing(loaded, site, partial(torch.add, other=towards, alpha=steps * step)):
            slope += weight * difference(loaded, row) / (12 * step)
    return slope


def always(activation: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return lambda _: activation


def patch_of(loaded: LoadedModel, cell: Any) -> tuple[Site, int, torch.Tensor]:
    """A cell's site, the run it is patched in, and what the patch adds there."""
    site = Site(cell.site, cell.layer, int(cell.head) if cell.site in WITH_HEADS else None)
    patched, donor = DIRECTIONS[cell.direction]
    both = forward(loaded, torch.tensor([CLEAN, CORRUPTED]), torch.ones(2, LENGTH, dtype=torch.long), [site])[site]
    towards = torch.zeros_like(both[0])
    towards[cell.position] = (both[donor] - both[patched])[cell.position]
    return site, patched, towards


def test_the_estimate_is_the_slope_towards_the_other_run(every: LoadedModel) -> None:
    found = attribute(every, PROMPT)
    checked = sample_cells(found, 30, seed=1)
    expected = [slope_along(every, *patch_of(every, cell)) for cell in checked.itertuples()]
    assert np.abs(expected).max() > 0.05, "nothing to estimate"
    assert checked.effect.to_numpy() == pytest.approx(expected, rel=2e-3, abs=2e-3)


def test_every_site_layer_head_and_position_has_a_line(every: LoadedModel) -> None:
    found = attribute(every, PROMPT)
    names = [name for name in NODES if name != "resid_mid" or every.spec.name.removeprefix("tiny-") not in PARALLEL]
    per_layer = sum(LENGTH * (every.n_heads if name == "z" else 1) for name in names)
    assert len(found) == len(DIRECTIONS) * every.n_layers * per_layer
    assert not found.duplicated(["direction", "site", "layer", "head", "position"]).any()
    assert set(found.site) == set(names)
    assert found["head"].notna().equals(found.site == "z")
    assert (found.token == [f"t{position}" for position in found.position]).all()
    assert (found.role == np.where(found.position == LENGTH - 1, "last", "other")).all()
    assert (found.effect[~found.differs] == 0).all()
    # Attention is causal: nothing differs before the first edited token, at index 3.
    assert not found.differs[found.position < 3].any()
    gap = difference(every, 0) - difference(every, 1)
    assert found.recovery.to_numpy() == pytest.approx(found.effect.to_numpy() / gap, rel=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("architecture", ["gpt2", "llama", "qwen2"])
def test_on_a_linear_model_every_method_is_exact(make_model: MakeModel, architecture: str, method: str) -> None:
    loaded = spread_attention(linearise(make_model(architecture)))
    found = attribute(loaded, PROMPT, method=method, steps=3)
    checked = sample_cells(found, 80, seed=2)
    exact = exact_effects(loaded, PROMPT, checked)
    assert np.abs(exact).max() > 0.02, "nothing to estimate"
    scale = np.abs(exact).max()
    assert checked.effect.to_numpy() == pytest.approx(exact, abs=1e-4 * scale)
    assert (found.effect[found.direction == "denoising"].to_numpy() == pytest.approx(
        -found.effect[found.direction == "noising"].to_numpy(), abs=1e-4 * scale
    ))  # fmt: skip


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "codegen", "granite"])
def test_integrated_over_its_own_path_a_site_adds_up_to_its_exact_effect(
    tiny: Callable[[str], LoadedModel], architecture: str
) -> None:
    loaded = tiny(architecture)
    found = attribute(loaded, PROMPT, method="ig-activations", steps=60)
    last = Site("resid_post", loaded.n_layers - 1)
    cell = found[(found.site == last.name) & (found.layer == last.layer) & (found.position == LENGTH - 1)]
    assert len(cell) == 2
    # After the last layer, only the last position is read: its cell is the whole site.
    assert cell.effect.to_numpy() == pytest.approx(exact_effects(loaded, PROMPT, cell), rel=1e-3)
    plain = [difference(loaded, row) for row in (0, 1)]
    totals = found.groupby(["direction", "site", "layer"]).effect.sum()
    for (direction, name, layer), total in totals.items():
        patched, donor = DIRECTIONS[direction]
        site = Site(name, layer)
        both = forward(loaded, torch.tensor([CLEAN, CORRUPTED]), torch.ones(2, LENGTH, dtype=torch.long), [site])[site]
        with editing(loaded, site, always(both[donor][None])):
            after = difference(loaded, patched)
        assert total == pytest.approx(after - plain[patched], rel=5e-3, abs=2e-3), (direction, name, layer)


def test_integrated_over_the_inputs_what_enters_adds_up_to_the_gap(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("qwen2")
    gap = difference(loaded, 0) - difference(loaded, 1)
    errors = []
    for steps in (4, 100):
        found = attribute(loaded, PROMPT, names=["resid_pre", "z"], method="ig-inputs", steps=steps)
        entering = found[(found.site == "resid_pre") & (found.layer == 0)]
        sums = entering.groupby("direction").effect.sum()
        assert sums["denoising"] == pytest.approx(-sums["noising"], abs=1e-5)
        errors.append(abs(sums["denoising"] - gap))
    assert errors[1] < 1e-3 * abs(gap)
    assert errors[1] < errors[0]


def test_steps_in_parts_give_the_same(tiny: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attribute(tiny("llama"), PROMPT, method="ig-inputs", steps=7)
    monkeypatch.setattr("analyses.attribution.nodes.MAX_TOKENS", 2 * LENGTH)
    parts = attribute(tiny("llama"), PROMPT, method="ig-inputs", steps=7)
    assert parts.effect.to_numpy() == pytest.approx(whole.effect.to_numpy(), abs=1e-5)


def test_both_kernels_and_frozen_weights_give_the_same(make_model: MakeModel) -> None:
    eager, sdpa = (make_model("qwen2", attn_implementation=kernel) for kernel in ("eager", "sdpa"))
    expected = attribute(sdpa, PROMPT)
    assert attribute(eager, PROMPT).effect.to_numpy() == pytest.approx(expected.effect.to_numpy(), abs=1e-5)
    sdpa.model.requires_grad_(False)
    with torch.no_grad():
        pd.testing.assert_frame_equal(attribute(sdpa, PROMPT), expected)
    assert not any(parameter.requires_grad for parameter in sdpa.model.parameters())


def test_half_precision_is_close(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    expected = attribute(loaded, PROMPT).effect.to_numpy()
    loaded.model.bfloat16()
    found = attribute(loaded, PROMPT).effect.to_numpy()
    assert np.corrcoef(found, expected)[0, 1] > 0.97


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_untouched_also_after_an_error(make_model: MakeModel, method: str) -> None:
    loaded = make_model("llama")
    next(loaded.model.parameters()).requires_grad_(False)
    asking = [parameter.requires_grad for parameter in loaded.model.parameters()]
    before = state(loaded)
    attribute(loaded, PROMPT, method=method, steps=2)
    with pytest.raises(IndexError):
        attribute(loaded, replace(PROMPT, corrupted=(*CORRUPTED[:-1], 99_999)), method=method, steps=2)
    with pytest.raises(IndexError):
        attribute(loaded, replace(PROMPT, answer=99_999), method=method, steps=2)
    assert state(loaded) == before
    assert [parameter.requires_grad for parameter in loaded.model.parameters()] == asking
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
    assert torch.is_grad_enabled()


def refused(call: Callable[[], Any]) -> str:
    with pytest.raises(TwinprobeError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_quantised_model_is_refused(make_model: MakeModel) -> None:
    eight_bit, declared = make_model("llama"), make_model("llama")
    projection = eight_bit.model.get_submodule("model.layers.0.mlp.down_proj")
    projection.weight = torch.nn.Parameter(projection.weight.detach().mul(50).to(torch.int8), requires_grad=False)
    declared.model.config.quantization_config = {"quant_method": "gptq", "bits": 4}
    for loaded in (eight_bit, declared):
        message = refused(lambda loaded=loaded: attribute(loaded, PROMPT))
        assert message.startswith("tiny-llama is quantised; attribution needs gradients")


def test_bad_input_is_refused(tiny: Callable[[str], LoadedModel]) -> None:
    llama = tiny("llama")
    assert "'apt' is not known (did you mean 'atp'?)" in refused(lambda: attribute(llama, PROMPT, method="apt"))
    assert "over 0 steps; expected 1 or more" in refused(lambda: attribute(llama, PROMPT, method="ig-inputs", steps=0))
    assert "is an encoder" in refused(lambda: attribute(tiny("roberta"), PROMPT))
    assert "unknown site 'residual.*'" in refused(lambda: attribute(llama, PROMPT, names=["residual"]))
    assert "site q.0" in refused(lambda: attribute(tiny("gpt2"), PROMPT, names=["q"]))
