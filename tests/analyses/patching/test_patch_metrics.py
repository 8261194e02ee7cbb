"""Metrics of patched runs by hand, and recovery in each of them."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch

from analyses.patching.metrics import MIN_GAPS, measure
from analyses.patching.summaries import recoveries
from analyses.prompts import Prompt

PROMPT = Prompt("i", "g", 0, (0, 1), (0, 2), 1, 3, (1, 3), ("a", "b"), ("other", "last"))
"""The answer is token 1 of four, the contrast token 3."""


def test_metrics_by_hand() -> None:
    """Odds of 1, 2, 4 and 1 among four tokens in the clean run; 4, 1, 2 and 1 in the patched one."""
    clean, run = torch.tensor([1.0, 2, 4, 1]).log(), torch.tensor([4.0, 1, 2, 1]).log()
    found = measure(PROMPT, torch.stack([run, clean, run + 7.0]), clean)
    assert list(found) == list(MIN_GAPS)
    assert found["logit_difference"].tolist() == pytest.approx([0, math.log(2), 0], abs=1e-6)
    assert found["probability"].tolist() == pytest.approx([1 / 8, 2 / 8, 1 / 8], abs=1e-6)
    # 1/8 log(1/4) + 2/8 log(2/1) + 4/8 log(4/2); the other way round it would be 5/8 log(2).
    divergence = math.log(2) * (-2 / 8 + 2 / 8 + 4 / 8)
    assert found["kl"].tolist() == pytest.approx([divergence, 0, divergence], abs=1e-6)
    # The last token ties with the answer in the patched run: a tie does not push the answer down.
    assert found["rank"].tolist() == [3, 2, 3]


def test_ranks_with_ties() -> None:
    logits = torch.tensor([[5.0, 5, 5, 5], [6.0, 5, 6, 5], [1.0, 9, 1, 1], [9.0, 1, 9, 9]])
    assert measure(PROMPT, logits, logits[0])["rank"].tolist() == [1, 3, 1, 4]


def test_a_divergence_is_never_below_zero_and_of_full_precision() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(400, generator=generator)
    near = clean + 1e-4 * torch.randn(50, 400, generator=generator)
    assert (measure(PROMPT, near, clean)["kl"] >= 0).all()
    half = clean.bfloat16()
    expected = torch.nn.functional.kl_div(
        half.float().log_softmax(0), clean.bfloat16().float().log_softmax(0), log_target=True, reduction="sum"
    )
    found = measure(PROMPT, half[None], clean.bfloat16())
    assert float(found["kl"][0]) == pytest.approx(float(expected), abs=1e-6)
    assert {values.dtype for values in found.values()} == {torch.float32}


def tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two items: ``wide`` has a gap in every metric, ``narrow`` one that is too small in each."""
    runs = {
        "probability": {"wide": (0.5, 0.1), "narrow": (0.5, 0.495)},
        "rank": {"wide": (1.0, 11.0), "narrow": (1.0, 1.0)},
        "kl": {"wide": (0.0, 2.0), "narrow": (0.0, 0.005)},
    }
    retention = pd.DataFrame(
        {"item": item, **{f"{name}_{text}": own[item][number] for name, own in runs.items()
                          for number, text in enumerate(("clean", "corrupted"))}}
        for item in ("wide", "narrow")
    )  # fmt: skip
    cells = pd.DataFrame(
        {"item": item, "direction": direction, "probability": 0.2, "rank": 6.0, "kl": 0.5, "effect": 9.0,
         "recovery": 0.9, "logit_difference": 1.0}
        for item in ("wide", "narrow") for direction in ("denoising", "noising")
    )  # fmt: skip
    return cells, retention


@pytest.mark.parametrize(
    ("metric", "effects", "recovered"),
    [
        # Effects against the run that is patched: the corrupted one, then the clean one.
        ("probability", [0.2 - 0.1, 0.2 - 0.5], [0.1 / 0.4, -0.3 / 0.4]),
        ("rank", [6.0 - 11, 6.0 - 1], [0.5, -0.5]),
        ("kl", [0.5 - 2.0, 0.5], [0.75, -0.25]),
    ],
)
def test_recovery_in_another_metric(metric: str, effects: list[float], recovered: list[float]) -> None:
    cells, retention = tables()
    found = recoveries(cells, retention, metric)
    assert found.effect[:2].tolist() == pytest.approx(effects)
    assert found.recovery[:2].tolist() == pytest.approx(recovered)
    assert found.recovery[2:].isna().all()
    assert found.effect[2:].notna().all()
    changed = [name for name in cells if not cells[name].equals(found[name])]
    assert changed == ["effect", "recovery"]


def test_a_gap_that_is_just_wide_enough_counts() -> None:
    cells, retention = tables()
    for gap, known in ((MIN_GAPS["rank"], True), (-MIN_GAPS["rank"], True), (0.99, False)):
        retention["rank_corrupted"] = retention.rank_clean + gap
        assert recoveries(cells, retention, "rank").recovery.notna().all() == known


def test_the_logit_difference_is_what_the_table_has() -> None:
    cells, retention = tables()
    pd.testing.assert_frame_equal(recoveries(cells, retention, "logit_difference"), cells)
    assert np.isfinite(cells.recovery).all()
