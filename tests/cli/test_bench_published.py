"""``bench published``: from a file of scores to tables on the screen, as JSON and as CSV."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from calling import contents, done, refused, twinprobe

LLAMA, CODE = "meta-llama/Llama-2-70b-hf", "codellama/CodeLlama-34b-hf"
LINES = [
    *((LLAMA, level, right, 200) for level, right in enumerate((190, 100, 20))),
    *((CODE, level, right, 200) for level, right in enumerate((150, 101, 60))),
    *(("x/guess", level, right, 200) for level, right in enumerate((90, 70, 60))),
    *(("x/tuned", level, right, 200) for level, right in enumerate((191, 99, 21))),
    (LLAMA, 0, 190, 200),
    ("google/gemma-7b", 0, 5, 9),
]


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    pd.DataFrame(LINES, columns=["model", "stratum", "right", "items"]).to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path / "scores.csv"


def test_the_screen_says_who_is_better_where_and_what_was_left_out(scores: Path) -> None:
    shown = done(twinprobe("bench", "published", scores, "--pair", LLAMA, "x/tuned", "--chance", "x/guess"))
    [words, differences] = [line.split() for line in shown.splitlines() if line.split()[:1] == ["codellama-34b"]]
    assert words[1:3] == ["0.517", "0.518"] and words[-2:] == ["2", "0"]
    assert differences == ["codellama-34b", "-20.0**", "+0.5", "+20.0**~"]
    [words, differences] = [line.split() for line in shown.splitlines() if line.startswith("  llama-2-70b-hf-vs-tuned")]
    assert words[1:4] == ["0.517", "0.518", "+0.002"] and not {"0", "1", "2"} & set(words)
    assert differences[1:] == ["+0.5", "-0.5", "+0.5~"]
    assert "Sizes differ in codellama-34b: the code model has 0.49 times" in shown
    assert "gemma-7b (google/codegemma-7b)" in shown and "Models of no pair: x/guess\n" in shown
    assert "Lines left out that repeat earlier ones: 1" in shown and "Unpaired tests" in shown


def test_csv_and_json_hold_the_same(scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = json.loads(
        done(twinprobe("bench", "published", scores, "--json", "--out", out)), parse_constant=pytest.fail
    )
    assert sorted(contents(out)) == ["published_levels.csv", "published_pairs.csv"]
    for name, columns in {
        "published_pairs": ["p", "p_holm", "odds_ratio"],
        "published_levels": ["p", "p_holm", "low"],
    }.items():
        table = pd.read_csv(out / f"{name}.csv")
        for column in columns:
            assert table[column].to_list() == pytest.approx([line[column] for line in found[name]])
    assert found["unpaired"] == ["x/guess", "x/tuned"] and found["repeated_lines"] == 1
    assert {"pair": "gemma-7b", "without_scores": "google/codegemma-7b"} in found["half"]
    before = contents(tmp_path)
    done(twinprobe("bench", "published", scores))
    assert contents(tmp_path) == before, "no file is written unasked"


def test_many_levels_take_several_tables(tmp_path: Path) -> None:
    lines = [(model, f"s{level}", 5, 10) for model in (LLAMA, CODE) for level in range(20)]
    path = tmp_path / "many.csv"
    pd.DataFrame(lines, columns=["model", "stratum", "right", "items"]).to_csv(path, index=False)
    shown = done(twinprobe("bench", "published", path))
    assert shown.count("Code minus base by level") == 3
    assert all(f" s{level} " in shown for level in range(20))


def test_mistakes_are_one_line(scores: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone.csv"
    alone.write_text("model,stratum,right,items\nx/a,0,1,2\n")
    refused(twinprobe("bench", "published", tmp_path / "absent.csv"), "absent.csv", "no such file")
    refused(twinprobe("bench", "published", alone), "no pair has scores of both", "--pair")
    refused(twinprobe("bench", "published", alone, "--pair", "x/a", "x/b"), "'x/b' of --pair has no score", "alone.csv")
    refused(twinprobe("bench", "published", scores, "--chance", "x/gess"), "'x/gess'", "did you mean 'x/guess'")
    mixed = tmp_path / "only"
    mixed.mkdir()
    (mixed / "published_pairs.csv").write_text(scores.read_text())
    refused(twinprobe("bench", "published", mixed / "published_pairs.csv", "--out", mixed), "would be overwritten")
    (mixed / "notes.txt").write_text("mine")
    refused(twinprobe("bench", "published", scores, "--out", mixed), "holds other files")
