"""Donors of another space: where plain patching breaks the receiver, the mapped activation brings the answer."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from other_models import state
from planted_models import D_HEAD, EPSILON, FILLERS, GAIN, LAST, LAYERS, LETTERS, ONE, Planted, copying

from activations.errors import TwinprobeError
from activations.models import wrap
from activations.sites import Site
from activations.texts import Text
from analyses.across.compatibility import same_prompts
from analyses.across.cross_patching import cross_patch
from analyses.across.mapped_donor import SiteMap, fit_donor, mapped_patch
from analyses.patching.grids import Grid
from probes.tasks.items import Contrast, Form, Item

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

GRIDS = [Grid("resid_post", "role"), Grid("resid_post", "all")]
NAMES = ("receiver", "giver")
WIDE = 72


def turned(make_model: MakeModel, loaded: LoadedModel, width: int, seed: int = 0) -> LoadedModel:
    """The same model with its residual stream in other coordinates, which may be more than it needs."""
    old: Any = loaded.model
    config = old.config.to_dict() | {"hidden_size": width, "head_dim": D_HEAD}
    kept = ("intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "rms_norm_eps")
    fields = {name: config[name] for name in (*kept, "hidden_size", "head_dim", "rope_parameters")}
    made = make_model("llama", tie_word_embeddings=False, **fields)
    new: Any = made.model
    basis = np.linalg.qr(np.random.default_rng(seed).normal(size=(width, old.config.hidden_size)))[0].T
    turn = torch.tensor(basis, dtype=torch.float64)
    ours = dict(new.named_parameters())
    with torch.no_grad():
        for name, weight in old.named_parameters():
            if "norm" in name:
                # The size of the stream is spread over more dimensions; epsilon makes that of no account.
                changed = torch.full_like(ours[name], EPSILON**0.5)
            elif name.endswith(("o_proj.weight", "down_proj.weight")):
                changed = (turn.T @ weight.double()).float()
            else:
                changed = (weight.double() @ turn).float()
            ours[name].copy_(changed)
    return wrap(new, made.tokenizer, "turned")


@pytest.fixture(scope="module")
def code(make_model: MakeModel) -> Planted:
    return copying(make_model)


@pytest.fixture(scope="module")
def deaf(make_model: MakeModel) -> LoadedModel:
    """The same model, but for the token that all prompts end in: there it asks for no letter, and copies none."""
    loaded = copying(make_model).loaded
    body: Any = loaded.model.model
    body.embed_tokens.weight.data[loaded.tokenizer.convert_tokens_to_ids("v"), ONE] = -1
    return loaded


@pytest.fixture(scope="module")
def neutral() -> list[Text]:
    """Letters among fillers; none ends like a prompt."""
    draw = random.Random(0)
    words = ["".join(draw.choices(LETTERS + 2 * FILLERS, k=24)) for _ in range(30)]
    return [Text(f"t{number}", word) for number, word in enumerate(words)]


def at_last(cells: pd.DataFrame, donor: str) -> pd.DataFrame:
    """The cells of the last position: at the bottom, the deaf model is given the question, and above it the answer."""
    return cells[(cells.donor == donor) & (cells.role == LAST)]


@pytest.mark.parametrize("width", [64, WIDE])
def test_a_turned_model_is_the_same_model(make_model: MakeModel, code: Planted, width: int) -> None:
    other = turned(make_model, code.loaded, width)
    ids = torch.tensor([code.prompts[0].clean])
    with torch.no_grad():
        expected = code.loaded.model(ids).logits
        assert float((other.model(ids).logits - expected).abs().max()) < 1e-3 * float(expected.abs().max())


@pytest.mark.parametrize("width", [64, WIDE])
def test_the_map_brings_the_answer(
    make_model: MakeModel, code: Planted, deaf: LoadedModel, neutral: list[Text], width: int
) -> None:
    receiver = turned(make_model, deaf, width)
    maps = fit_donor(receiver, code.loaded, neutral, bos=True)
    found = mapped_patch(receiver, code.loaded, code.prompts, GRIDS, maps, names=NAMES)
    assert set(found.cells.donor) == {"mapped", "random_map", "identity", "random"}
    assert found.checked == 3 and found.max_error < 1e-3
    assert (found.cells[found.cells.donor == "identity"].effect == 0).all()
    brought = at_last(found.cells, "mapped")
    assert len(brought) == LAYERS * len(code.prompts)
    assert brought.gap.to_numpy() == pytest.approx(GAIN, abs=0.1)
    assert brought.recovery.to_numpy() == pytest.approx(1, abs=0.1)
    assert brought.right_after.all() and not brought.right_before.all()
    assert found.cells.query("donor == 'mapped' and role == 'name'").recovery.abs().max() < 0.1
    for control in ("random_map", "random"):
        foreign = at_last(found.cells, control)
        assert foreign[foreign["layer"] > 0].recovery.mean() < 0.3
        assert not foreign[foreign["layer"] > 0].right_after.any()


def test_plain_patching_breaks_what_the_map_leaves_whole(
    make_model: MakeModel, code: Planted, neutral: list[Text]
) -> None:
    """Between two models that are the same but for their coordinates, an exchange should change nothing."""
    receiver = turned(make_model, code.loaded, 64)
    plain = cross_patch(receiver, code.loaded, code.prompts, GRIDS, names=NAMES).cells
    assert plain.gap.abs().max() < 0.01
    assert at_last(plain, "other").effect.max() < -0.5 * GAIN
    maps = fit_donor(receiver, code.loaded, neutral, bos=True)
    mapped = mapped_patch(receiver, code.loaded, code.prompts, GRIDS, maps, names=NAMES).cells
    same = mapped[mapped.donor == "mapped"]
    assert same.effect.abs().max() < 0.02 * GAIN and same.right_after.all()


def test_layers_meet_at_the_same_relative_depth(make_model: MakeModel, neutral: list[Text]) -> None:
    shallow, deep = make_model("llama"), make_model("gpt2", n_layer=6, n_embd=24)
    before = [state(each) for each in (shallow, deep)]
    sites = ("resid_pre", "resid_post")
    found = {str(at): str(each.site) for at, each in fit_donor(shallow, deep, neutral, sites, bos=False).items()}
    assert found == {
        "resid_pre.0": "resid_pre.0", "resid_pre.1": "resid_pre.2", "resid_pre.2": "resid_pre.4",
        "resid_post.0": "resid_post.1", "resid_post.1": "resid_post.3", "resid_post.2": "resid_post.5",
    }  # fmt: skip
    maps = fit_donor(deep, shallow, neutral, bos=False)
    assert [str(maps[Site("resid_post", layer)].site) for layer in range(6)] == [
        f"resid_post.{layer}" for layer in (0, 0, 1, 1, 2, 2)
    ]
    assert maps[Site("resid_post", 0)].fitted.rotation.shape == (16, 24)
    assert [state(each) for each in (shallow, deep)] == before


def test_what_can_not_be_mapped_is_refused(make_model: MakeModel, code: Planted, neutral: list[Text]) -> None:
    one, other = make_model("llama"), make_model("llama", seed=1)
    for texts, sites, said in (
        (neutral, ["z"], "site 'z' can not be mapped; expected resid_pre or resid_post"),
        ([Text("t", "AkBl")], ["resid_post"], "tokens of neutral text to map a space of width 16"),
    ):
        with pytest.raises(TwinprobeError, match=said):
            fit_donor(one, other, texts, sites, bos=True)
    maps: dict[Site, SiteMap] = fit_donor(one, other, neutral, bos=True)
    with pytest.raises(TwinprobeError, match="no map was fitted for 'z'; there are maps for: resid_post"):
        mapped_patch(one, other, code.prompts, [Grid("z", "all")], maps, names=NAMES)


def test_prompts_need_the_same_tokens_and_not_the_same_shape(make_model: MakeModel) -> None:
    text = 'the {} is in the "'
    contrast = Contrast(text.format("name"), "name")
    item = Item("one", "made", "test", "g", 1, {"prose": Form(text.format("coin"), (), "box", (), contrast)})
    models = make_model("llama"), make_model("gpt2", n_embd=24)
    assert [prompt.item for prompt in same_prompts(*models, [item], "prose", bos=True)[0]] == ["one"]
    tokenizer = make_model("llama").tokenizer
    backend = tokenizer.backend_tokenizer
    from tokenizers import normalizers

    backend.normalizer = normalizers.Replace("coin", "sea")
    reading_otherwise = wrap(models[0].model, tokenizer, "other")
    with pytest.raises(TwinprobeError, match="do not read form 'prose' as the same tokens"):
        same_prompts(models[0], reading_otherwise, [item], "prose", bos=True)
    with pytest.raises(TwinprobeError, match="do not read neutral text 'n' as the same tokens"):
        fit_donor(models[0], reading_otherwise, [Text("n", "a coin")], bos=True)
