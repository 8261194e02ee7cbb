"""The nnsight engine: what is read where, and the way to NDIF as far as it goes without a network."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from parity import batch, every_name, refusal

from activations.engines import nnsight as module
from activations.engines import whole
from activations.engines.hooks import HooksEngine
from activations.engines.nnsight import NnsightEngine
from activations.errors import TwinprobeError
from activations.inputs import encode, pad
from activations.loaded import ModelSpec, wrap
from activations.models import load_model
from activations.rows import RowRule, selection
from activations.sites import Site

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.loaded import LoadedModel
    from activations.texts import Text

Tiny = Callable[[str], "LoadedModel"]


def resident() -> float:
    """Megabytes of memory this process holds."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def test_sites_may_be_asked_for_in_any_order(tiny: Tiny) -> None:
    loaded = tiny("t5")
    hooks, engine = HooksEngine(loaded), NnsightEngine(loaded)
    sites = [site for some in every_name(loaded).values() for site in some if refusal(engine, site) is None]
    expected = hooks.forward(*batch(loaded), sites)
    for order in (sites, sites[::-1], [*sites, *sites]):
        found = engine.forward(*batch(loaded), order)
        assert set(found) == set(sites)
        assert all(torch.equal(found[site], expected[site]) for site in sites)


def test_rows_are_chosen_inside_the_trace(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    ran: list[int] = []
    for layer, block in enumerate(loaded.model.model.layers):
        block.register_forward_hook(lambda *_args, layer=layer: ran.append(layer))
    seen: list[tuple[int, ...]] = []

    def last(rows: torch.Tensor) -> torch.Tensor:
        seen.append((len(ran), *rows.shape))
        return rows[:, -1].clone()

    engine = NnsightEngine(loaded)
    found = engine.forward(*batch(loaded), loaded.sites("z.0,k.1.0"), last)
    assert seen == [(0, 4, 9, 16), (1, 4, 9, 4)]  # before block 0, and before block 1, had run to their ends
    assert {str(site): tuple(rows.shape) for site, rows in found.items()} == {"z.0": (4, 16), "k.1.0": (4, 4)}
    assert ran == [0]
    engine.forward(*batch(loaded), loaded.sites("ln_final"))
    assert ran == [0, 0, 1, 2]


def test_an_error_in_the_choice_of_rows_comes_through(tiny: Tiny) -> None:
    engine = NnsightEngine(tiny("llama"))

    def fail(_rows: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("in the choice")

    with pytest.raises(ArithmeticError, match="in the choice"):
        engine.forward(*batch(engine.loaded), [Site("z", 1)], fail)
    assert engine.forward(*batch(engine.loaded), [Site("z", 1)])[Site("z", 1)].shape == (4, 9, 16)


def test_an_architecture_of_another_order_is_named(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ORDER", module.ORDER[::-1])
    engine = NnsightEngine(tiny("llama"))
    with pytest.raises(TwinprobeError, match="comes to the sites in another order, ask for them one at a time"):
        engine.forward(*batch(engine.loaded), engine.loaded.sites("q.1,resid_post.1"))


def test_memory_does_not_grow_with_the_traces() -> None:
    loaded = load_model("embedded:code", check=False)
    engine, sites = NnsightEngine(loaded), loaded.sites("resid_post.*,z.*")
    ids = torch.arange(8 * 64).view(8, 64)
    for _ in range(5):
        found = engine.forward(ids, torch.ones_like(ids), sites)
    megabytes = sum(rows.numel() * rows.element_size() for rows in found.values()) / 1e6
    before = resident()
    for _ in range(50):
        engine.forward(ids, torch.ones_like(ids), sites)
    assert resident() - before < 10 * megabytes < 50 * megabytes


@pytest.fixture
def same_path() -> Iterator[None]:
    """nnsight's dry run takes entries out of sys.path and puts them back in another order."""
    before = list(sys.path)
    yield
    sys.path[:] = before


def saved(loaded: LoadedModel, folder: Path) -> LoadedModel:
    """The model under a name that holds its weights."""
    if loaded.kind == "encoder":
        loaded.tokenizer.add_special_tokens({"mask_token": "<|mask|>"})
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return load_model(ModelSpec(str(folder)), check=False)


@pytest.mark.usefixtures("same_path")
@pytest.mark.filterwarnings("ignore:Module .* has a submodule named")  # said where the weights are loaded
@pytest.mark.parametrize("architecture", ["llama", "neox-parallel", "qwen2-moe", "roberta"])
def test_a_request_runs_where_this_package_is_not(
    make_model: MakeModel, sample_texts: list[Text], tmp_path: Path, architecture: str
) -> None:
    loaded = saved(make_model(architecture), tmp_path)
    encoded = encode(loaded.tokenizer, sample_texts, True, loaded.context, loaded.closing)
    ids, mask = pad([item.tokens for item in encoded], 2, loaded.device)
    engine, hooks = NnsightEngine(loaded, remote="local"), HooksEngine(loaded)
    sites = [site for some in every_name(loaded).values() for site in some if refusal(engine, site) is None]
    spans = selection([RowRule("spans", "mean").plan(item) for item in encoded], "mean")
    for select in (spans, whole):
        found, expected = engine.forward(ids, mask, sites, select), hooks.forward(ids, mask, sites, select)
        for site in sites:
            a, b = (rows if select is spans else rows[mask.bool()] for rows in (found[site], expected[site]))
            assert torch.equal(a, b), site
    assert type(engine._model).__name__ == "TransformersModel"


@pytest.mark.usefixtures("same_path")
def test_a_request_needs_no_weights_here(model_folder: Path) -> None:
    import transformers

    config = transformers.AutoConfig.from_pretrained(model_folder)
    with torch.device("meta"):
        skeleton = transformers.AutoModelForCausalLM.from_config(config)
    here = load_model(str(model_folder), check=False)
    bare = wrap(skeleton, here.tokenizer, str(model_folder))
    sites = here.sites("resid_post.*,z.1.2,ln_final")
    found = NnsightEngine(bare, remote="local").forward(*batch(here), sites)
    expected = HooksEngine(here).forward(*batch(here), sites)
    real = batch(here)[1].bool()
    assert all(torch.equal(found[site][real], expected[site][real]) for site in sites)


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("org/name", None, "NDIF needs a key and none is set; set NDIF_API_KEY"),
        ("embedded:code", "a-key", "'embedded:code' is on this machine, but NDIF runs models of the Hub"),
        ("tests", "a-key", "'tests' is on this machine"),
        ("org/name", "a-key", "NDIF did not run org/name: OSError: .*offline"),
    ],
)
def test_what_keeps_ndif_from_running_is_said(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, name: str, key: str | None, message: str
) -> None:
    import nnsight

    monkeypatch.chdir(Path(__file__).parents[3])
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", key)
    loaded = tiny("llama")
    engine = NnsightEngine(replace(loaded, spec=replace(loaded.spec, name=name)), remote=True)
    with pytest.raises(TwinprobeError, match=message):
        engine.forward(*batch(loaded), [Site("z", 1)])


def test_an_encoder_decoder_does_not_run_remotely(tiny: Tiny) -> None:
    with pytest.raises(TwinprobeError, match="tiny-t5 is an encoder-decoder, which nnsight can not run remotely"):
        NnsightEngine(tiny("t5"), remote="local").check(Site("z", 1, stack="encoder"))


def test_without_nnsight_the_engine_says_what_to_install(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nnsight", None)
    with pytest.raises(TwinprobeError, match="needs nnsight, which is not installed; pip install nnsight"):
        NnsightEngine(tiny("llama")).check(Site("z", 1))
