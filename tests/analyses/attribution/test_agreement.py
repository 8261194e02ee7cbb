"""Agreement of estimated with exact effects by hand and against scipy; exact effects against plain forward passes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from contrast_prompts import activation, spliced_logits
from other_models import CLEAN, CORRUPTED, state
from scipy.stats import spearmanr
from test_nodes import LENGTH, PROMPT, difference, refused

from activations.sites import Site
from analyses.attribution.agreement import Agreement, agreement, exact_effects, sample_cells
from analyses.attribution.nodes import NODES, attribute
from analyses.prompts import DIRECTIONS

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


@pytest.mark.parametrize(
    ("architecture", "names"),
    [("llama", (*NODES, "q", "k", "v")), ("gpt2", NODES), ("codegen", NODES), ("gemma2", ("attn_out", "z", "k"))],
)
def test_exact_effects_are_those_of_plain_forward_passes(
    tiny: Callable[[str], LoadedModel], architecture: str, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = tiny(architecture)
    cells = attribute(loaded, PROMPT, names=names)
    drawn = pd.concat([sample_cells(cells, 60, seed=0), cells[~cells.differs].sample(5, random_state=0)])
    assert drawn.index.to_list() != sorted(drawn.index)
    expected = []
    for line in drawn.itertuples():
        patched, donor = ((CLEAN, CORRUPTED)[run] for run in DIRECTIONS[line.direction])
        site = Site(line.site, line.layer, None if pd.isna(line.head) else int(line.head))
        put = (site, [line.position], activation(loaded, donor, site)[[line.position]])
        effect = PROMPT.logit_difference(spliced_logits(loaded, patched, [put]) - spliced_logits(loaded, patched, []))
        expected.append(float(effect))
    assert np.abs(expected).max() > 0.1
    for suffixes in (None, True, False):
        assert exact_effects(loaded, PROMPT, drawn, suffixes) == pytest.approx(expected, abs=2e-5)
    monkeypatch.setattr("analyses.attribution.agreement.MAX_CELLS", 3)
    assert exact_effects(loaded, PROMPT, drawn) == pytest.approx(expected, abs=2e-5)
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
