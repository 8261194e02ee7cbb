from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_study, make_tables

from analyses.report import words
from probes.tables import records


def entry(clear: int = 0, code: int = 0, beyond: int | None = None, effect: float = 0.06) -> dict[str, Any]:
    return {
        "measure": "probe", "comparisons": 10, "clear": clear, "clear_beyond_null": beyond, "code_better": code,
        "base_better": clear - code, "mean_difference": -0.02, "median_minimum_detectable_effect": effect,
    }  # fmt: skip


def test_no_difference_is_called_none_with_what_could_have_been_seen() -> None:
    assert "None of the 10 comparisons" in words.verdict({"findings": [entry()]})
    said = words.finding(entry())
    assert "none of 10 differences in accuracy stands" in said
    assert "−0.020" in said and "detectable 0.060" in said


def test_differences_are_counted_by_side_and_beside_two_seeds() -> None:
    said = words.verdict({"findings": [entry(3, 1, 2)]})
    assert "3 stand" in said and "1 in favour of code and 2 in favour of base" in said
    assert "All of these are larger" in words.verdict({"findings": [entry(3, 3, 3)]})
    assert "2 of these are larger than the same difference between two seeds" in said
    assert "all in favour of code" in words.verdict({"findings": [entry(3, 3, 0)]})
    assert "None of these is larger" in words.verdict({"findings": [entry(3, 3, 0)]})
    assert "two seeds" not in words.verdict({"findings": [entry(3, 3, None)]})


def test_models_that_agree_row_by_row_have_no_detectable_effect() -> None:
    assert "no detectable difference can be stated" in words.finding(entry(effect=0.0))


def test_the_calibration_warns_only_when_two_seeds_differ() -> None:
    null = {"comparisons": 40, "below_alpha": 2, "below_alpha_after_holm": 0, "alpha": 0.05}
    assert "2 of 40 comparisons (about 2.0 would by chance" in words.calibration(null)
    assert "read each beside" not in words.calibration(null)
    assert "read each beside" in words.calibration({**null, "below_alpha_after_holm": 1})


def test_probes_are_counted_against_every_floor() -> None:
    # All floors are at 0.5 (bag of tokens) or below: base at 0.4 to 0.6 does not clear them, code at 0.65 to 0.85 does.
    base, code = words.probes_over_floor(records(make_tables()["probes"]))
    assert base.startswith("base: 0 of 3 probes lie above every surface baseline")
    assert code.startswith("code: 3 of 3 probes") and "3 also above the random-initialised model" in code


def test_ratios_that_were_not_formed_are_counted_not_averaged() -> None:
    moved = records(make_tables()["transfer"])
    assert "keeps 0.60 (median of the 1 of 2 directions" in words.transfers(moved)[0]
    none = [{**line, "ratio": None} for line in moved]
    assert words.transfers(none)[0].startswith("base: no transfer ratio could be formed in 2 directions")


def test_a_model_that_was_not_patched_gets_no_causal_sentence() -> None:
    base, code = words.retained(records(make_tables()["retention"]))
    assert "; 4 were patched. They may be right by luck" in base
    assert code.endswith("; 0 were patched. So this study says nothing causal about it.")
    masters = [{**line, "low": 0.3} for line in records(make_tables()["retention"])]
    assert words.retained(masters)[0].endswith("in 1 of 1 task form; 4 were patched.")


def test_decodable_is_never_called_used(tmp_path: Path) -> None:
    results, _ = make_study(tmp_path)
    tables = results["tables"]
    sentences = [words.verdict(results), *map(words.finding, results["findings"]), *words.transfers(tables["transfer"])]
    assert not [said for said in [*sentences, *words.probes_over_floor(tables["probes"])] if " use" in said]


@pytest.mark.parametrize(
    ("value", "plain", "sign"),
    [(-0.0001, "0.000", "+0.000"), (-1.5, "−1.500", "−1.500"), (None, "–", "–"), (float("nan"), "–", "–")],
)
def test_numbers(value: float | None, plain: str, sign: str) -> None:
    assert words.number(value) == plain
    assert words.signed(value) == sign


def test_what_names_target_and_direction() -> None:
    assert (
        words.what({"task": "binding", "target": "value", "source": "code", "form": "prose"})
        == "binding value, code → prose"
    )
    assert words.what({"task": None, "target": float("nan"), "form": "code"}) == "code"
