"""The contract of the engines: what several of them serve is the same, and what one does not serve it refuses."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
import transformers
from conftest import PARALLEL
from parity import ALL, BOUND, LONGEST, OTHERS, agree, batch, engines, every_name, refusal, snapshot, support

from activations.errors import TwinprobeError
from activations.loaded import wrap
from activations.sites import KV_HEADS, WITH_HEADS, Site

if TYPE_CHECKING:
    from conftest import MakeModel, MakeTokenizer

    from activations.loaded import LoadedModel

Support = Callable[[str], dict[tuple[str | None, str], str]]

LEARNED = ("gpt2", "gpt-bigcode", "roberta", "t5")
"""Architectures that do not rotate queries and keys."""
FUSED = ("gpt2", "gpt-bigcode", "neox-parallel", "neox-sequential", "codegen", "phi3")
"""Architectures that project queries, keys and values in one, so that no module gives them."""


def expected(architecture: str, stack: str | None, name: str) -> str:
    """The marks of the engines that must serve a site: h(ooks), t(ransformer_lens), n(nsight)."""
    absent = {
        "resid_mid": architecture in PARALLEL,
        "cross_attn_out": stack != "decoder",
        "rot_q": architecture in LEARNED,
        "rot_k": architecture in LEARNED,
        "mlp_post": architecture == "qwen2-moe",
        "ln_final": architecture == "roberta",
    }
    if absent.get(name, False):
        return ""
    if name in ("rot_q", "rot_k", "pattern") or (name in ("q", "k", "v") and architecture in FUSED):
        return "t"
    # The bridge hooks an embedding that both stacks share; each stack reads one of its own.
    return "hn" if name == "embed" and stack is not None else "htn"


@pytest.fixture(scope="session")
def supported(tiny: Callable[[str], LoadedModel]) -> Support:
    """What :func:`support` measures, once for each architecture; the models are left as they were."""

    @functools.cache
    def measure(architecture: str) -> dict[tuple[str | None, str], str]:
        loaded = tiny(architecture)
        before = snapshot(loaded)
        found = support(loaded)
        assert snapshot(loaded) == before
        return found

    return measure


@pytest.mark.parametrize("architecture", ALL)
def test_engines_give_the_same_rows_and_leave_the_model_alone(supported: Support, architecture: str) -> None:
    found = supported(architecture)
    assert found == {(stack, name): expected(architecture, stack, name) for stack, name in found}


@pytest.mark.parametrize("architecture", ALL)
def test_what_an_engine_does_not_serve_it_does_not_run_either(
    tiny: Callable[[str], LoadedModel], architecture: str
) -> None:
    loaded = tiny(architecture)
    ids, mask = batch(loaded)
    for engine in engines(loaded).values():
        for site in (sites[0] for sites in every_name(loaded).values()):
            if refusal(engine, site) is not None:
                with pytest.raises(TwinprobeError, match=f"site {site}"):
                    engine.forward(ids, mask, [Site("resid_post", 0, stack=site.stack), site])


@pytest.mark.parametrize("architecture", ["llama", "gemma2", "phi3", "gpt-bigcode", "t5"])
def test_a_single_head_is_its_part_of_all(tiny: Callable[[str], LoadedModel], architecture: str) -> None:
    loaded = tiny(architecture)
    ids, mask = batch(loaded)
    for engine in engines(loaded).values():
        for stack, shape in loaded.shapes.items():
            for name in WITH_HEADS:
                site = Site(name, 1, stack=stack)
                if refusal(engine, site) is not None:
                    continue
                heads = shape.kv_heads if name in KV_HEADS else shape.heads
                head = Site(name, 1, heads - 1, stack)
                found = engine.forward(ids, mask, [head, site])
                width = engine.width(head)
                assert engine.width(site) == heads * width == found[site].shape[-1]
                assert torch.equal(found[head], found[site][..., -width:])


@pytest.mark.parametrize("architecture", ALL)
def test_bfloat16_is_the_kernels_own_output_to_the_last_bit(make_model: MakeModel, architecture: str) -> None:
    # bfloat16 rows of experts must be a multiple of 16 bytes long.
    loaded = make_model(architecture, **({"moe_intermediate_size": 16} if architecture == "qwen2-moe" else {}))
    loaded.model.to(torch.bfloat16)
    made, own = engines(loaded), loaded.model.config._attn_implementation
    ids, mask = batch(loaded)
    sites = [
        site
        for (_, name), some in every_name(loaded).items()
        if name in ("resid_post", "ln_final")
        for site in some
        if refusal(made["hooks"], site) is None
    ]
    found = {name: engine.forward(ids, mask, sites) for name, engine in made.items()}
    for kernel, names in ((own, ("hooks", "nnsight")), ("eager", ("transformer_lens",))):
        loaded.model.set_attn_implementation(kernel)
        with torch.inference_mode():
            said = loaded.model.base_model(**loaded.inputs(ids, mask), output_hidden_states=True)
        for stack, shape in loaded.shapes.items():
            states = said[f"{stack}_hidden_states" if stack else "hidden_states"]
            # The last state is what the final norm gives, where there is one.
            last = Site("resid_post", shape.layers - 1) if loaded.kind == "encoder" else Site("ln_final", stack=stack)
            at = [Site("resid_post", layer, stack=stack) for layer in range(shape.layers - 1)] + [last]
            for site, state in zip(at, states[1:], strict=True):
                for name in names:
                    rows = state[:, int(stack == "decoder") :]
                    assert rows.dtype == found[name][site].dtype == torch.bfloat16
                    assert torch.equal(found[name][site][mask.bool()], rows[mask.bool()]), (site, name)


@pytest.mark.parametrize("architecture", ["gpt2", "neox-parallel", "roberta", "t5"])
def test_rows_do_not_depend_on_the_padding_of_the_batch(tiny: Callable[[str], LoadedModel], architecture: str) -> None:
    loaded = tiny(architecture)
    ids, mask = batch(loaded)
    for engine in engines(loaded).values():
        sites = [site for some in every_name(loaded).values() for site in some if refusal(engine, site) is None]
        together = engine.forward(ids, mask, sites)
        for line in range(len(ids)):
            length = int(mask[line].sum())
            alone = engine.forward(ids[line : line + 1, :length], mask[line : line + 1, :length], sites)
            for site in sites:
                difference = (alone[site][0] - together[site][line, :length]).abs().max()
                assert difference <= BOUND * alone[site].abs().max(), (site, engine.name)
                if site.name == "pattern":
                    keys = alone[site][0].unflatten(-1, (-1, LONGEST + int(site.stack == "decoder")))
                    assert not keys[..., length + int(site.stack == "decoder") :].any()
                    torch.testing.assert_close(keys.sum(-1), torch.ones(keys.shape[:-1]))


@pytest.mark.parametrize("architecture", OTHERS)
def test_engines_agree_on_further_decoders(make_tokenizer: MakeTokenizer, architecture: str) -> None:
    tokenizer = make_tokenizer()
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "vocab_size": len(tokenizer)}
    config = getattr(transformers, f"{architecture}Config")(**OTHERS[architecture], **ends)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.2 * torch.randn_like(parameter)
    everywhere = agree(wrap(model, tokenizer, architecture))
    assert everywhere >= {"embed", "resid_pre", "resid_post", "attn_out", "z", "ln_final"}


def test_the_page_on_support_is_what_is_measured(supported: Support) -> None:
    """Write it anew with ``python docs/bench/support.py > docs/SUPPORT.md``."""
    docs = Path(__file__).parents[3] / "docs"
    sys.path.insert(0, str(docs / "bench"))
    try:
        from support import MEASURED, page
    finally:
        sys.path.pop(0)
    committed = (docs / "SUPPORT.md").read_text()
    with_versions = next(line for line in committed.splitlines() if line.startswith(MEASURED))
    assert committed == page({name: supported(name) for name in ALL}, OTHERS, with_versions)
