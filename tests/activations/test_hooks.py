"""The hooks engine: what it reads and what it changes, checked against the model's own arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from conftest import ARCHITECTURES, PARALLEL
from reference import assert_close, every_site, hidden_states, snapshot

from activations.engines.hooks import editing, forward, locate, width
from activations.errors import TwinprobeError
from activations.inputs import pad
from activations.sites import Site, parse_site, parse_sites

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

ROWS = [(0, 40, 41, 42, 43, 44, 45, 46, 47), (0, 99), (0, 300, 5, 200, 31), (7,)]
"""Token ids of very different lengths, which one batch pads."""

Tiny = Callable[[str], "LoadedModel"]


def read(loaded: LoadedModel, selection: str, rows: list[tuple[int, ...]] | None = None) -> dict[str, torch.Tensor]:
    """Activations by written site, ``[batch, pos, width]``."""
    ids, mask = pad(rows or ROWS, 2, loaded.device)
    sites = parse_sites(selection, loaded.n_layers, loaded.n_heads)
    return {str(site): value for site, value in forward(loaded, ids, mask, sites).items()}


def logits(loaded: LoadedModel, ids: tuple[int, ...] = ROWS[0]) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_stream_is_what_the_model_reports(tiny: Tiny, architecture: str) -> None:
    loaded = tiny(architecture)
    found = {str(site): v for site, v in forward(loaded, *pad(ROWS, 2, loaded.device), every_site(loaded)).items()}
    for line, ids in enumerate(ROWS):
        states = hidden_states(loaded, ids)

        def at(site: str, line: int = line, n: int = len(ids)) -> torch.Tensor:
            return found[site][line, :n]

        for layer in range(loaded.n_layers):
            assert_close(at(f"resid_pre.{layer}").numpy(), states[layer])
            if layer:
                assert_close(at(f"resid_post.{layer - 1}").numpy(), states[layer])
            assert_close(
                (at(f"resid_pre.{layer}") + at(f"attn_out.{layer}") + at(f"mlp_out.{layer}")).numpy(),
                at(f"resid_post.{layer}").numpy(),
            )
            if not loaded.parallel:
                mid = at(f"resid_mid.{layer}")
                assert_close((at(f"resid_pre.{layer}") + at(f"attn_out.{layer}")).numpy(), mid.numpy())
        assert_close(at("ln_final").numpy(), states[-1])
        with torch.no_grad():
            last = at(f"resid_post.{loaded.n_layers - 1}").clone()
            assert_close(loaded.module("ln_final")(last).numpy(), states[-1])
            assert_close(at("embed").numpy(), loaded.model.get_input_embeddings()(torch.tensor(ids)).numpy())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_w_o_turns_z_into_what_attention_gives(tiny: Tiny, architecture: str) -> None:
    """W_O is invertible in all but Gemma2, so this pins ``z`` down, whatever module carries it."""
    loaded = tiny(architecture)
    found = read(loaded, "z.*,attn_out.*,z.0-2.3")
    for layer in range(loaded.n_layers):
        z = found[f"z.{layer}"]
        assert z.shape[-1] == loaded.n_heads * loaded.d_head == width(loaded, Site("z", layer))
        assert torch.equal(found[f"z.{layer}.3"], z[..., 3 * loaded.d_head : 4 * loaded.d_head])
        assert found[f"z.{layer}.3"].shape[-1] == width(loaded, Site("z", layer, 3))
        projection = loaded.module(f"blocks.{layer}.attn.o")
        weight = projection.weight.T if type(projection).__name__ == "Conv1D" else projection.weight
        with torch.no_grad():
            out = F.linear(z.clone(), weight, projection.bias)
            if architecture == "gemma2":
                out = loaded.model.model.layers[layer].post_attention_layernorm(out)
        assert_close(out.numpy(), found[f"attn_out.{layer}"].numpy())


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "neox-parallel"])
def test_z_is_pattern_times_values(make_model: MakeModel, architecture: str) -> None:
    """Written out from the weights and the model's own attention patterns, per head."""
    loaded = make_model(architecture)
    loaded.model.set_attn_implementation("eager")
    ids = ROWS[0]
    with torch.no_grad():
        out = loaded.model(torch.tensor([ids]), output_attentions=True, output_hidden_states=True)
    n, heads, d = len(ids), loaded.n_heads, loaded.d_head
    for layer in range(loaded.n_layers):
        stream = out.hidden_states[layer][0]
        with torch.no_grad():
            if architecture == "llama":
                block = loaded.model.model.layers[layer]
                v = block.self_attn.v_proj(block.input_layernorm(stream)).view(n, 2, d).repeat_interleave(2, dim=1)
            elif architecture == "gpt2":
                block = loaded.model.transformer.h[layer]
                v = block.attn.c_attn(block.ln_1(stream)).split(heads * d, dim=-1)[2].reshape(n, heads, d)
            else:
                block = loaded.model.gpt_neox.layers[layer]
                v = block.attention.query_key_value(block.input_layernorm(stream)).view(n, heads, 3, d)[:, :, 2]
            expected = torch.einsum("hqk,khd->qhd", out.attentions[layer][0], v)
        found = read(loaded, f"z.{layer}", [ids])[f"z.{layer}"][0]
        assert_close(found.view(n, heads, d).numpy(), expected.numpy())


def test_a_parallel_block_has_no_resid_mid(tiny: Tiny) -> None:
    for architecture in PARALLEL:
        with pytest.raises(TwinprobeError, match="runs attention and MLP in parallel, so it has no resid_mid"):
            locate(tiny(architecture), Site("resid_mid", 0))
    with pytest.raises(TwinprobeError, match=r"site z\.9: LlamaForCausalLM has no module for 'blocks\.9\.attn\.o'"):
        locate(tiny("llama"), Site("z", 9))


def test_blocks_above_the_highest_site_do_not_run(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    ran: list[int] = []
    for layer, block in enumerate(loaded.model.model.layers):
        block.register_forward_hook(lambda *_args, layer=layer: ran.append(layer))
    for selection, expected in (("embed", [0]), ("resid_post.0", [0]), ("z.1,embed", [0, 1]), ("ln_final", [0, 1, 2])):
        ran.clear()
        read(loaded, selection)
        assert ran == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reading_leaves_no_trace(make_model: MakeModel, architecture: str) -> None:
    loaded = make_model(architecture)
    loaded.module("blocks.1").register_forward_hook(lambda *_args: None)  # the owner's own hook stays
    before, logits_before = snapshot(loaded), logits(loaded)
    forward(loaded, *pad(ROWS, 2, loaded.device), every_site(loaded))
    read(loaded, "resid_pre.1")
    assert snapshot(loaded) == before
    assert torch.equal(logits(loaded), logits_before)
    assert len(hidden_states(loaded, ROWS[0])) == loaded.n_layers + 1


def test_an_error_in_the_forward_pass_leaves_no_trace(make_model: MakeModel) -> None:
    loaded = make_model("gpt2")

    def fail(*_args: object) -> None:
        raise ArithmeticError("from the owner's hook")

    handle = loaded.module("blocks.1.mlp").register_forward_hook(fail)
    before = snapshot(loaded)
    with pytest.raises(ArithmeticError, match="from the owner's hook"):
        forward(loaded, *pad(ROWS, 2, loaded.device), every_site(loaded))
    with pytest.raises(IndexError):
        read(loaded, "resid_post.*", [(10_000,)])
    with pytest.raises(TwinprobeError, match="has no module"):
        forward(loaded, *pad(ROWS, 2, loaded.device), [Site("resid_post", 0), Site("resid_post", 9)])
    assert snapshot(loaded) == before
    handle.remove()
    assert len(hidden_states(loaded, ROWS[0])) == loaded.n_layers + 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_edit_that_changes_nothing_changes_nothing(tiny: Tiny, architecture: str) -> None:
    loaded = tiny(architecture)
    expected = logits(loaded)
    for site in every_site(loaded, layers="1"):
        with editing(loaded, site, lambda value: value):
            assert torch.equal(logits(loaded), expected), site


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_edit_reaches_the_rest_of_the_model(tiny: Tiny, architecture: str) -> None:
    """Replacing what a site holds by what it held on another text moves the site, and the logits with it."""
    loaded = tiny(architecture)
    before, expected = snapshot(loaded), logits(loaded)
    for site in every_site(loaded, layers="1"):
        donor = read(loaded, str(site), [ROWS[0][::-1]])[str(site)]
        with editing(loaded, site, lambda value, donor=donor: donor.expand_as(value).clone()):
            assert torch.equal(read(loaded, str(site), [ROWS[0]])[str(site)], donor)
            assert (logits(loaded) - expected).abs().max() > 1e-4, site
    assert torch.equal(logits(loaded), expected)
    assert snapshot(loaded)["hooks"] == before["hooks"]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "codegen"])
def test_zeroing_a_head_is_zeroing_its_part_of_w_o(make_model: MakeModel, architecture: str) -> None:
    loaded = make_model(architecture)
    site = parse_site("z.1.2")
    with editing(loaded, site, torch.zeros_like):
        edited = logits(loaded)
    ablated = copy.deepcopy(loaded)
    projection = ablated.module("blocks.1.attn.o")
    weight = projection.weight.T if type(projection).__name__ == "Conv1D" else projection.weight
    with torch.no_grad():
        weight[:, 2 * loaded.d_head : 3 * loaded.d_head] = 0
    assert_close(edited.numpy(), logits(ablated).numpy())
    assert (edited - logits(loaded)).abs().max() > 1e-3


def test_an_edit_of_a_head_does_not_write_into_what_others_hold(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    held: list[torch.Tensor] = []
    loaded.module("blocks.1.attn.o").register_forward_pre_hook(lambda _module, args: held.append(args[0]))
    with editing(loaded, parse_site("z.1.2"), torch.zeros_like):
        logits(loaded)
    assert held[0][..., 2 * loaded.d_head : 3 * loaded.d_head].abs().min() > 0


def test_the_stream_between_two_blocks_has_two_names(tiny: Tiny) -> None:
    loaded = tiny("llama")
    found = []
    for site in ("resid_post.0", "resid_pre.1"):
        with editing(loaded, parse_site(site), lambda value: value * 1.5):
            found.append(logits(loaded))
    assert torch.equal(*found)


def test_an_edit_is_taken_back_after_an_error(make_model: MakeModel) -> None:
    loaded = make_model("qwen2")
    before = snapshot(loaded)

    def fail(_value: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("in the edit")

    with pytest.raises(ArithmeticError, match="in the edit"), editing(loaded, Site("mlp_out", 1), fail):
        logits(loaded)
    assert snapshot(loaded) == before
