"""``bench pairs``: from scores and internals to tables, a picture, JSON and plain words."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from calling import contents, done, refused, twinprobe

PAIRS = {
    "qwen2.5-0.5b": ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-Coder-0.5B"),
    "qwen2.5-1.5b": ("Qwen/Qwen2.5-1.5B", "Qwen/Qwen2.5-Coder-1.5B"),
    "qwen2.5-3b": ("Qwen/Qwen2.5-3B", "Qwen/Qwen2.5-Coder-3B"), "qwen2.5-7b": ("Qwen/Qwen2.5-7B", "Qwen/Qwen2.5-Coder-7B"),
    "codellama-7b": ("meta-llama/Llama-2-7b-hf", "codellama/CodeLlama-7b-hf"),
    "codellama-13b": ("meta-llama/Llama-2-13b-hf", "codellama/CodeLlama-13b-hf"),
}  # fmt: skip
GAINS = (10, 20, 30, 35, 40, 50)
"""In the order of size, but for one."""


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    lines = [
        (model, "all", 300 + side * gain, 1000)
        for (base, code), gain in zip(PAIRS.values(), GAINS, strict=True) for side, model in enumerate((base, code))
    ]  # fmt: skip
    lines += [("x/alone-7b", "all", 1, 1000), ("google/gemma-7b", "all", 300, 1000)]
    path = tmp_path / "scores" / "tracking.csv"
    path.parent.mkdir()
    pd.DataFrame(lines, columns=["model", "stratum", "right", "items"]).to_csv(path, index=False)
    return path


@pytest.fixture
def internals(tmp_path: Path) -> Path:
    lines = [
        (name, "transfer_ratio", gain / 100, gain / 100 - 0.05, gain / 100 + 0.05)
        for name, gain in zip(PAIRS, GAINS, strict=True)
    ]
    path = tmp_path / "scores" / "internals.csv"
    lines.append(("gemma-7b", "transfer_ratio", 0.5, 0.4, 0.6))
    pd.DataFrame(lines, columns=["pair", "measure", "value", "low", "high"]).to_csv(path, index=False)
    return path


def test_the_screen_says_what_size_explains(scores: Path, internals: Path) -> None:
    shown = done(twinprobe("bench", "pairs", scores, "--internals", internals))
    rows = [line.split() for line in shown.splitlines()]
    [small] = [row for row in rows if row[:1] == ["qwen2.5-0.5b"]]
    assert small[1:6] == ["qwen2.5", "0.494", "0.300", "0.310", "+0.010"]
    assert [row[0] for row in rows if row[:1] and row[0] in PAIRS][:3] == ["qwen2.5-0.5b", "qwen2.5-1.5b", "qwen2.5-3b"]
    [every] = [row for row in rows if row[:3] == ["transfer", "ratio", "all"]]
    assert every[3:7] == ["6", "1.000", "–", "0.003"]
    assert (
        "tracking, transfer_ratio: goes with the gain (rho +1.00, p 0.00278 over 720 arrangements, all; n 6), also"
        in shown
    )
    assert "tracking: the gain goes with the base model's size (rho +0.94" in shown
    assert "Measured, but without scores of both models: gemma-7b" in shown


def test_csv_and_json_hold_the_same(scores: Path, internals: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = json.loads(
        done(twinprobe("bench", "pairs", scores, "--internals", internals, "--out", out, "--json")),
        parse_constant=pytest.fail,
    )
    assert sorted(contents(out)) == [
        "correlations.csv",
        "internals.csv",
        "pairs-tracking.png",
        "pairs.csv",
        "size_matched.csv",
    ]
    for name in ("pairs", "correlations", "size_matched"):
        table = pd.read_csv(out / f"{name}.csv")
        assert len(table) == len(found[name]) and list(table) == list(found[name][0])
        column = "spearman" if name == "correlations" else "gain"
        assert table[column].dropna().to_list() == pytest.approx(
            [line[column] for line in found[name] if line[column] is not None]
        )
    assert {"pair": "gemma-7b", "without_scores": "google/codegemma-7b"} in found["half"]
    matched = pd.read_csv(out / "size_matched.csv")
    assert set(matched[matched["pair"] == "codellama-7b"].base) == {"meta-llama/Llama-2-7b-hf", "Qwen/Qwen2.5-7B"}
    first = contents(out)
    done(
        twinprobe(
            "bench", "pairs", scores, "--internals", internals, "--out", out, "--parameters", "Qwen/Qwen2.5-7B=70b"
        )
    )
    assert contents(out)["pairs.csv"] != first["pairs.csv"]
    before = contents(tmp_path)
    done(twinprobe("bench", "pairs", scores))
    assert contents(tmp_path) == before, "no file is written unasked"


def test_a_named_pair_of_unknown_size(scores: Path) -> None:
    named = ("--pair", "x/alone-7b", "google/gemma-7b")
    shown = done(twinprobe("bench", "pairs", scores, *named))
    [line] = [line.split() for line in shown.splitlines() if line.startswith("  alone-7b-vs-gemma-7b")]
    assert line[1:3] == ["–", "7"]
    shown = done(twinprobe("bench", "pairs", scores, *named, "--parameters", "X/alone-7b=3e9"))
    [line] = [line.split() for line in shown.splitlines() if line.startswith("  alone-7b-vs-gemma-7b")]
    assert line[1:3] == ["–", "3"]


def test_wrong_inputs_end_in_one_line(scores: Path, internals: Path, tmp_path: Path) -> None:
    refused(
        twinprobe("bench", "pairs", scores, "--pair", "x/alone", "google/gemma-7b"),
        "'x/alone' of --pair",
        "did you mean 'x/alone-7b'",
    )
    refused(twinprobe("bench", "pairs", scores, "--parameters", "x/alone-7b"), "names no model", "MODEL=7e9")
    refused(twinprobe("bench", "pairs", scores, "--run", tmp_path / "none"), "has no results.json")
    refused(
        twinprobe("bench", "pairs", scores, "--out", scores.parent, "--internals", internals), "would be overwritten"
    )
    refused(twinprobe("bench", "pairs", tmp_path / "absent.csv"), "no such file")
    lone = tmp_path / "lone.csv"
    lone.write_text("model,task,score\nx/y,quiz,0.5\n")
    refused(twinprobe("bench", "pairs", lone), "no pair has scores of both its models")
