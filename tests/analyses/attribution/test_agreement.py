"""Agreement of estimated with exact effects: by hand, against scipy, and on a trained twin."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from other_models import CLEAN, CORRUPTED, state
from scipy.stats import spearmanr
from test_nodes import LENGTH, PROMPT, difference, refused

from activations.models import ModelSpec, load_model
from activations.sites import Site
from analyses.attribution.agreement import Agreement, agreement, exact_effects, sample_cells
from analyses.attribution.nodes import attribute
from analyses.attribution.star import attribute_star
from analyses.patching.recording import record
from analyses.patching.suffix import Patch, full_logits
from analyses.prompts import prompts
from probes.tasks import get_task

if TYPE_CHECKING:
    from activations.models import LoadedModel


def test_agreement_by_hand() -> None:
    exact = [4.0, -3.0, 2.0, 1.0, 0.0]
    assert agreement(exact, exact, top=2) == Agreement(5, pytest.approx(1.0), 1.0, 0.0, 2)
    # The second largest is missed, and one sign of the four that count is wrong.
    found = agreement(exact, [5.0, 0.5, 3.0, 1.0, 0.1], top=2)
    assert (found.sign, found.false_negatives) == (0.75, 0.5)
    assert agreement(exact, [-value for value in exact], top=2).spearman == pytest.approx(-1.0)
    blind = agreement(exact, [0.0] * 5, top=2)
    assert np.isnan(blind.spearman)
    assert blind.sign == 0.0


def test_the_rank_correlation_is_scipy_s() -> None:
    generator = np.random.default_rng(0)
    exact, estimated = generator.integers(-3, 4, (2, 50))  # with ties
    assert agreement(exact, estimated).spearman == pytest.approx(spearmanr(exact, estimated).statistic)


def test_bad_input_is_refused() -> None:
    assert "(2,) exact effects, (3,) estimates" in refused(lambda: agreement([1, 2], [1, 2, 3], top=1))
    assert "the top 3 of 3 cells" in refused(lambda: agreement([1, 2, 3], [1, 2, 3], top=3))
    assert "the top 0 of 3 cells" in refused(lambda: agreement([1, 2, 3], [1, 2, 3], top=0))


def test_cells_are_drawn_where_the_runs_differ(tiny: Callable[[str], LoadedModel]) -> None:
    cells = attribute(tiny("llama"), PROMPT)
    drawn = sample_cells(cells, 20, seed=4)
    assert len(drawn) == 20
    assert drawn.differs.all()
    assert drawn.index.is_unique
    pd.testing.assert_frame_equal(drawn, sample_cells(cells, 20, seed=4))
    assert len(sample_cells(cells, 10**6, seed=4)) == cells.differs.sum()


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "codegen"])
def test_exact_effects_are_those_of_exact_patching(
    tiny: Callable[[str], LoadedModel], architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tiny(architecture)
    cells = attribute(loaded, PROMPT, names=["resid_pre"])
    clean, corrupted = (record(loaded, ids, suffixes=False) for ids in (CLEAN, CORRUPTED))
    expected = []
    for line in cells.itertuples():
        recipient, donor = (corrupted, clean) if line.direction == "denoising" else (clean, corrupted)
        donated = donor.stream[line.layer, [line.position]]
        logits = full_logits(loaded, recipient.ids, (Patch(Site("resid_pre", line.layer), (line.position,), donated),))
        expected.append(float(PROMPT.logit_difference(logits) - PROMPT.logit_difference(recipient.logits)))
    assert np.abs(expected).max() > 0.1
    assert exact_effects(loaded, PROMPT, cells) == pytest.approx(expected, abs=1e-5)
    monkeypatch.setattr("analyses.attribution.agreement.MAX_TOKENS", 2 * LENGTH)
    shuffled = cells.sample(frac=1, random_state=0)
    assert exact_effects(loaded, PROMPT, shuffled) == pytest.approx(np.array(expected)[shuffled.index], abs=1e-5)
    assert exact_effects(loaded, PROMPT, cells[:0]).shape == (0,)


def test_the_last_position_after_the_last_layer_is_the_whole_gap(tiny: Callable[[str], LoadedModel]) -> None:
    loaded = tiny("qwen2")
    before = state(loaded)
    cells = attribute(loaded, PROMPT, names=["resid_post"])
    last = cells[(cells.layer == loaded.n_layers - 1) & (cells.position == LENGTH - 1)]
    gap = difference(loaded, 0) - difference(loaded, 1)
    assert list(last.direction) == ["denoising", "noising"]
    assert exact_effects(loaded, PROMPT, last) == pytest.approx([gap, -gap], abs=1e-5)
    assert state(loaded) == before


def test_agreement_on_a_trained_twin() -> None:
    """Printed (pytest -s), and asserted only loosely: how good the estimates are is a finding, not a promise."""
    loaded = load_model(ModelSpec("embedded:code"))
    found, _ = prompts(loaded, get_task("nesting").generate(40, 0), "code", bos=True)
    methods = {
        "atp": lambda prompt: attribute(loaded, prompt),
        "ig-inputs": lambda prompt: attribute(loaded, prompt, method="ig-inputs", steps=5),
        "QK fix": lambda prompt: attribute_star(loaded, prompt, names=["q", "k"], grad_drop=False),
    }
    lines = []
    for method, estimate in methods.items():
        for prompt in found[:3]:
            for direction, cells in estimate(prompt).groupby("direction"):
                drawn = sample_cells(cells, 40, seed=0)
                found_here = agreement(exact_effects(loaded, prompt, drawn), drawn.effect)
                lines.append({"method": method, "direction": direction, **vars(found_here)})
    table = pd.DataFrame(lines)
    print(table.round(2))
    assert (table.groupby(["method", "direction"]).spearman.mean() > 0.5).all()
    assert (table.groupby(["method", "direction"]).sign.mean() > 0.7).all()
