"""Which engine serves which site of which architecture, measured: whatever an engine serves is compared with the others.

``docs/bench/support.py`` makes docs/SUPPORT.md of it.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import ARCHITECTURES, CONTEXT, ENCODER_DECODERS, ENCODERS, GPT_SIZES, GRANITE_FACTORS, GROUPED, SIZES

from activations.engines import Engine
from activations.engines.hooks import HooksEngine, run
from activations.engines.nnsight import NnsightEngine
from activations.engines.transformer_lens import TransformerLensEngine
from activations.errors import TwinprobeError
from activations.inputs import pad
from activations.sites import DESCRIPTIONS, WITHOUT_LAYER, Site

sys.path.append(str(Path(__file__).parents[1]))
from reference import snapshot as snapshot

if TYPE_CHECKING:
    from activations.loaded import LoadedModel

ALL = (*ARCHITECTURES, *ENCODERS, *ENCODER_DECODERS)
LATENT = {"kv_lora_rank": 8, "q_lora_rank": None, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 4}
ROUTED = {"num_experts_per_tok": 2, "moe_intermediate_size": 12}
OTHERS: dict[str, dict[str, Any]] = {
    "Apertus": GROUPED,
    "Bloom": {"hidden_size": 16, "n_head": 4, "n_layer": 3},
    "Cohere": GROUPED,
    "DeepseekV2": {**SIZES, **LATENT, **ROUTED, "first_k_dense_replace": 1, "n_routed_experts": 4, "n_group": 1},
    "Exaone4": GROUPED,
    "Falcon": {"hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 3},
    "Gemma": {**GROUPED, "head_dim": 6},
    "Gemma3Text": {**GROUPED, "head_dim": 6, "query_pre_attn_scalar": 6},
    "Glm": {**GROUPED, "head_dim": 4},
    "GPTJ": {**GPT_SIZES, "rotary_dim": 2},
    "GPTNeo": {"hidden_size": 16, "num_heads": 4, "num_layers": 2, "attention_types": [[["global"], 2]]},
    "GraniteMoe": {**GROUPED, **GRANITE_FACTORS, "num_local_experts": 4},
    "Mixtral": {**GROUPED, "num_local_experts": 4},
    "Mpt": {"d_model": 16, "n_heads": 4, "n_layers": 3},
    "Nemotron": GROUPED,
    "Olmo": GROUPED,
    "Olmo2": GROUPED,
    "OPT": {
        "hidden_size": 16,
        "ffn_dim": 24,
        "num_attention_heads": 4,
        "num_hidden_layers": 3,
        "word_embed_proj_dim": 16,
    },
    "Phi": {**SIZES, "max_position_embeddings": CONTEXT},
    "Qwen3Moe": {**GROUPED, **ROUTED, "head_dim": 6, "num_experts": 4},
    "SeedOss": {**GROUPED, "head_dim": 4},
    "SmolLM3": GROUPED,
    "StableLm": {**GROUPED, "hidden_size": 64},
}
"""Further decoders: where several engines serve a site, they are compared with one another."""
MARKS = {"hooks": "h", "transformer_lens": "t", "nnsight": "n"}
BOUND = 1e-5
"""Largest difference between engines in float32, relative to the largest value at the site."""
ROWS = [(0, 40, 41, 42, 43, 44, 45, 46, 47), (0, 99), (0, 300, 5, 200, 31), (7,)]
"""Token ids of very different lengths, which one batch pads."""
LONGEST = 12
"""Wider than the batch, so that attention has keys to fill up."""


def engines(loaded: LoadedModel) -> dict[str, Engine]:
    """All three, by name."""
    made = (HooksEngine(loaded), TransformerLensEngine(loaded, LONGEST), NnsightEngine(loaded))
    return {engine.name: engine for engine in made}


def batch(loaded: LoadedModel) -> tuple[torch.Tensor, torch.Tensor]:
    return pad(ROWS, 2, loaded.device)


def every_name(loaded: LoadedModel) -> dict[tuple[str | None, str], list[Site]]:
    """All sites that could be, by stack and name."""
    return {
        (stack, name): [Site(name, layer, stack=stack) for layer in layers(name, shape.layers)]
        for stack, shape in loaded.shapes.items()
        for name in DESCRIPTIONS
    }


def layers(name: str, n_layers: int) -> list[int | None]:
    return [None] if name in WITHOUT_LAYER else list(range(n_layers))


def refusal(engine: Engine, site: Site) -> str | None:
    """Why an engine does not serve a site; ``None`` where it does."""
    try:
        engine.check(site)
    except TwinprobeError as error:
        return str(error)
    return None


def agree(loaded: LoadedModel) -> set[str]:
    """Names of the sites that all engines serve, after comparing all that several serve."""
    ids, mask = batch(loaded)
    made, named = engines(loaded), every_name(loaded)
    everywhere = set()
    for (_, name), sites in named.items():
        found = [
            (engine.name, engine.forward(ids, mask, sites))
            for engine in made.values()
            if not any(refusal(engine, site) for site in sites)
        ]
        for other, rows in found[1:]:
            for site in sites:
                compare(site, other, rows[site], found[0][1][site], mask)
        if len(found) == len(made):
            everywhere.add(name)
    return everywhere


def support(loaded: LoadedModel) -> dict[tuple[str | None, str], str]:
    """The marks of the engines that serve each site, after comparing what they give on real tokens.

    Sites that plain hooks serve are compared with these, which test_hooks.py compares with the model's own arithmetic;
    the others with what an untouched copy of the model computes.
    """
    ids, mask = batch(loaded)
    made, named = engines(loaded), every_name(loaded)
    served = {
        name: [site for sites in named.values() for site in sites if refusal(engine, site) is None]
        for name, engine in made.items()
    }
    found = {name: engine.forward(ids, mask, served[name]) for name, engine in made.items()}
    expected = {**attention(loaded, ids, mask), **found["hooks"]}
    for name, rows in found.items():
        assert set(rows) == set(served[name])
        for site, values in rows.items():
            compare(site, name, values, expected[site], mask)
            assert values.shape[-1] == made[name].width(site), (site, name)
    return {
        key: "".join(MARKS[name] for name in made if set(sites) <= set(served[name])) for key, sites in named.items()
    }


def compare(site: Site, name: str, found: torch.Tensor, expected: torch.Tensor, mask: torch.Tensor) -> None:
    real = mask.bool()
    assert found.shape == expected.shape, (site, name)
    largest = float(expected[real].abs().max())
    assert largest > 1e-3, (site, "nothing to compare with")
    assert float((found[real] - expected[real]).abs().max()) <= BOUND * largest, (site, name)


def attention(loaded: LoadedModel, ids: torch.Tensor, mask: torch.Tensor) -> dict[Site, torch.Tensor]:
    """What goes into and comes out of attention itself in an eager copy of the model, as rows of sites.

    ``q`` and ``k`` are what is rotated, in architectures that rotate: their projections, but for Qwen3's norms.
    """
    model = copy.deepcopy(loaded.model)
    model.set_attn_implementation("eager")
    with recorded(model) as (calls, rotated), torch.inference_mode():
        run(loaded, model, ids, mask)
    names = {module: name for name, module in model.named_modules()}
    found: dict[Site, torch.Tensor] = {}
    for stack, shape in loaded.shapes.items():
        for layer in range(shape.layers):
            part = "blocks" if stack is None else f"{stack}_blocks"
            path = loaded.path(f"{part}.{layer}.{'self_attn' if stack == 'decoder' else 'attn'}")
            called = [i for i, call in enumerate(calls) if f"{names[call[0]]}.".startswith(f"{path}.")]
            assert len(called) == 1
            _, query, key, value, pattern = calls[called[0]]
            seen = {"v": value, "pattern": torch.nn.functional.pad(pattern, (0, LONGEST - ids.shape[1]))}
            if rotated:
                before = rotated[called[0]]
                seen |= {"rot_q": query, "rot_k": key, "q": before[0], "k": before[1]}
            else:
                seen |= {"q": query, "k": key}
            for name, heads in seen.items():
                rows = heads.transpose(1, 2)[:, int(stack == "decoder") :]
                found[Site(name, layer, stack=stack)] = rows.flatten(2)
    return found


@contextmanager
def recorded(model: Any) -> Iterator[tuple[list[tuple[Any, ...]], list[tuple[torch.Tensor, torch.Tensor]]]]:
    """While active, calls of attention (module, queries, keys, values, pattern) and queries and keys before rotation.

    All ``[batch, heads, pos, d_head]``.
    """
    modeling = sys.modules[type(model).__module__]
    calls: list[tuple[Any, ...]] = []
    rotated: list[tuple[torch.Tensor, torch.Tensor]] = []
    patched = pytest.MonkeyPatch()
    if type(model).__name__ == "CodeGenForCausalLM":
        attend, turn = modeling.CodeGenAttention._attn, modeling.apply_rotary_pos_emb
        turned: list[torch.Tensor] = []

        def codegen(self: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any) -> Any:
            given = [part.transpose(1, 2) for part in turned[-2:]]  # CodeGen turns keys first, and part of a head only
            whole = [torch.cat([a, b[..., a.shape[-1] :]], -1) for a, b in zip(given, (key, query), strict=True)]
            rotated.append((whole[1], whole[0]))
            output, pattern = attend(self, query, key, value, *args)
            calls.append((self, query, key, value, pattern))
            return output, pattern

        def note(tensor: torch.Tensor, *args: Any) -> torch.Tensor:
            turned.append(tensor)
            return turn(tensor, *args)

        patched.setattr(modeling.CodeGenAttention, "_attn", codegen)
        patched.setattr(modeling, "apply_rotary_pos_emb", note)
    else:
        eager = modeling.eager_attention_forward

        def attending(module: Any, query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
            output, pattern = eager(module, query, key, value, *args, **kwargs)
            calls.append((module, query, key, value, pattern))
            return output, pattern

        patched.setattr(modeling, "eager_attention_forward", attending)
        if hasattr(modeling, "apply_rotary_pos_emb"):
            rotate = modeling.apply_rotary_pos_emb

            def rotating(query: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
                rotated.append((query, key))
                return rotate(query, key, *args, **kwargs)

            patched.setattr(modeling, "apply_rotary_pos_emb", rotating)
    try:
        yield calls, rotated
    finally:
        patched.undo()
