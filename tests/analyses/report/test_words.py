from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny import make_study, make_tables

from analyses.report import words
from analyses.report.words_causal import retained, telling, used, without_prompt
from analyses.report.words_decodable import between_models, left_out, probes_over_floor, transfers
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
    base, code = probes_over_floor(records(make_tables()["probes"]))
    assert base.startswith("base: 0 of 3 probes lie above every surface baseline")
    assert code.startswith("code: 3 of 3 probes") and "3 also above the random-initialised model" in code


def test_ratios_that_were_not_formed_are_counted_not_averaged() -> None:
    moved = records(make_tables()["transfer"])
    assert "keeps 0.60 (median of the 1 of 2 directions" in transfers(moved)[0]
    none = [{**line, "ratio": None} for line in moved]
    assert transfers(none)[0].startswith("base: no transfer ratio could be formed in 2 directions")


def test_a_model_that_was_not_patched_gets_no_causal_sentence() -> None:
    base, code = retained(records(make_tables()["retention"]))
    assert "; 4 were patched. They may be right by luck" in base
    assert code.endswith("; 0 were patched. So patching says nothing about it.")
    masters = [{**line, "low": 0.3} for line in records(make_tables()["retention"])]
    assert retained(masters)[0].endswith("in 1 of 1 task form; 4 were patched.")


def test_decodable_is_never_called_used(tmp_path: Path) -> None:
    results, _ = make_study(tmp_path)
    tables = results["tables"]
    sentences = [words.verdict(results), *map(words.finding, results["findings"]), *transfers(tables["transfer"])]
    sentences += [*left_out(tables["left_out"]), *between_models(tables["mapped"])]
    assert not [said for said in [*sentences, *probes_over_floor(tables["probes"])] if " use" in said]


def test_an_edit_counts_where_the_probe_read_its_label_and_was_fooled() -> None:
    tables = make_tables()
    edits, probes = records(tables["interventions"]), records(tables["probes"])
    base, steering, code, _ = used(edits, probes)
    assert base.startswith(
        "base, removal: in 2 of 2 targets and forms the probe read its label and the edit fooled it."
    )
    assert "In 0 of these" in base and base.endswith("in 2 the label is decodable, but not seen to be used there.")
    assert "In 2 of these the answer’s lead fell beyond random directions (by chance in about 0.1)." in code
    assert steering.startswith("base, steering: in none of 2 targets and forms did") and "nothing follows" in steering
    blind = [{**line, "low": line["majority"]} for line in probes]
    assert not telling(edits, blind)
    assert all("in none of 2" in said for said in used(edits, blind))


def test_an_effect_must_show_both_from_the_start_and_beyond_random_directions() -> None:
    tables = make_tables()
    probes = records(tables["probes"])
    edits = [line for line in records(tables["interventions"]) if line["model"] == "code" and line["kind"] == "remove"]

    def said(**changed: float | None) -> str:
        return used([{**line, **changed} for line in edits], probes)[0]

    assert "In 2 of these the answer’s lead fell" in said()
    assert "In 0 of these" in said(diff_high=0.1)
    assert "In 0 of these" in said(high=0.1)
    assert "In 0 of these" in said(low=None, high=None, diff_low=None, diff_high=None)
    assert "in 2 it rose" in said(low=0.1, high=0.2, diff_low=0.1, diff_high=0.2)


def test_edits_that_do_not_count_are_counted_beside_the_others() -> None:
    tables = make_tables()
    edits = records(tables["interventions"])
    edits = [{**line, "fooled": 0.2} if line["form"] == "prose" else line for line in edits]
    said = used(edits, records(tables["probes"]))[0]
    assert "in 1 of 2 targets and forms" in said and said.endswith("The other 1 says nothing.")


def test_a_reason_for_dropping_items_is_given_once_for_all_models() -> None:
    edits = records(make_tables()["interventions"])
    assert without_prompt(edits) == [
        "binding value, code (base, code, second seed): answers do not settle the label (7); no prompt was left"
    ]


def test_a_probe_that_does_not_beat_every_control_map_adds_no_ratio() -> None:
    mapped = records(make_tables()["mapped"])
    there, back, null = between_models(mapped)
    assert there == (
        "base → code: 2 of 3 probes read the other model through the map better than through any control map; of what "
        "code’s own probe gains they keep 0.47 (median of the 2 ratios formed, range 0.47 to 0.47)."
    )
    assert "code → base: 2 of 2 probes" in back and back.endswith("1 probe could not be mapped.")
    assert null.startswith("base → second seed (the null pair, the yardstick)")
    none = between_models([{**line, "score": 0.4} for line in mapped])
    assert (
        none[0]
        == "base → code: 0 of 3 probes read the other model through the map better than through any control map."
    )
    gone = between_models([{"source_model": "base", "target_model": "code", "left_out": "code has no resid_post.9"}])
    assert gone[0].endswith("1 probe could not be mapped.")


def test_forms_left_out_are_counted_above_chance() -> None:
    held = records(make_tables()["left_out"])
    assert left_out(held)[0] == (
        "base: trained on all other forms, a probe lies above chance with its whole interval in 1 of 1 form left out; of the "
        "gain of a probe of that form itself it keeps 0.59."
    )
    assert "in 0 of 1 form left out." in left_out([{**line, "low": 0.2, "ratio": None} for line in held])[0]


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


def test_the_forms_of_a_study_are_named_where_they_are_the_usual_ones() -> None:
    assert words.written({"code", "prose"}) == words.written({"code"}) == "as code and as prose"
    assert words.written({"code", "prose", "formal"}).endswith("in a formal notation")
    assert words.written({"code", "Finnish"}) == "in several forms"
