"""Ground truth: patching finds the planted parts of hand-built models, each by as much as it matters, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from planted_models import GAIN, LAST, MODELS, TAKEN_BACK

from activations.texts import Span
from analyses.patching.grids import Grid
from analyses.patching.summaries import summarise, top_cells
from analyses.patching.sweep import patch_prompts
from analyses.prompts import DIRECTIONS, prompts
from probes.tasks.items import Contrast, Form, Item

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

Found = dict[tuple[str, int, int | None, str], float]
BACK = -1 / (1 - TAKEN_BACK / 2) * TAKEN_BACK / 2
"""What the MLP of the cancelling model gives when it is alone put right, as a share of GAIN."""

DENOISING: dict[str, Found] = {
    "induction": {("z", 0, 1, "answer"): 0.5, ("z", 0, 1, "contrast"): 0.5, ("z", 1, 2, LAST): 1},
    "copying": {("z", 1, 3, LAST): 1},
    "both": {("mlp_out", 1, None, LAST): 1},
    "either": {("z", 0, 0, LAST): 1, ("z", 1, 3, LAST): 1, ("mlp_out", 1, None, LAST): 1},
    "lookup": {("z", 0, 2, LAST): 1, ("q", 2, 1, LAST): 1, ("z", 2, 1, LAST): 1},
    "cancelling": {("z", 0, 0, LAST): 1, ("mlp_out", 1, None, LAST): BACK},
}
NOISING: dict[str, Found] = {
    **{name: {cell: -value for cell, value in found.items()} for name, found in DENOISING.items()},
    # One input of an AND, put right alone, restores nothing, and put wrong breaks all; of an OR it is the reverse.
    "both": {("z", 0, 0, LAST): -1, ("z", 1, 3, LAST): -1, ("mlp_out", 1, None, LAST): -1},
    "either": {("mlp_out", 1, None, LAST): -1},
}


@pytest.mark.parametrize("name", MODELS)
def test_exactly_the_planted_parts_are_found(make_model: MakeModel, name: str) -> None:
    """Of all heads' outputs and queries and all MLPs at the tokens of each role, in every item and in the mean."""
    model = MODELS[name](make_model)
    assert {(str(part.site), part.role) for part in model.components} == {
        (f"{site}.{layer}" + ("" if head is None else f".{head}"), role)
        for direction in (DENOISING, NOISING)
        for site, layer, head, role in direction[name]
    }
    grids = [Grid(site, "role") for site in ("z", "mlp_out", "q")]
    found = patch_prompts(
        model.loaded, model.prompts, grids=grids, directions=list(DIRECTIONS), max_items=9, check_exact=4
    )
    assert (found.retention.status == "retained").all()
    assert found.retention.gap.to_numpy() == pytest.approx(2 * GAIN, abs=1e-3)
    assert found.max_error < 1e-3
    for table in (found.cells, summarise(found.cells)):
        seen = set()
        for line in table.itertuples():
            cell = (line.site, line.layer, None if line.site == "mlp_out" else line.head, line.role)
            planted = (DENOISING if line.direction == "denoising" else NOISING)[name]
            assert line.recovery == pytest.approx(planted.get(cell, 0), abs=1e-4)
            seen.add((line.direction, cell))
        planted_cells = {
            (d, cell) for d, table in (("denoising", DENOISING), ("noising", NOISING)) for cell in table[name]
        }
        assert planted_cells < seen


def test_the_parts_of_an_induction_stand_out_first(make_model: MakeModel) -> None:
    model = MODELS["induction"](make_model)
    cells = patch_prompts(model.loaded, model.prompts, grids=[Grid("z", "role")], max_items=9).cells
    top = top_cells(summarise(cells), 3)
    assert top[["layer", "head", "role"]].to_numpy().tolist() == [
        [1, 2, LAST], [0, 1, "answer"], [0, 1, "contrast"],
    ]  # fmt: skip


def test_a_whole_window_has_what_each_half_lacks(make_model: MakeModel) -> None:
    """Both inputs of the AND lie in layers 0 and 1: patched together they restore the answer, without the MLP."""
    model = MODELS["both"](make_model)

    def recovery(grid: Grid) -> list[float]:
        cells = patch_prompts(model.loaded, model.prompts, grids=[grid], max_items=9).cells
        means: list[float] = summarise(cells[cells.role == LAST]).recovery.tolist()
        return means

    assert recovery(Grid("attn_out", "role")) == pytest.approx([0, 0, 0], abs=1e-4)
    assert recovery(Grid("attn_out", "role", window=2)) == pytest.approx([1, 0], abs=1e-4)
    assert recovery(Grid("mlp_post", "role", neurons=2))[:1] == pytest.approx([0], abs=1e-4)
    neurons = patch_prompts(model.loaded, model.prompts, grids=[Grid("mlp_post", "role", neurons=2)], max_items=9).cells
    clear = neurons[neurons.recovery.abs() > 1e-4]
    # The ramp is the first two neurons of layer 1.
    assert clear[["layer", "neurons", "role"]].drop_duplicates().to_numpy().tolist() == [[1, 0, LAST]]
    assert clear.recovery.to_numpy() == pytest.approx(1, abs=1e-4)


def carrying(make_model: MakeModel, layer: int) -> LoadedModel:
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
def test_where_the_answer_is_carried_is_found_and_nothing_else(make_model: MakeModel, layer: int) -> None:
    """By the marked word up to the planted layer, and by the last token above it, both ways.

    The texts also differ in a word that does not matter (captain, name): its cells are computed, and must be zero.
    """
    loaded = carrying(make_model, layer)
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
    found = patch_prompts(loaded, given, directions=list(DIRECTIONS), max_items=9)
    assert found.retention.status.tolist() == ["retained"] * 3
    for direction, whole in (("denoising", 1), ("noising", -1)):
        cells = found.cells[found.cells.direction == direction]
        carried = ((cells.layer <= layer) & (cells.role == "definition")) | (
            (cells.layer > layer) & (cells.role == "last")
        )
        assert carried.sum() == 3 * loaded.n_layers
        assert cells.recovery[carried].to_numpy() == pytest.approx(whole, abs=1e-3)
        assert cells.recovery[~carried].abs().max() < 1e-3
    for prompt in given:
        edited = [i for i, (a, b) in enumerate(zip(prompt.clean, prompt.corrupted, strict=True)) if a != b]
        assert [prompt.roles[i] for i in edited] == ["other", "definition"]
