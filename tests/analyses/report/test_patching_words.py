from __future__ import annotations

from typing import Any

from tiny import make_tables

from analyses.report.words_patching import arrival, cells, decided, top_cells
from probes.tables import records

Line = dict[str, Any]


def patching(*models: str) -> list[Line]:
    """The made-up maps, of these models alike."""
    lines = records(make_tables()["patching"])
    return [{**line, "model": model} for model in models or ("base",) for line in lines]


def test_a_head_that_decides_is_counted_both_ways() -> None:
    said = decided(patching())
    assert said[0] == (
        "base: a single head at one role restores at least half of the answer in 1 of 1 task form (denoising; in 1 with "
        "p < 0.05 over the whole map), and a single head at one role that is taken away costs at least half of it in 1 of 1 "
        "task form (noising; in 1 with p < 0.05 over the whole map). The head that restores most is z.1.0 at role last in "
        "nesting, code: 0.75 (0.62 to 0.88)."
    )


def test_denoising_and_noising_are_counted_apart() -> None:
    lines = [
        {**line, "recovery": line["recovery"] * (0.5 if line["direction"] == "noising" else 1)} for line in patching()
    ]
    assert "restores at least half of the answer in 1 of 1" in decided(lines)[0]
    assert "costs at least half of it in 0 of 1 task form (noising; in 0 with" in decided(lines)[0]
    noised = [line for line in patching() if line["direction"] == "noising"]
    [said] = decided(noised)
    assert said.startswith("base: a single head at one role that is taken away") and "restores" not in said


def test_a_large_recovery_that_a_map_gives_by_chance_is_told_from_a_clear_one() -> None:
    said = decided([{**line, "p_max": 0.25} for line in patching()])[0]
    assert "in 1 of 1 task form (denoising; in 0 with p < 0.05 over the whole map)" in said


def test_a_recovery_of_the_wrong_sign_decides_nothing() -> None:
    """A head whose noising raises the original answer takes nothing away."""
    lines = [{**line, "recovery": 0.75 if line["direction"] == "noising" else -0.75} for line in patching()]
    assert "restores at least half of the answer in 0 of 1" in decided(lines)[0]
    assert "costs at least half of it in 0 of 1" in decided(lines)[0]


def test_the_layer_from_which_the_last_token_holds_the_answer_is_told() -> None:
    stream = [
        {**line, "recovery": 0.4} if (line["layer"], line["role"]) == (0, "last") else line for line in patching()
    ]
    arrived = arrival(cells(stream, "resid_pre")["base", "nesting", "code"])
    assert arrived and arrived["name"] == "resid_pre.1"
    assert decided(stream)[1] == (
        "base: in 1 of 1 task form the residual stream of the last token alone restores half of the answer from the input of "
        "layer 1 on."
    )
    early = [{**line, "form": "prose"} for line in patching()]
    assert decided([*stream, *early])[1].endswith("from the input of layer 0 or, at the latest, 1 on.")


def test_an_answer_that_the_last_layer_brings_is_told_as_such() -> None:
    weak = [{**line, "recovery": line["recovery"] / 4} for line in patching()]
    late = "not even the input of the last layer holds half of it there, so that the last layer brings the better part."
    assert decided(weak)[1] == f"base: in 1 of 1 task form {late}"
    both = decided([*weak, *({**line, "form": "prose"} for line in patching())])[1]
    assert both.startswith("base: in 1 of 2 task forms the residual stream") and both.endswith(f"on; in 1 {late}")


def test_models_that_were_not_patched_get_no_sentence() -> None:
    assert [said.split(":")[0] for said in decided(patching("second_seed", "code"))] == ["code", "code"]
    assert decided([]) == [] and top_cells([]) == []


def test_the_table_of_cells_leaves_out_what_is_large_by_construction() -> None:
    lines = [
        {**line, "effect": 9.0} if line["layer"] == 0 and line["site"] == "resid_pre" else line for line in patching()
    ]
    tops = top_cells(lines)
    assert [(cell["name"], cell["role"]) for cell in tops[:3]] == [
        ("resid_pre.1", "opener"),
        ("resid_pre.0", "last"),
        ("z.1.0", "last"),
    ]
    assert len(tops) == 5
    assert tops[2]["denoising"]["recovery"] == 0.75 and tops[2]["noising"]["recovery"] == -0.625
    assert tops[0]["noising"] is None


def test_other_donors_and_windows_are_other_maps() -> None:
    others = [
        {**line, key: value, "recovery": 1.0}
        for line in patching()
        for key, value in (("donor", "mean"), ("window", 3))
    ]
    assert decided([*patching(), *others]) == decided(patching())
