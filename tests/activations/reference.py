"""What the untouched Hugging Face model itself says, one unpadded text at a time, and a snapshot of all its state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from activations.sites import Site, parse_sites

if TYPE_CHECKING:
    from activations.models import LoadedModel

TOLERANCE = 1e-5

Array = npt.NDArray[np.float32]


def every_site(loaded: LoadedModel, layers: str = "*") -> tuple[Site, ...]:
    """Every site of the model, or of some layers, with one single head."""
    names = ["resid_pre", "attn_out", "mlp_out", "z", "resid_post"] + ([] if loaded.parallel else ["resid_mid"])
    written = ["embed", *(f"{name}.{layers}" for name in names), "z.1.2", "ln_final"]
    return parse_sites(written, loaded.n_layers, loaded.n_heads)


def hidden_states(loaded: LoadedModel, ids: tuple[int, ...]) -> list[Array]:
    """``output_hidden_states`` ``[pos, width]``: into each block, then what the final norm gives."""
    with torch.no_grad():
        states = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    assert len(states) == loaded.n_layers + 1
    return [state[0].float().numpy() for state in states]


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
        "generation": model.generation_config.to_json_string(),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "special": dict(tokenizer.special_tokens_map),
        "tokenizer attributes": {
            key: value for key, value in vars(tokenizer).items() if isinstance(value, str | int | bool | list | None)
        },
    }
