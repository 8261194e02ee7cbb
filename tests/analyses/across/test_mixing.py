"""Mixed models: equal to a copy whose weights were set by hand, whatever part or share; the two models never change."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import ARCHITECTURES
from other_models import SMALL, other_model, state

from activations.errors import TwinprobeError
from analyses.across.mixing import check_mixing, mix, parts

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

IDS = torch.tensor([[0, 40, 51, 62, 73, 84, 95, 106, 117], [0, 5, 9, 200, 201, 202, 33, 44, 55]])
WITHOUT_LENGTH = dict.fromkeys(("embed", "unembed"), 1.0)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def by_hand(host: LoadedModel, donor: LoadedModel, names: Iterable[str], share: float) -> torch.nn.Module:
    """A copy of the host with these parameters set, and no longer tied to others."""
    made = copy.deepcopy(host.model)
    given = dict(donor.model.named_parameters(remove_duplicate=False))
    own = dict(host.model.named_parameters(remove_duplicate=False))
    for name in names:
        path, _, key = name.rpartition(".")
        value = (1 - share) * own[name].detach() + share * given[name].detach()
        setattr(made.get_submodule(path), key, torch.nn.Parameter(value))
    return made


def names_of(loaded: LoadedModel, part: str) -> list[str]:
    return [name for names in parts(loaded)[part].values() for name in names]


@pytest.fixture(params=ARCHITECTURES)
def pair(request: pytest.FixtureRequest, make_model: MakeModel) -> tuple[LoadedModel, LoadedModel]:
    return make_model(request.param), make_model(request.param, seed=1)


def test_every_parameter_is_in_one_part(pair: tuple[LoadedModel, LoadedModel]) -> None:
    host, _ = pair
    found = parts(host)
    assert list(found) == ["embed", "blocks.0", "blocks.1", "blocks.2", "unembed"]
    everything = [name for part in found for name in names_of(host, part)]
    assert sorted(everything) == sorted(name for name, _ in host.model.named_parameters(remove_duplicate=False))
    for layer in range(3):
        assert all(f".{layer}." in name for name in names_of(host, f"blocks.{layer}"))
    assert len(names_of(host, "embed")) == (2 if "wpe" in str(host.model) else 1)
    assert all(names_of(host, part) for part in found)


def test_all_parts_of_the_donor_are_the_donor_bit_for_bit(pair: tuple[LoadedModel, LoadedModel]) -> None:
    host, donor = pair
    before = [state(each) for each in pair]
    expected = logits(donor.model)
    assert not torch.equal(logits(host.model), expected)
    assert torch.equal(logits(mix(host, donor, dict.fromkeys(parts(host), 1.0)).model), expected)
    assert torch.equal(logits(mix(host, donor, dict.fromkeys(parts(host), 0.0)).model), logits(host.model))
    check_mixing(host, donor, IDS[0].tolist())
    assert [state(each) for each in pair] == before


def test_each_part_is_as_if_set_by_hand(pair: tuple[LoadedModel, LoadedModel]) -> None:
    host, donor = pair
    untouched = logits(host.model)
    for part in parts(host):
        found = logits(mix(host, donor, {part: 1.0}).model)
        assert torch.equal(found, logits(by_hand(host, donor, names_of(host, part), 1.0))), part
        assert not torch.equal(found, untouched), part


def test_shares_are_as_if_set_by_hand(pair: tuple[LoadedModel, LoadedModel]) -> None:
    host, donor = pair
    everything = [name for part in parts(host) for name in names_of(host, part)]
    for share in (0.25, 0.8):
        found = logits(mix(host, donor, dict.fromkeys(parts(host), share)).model)
        torch.testing.assert_close(found, logits(by_hand(host, donor, everything, share)), atol=1e-4, rtol=1e-4)
    both = mix(host, donor, {"blocks.0": 0.5, "blocks.2": 1.0}).model
    half = by_hand(host, donor, names_of(host, "blocks.0"), 0.5)
    for name in names_of(host, "blocks.2"):
        half.get_parameter(name).data.copy_(donor.model.get_parameter(name))
    torch.testing.assert_close(logits(both), logits(half), atol=1e-4, rtol=1e-4)


def test_a_model_mixed_into_itself_is_itself(pair: tuple[LoadedModel, LoadedModel]) -> None:
    host, _ = pair
    for share in (0.3, 0.7, 1.0):
        assert torch.equal(logits(mix(host, host, dict.fromkeys(parts(host), share)).model), logits(host.model))


def test_no_more_weights_than_those_of_the_running_part(make_model: MakeModel) -> None:
    host, donor = make_model("llama"), make_model("llama", seed=1)
    mixed = mix(host, donor, dict.fromkeys(parts(host), 0.5))
    given = {weight.data_ptr() for loaded in (host, donor) for weight in loaded.model.parameters()}

    def made() -> set[str]:
        found = mixed.model.named_parameters(remove_duplicate=False)
        return {name for name, weight in found if weight.data_ptr() not in given}

    seen: dict[str, set[str]] = {}
    modules = {"embed": "embed_tokens", "blocks.1": "layers.1.mlp.down_proj", "unembed": "norm"}
    for part, path in modules.items():
        mixed.model.model.get_submodule(path).register_forward_hook(
            lambda _module, _args, _result, part=part: seen.update({part: made()})
        )
    logits(mixed.model)
    assert seen["embed"] <= {"model.embed_tokens.weight"}
    assert seen["blocks.1"] == set(names_of(host, "blocks.1"))
    assert seen["unembed"] <= {"model.norm.weight"}
    assert made() == set()


@pytest.mark.parametrize("path", ["layers.1", "layers.1.mlp.down_proj", "norm"])
def test_after_an_error_all_is_as_it_was(make_model: MakeModel, path: str) -> None:
    host, donor = make_model("llama"), make_model("llama", seed=1)
    before = [state(each) for each in (host, donor)]
    mixed = mix(host, donor, dict.fromkeys(parts(host), 0.5))
    expected = logits(mixed.model)

    def fail(_module: torch.nn.Module, _args: Any) -> None:
        raise RuntimeError("out of memory")

    handle = mixed.model.model.get_submodule(path).register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        logits(mixed.model)
    handle.remove()
    own = dict(host.model.named_parameters())
    assert all(weight is own[name] for name, weight in mixed.model.named_parameters())
    assert torch.equal(logits(mixed.model), expected)
    assert [state(each) for each in (host, donor)] == before


def test_half_precision_stays_half(make_model: MakeModel) -> None:
    host, donor = make_model("llama"), make_model("llama", seed=1)
    for loaded in (host, donor):
        loaded.model.to(torch.bfloat16)
    everything = dict.fromkeys(parts(host), 1.0)
    found = logits(mix(host, donor, everything).model)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, logits(donor.model))
    between = logits(mix(host, donor, dict.fromkeys(parts(host), 0.5)).model)
    assert between.dtype == torch.bfloat16
    assert between.isfinite().all()


def refused(message: str, host: LoadedModel, donor: LoadedModel, shares: dict[str, float]) -> None:
    with pytest.raises(TwinprobeError) as caught:
        mix(host, donor, shares)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_can_not_be_mixed_is_refused(make_model: MakeModel) -> None:
    host, donor = make_model("llama"), make_model("llama", seed=1)
    refused("part 'blocks.3' is not known; expected one of embed, blocks.0", host, donor, {"blocks.3": 1.0})
    refused("share 1.5 of part 'embed' lies outside 0 to 1", host, donor, {"embed": 1.5})
    refused("share nan of part 'embed' lies outside 0 to 1", host, donor, {"embed": float("nan")})
    refused("the architecture is", host, make_model("qwen2"), WITHOUT_LENGTH)
    half = make_model("llama")
    half.model.to(torch.float16)
    refused("model.embed_tokens.weight is float32 and float16 in the two models", host, half, WITHOUT_LENGTH)
    away = make_model("llama")
    away.model.lm_head.to("meta")
    refused("lm_head.weight is offloaded", host, away, WITHOUT_LENGTH)


def test_quantised_weights_are_refused(make_model: MakeModel) -> None:
    host, donor = make_model("llama"), make_model("llama", seed=1)
    for loaded in (host, donor):
        weight = loaded.model.lm_head.weight
        loaded.model.lm_head.weight = torch.nn.Parameter(weight.detach().to(torch.int8), requires_grad=False)
    refused("lm_head.weight is quantised", host, donor, WITHOUT_LENGTH)


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("LlamaConfig", "rope_parameters", [{"rope_type": "default", "rope_theta": theta} for theta in (1e4, 1e2)]),
        ("Gemma2Config", "final_logit_softcapping", [30.0, 0.5]),
    ],
)
def test_models_that_differ_in_more_than_weights_are_refused(
    tiny: Any, name: str, field: str, values: list[Any]
) -> None:
    extra = {"head_dim": 4} if name == "Gemma2Config" else {}
    host, donor = (other_model(tiny, name, {**SMALL, **extra, field: value}) for value in values)
    check_mixing(host, host, IDS[0].tolist())
    with pytest.raises(TwinprobeError) as caught:
        check_mixing(host, donor, IDS[0].tolist())
    assert f"but their configurations differ in {field}" in str(caught.value)
    assert "\n" not in str(caught.value)
