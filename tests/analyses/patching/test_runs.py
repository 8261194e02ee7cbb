"""Exact patching: equal to plain forward passes with a hook, and to TransformerLens' own sweep, on every architecture."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from conftest import ARCHITECTURES

from activations.errors import TwinprobeError
from activations.models import fingerprint
from analyses.patching import runs
from analyses.patching.runs import Cell, Run, check_head, differing_cells, hooked_logits, patched_logits, run

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

CLEAN = (0, 40, 51, 62, 73, 84, 95, 106, 117)
CORRUPTED = (0, 40, 51, 200, 73, 210, 95, 106, 117)
FIRST_DIFFERENCE = 3
WINDOWED = {"gemma2": {"sliding_window": 4}}  # so that the layers of one model are called with different masks


@dataclass(frozen=True)
class Case:
    loaded: LoadedModel
    clean: Run
    corrupted: Run

    @property
    def cells(self) -> list[Cell]:
        return [Cell(layer, (position,)) for layer in range(self.loaded.n_layers) for position in range(len(CLEAN))]

    def patch(self, cells: list[Cell]) -> torch.Tensor:
        return patched_logits(self.loaded, self.corrupted, self.clean.resid_pre, cells)


def case_of(loaded: LoadedModel) -> Case:
    return Case(loaded, run(loaded, CLEAN), run(loaded, CORRUPTED))


@pytest.fixture(scope="module", params=ARCHITECTURES)
def case(request: pytest.FixtureRequest, make_model: MakeModel) -> Case:
    return case_of(make_model(request.param, **WINDOWED.get(request.param, {})))


def plain_logits(loaded: LoadedModel, ids: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        return loaded.model(torch.tensor([ids])).logits[0, -1]


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    assert found.shape == expected.shape
    return float((found - expected).abs().max())


def state(loaded: LoadedModel) -> tuple[Any, ...]:
    """What patching could leave traces in."""
    modules = dict(loaded.model.named_modules())
    return (
        fingerprint(loaded.model),
        {name: (type(module), sorted(vars(module)), module.training) for name, module in modules.items()},
        {
            (name, kind): list(hooks.items())
            for name, module in modules.items()
            for kind, hooks in vars(module).items()
            if "hook" in kind and isinstance(hooks, dict)
        },
        loaded.model.config.to_json_string(),
        loaded.tokenizer.backend_tokenizer.to_str(),
    )


def test_a_run_records_the_model_s_own_forward_pass(case: Case) -> None:
    assert error(case.clean.logits, plain_logits(case.loaded, CLEAN)) < 1e-6
    with torch.no_grad():
        states = case.loaded.model(torch.tensor([CLEAN]), output_hidden_states=True).hidden_states
    assert error(case.clean.resid_pre, torch.cat(states[:-1])) < 1e-5
    check_head(case.loaded, case.clean)


def test_an_identity_patch_changes_nothing(case: Case) -> None:
    everywhere = tuple(range(len(CORRUPTED)))
    cells = [*case.cells, *(Cell(layer, everywhere) for layer in range(case.loaded.n_layers)), Cell(0, ())]
    found = patched_logits(case.loaded, case.corrupted, case.corrupted.resid_pre, cells)
    expected = plain_logits(case.loaded, CORRUPTED)
    assert error(found, expected.expand(len(cells), -1)) < 1e-6 * max(1, float(expected.abs().max()))


def test_all_positions_of_a_layer_give_the_clean_logits(case: Case) -> None:
    cells = [Cell(layer, tuple(range(len(CLEAN)))) for layer in range(case.loaded.n_layers)]
    expected = plain_logits(case.loaded, CLEAN)
    assert error(case.corrupted.logits, expected) > 0.1, "nothing to restore"
    assert error(case.patch(cells), expected.expand(len(cells), -1)) < 1e-5


def test_the_map_is_transformer_lens_own(case: Case) -> None:
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module
    from transformer_lens.patching import get_act_patch_resid_pre

    hf = copy.deepcopy(case.loaded.model)
    bridge = build_bridge_from_module(hf, type(hf).__name__, hf_config=hf.config)
    answer, contrast = 300, 310
    with torch.no_grad():
        _, cache = bridge.run_with_cache(torch.tensor([CLEAN]))
        expected = get_act_patch_resid_pre(
            bridge, torch.tensor([CORRUPTED]), cache, lambda logits: logits[0, -1, answer] - logits[0, -1, contrast]
        )
    found = case.patch(case.cells)
    found = (found[:, answer] - found[:, contrast]).reshape(case.loaded.n_layers, len(CLEAN))
    assert error(found, expected) < 1e-5
    before = case.corrupted.logits[answer] - case.corrupted.logits[contrast]
    assert ((expected - before).abs() > 0.01).sum() >= 8, "the map is flat"


def test_the_map_is_that_of_plain_forward_passes(case: Case) -> None:
    cells = [*case.cells, Cell(1, (3, 5)), Cell(2, (0, 3, 4, 8))]
    expected = torch.stack([hooked_logits(case.loaded, case.corrupted, case.clean.resid_pre, cell) for cell in cells])
    assert error(case.patch(cells), expected) < 1e-5
    assert error(case.corrupted.logits.expand(len(cells), -1), expected) > 0.1


@pytest.mark.parametrize("row_tokens", [1, 20, 70])
def test_cells_in_chunks_and_in_any_order_give_the_same(
    case: Case, monkeypatch: pytest.MonkeyPatch, row_tokens: int
) -> None:
    whole = case.patch(case.cells)
    order = torch.randperm(len(case.cells), generator=torch.Generator().manual_seed(row_tokens)).tolist()
    sizes: list[int] = []
    last = case.loaded.module(f"blocks.{case.loaded.n_layers - 1}")
    handle = last.register_forward_pre_hook(
        lambda _m, args, kwargs: sizes.append(len(args[0] if args else kwargs["hidden_states"])), with_kwargs=True
    )
    monkeypatch.setattr(runs, "MAX_ROW_TOKENS", row_tokens)
    chunked = case.patch([case.cells[index] for index in order])
    handle.remove()
    assert error(chunked, whole[order]) < 1e-5
    assert sum(sizes) == len(case.cells)
    assert max(sizes) == max(1, row_tokens // len(CLEAN))


def test_no_cells_no_logits(case: Case) -> None:
    assert case.patch([]).shape == (0, case.corrupted.logits.shape[-1])


def test_only_cells_that_differ_are_listed(case: Case) -> None:
    """Causal attention: nothing before the first edited token can differ, and above the embedding all after it does."""
    listed = {(cell.layer, *cell.positions) for cell in differing_cells(case.clean, case.corrupted)}
    edited = {position for position in range(len(CLEAN)) if CLEAN[position] != CORRUPTED[position]}
    above = {(layer, p) for layer in (1, 2) for p in range(FIRST_DIFFERENCE, len(CLEAN))}
    assert listed == {(0, position) for position in edited} | above
    assert differing_cells(case.clean, case.clean) == []
    nudged = case.clean.resid_pre.clone()
    nudged[1, 4, 2] = torch.nextafter(nudged[1, 4, 2], torch.tensor(9.0))
    assert differing_cells(case.clean, replace(case.clean, resid_pre=nudged)) == [Cell(1, (4,))]


def test_the_model_and_tokenizer_are_untouched(case: Case) -> None:
    before = state(case.loaded)
    again = case_of(case.loaded)
    again.patch(again.cells)
    hooked_logits(case.loaded, again.corrupted, again.clean.resid_pre, Cell(1, (3,)))
    check_head(case.loaded, again.clean)
    assert state(case.loaded) == before


def test_hooks_are_removed_after_an_error(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    before = state(loaded)
    with pytest.raises(IndexError):
        run(loaded, (3, 99_999))
    good = run(loaded, (3, 4))
    with pytest.raises(IndexError):
        hooked_logits(loaded, good, good.resid_pre, Cell(1, (7,)))
    assert state(loaded) == before


def test_a_donor_of_another_shape_is_refused(tiny: Callable[[str], LoadedModel], make_model: MakeModel) -> None:
    loaded = tiny("llama")
    corrupted = run(loaded, CORRUPTED)
    deeper = make_model("llama", num_hidden_layers=4)
    donors = {
        "3 layers × 8 tokens × width 16": run(loaded, CLEAN[:-1]),
        "4 layers × 9 tokens × width 16": run(deeper, CLEAN),
    }
    for received, donor in donors.items():
        with pytest.raises(TwinprobeError) as caught:
            patched_logits(loaded, corrupted, donor.resid_pre, [Cell(0, (1,))])
        assert "\n" not in str(caught.value)
        assert f"the donor run has {received}, the corrupted run 3 layers × 9 tokens × width 16" in str(caught.value)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_patched_too(make_model: MakeModel, dtype: str) -> None:
    loaded = make_model("llama")
    loaded.model.to(getattr(torch, dtype))
    case = case_of(loaded)
    check_head(loaded, case.clean)
    expected = torch.stack([hooked_logits(loaded, case.corrupted, case.clean.resid_pre, cell) for cell in case.cells])
    found = case.patch(case.cells)
    assert found.dtype == getattr(torch, dtype)
    assert error(found.float(), expected.float()) < (0.1 if dtype == "bfloat16" else 0.02)


def test_an_explicit_attention_mask_is_passed_on(make_model: MakeModel) -> None:
    """The eager kernel gets a mask tensor made for one row; SDPA may get none."""
    eager, sdpa = (case_of(make_model("qwen2", attn_implementation=kernel)) for kernel in ("eager", "sdpa"))
    assert eager.loaded.model.config._attn_implementation == "eager"
    assert eager.clean.calls[0][1]["attention_mask"] is not None
    assert error(eager.patch(eager.cells), sdpa.patch(sdpa.cells)) < 1e-5


SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 397,
}
REGISTERED = {
    "GemmaConfig": {**SMALL, "num_key_value_heads": 1, "head_dim": 4},
    "GraniteConfig": {
        **SMALL, "logits_scaling": 8.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.7,
        "attention_multiplier": 0.3,
    },
    "Starcoder2Config": {**SMALL, "num_key_value_heads": 2},
    "GPTBigCodeConfig": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 96, "vocab_size": 397},
    "MistralConfig": {**SMALL, "num_key_value_heads": 2, "sliding_window": 4},
}  # fmt: skip


def other_model(tiny: Callable[[str], LoadedModel], name: str, fields: dict[str, Any]) -> LoadedModel:
    import transformers

    from activations.models import wrap

    config = getattr(transformers, name)(**fields, initializer_range=0.2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return wrap(transformers.AutoModelForCausalLM.from_config(config), tiny("llama").tokenizer, name)


@pytest.mark.parametrize("name", REGISTERED)
def test_the_other_architectures_of_the_registry_are_exact(tiny: Callable[[str], LoadedModel], name: str) -> None:
    case = case_of(other_model(tiny, name, REGISTERED[name]))
    check_head(case.loaded, case.clean)
    expected = torch.stack(
        [hooked_logits(case.loaded, case.corrupted, case.clean.resid_pre, cell) for cell in case.cells]
    )
    assert error(case.patch(case.cells), expected) < 1e-5
    assert error(case.corrupted.logits.expand(len(case.cells), -1), expected) > 0.01


def test_logits_that_are_not_accounted_for_are_refused(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = other_model(tiny, "CohereConfig", {**SMALL, "logit_scale": 0.0625})
    with pytest.raises(TwinprobeError) as caught:
        check_head(loaded, run(loaded, CLEAN))
    assert "patching CohereForCausalLM is not exact" in str(caught.value)
    assert "\n" not in str(caught.value)
