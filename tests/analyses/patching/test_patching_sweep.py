"""The sweep over items: who is retained, what every cell holds, and a planted circuit that must be found."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch

from activations.texts import Span
from analyses.patching.runs import Cell, hooked_logits, run
from analyses.patching.sweep import MIN_GAP, Patching, by_role, patch_prompts
from analyses.prompts import Prompt, prompts
from probes.metrics import cluster_bootstrap
from probes.tasks.items import Contrast, Form, Item

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

KINDS = ("right", "right", "right", "small gap", "clean wrong", "corrupted wrong", "third wins")
LENGTH = 7


def answers(kind: str, clean: torch.Tensor, corrupted: torch.Tensor) -> tuple[int, int, tuple[int, ...]]:
    """Two answers and a third candidate for which a random model behaves as ``kind`` says."""
    rng = np.random.default_rng(int(abs(clean.sum()) * 1e6) % 2**32)
    while True:
        answer, contrast, third = (int(token) for token in rng.choice(len(clean), 3, replace=False))
        high, low = (float(logits[answer] - logits[contrast]) for logits in (clean, corrupted))
        beaten = all(logits[third] < max(logits[answer], logits[contrast]) for logits in (clean, corrupted))
        fits = {
            "right": high > 0 > low and high - low > 2 * MIN_GAP and beaten,
            "small gap": high > 0 > low and high - low < MIN_GAP and beaten,
            "clean wrong": high < 0 and low < 0 and beaten,
            "corrupted wrong": high > 0 and low > 0 and beaten,
            "third wins": high > 0 > low and clean[third] > clean[answer],
        }
        if fits[kind]:
            return answer, contrast, (answer, contrast, third)


def made_prompts(loaded: LoadedModel) -> list[Prompt]:
    rng = np.random.default_rng(0)
    made = []
    for number, kind in enumerate(KINDS * 2):
        clean = [0, *rng.integers(3, 390, LENGTH - 1).tolist()]
        corrupted = list(clean)
        for position in (2, 4):
            corrupted[position] = int(rng.integers(3, 390))
        with torch.no_grad():
            answer, contrast, candidates = answers(
                kind, *(loaded.model(torch.tensor([ids])).logits[0, -1] for ids in (clean, corrupted))
            )
        roles = ("other", "other", "definition", "other", "definition", "query", "last")
        made.append(
            Prompt(
                f"{kind} {number}", f"group {number % 3}", number % 4, tuple(clean), tuple(corrupted), answer, contrast,
                candidates, tuple(f"token {token}" for token in clean), roles,
            )
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def loaded(tiny: Callable[[str], LoadedModel]) -> LoadedModel:
    return tiny("llama")


@pytest.fixture(scope="module")
def given(loaded: LoadedModel) -> list[Prompt]:
    return made_prompts(loaded)


@pytest.fixture(scope="module")
def found(loaded: LoadedModel, given: list[Prompt]) -> Patching:
    return patch_prompts(loaded, given, max_items=4, check_exact=3, seed=1)


def test_only_items_right_in_both_texts_are_patched(found: Patching, given: list[Prompt]) -> None:
    expected = {
        "small gap": "gap too small", "clean wrong": "answered wrongly", "corrupted wrong": "answered wrongly",
        "third wins": "answered wrongly",
    }  # fmt: skip
    table = found.retention.set_index("item")
    assert list(table.index) == [prompt.item for prompt in given]
    for prompt in given:
        kind = prompt.item.rpartition(" ")[0]
        assert kind == "right" or table.status[prompt.item] == expected[kind]
    right = [prompt.item for prompt in given if prompt.item.startswith("right")]
    assert table.status[right].tolist() == ["retained"] * 4 + ["retained, not patched"] * 2
    assert found.cells["item"].unique().tolist() == right[:4]
    assert table.status.value_counts().sum() == len(given)
    assert table.status.value_counts().to_dict() == {
        "answered wrongly": 6, "retained": 4, "gap too small": 2, "retained, not patched": 2,
    }  # fmt: skip


def test_retention_is_what_the_model_itself_says(loaded: LoadedModel, found: Patching, given: list[Prompt]) -> None:
    for prompt, line in zip(given, found.retention.itertuples(), strict=True):
        with torch.no_grad():
            clean, corrupted = (
                loaded.model(torch.tensor([ids])).logits[0, -1] for ids in (prompt.clean, prompt.corrupted)
            )
        candidates = list(prompt.candidates)
        assert line.clean_right == (candidates[int(clean[candidates].argmax())] == prompt.answer)
        assert line.corrupted_right == (candidates[int(corrupted[candidates].argmax())] == prompt.contrast)
        high, low = (float(logits[prompt.answer] - logits[prompt.contrast]) for logits in (clean, corrupted))
        assert (line.clean, line.corrupted, line.gap) == pytest.approx((high, low, high - low), abs=1e-5)
        assert (line.group, line.difficulty) == (prompt.group, prompt.difficulty)


def test_every_cell_is_that_of_a_plain_forward_pass(loaded: LoadedModel, found: Patching, given: list[Prompt]) -> None:
    assert len(found.cells) == 4 * loaded.n_layers * LENGTH
    assert found.max_error < 1e-4
    assert found.checked == 3
    gaps = found.retention.set_index("item").gap
    by_name = {prompt.item: prompt for prompt in given}
    for line in found.cells.itertuples():
        prompt = by_name[line.item]
        clean, corrupted = run(loaded, prompt.clean), run(loaded, prompt.corrupted)
        patched = hooked_logits(loaded, corrupted, clean.resid_pre, Cell(line.layer, (line.position,)))
        expected = float(prompt.logit_difference(patched) - prompt.logit_difference(corrupted.logits))
        assert line.effect == pytest.approx(expected, abs=1e-5)
        assert line.recovery == pytest.approx(line.effect / gaps[line.item])
        assert (line.group, line.token, line.role) == (
            prompt.group, prompt.tokens[line.position], prompt.roles[line.position],
        )  # fmt: skip


def test_where_the_runs_are_equal_the_effect_is_exactly_zero(found: Patching) -> None:
    cells = found.cells
    same = (cells.position < 2) | ((cells.layer == 0) & ~cells.position.isin([2, 4]))
    assert (cells.effect[same] == 0).all()
    assert (cells.recovery[same] == 0).all()
    above = (cells.layer > 0) & (cells.position >= 2)
    assert (cells.effect[above].abs() > 1e-3).mean() > 0.3


def test_roles_are_averaged_over_tokens_then_items(found: Patching) -> None:
    table = by_role(found.cells, seed=3, n_resamples=200)
    assert len(table) == 3 * len({"other", "definition", "query", "last"})
    for line in table.itertuples():
        items = []
        for item in found.cells["item"].unique():
            values = [
                cell.recovery
                for cell in found.cells.itertuples()
                if (cell.item, cell.layer, cell.role) == (item, line.layer, line.role)
            ]
            assert len(values) == {"other": 3, "definition": 2, "query": 1, "last": 1}[line.role]
            items.append(sum(values) / len(values))
        assert line.recovery == pytest.approx(sum(items) / 4)
        assert line.items == 4
        interval = cluster_bootstrap(items, list("abcd"), 200, 3)
        assert (line.low, line.high) == pytest.approx((interval.low, interval.high))
    # an item with more tokens of a role weighs as much as any other
    uneven = pd.DataFrame(
        {"item": list("aaab"), "layer": 0, "role": "r", "effect": [1.0, 1, 1, 5], "recovery": [0.0, 0, 0, 1]}
    )
    assert by_role(uneven)[["recovery", "effect", "items"]].to_numpy().tolist() == [[0.5, 3.0, 2]]


def test_nothing_retained_leaves_empty_tables(loaded: LoadedModel, given: list[Prompt]) -> None:
    wrong = [prompt for prompt in given if prompt.item.startswith("clean wrong")]
    steps: list[tuple[int, int]] = []
    found = patch_prompts(loaded, wrong, max_items=4, progress=lambda done, total: steps.append((done, total)))
    assert found.retention.status.tolist() == ["answered wrongly"] * 2
    assert found.cells.empty
    assert {"item", "group", "layer", "position", "token", "role", "effect", "recovery"} == set(found.cells)
    assert (found.checked, found.max_error) == (0, 0.0)
    assert by_role(found.cells).empty
    assert steps == [(done, 6) for done in range(1, 7)]  # two texts read, twice, then two prompts passed over


def test_the_exactness_check_reports_the_error_it_finds(make_model: MakeModel, given: list[Prompt]) -> None:
    """A model that adds to its logits what patching does not know of, too little to be refused outright."""
    odd = make_model("llama")
    handle = odd.model.register_forward_hook(
        lambda _module, _args, output: setattr(output, "logits", output.logits + 5e-4)
    )
    found = patch_prompts(odd, given[:2], max_items=1, check_exact=1)
    handle.remove()
    assert found.max_error == pytest.approx(5e-4, rel=0.05)


def test_same_seed_same_tables(loaded: LoadedModel, found: Patching, given: list[Prompt]) -> None:
    again = patch_prompts(loaded, given, max_items=4, check_exact=3, seed=1)
    pd.testing.assert_frame_equal(again.cells, found.cells)
    pd.testing.assert_frame_equal(again.retention, found.retention)
    assert again.max_error == found.max_error


def planted(make_model: MakeModel, layer: int) -> LoadedModel:
    """A GPT-2 in which one layer's attention copies the marked token, `` red`` or `` box``, to every later position.

    Dimension 0 marks the two words, 1 and 2 tell them apart, 3 and 4 are what the unembedding reads. Every query looks
    for the mark; all other weights that write into the stream are zero, so nothing else can carry the answer.
    """
    loaded = make_model("gpt2", n_head=1, tie_word_embeddings=False)
    model, width = loaded.model, loaded.d_model
    words = loaded.tokenizer.convert_tokens_to_ids(["Ġred", "Ġbox"])
    with torch.no_grad():
        embeddings = model.transformer.wte.weight.normal_(std=0.3)
        embeddings[:, :5] = 0
        model.transformer.wpe.weight.zero_()
        model.lm_head.weight.zero_()
        for number, word in enumerate(words):
            embeddings[word, [0, 1 + number]] = 3.0
            model.lm_head.weight[word, 3 + number] = 5.0
        for norm in [m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]:
            norm.weight.fill_(1)
            norm.bias.zero_()
        for block in model.transformer.h:
            for written in (*block.attn.c_proj.parameters(), *block.mlp.c_proj.parameters()):
                written.zero_()
        attention = model.transformer.h[layer].attn
        attention.c_attn.weight.zero_()
        attention.c_attn.bias.zero_()
        attention.c_attn.bias[0] = 40.0  # the query
        attention.c_attn.weight[0, width] = 1.0  # the key: the mark
        for number in (1, 2):
            attention.c_attn.weight[number, 2 * width + number] = 1.0
            attention.c_proj.weight[number, 2 + number] = 1.0
    return loaded


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_planted_circuit_is_found_and_nothing_else(make_model: MakeModel, layer: int) -> None:
    """The answer must be carried by the marked word up to the planted layer, and by the last token above it.

    The texts also differ in a word that does not matter (captain, name): its cells are computed, and must be zero.
    """
    loaded = planted(make_model, layer)
    items = []
    for number, lead in enumerate(["in the sea", "name saw the", "the old man"]):
        text, other = (
            f"{lead} the {who} put the coin into the{word} and the coin"
            for who, word in (("captain", " red"), ("name", " box"))
        )
        definition = Span("definition", text.index(" red"), text.index(" red") + 4)
        form = Form(text, (definition,), " red", (" red", " box", " coin"), Contrast(other, " box"))
        items.append(Item(f"i{number}", "planted", "test", "g", 0, {"prose": form}))
    given, dropped = prompts(loaded, items, "prose", True)
    assert not dropped
    found = patch_prompts(loaded, given, max_items=9)
    assert found.retention.status.tolist() == ["retained"] * 3
    cells = found.cells
    carried = ((cells.layer <= layer) & (cells.role == "definition")) | ((cells.layer > layer) & (cells.role == "last"))
    assert carried.sum() == 3 * loaded.n_layers
    assert cells.recovery[carried].to_numpy() == pytest.approx(1, abs=1e-3)
    assert cells.recovery[~carried].abs().max() < 1e-3
    for prompt in given:
        edited = [i for i, (a, b) in enumerate(zip(prompt.clean, prompt.corrupted, strict=True)) if a != b]
        assert [prompt.roles[i] for i in edited] == ["other", "definition"]
    table: Any = by_role(cells).pivot(index="layer", columns="role", values="recovery")
    assert table.definition.tolist() == pytest.approx([float(at <= layer) for at in range(3)], abs=1e-3)
    assert table["last"].tolist() == pytest.approx([float(at > layer) for at in range(3)], abs=1e-3)
    assert table.other.abs().max() < 1e-3
