"""Grafts and interpolation: ends that must meet, a planted block that must be found, and tables that can be recomputed."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest
import torch
from contrast_prompts import made_prompts
from other_models import state

from activations.errors import TwinprobeError
from analyses.across.grafting import UNTOUCHED, graft, interpolate, single_parts, summary
from analyses.answers import answers
from analyses.prompts import Prompt
from probes.metrics import cluster_bootstrap

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

    Pair = tuple[LoadedModel, LoadedModel]

MEASURED = ["clean_right", "corrupted_right", "clean", "corrupted", "right", "logit_difference"]
PARTS = ["embed", "blocks.0", "blocks.1", "blocks.2", "unembed"]
FIRST, SECOND = 300, 310
"""Two tokens with an axis each of the residual stream of a planted model, that only they and the planted block use."""
PLANTED = 1
STRENGTH = 20.0


def planted(make_model: MakeModel, seed: int, *, knows: bool) -> LoadedModel:
    """A Llama that says which of two tokens it has read, if it ``knows``: one block copies them to the last position.

    All its other weights are random, but no other block writes on the axes of the two tokens.
    """
    loaded = make_model("llama", seed=seed, num_key_value_heads=4)
    model: Any = loaded.model
    with torch.no_grad():
        for block in model.model.layers:
            for writing in (block.self_attn.o_proj, block.mlp.down_proj):
                writing.weight[:2] = 0
        embedding, head = model.model.embed_tokens.weight, model.lm_head.weight
        embedding[:, :2] = 0
        for axis, token in enumerate((FIRST, SECOND)):
            embedding[token, axis] = 1
            head[token] = torch.eye(len(head[0]))[axis]
        if knows:
            attention = model.model.layers[PLANTED].self_attn
            for each in (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj):
                each.weight.zero_()  # without queries and keys all positions are attended alike
            for axis in range(2):
                attention.v_proj.weight[axis, axis] = 1
                attention.o_proj.weight[axis, axis] = STRENGTH
    return loaded


def planted_prompts() -> list[Prompt]:
    """Random tokens with one of the two among them, the other in the contrast; what is asked is which."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(12):
        ids = rng.integers(3, 290, 5 + number % 3).tolist()
        read, other = (FIRST, SECOND) if number % 2 else (SECOND, FIRST)
        clean, corrupted = ((ids[0], ids[1], token, *ids[2:]) for token in (read, other))
        roles = ("other",) * len(clean)
        made.append(
            Prompt(
                f"item {number}", f"group {number % 4}", number % 3, clean, corrupted, read, other, (FIRST, SECOND),
                tuple(map(str, clean)), roles,
            )
        )  # fmt: skip
    return made


@pytest.fixture(scope="module")
def planted_pair(make_model: MakeModel) -> Pair:
    return planted(make_model, 0, knows=False), planted(make_model, 1, knows=True)


@pytest.fixture(scope="module")
def pair(make_model: MakeModel) -> Pair:
    return make_model("gemma2"), make_model("gemma2", seed=1)


@pytest.fixture(scope="module")
def given(pair: Pair) -> list[Prompt]:
    return made_prompts(pair[0])


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """The same prompts with the same values to the last bit."""
    columns = ["item", *MEASURED]
    pd.testing.assert_frame_equal(
        found[columns].reset_index(drop=True), expected[columns].reset_index(drop=True), check_exact=True
    )


def test_answers_are_those_of_plain_passes(pair: Pair, given: list[Prompt]) -> None:
    found = answers(pair[0], given)
    assert found["item"].tolist() == [prompt.item for prompt in given]
    for line, prompt in zip(found.itertuples(), given, strict=True):
        with torch.no_grad():
            clean, corrupted = (
                pair[0].model(torch.tensor([ids])).logits[0, -1] for ids in (prompt.clean, prompt.corrupted)
            )
        differences = [float(logits[prompt.answer] - logits[prompt.contrast]) for logits in (clean, corrupted)]
        assert [line.clean, line.corrupted] == pytest.approx(differences, abs=1e-5)
        assert line.logit_difference == pytest.approx((differences[0] - differences[1]) / 2, abs=1e-5)
        right = [prompt.right(clean), prompt.right(corrupted, corrupted=True)]
        assert [line.clean_right, line.corrupted_right, line.right] == [*right, all(right)]
    assert 0 < found.right.mean() < 1


def test_all_parts_together_make_the_other_model(pair: Pair, given: list[Prompt]) -> None:
    rows = graft(*pair, given, [PARTS, ["blocks.0", "blocks.2"]])
    assert rows.graft.unique().tolist() == [UNTOUCHED, "+".join(PARTS), "blocks.0+blocks.2"]
    assert len(rows) == 2 * 3 * len(given)
    for name, own, other in (("base", *pair), ("code", *pair[::-1])):
        hosted = rows[rows.host == name].set_index("graft", drop=False)
        same(hosted.loc[UNTOUCHED], answers(own, given))
        same(hosted.loc["+".join(PARTS)], answers(other, given))
        change = hosted.loc["+".join(PARTS)].clean.to_numpy() - hosted.loc[UNTOUCHED].clean.to_numpy()
        assert (abs(change) > 0.01).any()


def test_one_host_alone_is_grafted_into_and_every_reading_is_told_of(pair: Pair, given: list[Prompt]) -> None:
    steps: list[tuple[int, int]] = []
    grafts = [["blocks.0"], ["blocks.2"]]
    rows = graft(*pair, given[:4], grafts, hosts=("base",), progress=lambda *step: steps.append(step))
    both = graft(*pair, given[:4], grafts)
    pd.testing.assert_frame_equal(rows, both[both.host == "base"].reset_index(drop=True))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    steps.clear()
    interpolate(*pair, given[:4], [0.0, 0.5], lambda *step: steps.append(step))
    assert steps == [(1, 2), (2, 2)]


def test_grafts_of_a_model_into_itself_change_nothing(pair: Pair, given: list[Prompt]) -> None:
    rows = graft(pair[0], pair[0], given, single_parts(pair[0]))
    assert rows.graft.unique().tolist() == [UNTOUCHED, *PARTS]
    assert (rows[["right_change", "logit_difference_change"]] == 0).all(axis=None)
    curve = interpolate(pair[0], pair[0], given, [0.2, 0.5])
    assert (curve.right_change == 0).all()
    assert (curve.logit_difference_change.abs() < 1e-6).all(), "weights between equal ones are equal, up to the kernel"


def test_the_curve_goes_from_base_to_code(pair: Pair, given: list[Prompt]) -> None:
    rows = interpolate(*pair, given, [0.0, 0.5, 1.0])
    base, code = (answers(loaded, given) for loaded in pair)
    same(rows[rows.alpha == 0], base)
    same(rows[rows.alpha == 1], code)
    middle = rows[rows.alpha == 0.5].logit_difference.to_numpy()
    assert (abs(middle - base.logit_difference) > 1e-3).any()
    assert (abs(middle - code.logit_difference) > 1e-3).any()
    last = rows[rows.alpha == 1]
    expected = code.logit_difference - base.logit_difference
    assert last.logit_difference_change.to_numpy() == pytest.approx(expected.to_numpy())
    assert set(last.right_change) <= {-1.0, 0.0, 1.0}


def test_a_planted_block_is_the_one_that_carries_the_answer(planted_pair: Pair) -> None:
    rows = graft(*planted_pair, planted_prompts(), single_parts(planted_pair[0]))
    found = summary(rows, ["host", "graft"], clusters="item", n_resamples=200).set_index(["host", "graft"])
    block = f"blocks.{PLANTED}"
    others = [UNTOUCHED, *(part for part in PARTS if part != block)]
    assert found.accuracy["base", block] == 1
    assert found.accuracy["code", block] == 0
    assert found.logit_difference_change_low["base", block] > 0.1
    assert found.logit_difference_change_high["code", block] < -0.1
    for part in others:
        assert found.accuracy["base", part] == 0
        assert found.logit_difference["base", part] == 0
        assert found.accuracy["code", part] == 1


def test_the_answer_comes_in_on_the_way(planted_pair: Pair) -> None:
    rows = interpolate(*planted_pair, planted_prompts(), [0, 0.25, 0.5, 0.75, 1])
    found = summary(rows, ["alpha"], clusters="item", n_resamples=50)
    assert found.accuracy.iloc[0] == 0
    assert found.accuracy.iloc[-1] == 1
    assert found.logit_difference.is_monotonic_increasing


@pytest.mark.parametrize("clusters", ["item", "group"])
def test_summaries_are_means_with_intervals_over_clusters(pair: Pair, given: list[Prompt], clusters: Any) -> None:
    rows = graft(*pair, given, [["embed"]])
    found = summary(rows, ["host", "graft"], clusters=clusters, n_resamples=100, seed=3)
    assert found[["host", "graft"]].to_numpy().tolist() == [
        ["base", UNTOUCHED], ["base", "embed"], ["code", UNTOUCHED], ["code", "embed"],
    ]  # fmt: skip
    line = found.iloc[1]
    part = rows[(rows.host == "base") & (rows.graft == "embed")]
    assert (line.prompts, line.clusters) == (len(given), part[clusters].nunique())
    columns = {
        "accuracy": part.right,
        "logit_difference": (part.clean - part.corrupted) / 2,
        "accuracy_change": part.right_change,
        "logit_difference_change": part.logit_difference_change,
    }
    for name, values in columns.items():
        expected = cluster_bootstrap(values.to_numpy(float), part[clusters].to_numpy(), 100, 3)
        assert [line[name], line[f"{name}_low"], line[f"{name}_high"]] == pytest.approx(
            [expected.estimate, expected.low, expected.high]
        )
    assert [line.accuracy_clean, line.accuracy_corrupted] == [part.clean_right.mean(), part.corrupted_right.mean()]
    assert line.logit_difference_low < line.logit_difference < line.logit_difference_high
    untouched = found[found.graft == UNTOUCHED]
    assert (untouched.filter(like="_change") == 0).all(axis=None)


def test_neither_model_changes_also_after_an_error(make_model: MakeModel) -> None:
    pair = make_model("llama"), make_model("llama", seed=1)
    given, before = made_prompts(pair[0]), [state(loaded) for loaded in pair]
    weights = [{name: weight.clone() for name, weight in loaded.model.state_dict().items()} for loaded in pair]
    graft(*pair, given, single_parts(pair[0]))
    interpolate(*pair, given, [0.5])
    late = replace(given[-1], clean=(3, 99_999))
    with pytest.raises(IndexError):
        graft(*pair, [*given, late], single_parts(pair[0]))
    assert [state(loaded) for loaded in pair] == before
    for loaded, expected in zip(pair, weights, strict=True):
        assert all(torch.equal(weight, expected[name]) for name, weight in loaded.model.state_dict().items())


def test_refusals_are_one_line(pair: Pair, given: list[Prompt], make_model: MakeModel) -> None:
    refused: dict[str, Any] = {
        "no alphas to interpolate at": lambda: interpolate(*pair, given, []),
        "no prompts to answer": lambda: graft(*pair, [], [["embed"]]),
        "part 'blocks.7' is not known; expected one of embed": lambda: graft(*pair, given, [["blocks.7"]]),
        "share 1.2 of part 'embed' lies outside 0 to 1": lambda: interpolate(*pair, given, [1.2]),
        "the architecture is": lambda: graft(pair[0], make_model("llama"), given, [["embed"]]),
        "the number of layers is 3 and 2": lambda: interpolate(
            pair[0], make_model("gemma2", num_hidden_layers=2), given, [0.5]
        ),
    }
    for message, call in refused.items():
        with pytest.raises(TwinprobeError) as caught:
            call()
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
