"""The self-check: it passes on every architecture, names the site of what was broken on purpose, and leaves no trace."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import ARCHITECTURES, ENCODER_DECODERS, ENCODERS
from reference import snapshot

from activations import checking
from activations.checking import self_check
from activations.errors import TwinprobeError
from activations.models import embedded_twins, load_model
from activations.sites import Site, parse_site

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

EVERY = (*ARCHITECTURES, *ENCODERS, *ENCODER_DECODERS)


def failure(loaded: LoadedModel, sites: list[Site] | None = None) -> str:
    with pytest.raises(TwinprobeError) as caught:
        self_check(loaded, sites)
    assert "\n" not in str(caught.value)
    assert "--no-self-check" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("architecture", EVERY)
def test_a_sound_model_passes_and_is_left_alone(make_model: MakeModel, architecture: str, dtype: torch.dtype) -> None:
    loaded = make_model(architecture)
    if dtype == torch.float32:
        before, state = snapshot(loaded), torch.random.get_rng_state()
        self_check(loaded)
        assert snapshot(loaded) == before
        assert torch.equal(torch.random.get_rng_state(), state)
    else:
        loaded.model.to(dtype)
        self_check(loaded)


@pytest.mark.parametrize("name", embedded_twins())
def test_the_embedded_twins_pass_quickly(name: str) -> None:
    loaded = load_model(f"embedded:{name}")
    began = time.process_time()
    self_check(loaded)
    assert time.process_time() - began < 1.0, "about 0.04 s on an idle processor"


def deaf(loaded: LoadedModel) -> None:
    """A block that runs its attention and leaves the result out."""
    block = loaded.model.model.layers[1]
    run = block.self_attn.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        out, *rest = run(*args, **kwargs)
        block.lost = out
        return (out, *rest)

    def drop(_module: torch.nn.Module, args: tuple[torch.Tensor, ...], output: Any) -> Any:
        hidden = args[0]
        return hidden + block.mlp(block.post_attention_layernorm(hidden))

    block.self_attn.forward = forward
    block.register_forward_hook(drop)


def redirect(canonical: str, path: str) -> Callable[[LoadedModel], None]:
    """A table whose ``canonical`` part points to another module."""

    def change(loaded: LoadedModel) -> None:
        assert loaded.path(canonical) not in (None, path)
        loaded._paths[canonical] = path

    return change


def poison(loaded: LoadedModel) -> None:
    with torch.no_grad():
        loaded.model.model.layers[2].mlp.up_proj.weight[3, 5] = float("nan")


def mute(loaded: LoadedModel) -> None:
    """An unembedding that says the same whatever it reads."""
    with torch.no_grad():
        loaded.model.lm_head.weight.zero_()


def idle(loaded: LoadedModel) -> None:
    loaded.model.model.layers[2].mlp.forward = torch.zeros_like


BREAKAGES: dict[str, tuple[str, Callable[[LoadedModel], None], str]] = {
    "attention is ignored": ("llama", deaf, "site attn_out.1 did not change resid_post.1 when it was patched"),
    "attention's output in another block": (
        "llama", redirect("blocks.1.attn.o", "model.layers.0.self_attn.o_proj"), "site z.1 changed resid_pre.1 when it was",
    ),
    "attention's output in a later block": (
        "llama", redirect("blocks.1.attn.o", "model.layers.2.self_attn.o_proj"), "site z.1 did not change resid_post.1",
    ),
    "keys for queries": (
        "qwen2", redirect("blocks.2.attn.q", "model.layers.2.self_attn.k_proj"),
        "site q.2 gave the shape [2, 4, 8], expected [2, 4, 16]",
    ),
    "an MLP of another block": (
        "gpt2", redirect("blocks.0.mlp", "transformer.h.2.mlp"), "site mlp_out.0 did not change resid_post.0",
    ),
    "values that are not finite": ("llama", poison, "gave float32 values that are not finite; --dtype float32"),
    "logits that never change": ("llama", mute, "site ln_final did not change the logits when it was patched"),
    "an MLP that does not run": ("llama", idle, "site mlp_post.2: the forward pass of tiny-llama never came to"),
    "an encoder's MLP": (
        "roberta", redirect("blocks.1.mlp.out", "roberta.encoder.layer.2.output.dense"), "site mlp_out.1 did not change",
    ),
    "cross attention in another layer": (
        "t5", redirect("decoder_blocks.1.cross_attn", "decoder.block.0.layer.1.EncDecAttention"),
        "site decoder.cross_attn_out.1 changed decoder.resid_pre.1",
    ),
    "the encoder's attention in the decoder": (
        "t5", redirect("decoder_blocks.0.self_attn.v", "encoder.block.0.layer.0.SelfAttention.v"),
        "site decoder.v.0 gave the shape",
    ),
}  # fmt: skip


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_a_broken_model_fails_with_the_name_of_the_site(make_model: MakeModel, breakage: str) -> None:
    architecture, act, expected = BREAKAGES[breakage]
    loaded = make_model(architecture, **({"tie_word_embeddings": False} if act is mute else {}))
    act(loaded)
    before = {name: list(module._forward_hooks) for name, module in loaded.model.named_modules()}
    assert expected in failure(loaded)
    assert {name: list(module._forward_hooks) for name, module in loaded.model.named_modules()} == before


def test_only_the_sites_asked_for_are_checked(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    deaf(loaded)
    self_check(loaded, [parse_site("resid_pre.1"), parse_site("mlp_out.1"), parse_site("attn_out.0")])
    assert "site z.1.2 did not change" in failure(loaded, [parse_site("z.1.2")])


def test_an_activation_of_zeros_can_be_patched(make_model: MakeModel) -> None:
    """As in models that were grown by blocks that begin with no effect."""
    loaded = make_model("llama")
    with torch.no_grad():
        loaded.model.model.layers[1].mlp.up_proj.weight.zero_()
    self_check(loaded)


def test_many_sites_are_checked_in_several_passes(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = make_model("llama")
    passes: list[int] = []
    loaded.model.register_forward_hook(lambda _module, _args, out: passes.append(len(out.logits)))
    monkeypatch.setattr(checking, "LOGITS", 12 * loaded.model.config.vocab_size)
    self_check(loaded)
    assert passes == [12, 12, 12, 4]


def test_of_a_large_model_three_layers_are_checked(make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = make_model("llama", num_hidden_layers=5)
    monkeypatch.setattr(checking, "LARGE", 1000)
    redirect("blocks.1.attn.o", "model.layers.0.self_attn.o_proj")(loaded)
    self_check(loaded)
    redirect("blocks.2.attn.o", "model.layers.0.self_attn.o_proj")(loaded)
    assert "site z.2 changed" in failure(loaded)


def test_loading_runs_the_check_unless_told_not_to(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.self_attn.o_proj.weight"][:] = float("inf")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TwinprobeError, match=r"self-check of .*: site attn_out\.1 gave .* not finite"):
        load_model(str(folder))
    assert load_model(str(folder), check=False).n_layers == 3
