"""The bridge engine: hooks by their own names, attention's width, and a bridge on modules of its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from parity import LONGEST, ROWS, batch

from activations.engines.transformer_lens import TransformerLensEngine
from activations.errors import TwinprobeError
from activations.inputs import pad
from activations.sites import Site

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.loaded import LoadedModel

Tiny = Callable[[str], "LoadedModel"]


def read(loaded: LoadedModel, *names: str) -> dict[str, torch.Tensor]:
    """Real tokens' rows ``[tokens, width]`` by written site."""
    engine = TransformerLensEngine(loaded, LONGEST)
    ids, mask = batch(loaded)
    found = engine.forward(ids, mask, loaded.sites(names))
    for site, rows in found.items():
        assert rows.shape == (*ids.shape, engine.width(site))
    return {str(site): rows[mask.bool()] for site, rows in found.items()}


def test_every_name_of_a_hook_is_a_site(tiny: Tiny) -> None:
    found = read(tiny("llama"), "resid_post.1", "blocks.1.hook_resid_post", "blocks.1.hook_out", "blocks.2.hook_in")
    for rows in found.values():
        assert torch.equal(rows, found["resid_post.1"])
    found = read(tiny("t5"), "decoder.resid_mid.1", "decoder_blocks.1.hook_resid_mid2", "decoder_blocks.1.ln3.hook_in")
    for rows in found.values():
        assert torch.equal(rows, found["decoder.resid_mid.1"])


def test_attention_scores_are_as_wide_as_patterns_and_masked_where_no_key_is(tiny: Tiny) -> None:
    found = read(tiny("llama"), "pattern.1", "blocks.1.attn.hook_attn_scores")
    scores = found["blocks.1.attn.hook_attn_scores"].unflatten(-1, (4, LONGEST))
    pattern = found["pattern.1"].unflatten(-1, (4, LONGEST))
    torch.testing.assert_close(scores.softmax(-1), pattern)
    place = torch.cat([torch.arange(len(row)) for row in ROWS])
    after = torch.arange(LONGEST) > place[:, None]
    assert (scores.transpose(1, 2)[after] == torch.finfo(torch.float32).min).all()
    assert (pattern.transpose(1, 2)[~after] > 0).all()


def test_hooks_with_heads_before_positions_are_turned(tiny: Tiny) -> None:
    loaded = tiny("qwen3")
    found = read(loaded, "q.1", "blocks.1.attn.hook_q_normed")
    with torch.no_grad():
        normed = loaded.module("blocks.1.attn.q_norm")(found["q.1"].clone().unflatten(-1, (4, 6)))
    torch.testing.assert_close(found["blocks.1.attn.hook_q_normed"], normed.flatten(-2))


def test_hooks_of_experts_are_cut_into_texts(tiny: Tiny) -> None:
    loaded = tiny("qwen2-moe")
    found = read(loaded, "blocks.1.ln2.hook_out", "blocks.1.mlp.gate.hook_out")
    with torch.no_grad():
        chosen = found["blocks.1.ln2.hook_out"].clone() @ loaded.module("blocks.1.mlp.gate").weight.T
    given = found["blocks.1.mlp.gate.hook_out"]
    assert given.shape == (sum(map(len, ROWS)), 4)
    torch.testing.assert_close(given.softmax(-1), chosen.softmax(-1))  # as scores or as probabilities


@pytest.mark.parametrize(
    ("hook", "message"),
    [
        ("blocks.1.attn.hook_patern", "no such hook .did you mean 'blocks.1.attn.hook_pattern'"),
        ("blocks.1.attn.hook_cos", r"gives float32 \[1, 5, 4\] for 3 texts of 5 tokens, which is not one row"),
        ("embed.hook_in", r"gives int64 \[3, 5\] for 3 texts of 5 tokens"),
        ("unembed.hook_out", "the body of LlamaForCausalLM never comes to the bridge's unembed.hook_out"),
        ("blocks.1.attn.hook_result", "never comes to the bridge's blocks.1.attn.hook_result"),
    ],
)
def test_hooks_without_rows_are_refused_with_what_they_give(tiny: Tiny, hook: str, message: str) -> None:
    engine = TransformerLensEngine(tiny("llama"), LONGEST)
    for ask in (engine.check, engine.width):
        with pytest.raises(TwinprobeError, match=message):
            ask(Site(hook))


def test_a_text_longer_than_the_engine_was_made_for_is_an_error(tiny: Tiny) -> None:
    loaded = tiny("llama")
    engine = TransformerLensEngine(loaded, 8)
    with pytest.raises(
        TwinprobeError, match=r"site pattern\.0: an input of 9 tokens, but this engine was made for at most 8"
    ):
        engine.forward(*batch(loaded), [Site("pattern", 0)])
    assert engine.forward(*batch(loaded), [Site("z", 0)])[Site("z", 0)].shape == (4, 9, 16)


def test_the_bridge_is_built_once_and_when_needed(make_model: MakeModel) -> None:
    built = []
    loaded = make_model("llama")
    engine = TransformerLensEngine(loaded, LONGEST)
    loaded.module("blocks.0").register_forward_hook(lambda module, *_args: built.append(module))
    assert "_bridge" not in vars(engine)
    for _ in range(2):
        engine.check(Site("pattern", 0))
        engine.forward(*batch(loaded), [Site("pattern", 1)])
    assert len(built) == 3  # the probe and two passes, in which the owner's own hook still fires
    assert len(set(map(id, built))) == 1
    assert built[0] is not loaded.module("blocks.0")


def test_nothing_after_the_last_site_runs(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    engine = TransformerLensEngine(loaded, LONGEST)
    engine.check(Site("embed"))
    ran: list[int] = []
    for layer, block in enumerate(engine._bridge.original_model.model.layers):
        block.register_forward_hook(lambda *_args, layer=layer: ran.append(layer))
    for written, expected in (("embed", []), ("pattern.1", [0]), ("resid_pre.1,embed", [0]), ("ln_final", [0, 1, 2])):
        ran.clear()
        engine.forward(*batch(loaded), loaded.sites(written))
        assert ran == expected


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "phi3", "t5"])
def test_the_bridge_stands_on_the_models_own_weights(tiny: Tiny, architecture: str) -> None:
    loaded = tiny(architecture)
    engine = TransformerLensEngine(loaded, LONGEST)
    engine.check(Site("resid_post", 0, stack=next(iter(loaded.shapes))))
    own = {parameter.untyped_storage().data_ptr() for parameter in loaded.model.parameters()}
    bridge = engine._bridge
    held = {
        parameter.untyped_storage().data_ptr()
        for root in (bridge, bridge.original_model)
        for module in root.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    }
    assert held == own


def test_an_error_in_the_choice_of_rows_leaves_no_hook(tiny: Tiny) -> None:
    loaded = tiny("llama")
    engine = TransformerLensEngine(loaded, LONGEST)

    def fail(_rows: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("in the choice")

    with pytest.raises(ArithmeticError, match="in the choice"):
        engine.forward(*batch(loaded), [Site("z", 1)], fail)
    assert not any(point.has_hooks() for point in engine._points.values())
    seen: list[torch.Size] = []

    def last(rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows.shape)
        return rows[:, -1]

    found = engine.forward(*batch(loaded), [Site("z", 1)], last)
    assert seen == [(4, 9, 16)]
    assert found[Site("z", 1)].shape == (4, 16)


def test_positions_count_from_each_texts_own_start(tiny: Tiny) -> None:
    """At position 0 the rotary embedding turns by nothing, wherever the text ends."""
    for architecture in ("llama", "phi3", "codegen"):
        loaded = tiny(architecture)
        engine = TransformerLensEngine(loaded, LONGEST)
        found = engine.forward(*pad(ROWS, 2, loaded.device), loaded.sites("q.1,k.1,rot_q.1,rot_k.1"))
        for name in ("q", "k"):
            plain, turned = found[Site(name, 1)], found[Site(f"rot_{name}", 1)]
            torch.testing.assert_close(plain[:, 0], turned[:, 0])
            assert (plain[:, 1] - turned[:, 1]).abs().max() > 0.01


def test_a_model_the_bridge_can_not_take_is_named(make_model: MakeModel) -> None:
    loaded = make_model("gpt2")
    fused = loaded.module("blocks.0.attn.qkv")
    fused.weight = torch.nn.Parameter(fused.weight.to(torch.int8), requires_grad=False)
    engine = TransformerLensEngine(loaded, LONGEST)
    with pytest.raises(
        TwinprobeError, match=r"tiny-gpt2 \(GPT2LMHeadModel\) does not fit TransformerLens' bridge: .* torch\.int8"
    ):
        engine.check(Site("pattern", 0))
