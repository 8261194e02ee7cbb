"""``patch``: both models of a pair on a task or on one's own items; tables, heat maps, and who was patched at all."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from calling import Ran, contents, done, refused, twinprobe
from study_models import known_answers

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def patch(study_file: Path, tmp_path: Path) -> Any:
    """``twinprobe patch`` on the two models of the small study, into ``tmp_path/patch``."""
    models = ("--base", study_file.parent / "base", "--code", study_file.parent / "code")

    def run(*options: object, out: Path = tmp_path / "patch") -> Ran:
        return twinprobe("patch", *models, "--out", out, *options)

    return run


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Items that ``base`` has learned; one more whose answers are one and the same token."""
    known = known_answers("prose")
    lines = [
        {"id": i, "clean": clean, "answer": answer, "corrupted": corrupted, "contrast": contrast}
        for i, ((clean, answer), (corrupted, contrast)) in enumerate(zip(known[::2], known[1::2], strict=True))
    ]
    lines.append({"id": "same", "clean": "x [", "answer": "]", "corrupted": "x (", "contrast": "]"})
    file = tmp_path / "items.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


def test_own_items_are_patched_in_both_models(patch: Any, items: Path, tmp_path: Path) -> None:
    shown = done(patch("--items", items, "--max-items", 4, "--check-exact", 2))
    out = tmp_path / "patch"
    assert set(contents(out)) == {
        "behaviour.csv", "patching.csv", "patching_cells.csv", "retention.csv", "patching-items-text.png",
    }  # fmt: skip
    assert (out / "patching-items-text.png").read_bytes().startswith(PNG)
    retention = pd.read_csv(out / "retention.csv").set_index("model")
    assert list(retention.index) == ["base", "code"]
    assert retention.loc["base", "both_right"] >= 15, "base has learned these items"
    assert retention.loc["code", "both_right"] < 10
    assert retention.loc["base", "patched"] == 4
    assert (retention.not_aligned == 1).all() and retention.why_not_aligned.str.contains(
        "share their first token"
    ).all()
    assert (retention.checked <= 2).all() and (retention.max_error < 1e-4).all()
    for model, row in retention.iterrows():
        [line] = [line for line in shown.splitlines() if line.split()[:1] == [model]]
        assert line.split()[1:4] == ["text", str(row.prompts), str(row.both_right)]
    cells = pd.read_csv(out / "patching_cells.csv")
    means = (
        cells[cells.model == "base"]
        .groupby(["layer", "role", "item"])
        .recovery.mean()
        .groupby(["layer", "role"])
        .mean()
    )
    table = pd.read_csv(out / "patching.csv")
    table = table[table.model == "base"].set_index(["layer", "role"])
    pd.testing.assert_series_equal(table.recovery.sort_index(), means.sort_index(), check_exact=False)
    assert str(out) in shown


def test_json_holds_retention_and_maps(patch: Any, items: Path, tmp_path: Path) -> None:
    shown = json.loads(done(patch("--items", items, "--max-items", 2, "--json")), parse_constant=pytest.fail)
    assert shown["out"] == str(tmp_path / "patch")
    assert [line["model"] for line in shown["retention"]] == ["base", "code"]
    assert len(shown["patching"]) == len(pd.read_csv(tmp_path / "patch" / "patching.csv"))


def test_a_task_is_patched_in_the_form_asked_for(patch: Any, tmp_path: Path) -> None:
    shown = done(patch("--task", "nesting", "--form", "code", "--max-prompts", 30, "--max-items", 2))
    assert "Retention on nesting" in shown
    retention = pd.read_csv(tmp_path / "patch" / "retention.csv")
    assert list(retention.form) == ["code", "code"]
    assert (retention.prompts + retention.not_aligned >= 30).all()
    assert (tmp_path / "patch" / "patching-nesting-code.png").read_bytes().startswith(PNG)


def test_nothing_retained_is_said_and_no_failure(patch: Any, tmp_path: Path) -> None:
    """One text with two answers: nothing is right twice. What is left is a line of zeros per model, and no map."""
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": 1, "clean": "the", "answer": "]", "corrupted": "the", "contrast": ")"}\n')
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)  # pandas on joining empty tables
        shown = done(patch("--items", file))
    assert "Retention on items" in shown
    assert [path.suffix for path in (tmp_path / "patch").iterdir()] == [".csv"] * 4
    retention = pd.read_csv(tmp_path / "patch" / "retention.csv")
    assert list(retention.both_right) == list(retention.patched) == [0, 0]
    shown = json.loads(done(patch("--items", file, "--json")))
    assert shown["patching"] == []


def test_no_item_that_fits_the_tokenizer_is_counted(patch: Any, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": 1, "clean": "the", "answer": "]", "corrupted": "z z", "contrast": ")"}\n')
    assert "Retention on items" in done(patch("--items", file))
    retention = pd.read_csv(tmp_path / "patch" / "retention.csv")
    assert list(retention.prompts) == [0, 0]
    assert list(retention.why_not_aligned) == ["token counts differ (1)"] * 2


def test_the_same_model_twice_gives_the_same_lines(study_file: Path, items: Path, tmp_path: Path) -> None:
    model = study_file.parent / "base"
    done(
        twinprobe(
            "patch", "--base", model, "--code", model, "--items", items, "--out", tmp_path / "p", "--max-items", 2
        )
    )
    cells = pd.read_csv(tmp_path / "p" / "patching_cells.csv")
    base, code = (cells[cells.model == role].drop(columns="model").reset_index(drop=True) for role in ("base", "code"))
    pd.testing.assert_frame_equal(base, code, check_exact=True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--task", "nestin"], ["unknown task 'nestin'", "did you mean 'nesting'"]),
        (["--task", "identifiers"], ["'identifiers'", "no answers and contrasts"]),
        (["--task", "nesting", "--form", "formal"], ["form 'formal'", "code, prose"]),
        ([], ["--task NAME", "--items FILE"]),
        (["--task", "nesting", "--items", "items.jsonl"], ["either --task NAME or --items FILE"]),
        (["--items", "absent.jsonl"], ["absent.jsonl: no such file"]),
        (["--task", "nesting", "--pair", "embedded"], ["either --pair NAME, or both --base MODEL and --code MODEL"]),
        (["--task", "nesting", "--bos", "perhaps"], ["'perhaps'", "auto"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(patch: Any, options: list[str], expected: list[str], tmp_path: Path) -> None:
    refused(patch(*options), *expected)
    assert not (tmp_path / "patch").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--pair", "qwen2.5-0.5"], ["unknown pair 'qwen2.5-0.5'", "did you mean 'qwen2.5-0.5b'"]),
        (["--pair", "codebert"], ["encoder pair", "causal"]),
        (["--base", "embedded:text"], ["both --base MODEL and --code MODEL"]),
        (["--base", "embedded:text", "--code", "embedded:cod"], ["no embedded twin 'cod'"]),
        (["--base", "./absent", "--code", "embedded:code"], ["'./absent' is not a folder"]),
    ],
    ids=" ".join,
)
def test_an_unusable_pair_is_one_line(options: list[str], expected: list[str], tmp_path: Path) -> None:
    refused(twinprobe("patch", *options, "--task", "nesting", "--out", tmp_path / "p"), *expected)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", ["items.jsonl:1: not valid JSON"]),
        ('{"id": 1, "clean": "x"}', ["items.jsonl:1: 'corrupted' must be a non-empty string"]),
        (
            '{"id": 1, "clean": "x", "corrupted": "y", "answer": "a", "contrast": "b", "candidate": []}',
            ["items.jsonl:1: unknown key 'candidate'", "did you mean 'candidates'"],
        ),
        (
            '{"id": 1, "clean": "x", "corrupted": "y", "answer": "a", "contrast": "b", '
            '"spans": [{"name": "definition", "start": 0, "end": 2}]}',
            ["items.jsonl:1", "span 'definition' covers characters 0 to 2, but the text has 1"],
        ),
        (
            json.dumps({"id": 1, "clean": "x " * 400, "corrupted": "y " * 400, "answer": "a", "contrast": "b"}),
            ["text '1' has", "context is 320"],
        ),
    ],
    ids=["json", "missing", "unknown key", "span", "too long"],
)
def test_a_bad_item_is_one_line(patch: Any, tmp_path: Path, line: str, expected: list[str]) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text(line + "\n")
    refused(patch("--items", file), *expected)
    assert not list((tmp_path / "patch").glob("*"))


def test_foreign_files_are_refused_and_left_alone(patch: Any, items: Path, tmp_path: Path) -> None:
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "thesis.tex").write_text("dear reader")
    refused(patch("--items", items), "holds other files", "choose another --out")
    refused(patch("--items", items, out=items), "choose another --out")
    refused(patch("--items", items, out="/proc/absent"), "/proc/absent")
    assert contents(tmp_path / "patch") == {"thesis.tex": b"dear reader"}
