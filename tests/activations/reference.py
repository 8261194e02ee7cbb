"""What the untouched Hugging Face model itself says, one unpadded text at a time, and a snapshot of all its state."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from activations.sites import Site

if TYPE_CHECKING:
    from activations.models import LoadedModel

TOLERANCE = 1e-5

Array = npt.NDArray[np.float32]
Module = Callable[[torch.Tensor], torch.Tensor]
FUSED = ("GPT2", "GPTBigCode", "GPTNeoX", "CodeGen", "Phi3")
"""Architectures without modules of their own for queries, keys and values."""


def every_site(loaded: LoadedModel, layers: str = "*") -> tuple[Site, ...]:
    """Every site that a module of the model carries, in all or some layers, with one single head."""
    name = type(loaded.model).__name__
    names = ["resid_pre", "attn_out", "mlp_out", "z", "resid_post"]
    names += [] if loaded.parallel else ["resid_mid"]
    names += [] if name.startswith(FUSED) else ["q", "k", "v"]
    names += [] if "Moe" in name else ["mlp_post"]
    written = ["embed", *(f"{name}.{layers}" for name in names), "z.1.2"]
    if loaded.kind == "encoder":
        return loaded.sites(written)
    if loaded.kind == "decoder":
        return loaded.sites([*written, "ln_final"])
    both = [f"{stack}.{site}" for stack in ("encoder", "decoder") for site in [*written, "ln_final"]]
    return loaded.sites([*both, f"decoder.cross_attn_out.{layers}"])


def outputs(loaded: LoadedModel, ids: tuple[int, ...], **wanted: bool) -> Any:
    """The model's own output for one text; a decoder stack reads the padding token (2) and then the text."""
    decoder = {"decoder_input_ids": torch.tensor([[2, *ids]])} if loaded.kind == "encoder-decoder" else {}
    with torch.no_grad():
        return loaded.model(torch.tensor([ids]), **decoder, **wanted)


def hidden_states(loaded: LoadedModel, ids: tuple[int, ...], stack: str | None = None) -> list[Array]:
    """``output_hidden_states`` ``[pos, width]`` of a stack: into each block, then what the final norm gives."""
    found = outputs(loaded, ids, output_hidden_states=True)
    states = found[f"{stack}_hidden_states" if stack else "hidden_states"]
    assert len(states) == loaded.shapes[stack].layers + 1
    return [state[0, int(stack == "decoder") :].float().numpy() for state in states]


def rows(loaded: LoadedModel, ids: tuple[int, ...]) -> dict[str, Array]:
    """Every site of every layer, ``[pos, width]``, written out from the model's hidden states, patterns and weights."""
    found: dict[str, Array] = {}
    eager = copy.deepcopy(loaded.model)
    eager.set_attn_implementation("eager")
    plain = outputs(loaded, ids, output_hidden_states=True)
    attended = outputs(_with(loaded, eager), ids, output_attentions=True)
    for stack in loaded.shapes:
        prefix = f"{stack}_" if stack else ""
        skip, dot = int(stack == "decoder"), f"{stack}." if stack else ""
        states, patterns = plain[f"{prefix}hidden_states"], attended[f"{prefix}attentions"]

        def put(name: str, value: torch.Tensor, skip: int = skip, dot: str = dot) -> None:
            found[dot + name] = value[skip:].float().numpy()

        with torch.no_grad():
            put("embed", _embedding(loaded)(torch.tensor([*([2] if skip else []), *ids])))
            for layer, pattern in enumerate(patterns):
                part = _part(loaded.model, layer, stack)
                cross = attended["cross_attentions"][layer][0] if skip else None
                memory = plain["encoder_last_hidden_state"][0] if skip else None
                values = _block(part, states[layer][0], pattern[0], cross, memory)
                for name, value in values.items():
                    put(f"{name}.{layer}", value)
                if layer + 1 < len(patterns):
                    assert_close(values["resid_post"].numpy(), states[layer + 1][0].numpy())
            if part.final is not None:
                put("ln_final", states[-1][0])
                assert_close(part.final(values["resid_post"]).numpy(), states[-1][0].numpy())
        z = found[f"{dot}z.1"]
        found[f"{dot}z.1.2"] = z[:, 2 * z.shape[-1] // 4 : 3 * z.shape[-1] // 4]
    return found


def _with(loaded: LoadedModel, model: Any) -> LoadedModel:
    from dataclasses import replace

    return replace(loaded, model=model)


def _embedding(loaded: LoadedModel) -> Module:
    scale = getattr(loaded.model.config, "embedding_multiplier", 1.0)  # Granite
    return lambda ids: scale * loaded.model.get_input_embeddings()(ids)


@dataclass(frozen=True)
class _Part:
    """The arithmetic of one block, by hand for each architecture."""

    norm: Module
    project: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor, torch.Tensor]]
    out: Module
    mlp_norm: Module
    mlp_post: Module | None
    mlp: Module
    final: Module | None
    separate: bool = True
    heads: int = 4
    parallel: bool = False
    scale: float = 1.0
    after: tuple[Module, Module] = (lambda x: x, lambda x: x)
    """What normalises the additions: the sums themselves where ``post_norm``, else what is added."""
    post_norm: bool = False
    cross: Any = None


def _block(
    part: _Part, pre: torch.Tensor, pattern: torch.Tensor, cross: torch.Tensor | None, memory: torch.Tensor | None
) -> dict[str, torch.Tensor]:
    q, k, v = part.project(part.norm(pre))
    z = _mix(pattern, v, part.heads)
    values = {"resid_pre": pre, "z": z, **({"q": q, "k": k, "v": v} if part.separate else {})}
    attn = part.out(z)
    if part.post_norm:
        mid = part.after[0](pre + attn)
        values |= {"attn_out": attn, "resid_mid": mid, "mlp_out": part.mlp(mid), "resid_post": torch.tensor(0)}
        values["resid_post"] = part.after[1](mid + values["mlp_out"])
        read = mid
    else:
        attn = part.scale * part.after[0](attn)
        mid = pre + attn
        if cross is not None and memory is not None:
            layer = part.cross
            values["cross_attn_out"] = layer.EncDecAttention.o(_mix(cross, layer.EncDecAttention.v(memory), part.heads))
            mid = mid + values["cross_attn_out"]
        read = part.mlp_norm(pre if part.parallel else mid)
        mlp = part.scale * part.after[1](part.mlp(read))
        values |= {"attn_out": attn, "mlp_out": mlp, "resid_post": mid + mlp}
        values |= {} if part.parallel else {"resid_mid": mid}
    return values | ({} if part.mlp_post is None else {"mlp_post": part.mlp_post(read)})


def _mix(pattern: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Patterns ``[head, query, key]`` times values ``[key, kv_heads * d_head]``."""
    d_head = {24: 6, 12: 6}.get(v.shape[-1], 4)  # every model here has heads of 4, but for two with heads of 6
    values = v.reshape(len(v), -1, d_head)
    repeated = values.repeat_interleave(heads // values.shape[1], dim=1)
    return torch.einsum("hqk,khd->qhd", pattern, repeated).flatten(1)


def _part(model: Any, layer: int, stack: str | None) -> _Part:
    if stack:
        return _t5(model, layer, stack)
    name = type(model).__name__
    if name.startswith("Roberta"):
        return _roberta(model, layer)
    if name.startswith(("GPT2", "GPTBigCode", "CodeGen")):
        return _gpt(model, layer)
    return _neox(model, layer) if name.startswith("GPTNeoX") else _llama(model, layer)


def _llama(model: Any, layer: int) -> _Part:
    block = model.model.layers[layer]
    attn, mlp, gemma = block.self_attn, block.mlp, hasattr(block, "pre_feedforward_layernorm")
    fused = hasattr(attn, "qkv_proj")

    def gated(x: torch.Tensor) -> torch.Tensor:
        if hasattr(mlp, "gate_up_proj"):
            gate, up = mlp.gate_up_proj(x).chunk(2, dim=-1)
            return mlp.activation_fn(gate) * up
        return mlp.act_fn(mlp.gate_proj(x)) * mlp.up_proj(x)

    def plain(x: torch.Tensor) -> torch.Tensor:
        return mlp.act(mlp.c_fc(x))

    return _Part(
        norm=block.input_layernorm,
        project=lambda x: (
            attn.qkv_proj(x).split([16, 8, 8], dim=-1) if fused else (attn.q_proj(x), attn.k_proj(x), attn.v_proj(x))
        ),
        separate=not fused,
        out=attn.o_proj,
        mlp_norm=block.pre_feedforward_layernorm if gemma else block.post_attention_layernorm,
        mlp_post=None if hasattr(mlp, "experts") else plain if hasattr(mlp, "c_fc") else gated,
        mlp=(lambda x: mlp(x[None])[0]) if hasattr(mlp, "experts") else mlp,
        final=model.model.norm,
        scale=getattr(block, "residual_multiplier", 1.0),
        after=(block.post_attention_layernorm, block.post_feedforward_layernorm) if gemma else _Part.after,
    )


def _gpt(model: Any, layer: int) -> _Part:
    block = model.transformer.h[layer]
    codegen, attn, mlp = hasattr(block.attn, "qkv_proj"), block.attn, block.mlp

    def project(x: torch.Tensor) -> Any:
        if not codegen:
            return attn.c_attn(x).split([16, *[(attn.c_attn(x).shape[-1] - 16) // 2] * 2], dim=-1)
        q, v, k = attn.qkv_proj(x).unflatten(-1, (4, -1)).split(4, dim=-1)
        return q.flatten(1), k.flatten(1), v.flatten(1)

    return _Part(
        norm=block.ln_1,
        project=project,
        separate=False,
        out=attn.out_proj if codegen else attn.c_proj,
        mlp_norm=block.ln_1 if codegen else block.ln_2,
        mlp_post=lambda x: mlp.act((mlp.fc_in if codegen else mlp.c_fc)(x)),
        mlp=mlp,
        final=model.transformer.ln_f,
        parallel=codegen,
    )


def _neox(model: Any, layer: int) -> _Part:
    block = model.gpt_neox.layers[layer]
    return _Part(
        norm=block.input_layernorm,
        project=lambda x: tuple(
            part.flatten(1) for part in block.attention.query_key_value(x).view(len(x), 4, 3, 4).unbind(2)
        ),
        separate=False,
        out=block.attention.dense,
        mlp_norm=block.post_attention_layernorm,
        mlp_post=lambda x: block.mlp.act(block.mlp.dense_h_to_4h(x)),
        mlp=block.mlp,
        final=model.gpt_neox.final_layer_norm,
        parallel=model.config.use_parallel_residual,
    )


def _roberta(model: Any, layer: int) -> _Part:
    block = model.roberta.encoder.layer[layer]
    read = block.attention.self
    return _Part(
        norm=lambda x: x,
        project=lambda x: (read.query(x), read.key(x), read.value(x)),
        out=block.attention.output.dense,
        mlp_norm=lambda x: x,
        mlp_post=block.intermediate,
        mlp=lambda x: block.output.dense(block.intermediate(x)),
        final=None,
        after=(block.attention.output.LayerNorm, block.output.LayerNorm),
        post_norm=True,
    )


def _t5(model: Any, layer: int, stack: str) -> _Part:
    whole = getattr(model, stack)
    parts = whole.block[layer].layer
    attn, mlp = parts[0].SelfAttention, parts[-1].DenseReluDense
    return _Part(
        norm=parts[0].layer_norm,
        project=lambda x: (attn.q(x), attn.k(x), attn.v(x)),
        out=attn.o,
        mlp_norm=parts[-1].layer_norm,
        mlp_post=lambda x: mlp.act(mlp.wi(x)),
        mlp=mlp,
        final=whole.final_layer_norm,
        cross=parts[1] if stack == "decoder" else None,
    )


def assert_close(found: Array, expected: Array) -> None:
    """Equal within ``TOLERANCE`` of the largest value."""
    assert found.shape == expected.shape
    assert np.abs(expected).max() > 1e-3, "nothing to compare with"
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def snapshot(loaded: LoadedModel) -> dict[str, Any]:
    """All that a capture could leave traces in, as plain comparable values."""
    model, tokenizer = loaded.model, loaded.tokenizer
    modules = dict(model.named_modules())
    return {
        "weights": {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()},
        "storage": {name: tensor.data_ptr() for name, tensor in model.state_dict().items()},
        "gradients": {name: (p.requires_grad, p.grad) for name, p in model.named_parameters()},
        "classes": {name: type(module) for name, module in modules.items()},
        "attributes": {name: sorted(vars(module)) for name, module in modules.items()},
        "training": {name: module.training for name, module in modules.items()},
        "hooks": {
            (name, kind): list(hooks.items())
            for name, module in modules.items()
            for kind, hooks in vars(module).items()
            if "hook" in kind and isinstance(hooks, dict)
        },
        "config": model.config.to_json_string(),
        "generation": str(getattr(model, "generation_config", None)),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "special": dict(tokenizer.special_tokens_map),
        "tokenizer attributes": {
            key: value for key, value in vars(tokenizer).items() if isinstance(value, str | int | bool | list | None)
        },
    }
