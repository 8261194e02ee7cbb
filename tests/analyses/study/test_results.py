"""What is drawn from the tables: records that are JSON, findings, the calibration, and examples of what models saw."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from activations.pairs import get_pair
from analyses.study.results import calibration, examples, findings, results
from analyses.study.settings import embedded_study, read_study
from probes.tables import records
from probes.tasks import TASKS


def comparison(against: str, measure: str, difference: float, p_holm: float, **more: Any) -> dict[str, Any]:
    line = {"against": against, "measure": measure, "form": "code", "difference": difference, "p": p_holm / 2}
    rest = {"p_holm": p_holm, "minimum_detectable_effect": 0.1, "higher_is_better": True, "null_difference": 0.05}
    return {**line, **rest, **more}


@pytest.fixture
def comparisons() -> pd.DataFrame:
    lower = {"higher_is_better": False}
    return pd.DataFrame(
        [
            comparison("code", "probe", 0.3, 0.01),
            comparison("code", "probe", -0.2, 0.02, null_difference=-0.3),
            comparison("code", "probe", 0.4, 0.05),
            comparison("code", "bits per byte", -0.5, 0.01, **lower),
            comparison("code", "bits per byte", 0.5, 0.9, **lower),
            comparison("second_seed", "probe", 0.05, 0.04, null_difference=np.nan),
            comparison("second_seed", "probe", 0.0, 0.08, null_difference=np.nan),
            comparison("second_seed", "bits per byte", 0.0, 1.0, null_difference=np.nan, **lower),
        ]
    )


def test_findings_count_what_is_clear_and_which_way_it_goes(comparisons: pd.DataFrame) -> None:
    probe, bits = findings(comparisons)
    assert probe == {
        "measure": "probe", "comparisons": 3, "clear": 2, "clear_beyond_null": 1, "code_better": 1, "base_better": 1,
        "mean_difference": pytest.approx(0.5 / 3), "median_minimum_detectable_effect": 0.1,
    }  # fmt: skip
    assert (bits["clear"], bits["code_better"], bits["base_better"]) == (1, 1, 0), "fewer bits are better"


def test_without_a_null_nothing_is_said_about_it(comparisons: pd.DataFrame) -> None:
    code = comparisons[comparisons.against == "code"].assign(null_difference=np.nan)
    assert calibration(code) is None
    assert [line["clear_beyond_null"] for line in findings(code)] == [None, None]
    assert [line["clear_beyond_null"] for line in findings(code.assign(p_holm=1.0))] == [None, None]


def test_the_calibration_counts_the_null_pair_alone(comparisons: pd.DataFrame) -> None:
    assert calibration(comparisons) == {"comparisons": 3, "below_alpha": 2, "below_alpha_after_holm": 1, "alpha": 0.05}


def test_findings_without_a_detectable_effect_are_still_json(comparisons: pd.DataFrame) -> None:
    """With one cluster there is no standard error."""
    found = findings(comparisons.assign(minimum_detectable_effect=np.nan))
    assert json.loads(json.dumps(found, allow_nan=False))[0]["median_minimum_detectable_effect"] is None


def test_nothing_compared_is_nothing_found() -> None:
    assert findings(pd.DataFrame()) == []
    assert calibration(pd.DataFrame()) is None


def test_records_are_plain_and_strict_json() -> None:
    table = pd.DataFrame(
        {
            "whole": np.array([1, 2], dtype=np.int64),
            "number": np.array([0.1, np.nan]),
            "infinite": [np.inf, 1.5],
            "yes": [True, False],
            "word": ["null", None],
        }
    )
    found = json.loads(json.dumps(records(table), allow_nan=False))
    assert found == [
        {"whole": 1, "number": 0.1, "infinite": None, "yes": True, "word": "null"},
        {"whole": 2, "number": None, "infinite": 1.5, "yes": False, "word": None},
    ]


def test_results_name_the_pair_and_its_confounds(comparisons: pd.DataFrame) -> None:
    study, pair = read_study(embedded_study()), get_pair("qwen2.5-0.5b")
    found = results(study, pair, {"comparisons": comparisons, "behaviour": comparisons, "probe_rows": comparisons})
    assert found["pair"] == {"name": pair.name, "base": pair.base, "code": pair.code, "null": "embedded:text-seed2"}
    assert found["confounds"] and all(isinstance(sentence, str) for sentence in found["confounds"])
    assert list(found["tables"]) == ["comparisons"], "rows stay in the tables' own files"
    json.dumps(found, allow_nan=False)


def test_what_both_models_do_together_is_summarised_without_its_cells() -> None:
    study, pair = read_study(embedded_study()), get_pair("qwen2.5-0.5b")
    kept = ("patching", "cross_refused", "cross_retention", "cross", "overlap", "similarity")
    table = pd.DataFrame([{"effect": np.nan, "reason": "none"}])
    found = results(study, pair, dict.fromkeys((*kept, "patching_cells", "cross_cells", "cross_behaviour"), table))
    assert tuple(found["tables"]) == kept, "single items stay in the tables' own files"
    assert found["tables"]["cross"] == [{"effect": None, "reason": "none"}]


def test_examples_show_a_test_item_of_every_form() -> None:
    items = {name: TASKS[name].generate(60, 0) for name in ("nesting", "identifiers")}
    found = examples([(TASKS[name], drawn) for name, drawn in items.items()]).set_index(["task", "form"])
    assert list(found.index) == [
        ("nesting", "code"),
        ("nesting", "prose"),
        ("identifiers", "code"),
        ("identifiers", "prose"),
    ]
    texts = {item.forms["code"].text for item in items["nesting"] if item.split == "test"}
    nesting = found.loc[("nesting", "code")]
    assert nesting.text in texts and nesting.contrast not in texts
    assert nesting.answer != nesting.contrast_answer
    assert "closer = " in nesting["labels"] and "depth = " in nesting["labels"]
    assert pd.isna(found.loc[("identifiers", "code")].answer)


def test_a_form_without_test_items_has_no_example() -> None:
    train = [item for item in TASKS["nesting"].generate(60, 0) if item.split == "train"]
    assert examples([(TASKS["nesting"], train)]).empty
