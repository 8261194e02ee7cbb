"""``bench calibration``: from a run's tables to figures by size, pairs, a picture and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calling import contents, done, refused, twinprobe

SMALL, LARGE = "meta-llama/Llama-2-7b-hf", "codellama/CodeLlama-7b-hf"


@pytest.fixture
def tables(tmp_path: Path) -> list[Path]:
    """A calibrated base, a code model that is 30 points too sure, and a larger model of no pair."""
    folder, paths = tmp_path / "tables", []
    folder.mkdir()
    for number, (model, over) in enumerate((("x/big-70b", 0.0), (LARGE, 0.3), (SMALL, 0.0))):
        rng = np.random.default_rng(number)
        confidence = rng.uniform(0.4, 0.9, 200)
        right = (rng.random(200) < confidence - over).astype(float)
        table = pd.DataFrame({"model": model, "task": "truthfulqa_mc2", "item": range(200), "score": 0.4, "acc": right})
        paths.append(folder / f"{number}.csv")
        table.assign(confidence=confidence).to_csv(paths[-1], index=False)
    return paths


def test_models_are_shown_by_size_and_pairs_compared(tables: list[Path]) -> None:
    shown = done(twinprobe("bench", "calibration", *tables))
    rows = [line.split() for line in shown.splitlines()]
    models = [row for row in rows if row[:1] and row[0] in (SMALL, LARGE, "x/big-70b")]
    assert [row[0] for row in models] == [SMALL, LARGE, "x/big-70b"] and [row[1] for row in models] == [
        "6.74",
        "6.74",
        "70",
    ]
    assert models[0][2:4] == ["200", "15"]
    [over] = [row for row in rows if row[:2] == ["truthfulqa_mc2", "overconfidence"]]
    assert float(over[6]) == pytest.approx(0.3, abs=0.1) and "codellama-7b: code minus base on the same items" in shown
    resized = done(twinprobe("bench", "calibration", *tables, "--parameters", "x/big-70b=1b", "--bins", 4))
    first = next(line.split() for line in resized.splitlines() if "x/big-70b" in line)
    assert first[:4] == ["x/big-70b", "1", "200", "4"]
    assert resized.index("x/big-70b") < resized.index(SMALL)


def test_csv_and_json_hold_the_same(tables: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = json.loads(
        done(twinprobe("bench", "calibration", *tables, "--json", "--out", out)), parse_constant=pytest.fail
    )
    assert sorted(contents(out)) == [
        "calibration.csv",
        "calibration_bins.csv",
        "calibration_pairs.csv",
        "reliability-1.png",
    ]
    for name in ("calibration", "calibration_bins", "calibration_pairs"):
        table = pd.read_csv(out / f"{name}.csv")
        assert len(table) == len(found[name]) and list(table) == list(found[name][0])
    lines = {line["model"]: line for line in found["calibration"]}
    assert lines[LARGE]["p_calibrated"] < 0.01 < lines[SMALL]["p_calibrated"]
    assert lines[LARGE]["calibration_error_low"] > 0.1
    assert found["without_confidence"] == 0
    done(twinprobe("bench", "calibration", tables[0], "--out", out))
    assert sorted(contents(out)) == ["calibration.csv", "calibration_bins.csv", "reliability-1.png"], (
        "no pair is left over"
    )


def test_wrong_inputs_end_in_one_line(tables: list[Path], tmp_path: Path) -> None:
    refused(twinprobe("bench", "calibration", tables[0], tables[0]), "is in two files")
    refused(twinprobe("bench", "calibration", *tables, "--pair", SMALL, "x/none"), "'x/none' of --pair has no score")
    refused(twinprobe("bench", "calibration", *tables, "--parameters", f"{SMALL}=big"), "'big' is no size")
    refused(twinprobe("bench", "calibration", tmp_path / "absent.csv"), "no such file")
    refused(twinprobe("bench", "calibration", *tables, "--out", tables[0]), "other files")
    pd.read_csv(tables[0]).drop(columns="confidence").to_csv(tmp_path / "old.csv", index=False)
    refused(twinprobe("bench", "calibration", tmp_path / "old.csv"), "lacks the column confidence", "another --out")
