"""``lens``: every layer of both models through their own heads, of models whose last word is known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from calling import contents, done, on_small_study, refused
from study_models import learned_items

PNG = b"\x89PNG\r\n\x1a\n"
MEASURES = ["logit_difference", "median_rank", "first"]


@pytest.fixture
def lens(study_file: Path, tmp_path: Path) -> Any:
    """``twinprobe lens`` on models of the small study, into ``tmp_path/lens``."""
    return on_small_study("lens", study_file, tmp_path / "lens")


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Eight items that ``base`` has learned."""
    return learned_items(tmp_path / "items.jsonl", 8)


def test_the_model_that_knows_the_answers_says_them_after_its_last_layer(
    lens: Any, items: Path, tmp_path: Path
) -> None:
    shown = done(lens("--items", items))
    out = tmp_path / "lens"
    assert sorted(contents(out)) == ["lens-items-text.png", "lens.csv", "lens_answers.csv"]
    assert (out / "lens-items-text.png").read_bytes().startswith(PNG)
    table = pd.read_csv(out / "lens.csv")
    assert list(zip(table.model, table.layer, strict=True)) == [("base", 0), ("base", 1), ("code", 0), ("code", 1)]
    last = table[table.layer == 1].set_index("model")
    assert last["first"]["base"] > 0.8 > last["first"]["code"], "base has learned these items"
    assert last.median_rank["base"] == 1
    assert last.low["base"] > 1
    answers = pd.read_csv(out / "lens_answers.csv")
    assert len(answers) == 8 * 2 * 2 * 2
    for line in table.itertuples():
        own = answers[(answers.model == line.model) & (answers.layer == line.layer)]
        expected = [own.logit_difference.mean(), own["rank"].median(), (own["rank"] == 1).mean()]
        assert [line.logit_difference, line.median_rank, line.first] == pytest.approx(expected)
        [words] = [each.split() for each in shown.splitlines() if each.split()[:2] == [line.model, str(line.layer)]]
        assert words[2] == f"{line.logit_difference:.3f}" and words[-3:-1] == [
            f"{line.median_rank:g}",
            f"{line.first:.3f}",
        ]


def test_a_copy_has_the_same_lines_and_only_the_first_prompts_are_read(lens: Any, items: Path) -> None:
    shown = json.loads(
        done(lens("--items", items, "--max-prompts", 3, "--json", code="null")), parse_constant=pytest.fail
    )
    base, code = ([each for each in shown["lens"] if each["model"] == role] for role in ("base", "code"))
    assert [{**each, "model": "code"} for each in base] == code
    assert {each["prompts"] for each in base} == {3}
    assert shown["without"] == []


def test_a_form_of_a_task_takes_the_place_of_an_earlier_run(lens: Any, tmp_path: Path) -> None:
    out = tmp_path / "lens"
    out.mkdir()
    for name in ("lens-nesting-prose.png", "grafts-of-another-command.png"):
        (out / name).touch()
    shown = done(lens("--task", "nesting", "--form", "code", "--max-prompts", 6))
    assert "Logit lens on nesting, code form" in shown
    assert {path.name for path in out.glob("*.png")} == {"lens-nesting-code.png", "grafts-of-another-command.png"}
    table = pd.read_csv(out / "lens.csv")
    assert set(table.form) == {"code"} and set(table.task) == {"nesting"} and set(table.prompts) == {6}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["--task NAME", "--items FILE"]),
        (["--task", "identifiers"], ["no answers and contrasts"]),
        (["--task", "nesting", "--form", "formal"], ["form 'formal'", "code, prose"]),
        (["--task", "nesting", "--max-prompts", "0"], ["0", "x>=1"]),
        (["--task", "nesting", "--pair", "embedded"], ["either --pair NAME"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(lens: Any, options: list[str], expected: list[str], tmp_path: Path) -> None:
    refused(lens(*options), *expected)
    assert not (tmp_path / "lens").exists()


def test_no_prompt_at_all_is_one_line(lens: Any, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": 1, "clean": "the", "answer": "]", "corrupted": "z z", "contrast": ")"}\n')
    refused(lens("--items", file), "no item of items in text form", "token counts differ (1)")


def test_foreign_files_are_refused_and_left_alone(lens: Any, items: Path, tmp_path: Path) -> None:
    (tmp_path / "lens").mkdir()
    (tmp_path / "lens" / "thesis.tex").write_text("dear reader")
    refused(lens("--items", items), "holds other files", "choose another --out")
    assert contents(tmp_path / "lens") == {"thesis.tex": b"dear reader"}
