"""The hooks engine: what it reads and what it changes, checked against the model's own arithmetic."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from conftest import ARCHITECTURES, CONTEXT, ENCODER_DECODERS, ENCODERS, SIZES
from reference import assert_close, every_site, outputs, rows, snapshot

from activations.checking import self_check
from activations.engines.hooks import HooksEngine, editing, forward
from activations.engines.places import served, width
from activations.errors import TwinprobeError
from activations.inputs import pad
from activations.models import wrap
from activations.sites import STACKS, Site, parse_site

if TYPE_CHECKING:
    from conftest import MakeModel
    from transformers import PreTrainedTokenizerFast

    from activations.models import LoadedModel

ROWS = [(0, 40, 41, 42, 43, 44, 45, 46, 47), (0, 99), (0, 300, 5, 200, 31), (7,)]
"""Token ids of very different lengths, which one batch pads."""

EVERY = (*ARCHITECTURES, *ENCODERS, *ENCODER_DECODERS)

Tiny = Callable[[str], "LoadedModel"]


def batch(given: list[tuple[int, ...]] | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    return pad(given or ROWS, 2, torch.device("cpu"))


def read(loaded: LoadedModel, selection: str, given: list[tuple[int, ...]] | None = None) -> dict[str, torch.Tensor]:
    """Activations by written site, ``[batch, pos, width]``."""
    return {str(site): value for site, value in forward(loaded, *batch(given), loaded.sites(selection)).items()}


def logits(loaded: LoadedModel, ids: tuple[int, ...] = ROWS[0]) -> torch.Tensor:
    return outputs(loaded, ids).logits[0]


@pytest.mark.parametrize("architecture", EVERY)
def test_every_row_is_what_the_model_computes(tiny: Tiny, architecture: str) -> None:
    """A padded batch against one unpadded text at a time, written out by hand from the model's own modules."""
    loaded = tiny(architecture)
    sites = every_site(loaded)
    found = {str(site): value for site, value in forward(loaded, *batch(), sites).items()}
    assert {site for site in map(str, served(loaded))} | {name for name in found if name.endswith("z.1.2")} == set(
        found
    )
    for line, ids in enumerate(ROWS):
        expected = rows(loaded, ids)
        assert expected.keys() == found.keys()
        for site in sites:
            value = found[str(site)]
            assert value.shape == (len(ROWS), len(ROWS[0]), width(loaded, site))
            assert_close(value[line, : len(ids)].numpy(), expected[str(site)])


@pytest.mark.parametrize("architecture", ["llama", "gpt-bigcode", "t5", "roberta"])
def test_a_head_is_its_part_of_all_heads(tiny: Tiny, architecture: str) -> None:
    loaded = tiny(architecture)
    stack = "decoder." if architecture == "t5" else ""
    names = ["z"] if architecture == "gpt-bigcode" else ["z", "q", "k", "v"]
    for name in names:
        heads = 2 if architecture == "llama" and name in ("k", "v") else 4
        found = read(loaded, f"{stack}{name}.1," + ",".join(f"{stack}{name}.1.{head}" for head in range(heads)))
        parts = [found[f"{stack}{name}.1.{head}"] for head in range(heads)]
        assert all(part.shape[-1] == width(loaded, Site(name, 1, 0, stack[:-1] or None)) == 4 for part in parts)
        assert torch.equal(torch.cat(parts, dim=-1), found[f"{stack}{name}.1"])
    if architecture == "llama":
        with pytest.raises(TwinprobeError, match="head 2 does not exist; this model has key heads 0 to 1"):
            loaded.sites("k.1.2")


@pytest.mark.parametrize(
    ("architecture", "site", "expected"),
    [
        ("codegen", "resid_mid.0", "runs attention and MLP in parallel, so it has no resid_mid"),
        ("neox-parallel", "resid_mid.0", "runs attention and MLP in parallel, so it has no resid_mid"),
        ("llama", "z.9", "site z.9: LlamaForCausalLM has no module for 'blocks.9.attn.o'"),
        ("llama", "q.9", "site q.9: LlamaForCausalLM has no module for 'blocks.9.attn.q'"),
        *((name, "k.0", "projects queries, keys and values in one, so no module gives its keys; --engine transformer_lens")
          for name in ("gpt2", "gpt-bigcode", "phi3", "neox-sequential", "codegen")),
        *(("llama", site, f"site {site}: no module gives it; --engine transformer_lens serves it")
          for site in ("pattern.0", "rot_q.1", "rot_k.1.0", "blocks.0.attn.hook_attn_scores")),
        ("qwen2-moe", "mlp_post.0", "(a mixture of experts), so it has no mlp_post; use mlp_out"),
        ("roberta", "ln_final", "is an encoder without a final norm; use resid_post"),
        ("llama", "cross_attn_out.0", "only the decoder stack of an encoder-decoder attends to an encoder"),
        ("t5", "encoder.cross_attn_out.0", "only the decoder stack of an encoder-decoder attends to an encoder"),
        ("t5", "resid_post.0", "two stacks; write encoder.resid_post.0 or decoder.resid_post.0"),
        ("t5", "decoder.resid_post.2", "T5ForConditionalGeneration has no module for 'decoder_blocks.2'"),
        ("llama", "decoder.resid_post.0", "has a single stack; write resid_post.0"),
    ],
)  # fmt: skip
def test_a_site_the_model_lacks_is_refused(tiny: Tiny, architecture: str, site: str, expected: str) -> None:
    loaded = tiny(architecture)
    for action in (HooksEngine(loaded).check, HooksEngine(loaded).width, lambda s: forward(loaded, *batch(), [s])):
        with pytest.raises(TwinprobeError) as caught:
            action(parse_site(site))
        assert expected in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_module_the_model_never_calls_is_named(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    block = loaded.model.model.layers[1]
    block.self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(
        TwinprobeError, match=r"site z\.1: the forward pass of tiny-llama never came to model\.layers\.1"
    ):
        forward(loaded, *batch(), loaded.sites("resid_post.*,z.1"))


@pytest.mark.parametrize(
    ("architecture", "selection", "expected"),
    [
        ("llama", "embed", []),
        ("llama", "resid_pre.0", []),
        ("llama", "resid_post.0", [0]),
        ("llama", "z.1,embed", [0]),
        ("llama", "ln_final", [0, 1, 2]),
        ("roberta", "resid_post.1", [0, 1]),
        ("t5", "encoder.embed", []),
        ("t5", "encoder.resid_post.1", [0, 1]),
        ("t5", "encoder.ln_final", [0, 1, 2]),
        ("t5", "decoder.embed", [0, 1, 2]),
        ("t5", "encoder.resid_post.0,decoder.mlp_out.1", [0, 1, 2, 3]),
        ("t5", "decoder.ln_final", [0, 1, 2, 3, 4]),
    ],
)
def test_nothing_runs_after_the_last_site(
    make_model: MakeModel, architecture: str, selection: str, expected: list[int]
) -> None:
    loaded = make_model(architecture)
    ran: list[int] = []
    stacks = ["encoder_blocks", "decoder_blocks"] if architecture == "t5" else ["blocks"]
    blocks = [loaded.module(f"{stack}.{i}") for stack in stacks for i in range(3) if loaded.path(f"{stack}.{i}")]
    for layer, block in enumerate(blocks):
        block.register_forward_hook(lambda *_args, layer=layer: ran.append(layer))
    head = loaded.model.get_output_embeddings()
    head.register_forward_hook(lambda *_args: ran.append(-1))
    read(loaded, selection)
    assert ran == expected


@pytest.mark.parametrize("architecture", EVERY)
def test_reading_leaves_no_trace(make_model: MakeModel, architecture: str) -> None:
    loaded = make_model(architecture)
    owners = "decoder_blocks.1" if architecture == "t5" else "blocks.1"
    loaded.module(owners).register_forward_hook(lambda *_args: None)  # the owner's own hook stays
    before, logits_before = snapshot(loaded), logits(loaded)
    forward(loaded, *batch(), every_site(loaded))
    read(loaded, "decoder.resid_pre.1" if architecture == "t5" else "resid_pre.1")
    assert snapshot(loaded) == before
    assert torch.equal(logits(loaded), logits_before)
    rows(loaded, ROWS[0])


def test_an_error_in_the_forward_pass_leaves_no_trace(make_model: MakeModel) -> None:
    loaded = make_model("gpt2")

    def fail(*_args: object) -> None:
        raise ArithmeticError("from the owner's hook")

    handle = loaded.module("blocks.1.mlp").register_forward_hook(fail)
    before = snapshot(loaded)
    with pytest.raises(ArithmeticError, match="from the owner's hook"):
        forward(loaded, *batch(), every_site(loaded))
    with pytest.raises(IndexError):
        read(loaded, "resid_post.*", [(10_000,)])
    with pytest.raises(TwinprobeError, match="has no module"):
        forward(loaded, *batch(), [Site("resid_post", 0), Site("resid_post", 9)])
    assert snapshot(loaded) == before
    handle.remove()
    rows(loaded, ROWS[0])


@pytest.mark.parametrize("architecture", EVERY)
def test_an_edit_that_changes_nothing_changes_nothing(tiny: Tiny, architecture: str) -> None:
    loaded = tiny(architecture)
    expected = logits(loaded)
    for site in every_site(loaded, layers="1"):
        with editing(loaded, site, lambda value: value):
            assert torch.equal(logits(loaded), expected), site


@pytest.mark.parametrize("architecture", EVERY)
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


@pytest.mark.parametrize(("name", "head"), [("q", 3), ("k", 1), ("v", 0)])
def test_zeroing_a_projected_head_is_zeroing_its_rows_of_the_projection(
    make_model: MakeModel, name: str, head: int
) -> None:
    """Grouped: four query heads, two key heads."""
    loaded = make_model("llama")
    with editing(loaded, Site(name, 1, head), torch.zeros_like):
        edited = logits(loaded)
    ablated = copy.deepcopy(loaded)
    with torch.no_grad():
        ablated.module(f"blocks.1.attn.{name}").weight[head * 4 : head * 4 + 4] = 0
    assert_close(edited.numpy(), logits(ablated).numpy())
    assert (edited - logits(loaded)).abs().max() > 1e-3


@pytest.mark.parametrize("architecture", ["bart", "bert"])
def test_blocks_that_normalise_after_adding(make_model: MakeModel, architecture: str) -> None:
    """Checked by the identities that define the sites, on two more architectures of this layout."""
    loaded = {"bart": bart, "bert": bert}[architecture](make_model("llama").tokenizer)
    self_check(loaded)
    longest = (5,) * loaded.context
    read(loaded, "decoder.resid_post.1" if architecture == "bart" else "resid_post.1", [longest])
    for stack in loaded.shapes:
        dot = f"{stack}." if stack else ""
        found = read(loaded, f"{dot}resid_pre.*,{dot}resid_mid.*,{dot}resid_post.*,{dot}attn_out.*,{dot}mlp_out.*")
        cross = read(loaded, "decoder.cross_attn_out.*") if stack == "decoder" else {}
        for layer in range(loaded.shapes[stack].layers):
            at = {
                name: found[f"{dot}{name}.{layer}"]
                for name in ("resid_pre", "resid_mid", "resid_post", "attn_out", "mlp_out")
            }
            norms = [loaded.module(f"{stack + '_' if stack else ''}blocks.{layer}.ln{i}") for i in (1, 2)]
            with torch.no_grad():
                mid = norms[0](at["resid_pre"] + at["attn_out"])
                if stack == "decoder":
                    mid = norms[1](mid + cross[f"decoder.cross_attn_out.{layer}"])
                    norms[1] = loaded.module(f"decoder_blocks.{layer}.ln3")
                assert_close(at["resid_mid"].numpy(), mid.numpy())
                assert_close(at["resid_post"].numpy(), norms[1](mid + at["mlp_out"]).numpy())


def test_an_mlp_that_is_run_without_the_texts_is_left_to_the_bridge(tokenizer: PreTrainedTokenizerFast) -> None:
    from transformers import OPTConfig, OPTForCausalLM

    sizes = {"hidden_size": 16, "ffn_dim": 24, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = OPTConfig(**sizes, vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, word_embed_proj_dim=16)
    loaded = wrap(OPTForCausalLM(config), tokenizer, "tiny-opt")
    self_check(loaded)
    for name in ("resid_mid", "mlp_out", "mlp_post"):
        with pytest.raises(
            TwinprobeError, match="runs its MLP over a batch without its texts; --engine transformer_lens"
        ):
            forward(loaded, *batch(), [Site(name, 0)])


def test_heads_of_latent_attention_are_as_wide_as_its_values(tokenizer: PreTrainedTokenizerFast) -> None:
    from transformers import DeepseekV2Config, DeepseekV2ForCausalLM

    latent = {"kv_lora_rank": 8, "q_lora_rank": None, "qk_rope_head_dim": 2, "qk_nope_head_dim": 2, "v_head_dim": 4}
    experts = {"n_routed_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
    config = DeepseekV2Config(
        **SIZES,
        **latent,
        **experts,
        vocab_size=len(tokenizer),
        max_position_embeddings=CONTEXT,
        first_k_dense_replace=1,
    )
    loaded = wrap(DeepseekV2ForCausalLM(config), tokenizer, "tiny-deepseek")
    self_check(loaded)
    found = read(loaded, "z.1,z.1.3")
    assert found["z.1"].shape[-1] == width(loaded, Site("z", 1)) == 16
    assert torch.equal(found["z.1.3"], found["z.1"][..., 12:])
    with pytest.raises(TwinprobeError, match="compresses keys and values, so no module gives its queries"):
        forward(loaded, *batch(), [Site("q", 1)])


def bart(tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {
        f"{stack}_{name}": n for stack in STACKS for name, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 24))
    }
    ends = {"pad_token_id": 2, "bos_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 1}
    config = BartConfig(d_model=16, vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, **sizes, **ends)
    torch.manual_seed(0)
    return wrap(BartForConditionalGeneration(config), tokenizer, "tiny-bart")


def bert(tokenizer: PreTrainedTokenizerFast) -> LoadedModel:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(**SIZES, vocab_size=len(tokenizer), max_position_embeddings=CONTEXT, pad_token_id=2)
    torch.manual_seed(0)
    return wrap(BertForMaskedLM(config), tokenizer, "tiny-bert")


def test_an_edit_of_a_head_does_not_write_into_what_others_hold(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    held: list[torch.Tensor] = []
    loaded.module("blocks.1.attn.o").register_forward_pre_hook(lambda _module, args: held.append(args[0]))
    with editing(loaded, parse_site("z.1.2"), torch.zeros_like):
        logits(loaded)
    assert held[0][..., 2 * loaded.d_head : 3 * loaded.d_head].abs().min() > 0


@pytest.mark.parametrize("architecture", ["llama", "granite", "gpt2", "t5"])
def test_an_edit_between_attention_and_mlp_reaches_the_stream_too(tiny: Tiny, architecture: str) -> None:
    """Adding to resid_mid is adding to what attention adds, for all that comes after."""
    loaded = tiny(architecture)
    dot, added = ("decoder.", "cross_attn_out") if architecture == "t5" else ("", "attn_out")
    shift = torch.linspace(-1, 1, loaded.d_model)
    found = []
    for name in ("resid_mid", added):
        with editing(loaded, parse_site(f"{dot}{name}.1"), lambda value: value + shift):
            found.append(read(loaded, f"{dot}resid_mid.1,{dot}resid_post.1,{dot}mlp_out.1") | {"": logits(loaded)})
    for site, value in found[1].items():
        assert_close(found[0][site].numpy(), value.numpy())


def test_an_edit_of_the_normalised_sum_is_what_the_rest_of_the_block_reads(tiny: Tiny) -> None:
    loaded = tiny("roberta")
    with editing(loaded, parse_site("resid_mid.1"), lambda value: 2 * value), torch.no_grad():
        found = read(loaded, "resid_mid.1,resid_post.1")
    with torch.no_grad():
        expected = loaded.model.roberta.encoder.layer[1].feed_forward_chunk(found["resid_mid.1"].clone())
    assert_close(found["resid_post.1"].numpy(), expected.numpy())
    assert_close(found["resid_mid.1"].numpy(), 2 * read(loaded, "resid_mid.1")["resid_mid.1"].numpy())


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
