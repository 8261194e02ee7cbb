"""``graft``: parts of one model in the other and the way between the two, with ends that are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from calling import contents, done, on_small_study, refused, twinprobe
from study_models import learned_items

PNG = b"\x89PNG\r\n\x1a\n"
PARTS = ["embed", "blocks.0", "blocks.1", "unembed"]
PICTURES = ("grafts-items-text.png", "interpolation-items-text.png")
TABLES = ("grafts.csv", "graft_answers.csv", "interpolation.csv", "interpolation_answers.csv")


@pytest.fixture
def graft(study_file: Path, tmp_path: Path) -> Any:
    """``twinprobe graft`` on models of the small study, into ``tmp_path/graft``."""
    return on_small_study("graft", study_file, tmp_path / "graft")


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Six items that ``base`` has learned; one more whose answers are one and the same token."""
    return learned_items(tmp_path / "items.jsonl", 6, and_unusable=True)


def line(shown: str, *words: str) -> list[str]:
    """The words of the one printed line that begins with ``words``."""
    [found] = [each.split() for each in shown.splitlines() if each.split()[: len(words)] == list(words)]
    return found


def test_every_part_goes_both_ways(graft: Any, items: Path, tmp_path: Path) -> None:
    shown = done(graft("--items", items, "--alphas", "1,0.5,0"))
    out = tmp_path / "graft"
    assert sorted(contents(out)) == sorted([*TABLES, *PICTURES])
    assert all((out / name).read_bytes().startswith(PNG) for name in PICTURES)
    grafts, curve = (pd.read_csv(out / name).set_index(by) for name, by in ((TABLES[0], "host"), (TABLES[2], "alpha")))
    assert [list(grafts.loc[host].graft) for host in ("base", "code")] == [["none", *PARTS]] * 2
    assert (grafts.prompts == 6).all() and set(grafts.form) == {"text"}
    assert (grafts.chance == 1 / 4).all() and "chance 0.250" in shown, "two answers, and right in both texts"
    # The ends of the curve are the two untouched models.
    untouched = grafts[grafts.graft == "none"]
    assert list(curve.index) == [0, 0.5, 1]
    assert curve.accuracy[[0, 1]].tolist() == untouched.accuracy.tolist()
    assert curve.logit_difference[[0, 1]].tolist() == pytest.approx(untouched.logit_difference.tolist())
    assert untouched.accuracy["base"] > 0.8 > untouched.accuracy["code"], "base has learned these items"
    for host, donor in (("base", "code"), ("code", "base")):
        for one in grafts[grafts.graft != "none"].loc[host].itertuples():
            numbers = [float(word) for word in line(shown, host, donor, one.graft)[3:] if word not in ("to", "–")]
            assert [numbers[0], numbers[1]] == pytest.approx([one.accuracy, one.accuracy_change], abs=5e-4)
            assert one.logit_difference_change == pytest.approx(one.logit_difference - untouched.logit_difference[host])
    answers = pd.read_csv(out / TABLES[1])
    part = answers[(answers.host == "base") & (answers.graft == "blocks.0")]
    expected = grafts[grafts.graft == "blocks.0"].loc["base"]
    assert part.logit_difference_change.mean() == pytest.approx(expected.logit_difference_change)
    assert abs(expected.logit_difference_change) > 0.1


def test_all_parts_together_are_the_other_model(graft: Any, items: Path) -> None:
    options = ("--part", "+".join(PARTS), "--part", "blocks.1", "--alphas", "0", "--json")
    shown = json.loads(done(graft("--items", items, *options)), parse_constant=pytest.fail)
    found = {(each["host"], each["graft"]): each for each in shown["grafts"]}
    assert [graft for host, graft in found if host == "base"] == ["none", "+".join(PARTS), "blocks.1"]
    for host, other in (("base", "code"), ("code", "base")):
        for measure in ("accuracy", "logit_difference"):
            assert found[host, "+".join(PARTS)][measure] == pytest.approx(found[other, "none"][measure])
    assert [each["alpha"] for each in shown["interpolation"]] == [0]


def test_parts_of_a_copy_change_nothing_also_as_a_control(
    graft: Any, study_file: Path, items: Path, tmp_path: Path
) -> None:
    shown = done(
        graft("--items", items, "--part", "blocks.0", "--alphas", "0,1", "--control", study_file.parent / "null")
    )
    grafts = pd.read_csv(tmp_path / "graft" / "grafts.csv")
    assert list(zip(grafts.host, grafts.donor, strict=True)) == [
        ("base", "none"), ("base", "code"), ("base", "control"), ("code", "none"), ("code", "base"),
    ]  # fmt: skip
    control = grafts.iloc[2]
    assert control.accuracy_change == control.logit_difference_change == 0
    assert grafts.iloc[1].logit_difference_change != 0
    assert line(shown, "base", "control", "blocks.0")[3:5] == [f"{grafts.accuracy[0]:.3f}", "0.000"]
    done(graft("--items", items, "--alphas", "0.5", code="null"))
    grafts, curve = (pd.read_csv(tmp_path / "graft" / name) for name in (TABLES[0], TABLES[2]))
    assert (grafts[["accuracy_change", "logit_difference_change"]] == 0).all(axis=None)
    assert curve.logit_difference_change.abs().max() < 1e-5


def test_a_form_without_prompts_is_said_beside_the_others(graft: Any, tmp_path: Path) -> None:
    """One group of one item: its means have no interval."""
    fits = {"text": "the", "answer": "]", "contrast": {"text": "the", "answer": ")"}}
    longer = {**fits, "contrast": {"text": "the the the", "answer": ")"}}
    file = tmp_path / "items.jsonl"
    file.write_text(json.dumps({"id": 1, "forms": {"short": fits, "long": longer}}) + "\n")
    options = ("--items", file, "--part", "embed", "--alphas", "0")
    shown = done(graft(*options))
    assert "no item of items in long form gives a usable prompt: token counts differ (1)" in shown
    assert line(shown, "base", "code", "embed")[-1] == "–"
    assert list(pd.read_csv(tmp_path / "graft" / "interpolation.csv").form) == ["short"]
    refused(graft(*options, "--form", "long"), "no item of items in long form", "token counts differ (1)")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["--task NAME", "--items FILE"]),
        (["--task", "identifiers"], ["no answers and contrasts"]),
        (["--task", "nesting", "--alphas", "0,much"], ["'0,much'", "from 0 (base) to 1 (code)"]),
        (["--task", "nesting", "--alphas", "1.5"], ["'1.5'", "from 0 (base) to 1 (code)"]),
        (["--task", "nesting", "--alphas", "nan"], ["'nan'"]),
        (["--task", "nesting", "--quantization", "8bit"], ["8bit", "can not be mixed"]),
        (["--task", "nesting", "--pair", "embedded"], ["either --pair NAME"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(graft: Any, options: list[str], expected: list[str], tmp_path: Path) -> None:
    refused(graft(*options), *expected)
    assert not (tmp_path / "graft").exists()


def test_an_unknown_part_is_one_line_before_any_work(graft: Any, items: Path, tmp_path: Path) -> None:
    refused(
        graft("--items", items, "--part", "blocks.7"), "part 'blocks.7' is not known", "blocks.0, blocks.1, unembed"
    )
    assert contents(tmp_path / "graft") == {}


def test_models_that_can_not_exchange_weights_are_refused(study_file: Path, items: Path, tmp_path: Path) -> None:
    base = study_file.parent / "base"
    for other in (("--code", "embedded:code"), ("--code", base, "--control", "embedded:code")):
        ran = twinprobe("graft", "--base", base, *other, "--items", items, "--out", tmp_path / "g", "--no-self-check")
        refused(ran, "embedded:code can not exchange activations or weights", "the number of layers is 2 and 6")


def test_foreign_files_are_refused_and_an_earlier_run_is_replaced(graft: Any, items: Path, tmp_path: Path) -> None:
    out = tmp_path / "graft"
    out.mkdir()
    for name in ("grafts-of-an-earlier-run.png", "lens-of-another-command.png"):
        (out / name).touch()
    done(graft("--items", items, "--part", "embed", "--alphas", "0"))
    assert sorted(contents(out)) == sorted([*TABLES, *PICTURES, "lens-of-another-command.png"])
    (out / "thesis.tex").write_text("dear reader")
    refused(graft("--items", items), "holds other files", "choose another --out")
