"""The planted models do what they are planted to do: checked by hooks on full forward passes, not by patching code."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from planted_models import GAIN, LAST, MODELS, TAKEN_BACK, Component, Planted, copying_pair

from activations.engines.hooks import editing, forward
from activations.models import load_model
from activations.sites import Site
from analyses.patching.head import check_head
from analyses.patching.recording import record

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import MakeModel

    from activations.models import LoadedModel
    from analyses.prompts import Prompt

Patch = tuple[Site, Sequence[int]]
Rows = dict[Site, torch.Tensor]
CLOSE = 1e-3
"""Logit differences are 10; this is exact enough to tell a planted part from all others."""


@pytest.fixture(scope="module", params=MODELS)
def planted(request: pytest.FixtureRequest, make_model: MakeModel) -> Planted:
    return MODELS[request.param](make_model)


def named(name: str, make_model: MakeModel) -> Planted:
    return MODELS[name](make_model)


def activations(loaded: LoadedModel, ids: Sequence[int], sites: Sequence[Site]) -> Rows:
    tokens = torch.tensor([ids])
    return {site: tensor.clone() for site, tensor in forward(loaded, tokens, torch.ones_like(tokens), sites).items()}


def difference(loaded: LoadedModel, prompt: Prompt, ids: Sequence[int]) -> torch.Tensor:
    return prompt.logit_difference(loaded.model(torch.tensor([ids])).logits[0, -1])


def spliced(loaded: LoadedModel, prompt: Prompt, ids: Sequence[int], donor: Rows, patches: Sequence[Patch]) -> float:
    """The logit difference of a run with the donor's activations put in at the sites and positions of the patches."""

    def put(activation: torch.Tensor, site: Site, at: list[int]) -> torch.Tensor:
        changed = activation.clone()
        changed[:, at] = donor[site][:, at]
        return changed

    with torch.no_grad(), ExitStack() as edits:
        for site, at in patches:
            edits.enter_context(editing(loaded, site, partial(put, site=site, at=[*at])))
        return float(difference(loaded, prompt, ids))


def runs(prompt: Prompt, noising: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The ids of the run that gives activations and of the run that receives them."""
    return (prompt.corrupted, prompt.clean) if noising else (prompt.clean, prompt.corrupted)


def patched(loaded: LoadedModel, prompt: Prompt, patches: Sequence[Patch], noising: bool) -> float:
    """The logit difference of the corrupted run with clean activations put in; the other way round for noising."""
    donor, receiver = runs(prompt, noising)
    return spliced(loaded, prompt, receiver, activations(loaded, donor, [site for site, _ in patches]), patches)


def positions(prompt: Prompt, role: str) -> list[int]:
    return [position for position, name in enumerate(prompt.roles) if name == role]


def cells(prompt: Prompt, components: Iterable[Component]) -> list[Patch]:
    """The components at the positions of their roles; one patch for each site."""
    places: dict[Site, list[int]] = {}
    for component in components:
        places.setdefault(component.site, []).extend(positions(prompt, component.role))
    return list(places.items())


def every_head(loaded: LoadedModel) -> list[Site]:
    return [Site("z", layer, head) for layer in range(loaded.n_layers) for head in range(loaded.n_heads)]


def attributed(loaded: LoadedModel, prompt: Prompt, component: Component, noising: bool) -> float:
    """Attribution patching: the gradient where the patch would be put in, times what the patch would change."""
    donor, receiver = runs(prompt, noising)
    site, at = component.site, positions(prompt, component.role)
    other = activations(loaded, donor, [site])[site]
    own = activations(loaded, receiver, [site])[site].requires_grad_()
    with editing(loaded, site, lambda _activation: own):
        (gradient,) = torch.autograd.grad(difference(loaded, prompt, receiver), own)
    return float(((other - own.detach()) * gradient)[:, at].sum())


def test_prompts_are_minimal_contrasts_that_differ_among_themselves(planted: Planted) -> None:
    assert len({prompt.clean for prompt in planted.prompts}) == len(planted.prompts) >= 4
    assert len({len(prompt.clean) for prompt in planted.prompts}) > 1
    for prompt in planted.prompts:
        assert len(prompt.clean) == len(prompt.corrupted) == len(prompt.tokens) == len(prompt.roles) <= 13
        edited = {i for i, (a, b) in enumerate(zip(prompt.clean, prompt.corrupted, strict=True)) if a != b}
        assert {prompt.roles[position] for position in edited} <= {"other", "key", "name", "left", "right", "asking"}
        assert any(prompt.roles[position] == "other" for position in edited), "no change that does not matter"
        assert planted.loaded.tokenizer.decode(prompt.clean[1:]) == "".join(prompt.tokens[1:])
        assert all(positions(prompt, component.role) for component in planted.components)


def test_the_model_answers_as_planned(planted: Planted) -> None:
    for prompt in planted.prompts:
        with torch.no_grad():
            clean, corrupted = (
                planted.loaded.model(torch.tensor([ids])).logits[0, -1] for ids in (prompt.clean, prompt.corrupted)
            )
        assert int(clean.argmax()) == prompt.answer and int(corrupted.argmax()) == prompt.contrast
        assert float(prompt.logit_difference(clean)) == pytest.approx(GAIN, abs=CLOSE)
        assert float(prompt.logit_difference(corrupted)) == pytest.approx(-GAIN, abs=CLOSE)


def test_the_model_is_one_that_the_package_loads(planted: Planted, tmp_path: Path) -> None:
    """Every site reaches the logits of some token, and the head is one that patching knows."""
    planted.loaded.model.save_pretrained(tmp_path)
    planted.loaded.tokenizer.save_pretrained(tmp_path)
    again = load_model(str(tmp_path))
    assert again.fingerprint == planted.loaded.fingerprint
    recording = record(again, planted.prompts[0].clean, suffixes=False)
    check_head(again, recording.stream[-1, -1], recording.logits)


def test_the_planted_heads_carry_all_of_the_answer(planted: Planted) -> None:
    for prompt in planted.prompts:
        whole = cells(prompt, planted.heads)
        assert patched(planted.loaded, prompt, whole, noising=False) == pytest.approx(GAIN, abs=CLOSE)
        assert patched(planted.loaded, prompt, whole, noising=True) == pytest.approx(-GAIN, abs=CLOSE)


def test_no_other_head_at_no_other_position_carries_anything(planted: Planted) -> None:
    """One by one and all together, although the activations of nearly all of them differ between the runs."""
    loaded = planted.loaded
    heads = every_head(loaded)
    for prompt in planted.prompts[:2]:
        mine = {(site, position) for site, at in cells(prompt, planted.heads) for position in at}
        others = [(head, [p for p in range(len(prompt.clean)) if (head, p) not in mine]) for head in heads]
        for noising, expected in ((False, -GAIN), (True, GAIN)):
            assert patched(loaded, prompt, others, noising) == pytest.approx(expected, abs=CLOSE)
            for other in others:
                assert patched(loaded, prompt, [other], noising) == pytest.approx(expected, abs=CLOSE)
        clean, corrupted = (activations(loaded, ids, heads) for ids in (prompt.clean, prompt.corrupted))
        moved = [bool((clean[head] - corrupted[head])[0, at].abs().max() > 0.1) for head, at in others]
        assert sum(moved) >= 8, "the other heads are idle"


def test_half_of_an_induction_is_half_of_the_answer(make_model: MakeModel) -> None:
    model = named("induction", make_model)
    for prompt in model.prompts:
        for component in model.heads[:2]:
            for noising in (False, True):
                found = patched(model.loaded, prompt, cells(prompt, [component]), noising)
                assert found == pytest.approx(0, abs=CLOSE)
        for noising in (False, True):
            before = patched(model.loaded, prompt, cells(prompt, model.heads[:2]), noising)
            after = patched(model.loaded, prompt, cells(prompt, model.heads[2:]), noising)
            assert (before, after) == pytest.approx((-GAIN, -GAIN) if noising else (GAIN, GAIN), abs=CLOSE)


@pytest.mark.parametrize(("name", "needed"), [("both", 2), ("either", 1)])
def test_denoising_and_noising_one_head_disagree(make_model: MakeModel, name: str, needed: int) -> None:
    """All subsets of the two heads: the answer is given where as many as needed have their clean activation."""
    model = named(name, make_model)
    first, second = model.heads
    for prompt, noising in itertools.product(model.prompts, (False, True)):
        for chosen in ([first], [second], [first, second]):
            clean = 2 - len(chosen) if noising else len(chosen)
            found = patched(model.loaded, prompt, cells(prompt, chosen), noising)
            assert found == pytest.approx(GAIN if clean >= needed else -GAIN, abs=CLOSE)


@pytest.mark.parametrize("name", ["both", "either", "lookup"])
def test_one_link_of_a_chain_is_enough(make_model: MakeModel, name: str) -> None:
    """The joining MLP of the AND and the OR, and every link of the chain of the lookup, both ways."""
    model = named(name, make_model)
    links = model.components if name == "lookup" else model.components[2:]
    for prompt, component in itertools.product(model.prompts, links):
        for noising, expected in ((False, GAIN), (True, -GAIN)):
            found = patched(model.loaded, prompt, cells(prompt, [component]), noising)
            assert found == pytest.approx(expected, abs=CLOSE)


def test_attribution_misses_what_is_above_a_saturated_softmax(make_model: MakeModel) -> None:
    """The exact effect is 2 GAIN for each; the gradients see only the head that writes the answer, at both ends."""
    model = named("lookup", make_model)
    *hidden, writer = model.components
    assert [str(component.site) for component in hidden] == ["z.0.2", "q.2.1"]
    for prompt, noising in itertools.product(model.prompts, (False, True)):
        effect = -2 * GAIN if noising else 2 * GAIN
        for component in hidden:
            assert abs(attributed(model.loaded, prompt, component, noising)) < 0.01 * abs(effect)
        assert attributed(model.loaded, prompt, writer, noising) == pytest.approx(effect, abs=CLOSE)


@pytest.mark.parametrize("name", ["both", "either"])
def test_attribution_misses_heads_before_a_saturated_neuron(make_model: MakeModel, name: str) -> None:
    model = named(name, make_model)
    for prompt, component, noising in itertools.product(model.prompts, model.heads, (False, True)):
        assert abs(attributed(model.loaded, prompt, component, noising)) < 0.01 * 2 * GAIN


def test_attribution_misses_an_effect_that_cancels_unless_the_layer_is_left_out(make_model: MakeModel) -> None:
    """At the corrupted run only: at the clean run the MLP is saturated, and the gradient is that of the direct path."""
    model = named("cancelling", make_model)
    head = model.heads[0]
    direct = 2 * GAIN / (1 - TAKEN_BACK / 2)
    for prompt in model.prompts:
        assert abs(attributed(model.loaded, prompt, head, noising=False)) < 0.01 * 2 * GAIN
        with editing(model.loaded, Site("mlp_out", 1), torch.Tensor.detach):
            assert attributed(model.loaded, prompt, head, noising=False) == pytest.approx(direct, abs=CLOSE)
        assert attributed(model.loaded, prompt, head, noising=True) == pytest.approx(-direct, abs=CLOSE)
        back = -direct * TAKEN_BACK / 2
        found = patched(model.loaded, prompt, cells(prompt, model.components[1:]), noising=False)
        assert found == pytest.approx(-GAIN + back, abs=CLOSE)


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_across_a_pair_the_head_that_one_model_has_is_found_in_the_other(make_model: MakeModel, layer: int) -> None:
    base, model = copying_pair(make_model, layer)
    mine = Site("z", layer, 3)
    assert model.components == (Component(mine, LAST),)
    swapped = copying_pair(make_model, layer)[0]
    swapped.model.model.layers[layer].load_state_dict(model.loaded.model.model.layers[layer].state_dict())
    assert swapped.fingerprint == model.loaded.fingerprint != base.fingerprint
    for prompt in model.prompts:
        last = [len(prompt.clean) - 1]
        for ids, expected in ((prompt.clean, GAIN), (prompt.corrupted, -GAIN)):
            for receiver, own, donor, given in ((base, 0, model.loaded, expected), (model.loaded, expected, base, 0)):
                assert spliced(receiver, prompt, ids, {}, []) == pytest.approx(own, abs=CLOSE)
                rows = activations(donor, ids, every_head(donor))
                for head in every_head(donor):
                    found = spliced(receiver, prompt, ids, rows, [(head, last)])
                    assert found == pytest.approx(given if head == mine else own, abs=CLOSE)
