"""``slopes``: from a file of scores to tables, pictures and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calling import contents, done, refused, twinprobe

PNG = b"\x89PNG\r\n\x1a\n"
PLANTED = {"competitive": (-0.3, 0.1, 0.2, 0.6), "additive": (-0.1, 0.2, 0.3, 0.8)}
"""Slopes of four tasks."""


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """Two settings, two seeds, five shares, no noise."""
    lines = [
        {"task": f"t{number}", "share": share, "score": 0.5 + slope * share + 0.1 * seed, "setting": setting, "seed": seed,
         "category": "low" if number < 2 else "high"}
        for setting, planted in PLANTED.items() for number, slope in enumerate(planted)
        for seed in range(2) for share in np.arange(5) / 5
    ]  # fmt: skip
    pd.DataFrame(lines).to_csv(tmp_path / "scores.csv", index=False)
    return tmp_path / "scores.csv"


def test_tables_and_pictures_hold_the_planted_slopes(scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = done(twinprobe("slopes", scores, "--trials", 200, "--out", out))
    names = ["slope_tests.csv", "slopes-all.png", "slopes-fits-1.png", "slopes.csv"]
    assert sorted(contents(out)) == names
    assert all(contents(out)[name].startswith(PNG) for name in names if name.endswith(".png"))
    table = pd.read_csv(out / "slopes.csv")
    for setting, planted in PLANTED.items():
        own = table[table.setting == setting]
        assert own.slope.to_numpy() == pytest.approx(planted) and own.low.to_numpy() == pytest.approx(planted)
    for name, *both in zip(table.task[:4], *PLANTED.values(), strict=True):
        [words] = [line.split() for line in shown.splitlines() if line.split()[:1] == [name]]
        assert [words[1], words[7]] == [f"{slope:.3f}" for slope in both], "side by side"
    tests = pd.read_csv(out / "slope_tests.csv")
    values = tests[(tests.by == "all") & (tests.shuffled == "tasks")].set_index(["setting", "statistic"]).value
    for setting, planted in PLANTED.items():
        assert values[setting, "mean"] == pytest.approx(np.mean(planted))
        assert values[setting, "variance"] == pytest.approx(np.var(planted, ddof=1))
        assert values[setting, "median"] == pytest.approx(np.median(planted))
    assert {"all", "low", "high"} == set(tests["name"]) and set(tests.trials) == {200}
    assert "Slopes of category low (tasks: competitive 2, additive 2)" in shown


def test_json_has_the_same_and_writes_no_file_unasked(scores: Path, tmp_path: Path) -> None:
    before = contents(tmp_path)
    shown = json.loads(done(twinprobe("slopes", scores, "--trials", 200, "--json")), parse_constant=pytest.fail)
    assert contents(tmp_path) == before
    assert sorted(shown) == ["slope_tests", "slopes"]
    assert [line["slope"] for line in shown["slopes"]] == pytest.approx([*PLANTED["competitive"], *PLANTED["additive"]])
    assert len(shown["slope_tests"]) == 2 * 3 * 5 * 2


def test_an_earlier_run_is_replaced_and_many_tasks_fill_several_pictures(
    scores: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.slopes.PER_PICTURE", 4)
    out, many = tmp_path / "out", tmp_path / "many.csv"
    many.write_text("task,share,score\n" + "".join(f"t{i},{share},{i}\n" for i in range(5) for share in (0, 1)))
    shown = done(twinprobe("slopes", many, "--trials", 100, "--out", out))
    assert {"slopes-fits-1.png", "slopes-fits-2.png"} < set(contents(out))
    assert "setting" not in pd.read_csv(out / "slopes.csv") and "None" not in shown
    done(twinprobe("slopes", scores, "--trials", 100, "--out", out))
    assert "slopes-fits-2.png" not in contents(out)


def test_mistakes_are_one_line(scores: Path, tmp_path: Path) -> None:
    empty, one = tmp_path / "empty.csv", tmp_path / "one.csv"
    empty.write_text("")
    one.write_text("task,share,score\na,0.5,1\n")
    refused(twinprobe("slopes", empty), "empty.csv is empty")
    refused(twinprobe("slopes", one, "--out", tmp_path / "out"), "'a'", "one share only")
    assert not (tmp_path / "out").exists()
    refused(twinprobe("slopes", tmp_path / "absent.csv"), "absent.csv", "no such file")
    refused(twinprobe("slopes", tmp_path), "directory")
    refused(twinprobe("slopes", scores, "--trials", 5), "--trials", "5")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    refused(twinprobe("slopes", scores, "--out", tmp_path / "other"), "other files")
    named = tmp_path / "named" / "slopes.csv"
    named.parent.mkdir()
    named.write_bytes(scores.read_bytes())
    refused(twinprobe("slopes", named, "--out", named.parent), "would be overwritten")
    assert named.read_bytes() == scores.read_bytes()
