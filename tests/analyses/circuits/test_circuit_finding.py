"""Finding a circuit from prompts to figures, on models whose circuit is known; its file and its picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from planted_models import MODELS, Planted
from test_planted_circuits import MECHANISMS

from activations.errors import TwinprobeError
from analyses.circuits.drawing import draw_circuit
from analyses.circuits.edges import edge_scores, runs_of
from analyses.circuits.faithfulness import faithfulness
from analyses.circuits.finding import find_circuit
from analyses.circuits.items import choose_items
from analyses.circuits.result import CircuitResult
from analyses.prompts import Prompt

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

SMALL = {"random_draws": 2, "check_exact": 30, "n_resamples": 50}


@pytest.fixture(scope="module")
def planted(make_model: MakeModel) -> dict[str, Planted]:
    return {name: MODELS[name](make_model) for name in ("both", "lookup")}


@pytest.fixture(scope="module")
def found(planted: dict[str, Planted]) -> CircuitResult:
    both = planted["both"]
    return find_circuit(both.loaded, both.prompts, n_edges=5, steps=10, **SMALL)


def test_the_planted_circuit_is_found_and_measured(found: CircuitResult) -> None:
    assert sorted(found.graph.names(found.kept)) == sorted(MECHANISMS["both"])
    assert found.n_edges == 5
    assert found.faithfulness.estimate == pytest.approx(1, abs=1e-3)
    assert found.completeness.estimate == pytest.approx(0, abs=1e-3)
    assert found.minimality["drop"].to_list() == pytest.approx([1] * 5, abs=1e-3)
    assert found.random.groupby("kind").size().to_dict() == {"edges": 2, "paths": 2}
    assert found.random["faithfulness"].to_list() == pytest.approx([0] * 4, abs=1e-3)
    assert found.random["edges"].to_list() == [5] * 4


def test_figures_are_of_items_that_did_not_choose(found: CircuitResult) -> None:
    assert found.items["status"].value_counts().to_dict() == {"choosing": 2, "held out": 2}
    choosing = set(found.items[found.items["status"] == "choosing"]["item"])
    assert set(found.kept_edges["item"]) == choosing
    assert len(found.kept_edges) == 5 * len(choosing)
    curve = found.curve.set_index(["half", "asked"])
    assert curve.loc[("held out", 5), "faithfulness"] == found.faithfulness.estimate
    for half in ("choosing", "held out"):
        assert curve.loc[(half, 190), "faithfulness"] == pytest.approx(1, abs=1e-5)
        assert curve.loc[(half, 1), "faithfulness"] == 0
        assert curve.loc[half].index.to_list() == [1, 2, 4, 5, 8, 16, 32, 64, 128, 190]


def test_the_table_of_edges_is_the_mean_over_the_items_that_chose(found: CircuitResult) -> None:
    means = found.kept_edges.groupby(["sender", "receiver"])[["effect", "recovery"]].mean()
    kept = found.edges[found.edges["kept"]].set_index(["sender", "receiver"])[["effect", "recovery"]]
    assert len(found.edges) == found.graph.n_edges and len(kept) == 5
    for edge, line in kept.iterrows():
        assert line.to_dict() == pytest.approx(means.loc[edge].to_dict())
        assert line["recovery"] == pytest.approx(line["effect"] / 20, rel=1e-3)


def test_estimates_stand_beside_exact_effects(found: CircuitResult) -> None:
    assert found.exact.groupby("drawn").size().to_dict() == {"circuit": 5, "random": 30}
    inside = found.exact[found.exact["drawn"] == "circuit"].set_index(["sender", "receiver"])
    # Noising one of two that are both needed breaks all; the gradient half-way along sees half of that.
    assert inside["exact"].to_list() == pytest.approx([-20] * 5, abs=1e-3)
    assert inside.loc[("m1", "logits"), "estimate"] == pytest.approx(-20, abs=1e-3)
    assert found.agreement["circuit"].cells == 5 and found.agreement["circuit"].sign == 1
    assert found.agreement["random"].cells == 30


def test_plain_gradients_disagree_where_attention_is_saturated(planted: dict[str, Planted]) -> None:
    lookup = planted["lookup"]
    results = {
        method: find_circuit(lookup.loaded, lookup.prompts, method=method, n_edges=3, check_exact=190)
        for method in ("eap", "eap-ig")
    }
    assert results["eap-ig"].faithfulness.estimate == pytest.approx(1, abs=1e-3)
    assert results["eap"].faithfulness.estimate == pytest.approx(0, abs=1e-3)
    exact = results["eap"].exact
    missed = exact[(exact["exact"].abs() > 1) & (exact["estimate"].abs() < 1e-3) & (exact["drawn"] == "random")]
    assert set(zip(missed["sender"], missed["receiver"], strict=True)) == {("input", "a0.v1"), ("a0.h2", "a2.q1")}


def test_the_size_is_the_first_that_is_faithful_enough(planted: dict[str, Planted]) -> None:
    both = planted["both"]
    steps: list[tuple[int, int]] = []
    result = find_circuit(
        both.loaded, both.prompts, direction="denoising", choice="top", target=0.9, random_draws=0, check_exact=0,
        progress=lambda done, total: steps.append((done, total)),
    )  # fmt: skip
    sizes = result.curve[(result.curve["half"] == "choosing") & (result.curve["edges"] == result.n_edges)]
    assert result.n_edges <= 8 and sizes["asked"].to_list()[0] == 8
    assert result.faithfulness.estimate > 0.9
    assert len(result.exact) == len(result.random) == 0 and not result.agreement
    assert steps == [(done, 8) for done in range(1, 9)]


def test_items_share_no_group_across_halves(planted: dict[str, Planted]) -> None:
    loaded, prompts = planted["both"].loaded, planted["both"].prompts
    grouped = [replace(prompt, group="ab"[number > 0]) for number, prompt in enumerate(prompts)]
    halves = choose_items(loaded, grouped, 10, 0)
    assert {len(halves.choosing), len(halves.held_out)} == {1, 3}
    alike = choose_items(loaded, [replace(prompt, group="a") for prompt in prompts], 3, 0)
    assert (len(alike.choosing), len(alike.held_out)) == (2, 1)
    assert alike.table["status"].to_list()[3] == "retained, not used"
    wrong = replace(prompts[0], answer=prompts[0].contrast, contrast=prompts[0].answer)
    with pytest.raises(TwinprobeError, match="gets 1 of 2 prompts right in both texts"):
        choose_items(loaded, [prompts[0], wrong], 10, 0)


def answered(loaded: LoadedModel, count: int) -> list[Prompt]:
    """Random contrasts, with answers that a random model tells apart."""
    generator = torch.Generator().manual_seed(0)
    prompts = []
    for number in range(count):
        clean, corrupted = torch.randint(3, 390, (2, 9), generator=generator)
        corrupted[-1] = clean[-1]
        with torch.no_grad():
            logits = loaded.model(torch.stack([clean, corrupted])).logits[:, -1]
        # Between the two texts these differ most when each has the same mean.
        change = logits[0] - logits[1]
        level = logits.sum(0)
        pairs = (change[:, None] - change[None]) - (level[:, None] - level[None]).abs()
        answer, contrast = divmod(int(pairs.argmax()), len(change))
        prompts.append(
            Prompt(f"i{number}", f"g{number}", 0, tuple(clean.tolist()), tuple(corrupted.tolist()), answer, contrast,
                   (answer, contrast), ("t",) * 9, ("other",) * 9)
        )  # fmt: skip
    return prompts


def test_each_half_is_measured_on_its_own_items(make_model: MakeModel) -> None:
    loaded = make_model("llama")
    prompts = answered(loaded, 5)
    result = find_circuit(loaded, prompts, n_edges=30, steps=2, **{**SMALL, "random_draws": 1})
    status = dict(zip(result.items["item"], result.items["status"], strict=True))
    assert sorted(status.values()) == ["choosing"] * 3 + ["held out"] * 2
    assert 0 < result.n_edges <= 30
    every = result.graph.every
    for half in ("choosing", "held out"):
        chosen = [prompt for prompt in prompts if status[prompt.item] == half]
        runs = [runs_of(loaded, result.graph, prompt) for prompt in chosen]
        faithful, rest = np.mean(
            [
                faithfulness(loaded, result.graph, prompt, [result.kept, every & ~result.kept], own)
                for prompt, own in zip(chosen, runs, strict=True)
            ],
            axis=0,
        )
        line = result.curve[(result.curve["half"] == half) & (result.curve["asked"] == 30)].iloc[0]
        assert line["faithfulness"] == pytest.approx(faithful, abs=1e-4)
        assert line["items"] == len(chosen)
        if half == "held out":
            assert result.faithfulness.estimate == pytest.approx(faithful, abs=1e-4)
            assert result.completeness.estimate == pytest.approx(rest, abs=1e-4)
            assert abs(faithful) > 1e-3 and abs(rest - 1) > 1e-3
        else:
            scores = [
                edge_scores(loaded, result.graph, prompt, steps=2, runs=own)
                for prompt, own in zip(chosen, runs, strict=True)
            ]
            assert result.edges["effect"].to_numpy() == pytest.approx(np.mean(scores, axis=0)[every], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"choice": "best"}, "choice 'best' is not known"),
        ({"target": 1.5}, "1.5 faithful"),
        ({"n_edges": 0}, "a circuit of 0 edges"),
        ({"method": "ap"}, "edge attribution method 'ap'"),
    ],
)
def test_options_out_of_range_are_refused(planted: dict[str, Planted], options: dict[str, Any], message: str) -> None:
    with pytest.raises(TwinprobeError, match=message):
        find_circuit(planted["both"].loaded, planted["both"].prompts, **options)


def test_the_file_holds_the_circuit_and_its_figures(found: CircuitResult, tmp_path: Path) -> None:
    found.write(tmp_path / "circuit.json", task="switches", form="code")
    text = (tmp_path / "circuit.json").read_text()
    given = json.loads(text)
    assert "NaN" not in text
    assert (given["task"], given["metric"], given["method"], given["steps"]) == (
        "switches",
        "logit difference",
        "eap-ig",
        10,
    )
    assert sorted((edge["sender"], edge["receiver"]) for edge in given["edges"]) == sorted(MECHANISMS["both"])
    assert given["faithfulness"]["estimate"] == found.faithfulness.estimate
    assert given["items"] == {"choosing": 2, "held out": 2}
    assert given["random"]["paths"]["mean"] == pytest.approx(0, abs=1e-3)
    assert given["circuit_edges"] == 5 and given["graph_edges"] == 190


def test_a_circuit_is_drawn(found: CircuitResult, tmp_path: Path) -> None:
    import matplotlib.image

    draw_circuit(found, "both switches of $two", tmp_path / "circuit.png")
    picture = matplotlib.image.imread(tmp_path / "circuit.png")
    assert (picture[..., :3].std(-1) > 0.1).mean() > 0.001  # some of it is in colour
    whole = replace(found, kept=found.graph.every, edges=found.edges.assign(kept=True))
    draw_circuit(whole, "everything", tmp_path / "whole.png")
    assert matplotlib.image.imread(tmp_path / "whole.png").shape[1] > picture.shape[1]
    none = replace(found, kept=found.kept & False, edges=found.edges.assign(kept=False))
    draw_circuit(none, "nothing", tmp_path / "none.png")
    assert (tmp_path / "none.png").stat().st_size > 0
