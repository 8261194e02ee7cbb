"""The choice of an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
import torch
from parity import batch

from activations.engines import ENGINES, make_engine
from activations.errors import TwinprobeError

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.loaded import LoadedModel

Tiny = Callable[[str], "LoadedModel"]


@pytest.mark.parametrize(
    ("architecture", "sites", "engine"),
    [
        ("llama", "embed,resid_post.*,z.1.2,q.0,ln_final", "hooks"),
        ("llama", "resid_post.*,pattern.1", "transformer_lens"),
        ("llama", "blocks.1.attn.hook_attn_scores", "transformer_lens"),
        ("gpt2", "q.0", "transformer_lens"),
        ("t5", "encoder.embed,decoder.resid_post.1", "hooks"),
    ],
)
def test_auto_takes_hooks_where_they_serve_every_site(tiny: Tiny, architecture: str, sites: str, engine: str) -> None:
    loaded = tiny(architecture)
    assert make_engine(loaded, loaded.sites(sites), longest=9).name == engine


def test_a_named_engine_is_taken(tiny: Tiny) -> None:
    loaded = tiny("llama")
    for name in ENGINES[1:]:
        assert make_engine(loaded, loaded.sites("resid_post.1"), name, longest=9).name == name


@pytest.mark.parametrize(
    ("architecture", "sites", "options", "message"),
    [
        (
            "llama",
            "z.0",
            {"name": "hook"},
            r"engine 'hook' is not known \(did you mean 'hooks'\?\); expected auto, hooks",
        ),
        (
            "llama",
            "z.0,pattern.0",
            {"name": "hooks"},
            r"site pattern\.0: no module gives it; --engine transformer_lens",
        ),
        ("llama", "rot_q.1", {"name": "nnsight"}, r"site rot_q\.1: no module gives it"),
        (
            "gpt2",
            "rot_q.1",
            {"name": "transformer_lens"},
            r"site rot_q\.1: the bridge of GPT2LMHeadModel has no hook after a rotary",
        ),
        (
            "gpt2",
            "z.0,rot_q.1",
            {},
            r"site rot_q\.1: the bridge of GPT2LMHeadModel has no hook after a rotary embedding",
        ),
        ("codegen", "resid_mid.0", {}, r"site resid_mid\.0: tiny-codegen runs attention and MLP in parallel"),
        ("t5", "encoder.embed,encoder.pattern.0", {}, r"no engine serves both encoder\.embed and encoder\.pattern\.0"),
        ("llama", "z.0", {"name": "hooks", "remote": True}, "engine 'hooks' runs on this machine only"),
    ],
)
def test_what_no_engine_can_do_is_said_at_once(
    tiny: Tiny, architecture: str, sites: str, options: dict[str, object], message: str
) -> None:
    loaded = tiny(architecture)
    with pytest.raises(TwinprobeError, match=message):
        make_engine(loaded, loaded.sites(sites), longest=9, **options)  # type: ignore[arg-type]


def _zero(_module: torch.nn.Module, args: tuple[torch.Tensor, ...]) -> None:
    args[0].zero_()


@pytest.mark.parametrize("name", ENGINES[1:])
def test_what_is_kept_whole_is_what_was_there(make_model: MakeModel, name: str) -> None:
    """Later parts of a model may write into what an earlier one gave, as Falcon's do."""
    loaded = make_model("llama")
    site = loaded.sites("resid_post.0")
    expected = make_engine(loaded, site, "hooks", longest=9).forward(*batch(loaded), site)[site[0]]
    loaded.module("blocks.1").register_forward_pre_hook(_zero)
    sites = loaded.sites("resid_post.*")
    found = make_engine(loaded, sites, name, longest=9).forward(*batch(loaded), sites)
    torch.testing.assert_close(found[site[0]], expected)
