"""``bench import`` and ``bench paired``: from two logs to the table of tests."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from calling import contents, done, refused, twinprobe
from log_files import choice_line, evalplus_log, inspect_log, lm_eval_log

from analyses.benchmarks.paired import join, paired_tests
from analyses.benchmarks.per_item import read_items


@pytest.fixture
def tables(tmp_path: Path) -> tuple[Path, Path]:
    """Two tasks of 60 items in logs of two models; the code model is better at the first, and lacks an item of the second."""
    rng = np.random.default_rng(0)
    paths = []
    for model, rates in (("base", (0.3, 0.5)), ("code", (0.8, 0.5))):
        for task, rate in zip(("arc", "boolq"), rates, strict=True):
            right = (rng.random(59 if (model, task) == ("code", "boolq") else 60) < rate).astype(float)
            lines = [choice_line(i, one, one) for i, one in enumerate(right)]
            lm_eval_log(tmp_path / model, task, lines, model=f"org/{model}", acc__none=float(right.mean()))
        out = tmp_path / f"{model}.csv"
        done(twinprobe("bench", "import", tmp_path / model, "--out", out))
        paths.append(out)
    return paths[0], paths[1]


def test_from_logs_to_tests(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shown = done(twinprobe("bench", "paired", *tables, "--out", out))
    assert (
        "org/code against org/base" in shown and "left out, as the code model lacks them: 1 items (boolq/59)" in shown
    )
    assert sorted(contents(out)) == ["missing.csv", "paired.csv"]
    written = pd.read_csv(out / "paired.csv", float_precision="round_trip")
    joined = join(*map(read_items, tables))
    pd.testing.assert_frame_equal(written, paired_tests(joined.items), check_exact=True)
    assert written.task.tolist() == ["arc", "boolq"] and written["items"].tolist() == [60, 59]
    assert written.p_permutation_holm[0] < 0.01 and written.p_mcnemar_holm[0] < 0.01 and written.p_mcnemar[1] > 0.05
    # The tables may be written again in place, and nothing else is replaced.
    done(twinprobe("bench", "paired", *tables, "--out", out, "--by", "subject"))
    refused(twinprobe("bench", "paired", out / "paired.csv", tables[1], "--out", out), "would be overwritten")


def test_json_has_the_same(tables: tuple[Path, Path], tmp_path: Path) -> None:
    before = contents(tmp_path)
    shown = json.loads(done(twinprobe("bench", "paired", *tables, "--json")), parse_constant=pytest.fail)
    assert contents(tmp_path) == before
    assert (shown["base"], shown["code"], len(shown["paired"])) == ("org/base", "org/code", 2)
    assert shown["missing"] == [{"task": "boolq", "subject": "boolq", "item": "59", "missing": "code"}]


def test_import_says_what_it_read(tmp_path: Path) -> None:
    log = inspect_log(tmp_path / "a.eval", [("x", 1, {"s": "C"}), ("y", 1, {"s": "I"}), ("z", 1, {"s": None})])
    out = tmp_path / "t" / "base.csv"
    shown = json.loads(done(twinprobe("bench", "import", log, "--out", out, "--json")))
    assert shown == {
        "out": str(out), "model": "org/base", "log_model": "org/base", "unscored": 1,
        "tasks": [{"task": "arc", "subjects": 1, "items": 2, "score": 0.5}],
    }  # fmt: skip
    assert read_items(out).score.tolist() == [1.0, 0.0]
    renamed = done(twinprobe("bench", "import", log, "--out", out, "--model", "mine", "--rename"))
    assert "renamed from org/base" in renamed and "they have no score: 1" in renamed
    plus = evalplus_log(tmp_path / "e.json", {"Mbpp/2": [("pass", "fail")]})
    shown = done(twinprobe("bench", "import", plus, "--out", out, "--model", "mine"))
    assert "no log names its model" in shown and "mbpp_plus" in shown


def test_mistakes_are_one_line(tables: tuple[Path, Path], tmp_path: Path) -> None:
    out = tmp_path / "x.csv"
    refused(
        twinprobe("bench", "import", tmp_path / "base", "--out", out, "--model", "org/code"),
        "is a log of 'org/base', not of 'org/code'", "--rename", after_progress=True,
    )  # fmt: skip
    assert not out.exists()
    refused(twinprobe("bench", "import", tables[0], "--out", tables[0]), "choose another file for --out")
    refused(twinprobe("bench", "import", tmp_path / "absent.csv", "--out", out), "absent.csv", "no such file")
    refused(twinprobe("bench", "paired", tables[0], tables[0]), "both tables are of model 'org/base'")
    refused(twinprobe("bench", "paired", tables[0], tmp_path / "absent.csv"), "absent.csv: no such file")
    refused(twinprobe("bench", "paired", *tables, "--out", tmp_path), "holds other files")
