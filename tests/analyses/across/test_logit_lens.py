"""The logit lens: each layer through the model's own head, the last layer's being what the model says."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ARCHITECTURES
from contrast_prompts import made_prompts
from other_models import state
from test_grafting import PLANTED, planted, planted_prompts

from activations.errors import TwinprobeError
from analyses.across import logit_lens as module
from analyses.across.logit_lens import by_layer, lens_logits, logit_lens
from probes.metrics import cluster_bootstrap

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

LENGTHS = (9, 14, 2, 9, 30, 9, 1)
HEADS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "gemma2": lambda logits: (logits / 30).tanh() * 30,
    "granite": lambda logits: logits / 2,
}
"""What a model does to its logits after the unembedding."""


def texts() -> list[tuple[int, ...]]:
    generator = torch.Generator().manual_seed(1)
    return [tuple(torch.randint(3, 390, (length,), generator=generator).tolist()) for length in LENGTHS]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_layer_through_the_model_s_own_head(tiny: Callable[[str], LoadedModel], architecture: str) -> None:
    loaded = tiny(architecture)
    found = dict(lens_logits(loaded, texts()))
    assert sorted(found) == list(range(len(LENGTHS)))
    for number, ids in enumerate(texts()):
        with torch.no_grad():
            said = loaded.model(torch.tensor([ids]), output_hidden_states=True)
            # The last of these has gone through the final norm already.
            states = torch.stack([state[0, -1] for state in said.hidden_states[1:-1]])
            logits = loaded.module("unembed")(loaded.module("ln_final")(states))
            expected = HEADS.get(architecture, torch.Tensor.contiguous)(logits)
        torch.testing.assert_close(found[number][-1], said.logits[0, -1], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found[number][:-1], expected, atol=1e-5, rtol=1e-5)
        assert (found[number][0] - found[number][-1]).abs().max() > 0.01


def test_batches_stay_within_the_bound(tiny: Callable[[str], LoadedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = tiny("llama")
    whole = dict(lens_logits(loaded, texts()))
    shapes: list[tuple[int, ...]] = []
    handle = loaded.embedding.register_forward_pre_hook(lambda _module, args: shapes.append(tuple(args[0].shape)))
    monkeypatch.setattr(module, "MAX_TOKENS", 26)
    few = dict(lens_logits(loaded, texts()))
    handle.remove()
    assert all(lines == 1 or lines * (length + loaded.n_layers) <= 26 for lines, length in shapes)
    assert len(shapes) > 2
    for number, logits in whole.items():
        torch.testing.assert_close(few[number], logits, atol=1e-5, rtol=1e-5)


def test_rank_and_difference_of_each_text_s_own_answer(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("gemma2")
    given = made_prompts(loaded)
    rows = logit_lens(loaded, given)
    assert len(rows) == 2 * len(given) * loaded.n_layers
    assert not rows.duplicated(["item", "text", "layer"]).any()
    found = rows.set_index(["item", "text", "layer"])
    for prompt in given:
        sides = {"clean": (prompt.clean, prompt.answer, prompt.contrast)}
        sides["corrupted"] = (prompt.corrupted, prompt.contrast, prompt.answer)
        for text, (ids, own, other) in sides.items():
            with torch.no_grad():
                logits = loaded.model(torch.tensor([ids])).logits[0, -1]
            line = found.loc[prompt.item, text, loaded.n_layers - 1]
            assert line.logit_difference == pytest.approx(float(logits[own] - logits[other]), abs=1e-5)
            assert line["rank"] == logits.argsort(descending=True).tolist().index(own) + 1
            assert (line.group, line.difficulty) == (prompt.group, prompt.difficulty)


def test_a_planted_answer_appears_at_its_layer(make_model: MakeModel) -> None:
    rows = logit_lens(planted(make_model, 1, knows=True), planted_prompts())
    before, after = rows[rows.layer < PLANTED], rows[rows.layer >= PLANTED]
    assert (before.logit_difference == 0).all()
    assert (after.logit_difference > 0.1).all()
    found = by_layer(rows, clusters="item", n_resamples=50)
    assert found.layer.tolist() == [0, 1, 2]
    assert found.median_rank[PLANTED] < found.median_rank[0]
    assert (logit_lens(planted(make_model, 0, knows=False), planted_prompts()).logit_difference == 0).all()


def test_layers_are_summed_up_with_intervals(tiny: Callable[[str], LoadedModel]) -> None:
    given = made_prompts(tiny("llama"))
    rows = logit_lens(tiny("llama"), given)
    found = by_layer(rows, clusters="group", n_resamples=100, seed=5)
    line, part = found.iloc[1], rows[rows.layer == 1]
    expected = cluster_bootstrap(part.logit_difference.to_numpy(), part.group.to_numpy(), 100, 5)
    assert [line.logit_difference, line.low, line.high] == [expected.estimate, expected.low, expected.high]
    assert (line.prompts, line.clusters) == (len(given), 3)
    assert line.median_rank == np.median(part["rank"])
    assert line["first"] == np.mean(part["rank"] == 1)


def test_no_prompts_no_lines(tiny: Callable[[str], LoadedModel]) -> None:
    pd.testing.assert_frame_equal(logit_lens(tiny("llama"), []), pd.DataFrame())


def test_half_precision(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    loaded.model.to(torch.bfloat16)
    for number, logits in lens_logits(loaded, texts()):
        with torch.no_grad():
            expected = loaded.model(torch.tensor([texts()[number]])).logits[0, -1]
        assert (logits[-1] - expected).abs().max() < 0.1


def test_the_model_is_left_as_it_was_also_after_an_error(make_model: MakeModel) -> None:
    loaded = make_model("gpt2")
    before = state(loaded)
    list(lens_logits(loaded, texts()))
    with pytest.raises(IndexError):
        list(lens_logits(loaded, [(3, 99_999)]))
    assert state(loaded) == before


def refused(loaded: LoadedModel) -> str:
    with pytest.raises(TwinprobeError) as caught:
        list(lens_logits(loaded, texts()))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_encoders_are_refused(make_model: MakeModel) -> None:
    assert "is an encoder" in refused(make_model("roberta"))


def test_what_comes_between_norm_and_head_is_refused(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    # As MiniCPM does in its own code.
    loaded.module("unembed").register_forward_pre_hook(lambda _module, args: (args[0] / 4,))
    assert "the logit lens of LlamaForCausalLM is not exact" in refused(loaded)
