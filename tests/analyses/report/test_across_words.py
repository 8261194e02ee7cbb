from __future__ import annotations

from typing import Any

import pytest
from tiny import make_tables

from analyses.report.words_across import brought, identity, overlaps, refused, retained_across, top_cells
from analyses.report.words_alike import alike
from probes.tables import records

Line = dict[str, Any]


@pytest.fixture(scope="module")
def tables() -> dict[str, list[Line]]:
    return {name: records(table) for name, table in make_tables().items()}


def test_what_either_model_knows_is_counted_and_where_none_does(tables: dict[str, list[Line]]) -> None:
    assert retained_across(tables["cross_retention"]) == [
        "Of 20 prompts put to both models, base answers 2 rightly in both texts, code 5, either of them 6 and both 1; 6 of "
        "those that either answers rightly were patched, in 1 of 2 task forms.",
        "Neither model answers any prompt rightly in nesting, prose: nothing could be patched there.",
    ]
    without = [{"prompts": 0, "task": "binding", "form": "code"}]
    assert retained_across(without) == retained_across([]) == []


def test_each_reason_for_a_refusal_is_given_once() -> None:
    reasons = [
        ("nesting", "code", "other shapes"),
        ("nesting", "prose", "other shapes"),
        ("roles", "code", "other tokens"),
    ]
    lines = [{"task": task, "form": form, "reason": reason} for task, form, reason in reasons]
    assert refused(lines) == ["nesting, code; nesting, prose: other shapes", "roles, code: other tokens"]


def test_what_arrives_is_told_beside_its_controls(tables: dict[str, list[Line]]) -> None:
    there, back = brought(tables["cross"], ("last",))
    assert there == (
        "code → base, residual stream at the last token: base’s lead rises with its whole interval in 1 of 2 cells, in 1 of "
        "them beyond the controls in the same cell, and falls in 0 (second seed as the donor: 0 and 0). It moves most with "
        "resid_post.1 at role last in nesting, code: +1.50 logits (1.00 to 2.00), where the donor’s lead is 4.00 larger; "
        "random donor there +0.12; second seed there +0.00."
    )
    assert back == (
        "base → code, residual stream at the last token: code’s lead rises with its whole interval in 0 of 2 cells and falls "
        "in 1. It moves most with resid_post.1 at role last in nesting, code: −2.00 logits (−2.50 to −1.50), where the "
        "donor’s lead is 4.00 smaller; random donor there −2.00."
    )


@pytest.mark.parametrize("control", [("code", "random"), ("second_seed", "other")])
def test_a_rise_that_a_control_brings_as_well_is_not_beyond_it(
    tables: dict[str, list[Line]], control: tuple[str, str]
) -> None:
    raised = [
        {**line, "effect": 1.25} if (line["donor_model"], line["donor"]) == control else line
        for line in tables["cross"]
    ]
    assert "rises with its whole interval in 1 of 2 cells, in 0 of them beyond" in brought(raised, ("last",))[0]


def test_without_intervals_and_controls_nothing_is_claimed(tables: dict[str, list[Line]]) -> None:
    bare = {"effect_low": None, "effect_high": None}
    alone = [
        {**line, **bare}
        for line in tables["cross"]
        if line["donor"] == "other" and line["donor_model"] != "second_seed"
    ]
    said = brought(alone, ("last",))[0]
    assert "rises with its whole interval in 0 of 2 cells and falls in 0. It moves" in said
    assert said.endswith("+1.50 logits (–), where the donor’s lead is 4.00 larger.")
    assert brought([]) == []


def test_every_kind_of_cell_has_its_sentence_and_its_line(tables: dict[str, list[Line]]) -> None:
    said = brought(tables["cross"])
    kinds = ("the last token", "the tokens of another role", "whole residual stream", "a single head at all tokens")
    assert len(said) == 8 and all(kind in sentence for kind, sentence in zip(kinds, said, strict=False))
    tops = top_cells(tables["cross"])
    assert [(cell["receiver"], cell["kind"]) for cell in tops] == [
        (receiver, kind) for receiver in ("base", "code") for kind in ("last", "elsewhere", "stream", "head")
    ]
    assert tops[0]["name"] == "resid_post.1" and tops[3]["name"].startswith("z.")
    assert tops[0]["random"]["effect"] == 0.125 and tops[4]["second_seed"] is None


def test_an_identity_that_changes_something_is_not_hidden(tables: dict[str, list[Line]]) -> None:
    assert (
        identity(tables["cross"]) == "Identity: a model’s own activations, put back, change nothing in any of 30 cells."
    )
    off = [{**line, "effect": -3e-5} if line["donor"] == "identity" else line for line in tables["cross"]]
    assert "move the answer by up to 3.0e-05 logits" in str(identity(off))
    assert identity([]) is None


def test_heads_are_compared_beside_two_seeds(tables: dict[str, list[Line]]) -> None:
    said = overlaps(tables["overlap"])
    assert said[0] == (
        "base and code, denoising: Spearman’s correlation of the heads’ effects is 0.25; its interval lies above what heads "
        "exchanged within their layers give in 1 of 1 map."
    )
    assert [sentence.split(":")[0] for sentence in said[1:]] == [
        "two seeds of base, denoising",
        "two seeds of base, noising",
    ]
    more = [{**line, "form": "prose", "estimate": 0.5, "low": 0.0} for line in tables["overlap"][:1]]
    assert "is 0.38, median of 2 maps from 0.25 to 0.50; its interval" in overlaps([*tables["overlap"], *more])[0]
    assert overlaps([]) == []


def test_likeness_is_told_beside_ceiling_and_floor(tables: dict[str, list[Line]]) -> None:
    code, prose = alike(tables["similarity"])
    assert code == (
        "code text: CKA of base and code is lowest at embed, 0.44 (0.39 to 0.49); two seeds of base there 0.81 (0.76 to "
        "0.86); base and the random model there 0.06 (0.01 to 0.11). With intervals apart, base and code are less alike than "
        "two seeds in 2 of 2 sites and more alike in 0."
    )
    assert prose.endswith("less alike than two seeds in 0 of 2 sites and more alike in 0.")


def test_without_seeds_or_documents_likeness_has_no_yardstick(tables: dict[str, list[Line]]) -> None:
    alone = [line for line in tables["similarity"] if line["model_b"] == "code"]
    assert alike(alone)[0] == "code text: CKA of base and code is lowest at embed, 0.44 (0.39 to 0.49)."
    single = [{**line, "low": None, "high": None} for line in tables["similarity"]]
    assert "in 0 of 2 sites and more alike in 0" in alike(single)[0]
    assert alike([line for line in alone if line["measure"] != "cka"]) == alike([]) == []


def test_sites_are_compared_with_themselves_alone(tables: dict[str, list[Line]]) -> None:
    crossed = [{**line, "site_b": "other", "value": 0.0} for line in tables["similarity"]]
    assert alike([*tables["similarity"], *crossed]) == alike(tables["similarity"])
