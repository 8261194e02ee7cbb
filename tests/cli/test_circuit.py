"""``circuit``: both models' circuits of a contrast, their files, and what they share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from calling import contents, done, on_small_study, refused
from study_models import learned_items

PNG = b"\x89PNG\r\n\x1a\n"
QUICK = ("--random-draws", 2, "--check-exact", 4, "--steps", 2)


@pytest.fixture
def circuit(study_file: Path, tmp_path: Path) -> Any:
    """``twinprobe circuit`` on models of the small study, into ``tmp_path/circuit``."""
    return on_small_study("circuit", study_file, tmp_path / "circuit")


@pytest.fixture
def items(tmp_path: Path) -> Path:
    """Items that ``base`` has learned."""
    return learned_items(tmp_path / "items.jsonl")


def test_a_copy_of_a_model_has_the_same_circuit(circuit: Any, items: Path, tmp_path: Path) -> None:
    shown = done(circuit("--items", items, "--max-items", 8, "--edges", 12, *QUICK, code="null"))
    files = [f"circuit-items-text-{role}.{kind}" for role in ("base", "code") for kind in ("json", "png")]
    assert sorted(contents(tmp_path / "circuit")) == sorted(files)
    base, code = (
        json.loads((tmp_path / "circuit" / f"circuit-items-text-{role}.json").read_text()) for role in ("base", "code")
    )
    assert base["edges"] == code["edges"]
    assert 0 < base["circuit_edges"] <= 12
    assert base["items"]["choosing"] + base["items"]["held out"] == 8
    found = base["circuit_edges"]
    assert f"base has {found} edges, code {found}; {found} are shared" in shown and "Jaccard 1.00" in shown
    [line] = [line for line in shown.splitlines() if line.split()[:2] == ["base", "text"] and "of" in line.split()[5:7]]
    assert f"{base['faithfulness']['estimate']:.3f}" in line
    assert f"{base['completeness']['estimate']:.3f}" in line
    assert "exact path patching" in shown
    assert (tmp_path / "circuit" / "circuit-items-text-base.png").read_bytes().startswith(PNG)


def test_a_model_that_knows_nothing_has_none_and_the_other_is_shown(circuit: Any, items: Path, tmp_path: Path) -> None:
    """Of four items, code gets fewer than two right; asked for little faithfulness, base's circuit is small."""
    items.write_text("".join(items.read_text().splitlines(keepends=True)[4:8]))
    options = ("--items", items, "--method", "eap", "--faithfulness", 0.01, *QUICK, "--json")
    shown = json.loads(done(circuit(*options)), parse_constant=pytest.fail)
    assert [line["role"] for line in shown["circuits"]] == ["base"]
    assert [(line["role"], line["form"]) for line in shown["without"]] == [("code", "text")]
    assert "a circuit needs 2 or more" in shown["without"][0]["reason"]
    assert shown["overlap"] == []
    assert shown["circuits"][0]["method"] == "eap"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], ["--task NAME", "--items FILE"]),
        (["--task", "identifiers"], ["no answers and contrasts"]),
        (["--task", "nesting", "--edges", "0"], ["0", "x>=1"]),
        (["--task", "nesting", "--edges", "3", "--faithfulness", "0.5"], ["--edges 3", "give one of them"]),
        (["--task", "nesting", "--faithfulness", "1.5"], ["1.5", "0<x<=1"]),
        (["--task", "nesting", "--method", "acdc"], ["'acdc'", "eap-ig"]),
        (["--task", "nesting", "--quantization", "4bit"], ["gradients", "4bit"]),
    ],
    ids=" ".join,
)
def test_a_mistake_is_one_line(circuit: Any, options: list[str], expected: list[str], tmp_path: Path) -> None:
    refused(circuit(*options), *expected)
    assert not (tmp_path / "circuit").exists()


def test_no_circuit_at_all_is_one_line(circuit: Any, tmp_path: Path) -> None:
    file = tmp_path / "items.jsonl"
    file.write_text('{"id": 1, "clean": "the", "answer": "]", "corrupted": "the", "contrast": ")"}\n')
    refused(circuit("--items", file), "gets 0 of 1 prompts right", "2 or more", after_progress=True)
    file.write_text('{"id": 1, "clean": "the", "answer": "]", "corrupted": "z z", "contrast": ")"}\n')
    refused(circuit("--items", file), "no item of items in text form", "token counts differ (1)", after_progress=True)


def test_foreign_files_are_refused_and_left_alone(circuit: Any, items: Path, tmp_path: Path) -> None:
    (tmp_path / "circuit").mkdir()
    (tmp_path / "circuit" / "thesis.tex").write_text("dear reader")
    refused(circuit("--items", items), "holds other files", "choose another --out")
    assert contents(tmp_path / "circuit") == {"thesis.tex": b"dear reader"}
