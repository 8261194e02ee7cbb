"""Pooling over draws: intervals that cover, and tables that keep their columns."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from probes.seeds import pool_seeds, pooled_interval


def test_one_draw_keeps_its_own_interval() -> None:
    found = pooled_interval([0.5], [0.35], [0.7])
    assert (found.estimate, found.low, found.high) == (0.5, 0.35, 0.7)


@pytest.mark.parametrize("spread", [0.0, 0.05])
def test_the_interval_covers_the_truth_over_items_and_draws(spread: float) -> None:
    """Draws scatter by ``spread`` around the truth, items within a draw by their own sampling error."""
    rng = np.random.default_rng(0)
    covered, n_items = 0, 200
    for _ in range(600):
        rates = np.clip(rng.normal(0.6, spread, 6), 0, 1)
        means = rng.binomial(n_items, rates) / n_items
        errors = 1.96 * np.sqrt(means * (1 - means) / n_items)
        found = pooled_interval(means, means - errors, means + errors)
        covered += found.low <= 0.6 <= found.high
    assert 0.88 <= covered / 600 <= 0.99


def test_a_table_is_pooled_line_by_line() -> None:
    table = pd.DataFrame(
        {
            "target": ["a", "a", "b", "b"],
            "seed": [0, 1, 0, 1],
            "family": "logistic",
            "n_test": [10, 12, 5, 5],
            "n_classes": 4,
            "score": [0.4, 0.6, 0.5, 0.5],
            "low": [0.3, 0.5, 0.4, np.nan],
            "high": [0.5, 0.7, 0.6, np.nan],
            "ratio": [0.2, np.nan, np.nan, np.nan],
            "ratio_low": [0.1, np.nan, np.nan, np.nan],
            "ratio_high": [0.3, np.nan, np.nan, np.nan],
            "chosen": [True, True, False, False],
        }
    )
    found = pool_seeds(table, ["target"], [("score", "low", "high"), ("ratio", "ratio_low", "ratio_high")])
    assert "seed" not in found
    first, second = found.to_dict("records")
    assert (first["target"], first["family"], first["n_test"], first["n_classes"]) == ("a", "logistic", 22, 4)
    assert first["score"] == pytest.approx(0.5)
    assert first["low"] < 0.4 < 0.6 < first["high"], "two draws far apart say little about a third"
    assert first["ratio"] == 0.2, "only one draw has a ratio"
    assert (first["ratio_low"], first["ratio_high"]) == (0.1, 0.3)
    assert (first["seeds"], first["seed_spread"]) == (2, pytest.approx(np.std([0.4, 0.6], ddof=1)))
    assert (first["chosen"], second["chosen"]) == (True, False)
    assert np.isnan(second["ratio"]) and np.isnan(second["low"])
