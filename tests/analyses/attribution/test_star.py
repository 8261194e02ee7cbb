"""AtP*: exact for the last attention of a model that is linear after it, where plain attribution is blind."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from linear_models import linearise, spread_attention
from other_models import CLEAN, CORRUPTED, state
from test_nodes import LENGTH, PROMPT, always, patch_of, refused, slope_along

from activations.engines.hooks import editing, forward, reading, run
from activations.sites import Site
from analyses.attribution.agreement import agreement, exact_effects, sample_cells
from analyses.attribution.nodes import NODES, attribute
from analyses.attribution.star import attribute_star
from analyses.prompts import DIRECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable

    import pandas as pd
    from conftest import MakeModel

    from activations.models import LoadedModel

GROUPED = ["llama", "qwen2", "qwen3", "gemma2"]


def of_layer(cells: pd.DataFrame, layer: int) -> pd.DataFrame:
    return cells[cells.layer == layer]


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
def test_the_fix_is_exact_where_all_after_attention_is_linear(
    make_model: MakeModel, architecture: str, kernel: str
) -> None:
    loaded = linearise(make_model(architecture, attn_implementation=kernel))
    found = of_layer(attribute_star(loaded, PROMPT, names=["q", "k"], grad_drop=False), loaded.n_layers - 1)
    exact = exact_effects(loaded, PROMPT, found)
    assert len(found) == len(DIRECTIONS) * LENGTH * (loaded.n_heads + loaded.n_kv_heads)
    scale = np.abs(exact).max()
    assert scale > 1e-3, "nothing to estimate"
    assert found.effect.to_numpy() == pytest.approx(exact, abs=1e-3 * scale)
    plain = of_layer(attribute(loaded, PROMPT, names=["q", "k"]), loaded.n_layers - 1)
    assert np.abs(plain.effect.to_numpy() - exact).max() > 0.05 * scale, "nothing to fix"


def test_attention_that_is_saturated_blinds_the_plain_estimate_alone(make_model: MakeModel) -> None:
    """Queries a thousand times as long: every head looks at one token, and the softmax has no slope."""
    loaded = linearise(make_model("llama"))
    last = loaded.n_layers - 1
    with torch.no_grad():
        loaded.model.get_parameter(f"model.layers.{last}.self_attn.q_proj.weight").mul_(1000)
    fixed = of_layer(attribute_star(loaded, PROMPT, names=["q", "k"], grad_drop=False), last)
    plain = of_layer(attribute(loaded, PROMPT, names=["q", "k"]), last)
    exact = exact_effects(loaded, PROMPT, fixed)
    moved = np.abs(exact) > 0.1 * np.abs(exact).max()
    assert moved.sum() >= 4
    assert fixed.effect.to_numpy() == pytest.approx(exact, abs=1e-3 * np.abs(exact).max())
    assert np.median(np.abs(plain.effect.to_numpy()[moved])) < 1e-3 * np.abs(exact).max()
    assert agreement(exact, fixed.effect, top=4).false_negatives == 0
    assert agreement(exact, plain.effect, top=4).false_negatives > 0


def z_of(loaded: LoadedModel, row: int, z: Site) -> torch.Tensor:
    found: list[torch.Tensor] = []
    ids = torch.tensor([(CLEAN, CORRUPTED)[row]])
    with torch.no_grad(), reading(loaded, [z], lambda _, activation: found.append(activation)):
        run(loaded, loaded.model, ids, torch.ones_like(ids))
    return found[0]


@pytest.mark.parametrize("architecture", GROUPED)
def test_the_fix_is_the_slope_towards_the_z_that_the_patch_gives(
    tiny: Callable[[str], LoadedModel], architecture: str
) -> None:
    """By plain forward passes: patch the query or key, read z, and take a small step towards it."""
    loaded = tiny(architecture)
    found = attribute_star(loaded, PROMPT, names=["q", "k"], grad_drop=False)
    z = Site("z", 1)
    checked = of_layer(found[found.differs], 1).sample(16, random_state=0)
    for cell in checked.itertuples():
        site, patched, change = patch_of(loaded, cell)
        with editing(loaded, site, partial(torch.add, change)):
            after = z_of(loaded, patched, z)
        slope = slope_along(loaded, z, patched, after - z_of(loaded, patched, z))
        assert cell.effect == pytest.approx(slope, rel=5e-3, abs=1e-3)


def test_other_sites_are_left_to_plain_attribution(tiny: Callable[[str], LoadedModel]) -> None:
    plain = attribute(tiny("llama"), PROMPT)
    star = attribute_star(tiny("llama"), PROMPT, grad_drop=False)
    assert list(star.columns) == list(plain.columns)
    rest = star[~star.site.isin(["q", "k"])].reset_index(drop=True)
    key = ["direction", "site", "layer", "head", "position"]
    merged = plain.merge(rest, on=key, suffixes=("", "_star"))
    assert len(merged) == len(plain) == len(rest)
    assert merged.effect_star.to_numpy() == pytest.approx(merged.effect.to_numpy(), abs=1e-5)


def test_parts_of_the_keys_give_the_same(tiny: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attribute_star(tiny("qwen2"), PROMPT, names=["k"])
    monkeypatch.setattr("analyses.attribution.star.MAX_TOKENS", 2 * LENGTH)
    parts = attribute_star(tiny("qwen2"), PROMPT, names=["k"])
    assert parts.effect.to_numpy() == pytest.approx(whole.effect.to_numpy(), abs=1e-5)


def cancelling(make_model: MakeModel) -> LoadedModel:
    """The MLP of the middle layer subtracts what the stream brings it; the other parts add nothing."""
    loaded = spread_attention(linearise(make_model("gpt2")))
    model, width = loaded.model, loaded.d_model
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".attn.c_proj." in name or ".mlp." in name:
                parameter.zero_()
        model.get_parameter("transformer.h.1.mlp.c_fc.weight")[:, :width] = torch.eye(width)
        model.get_parameter("transformer.h.1.mlp.c_proj.weight")[:width] = -torch.eye(width)
    return loaded


def test_grad_drop_sees_a_path_that_another_cancels(make_model: MakeModel) -> None:
    """Only without the middle layer's contribution does a gradient reach the first layers; its size is known by hand."""
    loaded = cancelling(make_model)
    last = LENGTH - 1
    prompt = replace(PROMPT, corrupted=(*CORRUPTED[:last], 210))
    embeddings = loaded.embedding.weight.detach()
    unembedding = loaded.model.get_output_embeddings().weight.detach()
    moved = embeddings[CLEAN[last]] - embeddings[210]
    direct = abs(float(moved @ (unembedding[PROMPT.answer] - unembedding[PROMPT.contrast])))
    assert direct > 0.1

    def entering(cells: pd.DataFrame) -> list[float]:
        return list(cells[(cells.layer == 0) & (cells.position == last)].effect)

    assert entering(attribute(loaded, prompt, names=["resid_pre"])) == pytest.approx([0, 0], abs=1e-5)
    assert entering(attribute_star(loaded, prompt, names=["resid_pre"])) == pytest.approx(
        [direct / loaded.n_layers] * 2, rel=1e-4
    )


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "codegen", "gemma2", "granite"])
def test_grad_drop_is_the_mean_slope_with_one_layer_held_still(
    tiny: Callable[[str], LoadedModel], architecture: str
) -> None:
    """By plain forward passes, in which a layer adds to the stream what it added before, whatever reaches it."""
    loaded = tiny(architecture)
    found = attribute_star(loaded, PROMPT, names=NODES)
    checked = sample_cells(found[found.layer < 2], 12, seed=3)
    ids = torch.tensor([CLEAN, CORRUPTED])
    added = forward(loaded, ids, torch.ones_like(ids), loaded.sites("attn_out.*,mlp_out.*"))
    for cell in checked.itertuples():
        site, patched, towards = patch_of(loaded, cell)
        slopes = []
        for layer in range(loaded.n_layers):
            if layer == cell.layer and not cell.site.startswith("resid"):
                continue
            with ExitStack() as held:
                for part in (Site("attn_out", layer), Site("mlp_out", layer)):
                    held.enter_context(editing(loaded, part, always(added[part][patched][None])))
                slopes.append(abs(slope_along(loaded, site, patched, towards)))
        assert cell.effect == pytest.approx(np.mean(slopes), rel=5e-3, abs=1e-3), cell


def test_a_layer_s_own_components_are_averaged_over_the_other_layers(tiny: Callable[[str], LoadedModel]) -> None:
    """In the last layer no other layer lies after attention, so that every term but its own is the plain estimate."""
    loaded = tiny("llama")
    last = loaded.n_layers - 1
    names = ["attn_out", "mlp_out", "z", "q", "k"]
    found = of_layer(attribute_star(loaded, PROMPT, names=names), last)
    plain = of_layer(attribute_star(loaded, PROMPT, names=names, grad_drop=False), last)
    assert found.effect.max() > 0.05
    assert found.effect.to_numpy() == pytest.approx(plain.effect.abs().to_numpy(), abs=1e-5)
    assert (found.recovery >= 0).all()


def test_half_precision_is_close(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    expected = attribute_star(loaded, PROMPT, names=["q", "k"], grad_drop=False)
    assert (expected.effect[~expected.differs] == 0).all()
    loaded.model.bfloat16()
    found = attribute_star(loaded, PROMPT, names=["q", "k"], grad_drop=False)
    assert np.corrcoef(found.effect, expected.effect)[0, 1] > 0.97


def test_the_model_is_untouched_also_after_an_error(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    before = state(loaded)
    attribute_star(loaded, PROMPT)
    with pytest.raises(IndexError):
        attribute_star(loaded, replace(PROMPT, clean=(*CLEAN[:-1], 99_999)))
    assert state(loaded) == before
    assert all(parameter.grad is None and parameter.requires_grad for parameter in loaded.model.parameters())


def test_bad_input_is_refused(tiny: Callable[[str], LoadedModel], make_model: MakeModel) -> None:
    assert "site q.0" in refused(lambda: attribute_star(tiny("gpt2"), PROMPT))
    single = make_model("llama", num_hidden_layers=1)
    assert "tiny-llama has one layer; GradDrop averages" in refused(lambda: attribute_star(single, PROMPT))
    assert len(attribute_star(single, PROMPT, grad_drop=False))
