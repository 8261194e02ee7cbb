"""Stages: computed once for given inputs, read back as they were written, there whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import analyses.study.stages as module
from activations.errors import TwinprobeError
from activations.models import ModelSpec
from analyses.study.stages import Stages, Tables, code_hash, model_identity
from probes.tables import read_table, write_table


class Counted:
    """A computation that counts how often it is done."""

    def __init__(self, tables: Tables) -> None:
        self.tables, self.times = tables, 0

    def __call__(self) -> Tables:
        self.times += 1
        return self.tables


@pytest.fixture
def table() -> pd.DataFrame:
    return pd.DataFrame({"x": [1, 2], "y": [0.1, 1 / 3]})


def test_a_stage_is_computed_once_for_the_same_inputs(tmp_path: Path, table: pd.DataFrame) -> None:
    compute = Counted({"numbers": table})
    first = Stages(tmp_path)
    computed = first.tables("base/numbers", {"seed": 0, "path": tmp_path}, compute)
    again = Stages(tmp_path)
    reused = again.tables("base/numbers", {"path": tmp_path, "seed": 0}, compute)
    assert compute.times == 1
    pd.testing.assert_frame_equal(computed["numbers"], table)
    pd.testing.assert_frame_equal(reused["numbers"], table)
    assert [entry["reused"] for entry in first.log + again.log] == [False, True]
    assert first.log[0]["key"] == again.log[0]["key"]


def test_a_changed_input_is_computed_anew_and_replaces_the_old(tmp_path: Path, table: pd.DataFrame) -> None:
    Stages(tmp_path).tables("numbers", {"seed": 0}, lambda: {"old": table, "numbers": table})
    found = Stages(tmp_path).tables("numbers", {"seed": 1}, lambda: {"numbers": table + 1})
    assert list(found) == ["numbers"]
    pd.testing.assert_frame_equal(found["numbers"], table + 1)
    back = Counted({"numbers": table})
    Stages(tmp_path).tables("numbers", {"seed": 0}, back)
    assert back.times == 1


def test_a_failed_computation_leaves_the_last_result(tmp_path: Path, table: pd.DataFrame) -> None:
    def fail() -> Tables:
        raise TwinprobeError("no")

    Stages(tmp_path).tables("numbers", {"seed": 0}, lambda: {"numbers": table})
    with pytest.raises(TwinprobeError):
        Stages(tmp_path).tables("numbers", {"seed": 1}, fail)
    kept = Counted({})
    pd.testing.assert_frame_equal(Stages(tmp_path).tables("numbers", {"seed": 0}, kept)["numbers"], table)
    assert kept.times == 0


def test_what_a_killed_run_left_is_not_taken_for_a_result(tmp_path: Path, table: pd.DataFrame) -> None:
    """It had written one table of two, and then the second without the record."""
    left = tmp_path / "stages" / "numbers.tmp"
    left.mkdir(parents=True)
    (left / "half.csv").write_text("x\n1")
    found = Stages(tmp_path).tables("numbers", {}, lambda: {"numbers": table})
    assert list(found) == ["numbers"]
    assert [path.name for path in (tmp_path / "stages").iterdir()] == ["numbers"]
    (tmp_path / "stages" / "numbers" / "stage.json").unlink()
    compute = Counted({"numbers": table})
    Stages(tmp_path).tables("numbers", {}, compute)
    assert compute.times == 1


def test_progress_names_the_stage_whether_it_is_computed_or_reused(tmp_path: Path, table: pd.DataFrame) -> None:
    seen: list[tuple[str, int, int]] = []
    for _ in range(2):
        Stages(tmp_path, lambda *step: seen.append(step)).tables("numbers", {}, lambda: {"numbers": table})
    assert seen == [("numbers", 0, 1), ("numbers", 1, 1), ("numbers", 1, 1)]


def test_tables_come_back_to_the_last_bit_and_words_stay_words(tmp_path: Path) -> None:
    table = pd.DataFrame(
        {
            "number": [0.1 + 0.2, 1e-300, np.nan, -0.0],
            "word": ["null", "NA", None, "nan"],
            "text": ["a,b", 'say "x"', "two\nlines", "漢字"],
            "whole": [1, 2, 3, 4],
            "yes": [True, False, True, True],
        }
    )
    write_table(table, tmp_path / "t.csv")
    found = read_table(tmp_path / "t.csv")
    assert found.number.to_numpy().tobytes() == table.number.to_numpy().tobytes()
    assert found.word.tolist()[:2] + found.word.tolist()[3:] == ["null", "NA", "nan"]
    assert pd.isna(found.word[2])
    assert found.text.tolist() == table.text.tolist()
    assert (found.whole.dtype, found.yes.dtype) == (np.int64, bool)


def fill(folder: Path, name: str = "a") -> Callable[[Path], None]:
    def compute(home: Path) -> None:
        assert home == folder
        home.mkdir(exist_ok=True)
        (home / name).touch()

    return compute


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_store_is_filled_once(tmp_path: Path) -> None:
    home = tmp_path / "stores" / "base" / "task"
    first = Stages(tmp_path).store("base/task", {"seed": 0}, fill(home))
    stages = Stages(tmp_path)
    assert stages.store("base/task", {"seed": 0}, fill(home, "never")) == first
    assert first[0] == home
    assert stages.log[0]["reused"] is True
    assert names(home) == ["a"]


def test_a_store_that_was_cut_off_is_taken_up_and_another_jobs_is_emptied(tmp_path: Path) -> None:
    home = tmp_path / "stores" / "base" / "task"

    def cut_off(folder: Path) -> None:
        fill(home, "first shard")(folder)
        raise KeyboardInterrupt

    for seed in (0, 1):
        with pytest.raises(KeyboardInterrupt):
            Stages(tmp_path).store("base/task", {"seed": seed}, cut_off)
        assert names(home) == ["first shard"]
    Stages(tmp_path).store("base/task", {"seed": 1}, fill(home, "second shard"))
    assert names(home) == ["first shard", "second shard"]
    Stages(tmp_path).store("base/task", {"seed": 2}, fill(home, "new"))
    assert names(home) == ["new"]


def test_a_store_that_was_removed_is_filled_again(tmp_path: Path) -> None:
    home = tmp_path / "stores" / "base" / "task"
    Stages(tmp_path).store("base/task", {}, fill(home))
    shutil.rmtree(home)
    stages = Stages(tmp_path)
    stages.store("base/task", {}, fill(home))
    assert names(home) == ["a"]
    assert stages.log[0]["reused"] is False


def test_files_are_written_again_when_one_is_gone(tmp_path: Path) -> None:
    def write() -> list[Path]:
        (tmp_path / "figures").mkdir(exist_ok=True)
        paths = [tmp_path / "report.html", tmp_path / "figures" / "a.png"]
        for path in paths:
            path.touch()
        return paths

    def run() -> bool:
        stages = Stages(tmp_path)
        stages.files("report", {"look": 1}, write)
        return bool(stages.log[0]["reused"])

    assert [run(), run()] == [False, True]
    (tmp_path / "figures" / "a.png").unlink()
    assert run() is False
    assert (tmp_path / "figures" / "a.png").exists()


def test_a_model_is_another_when_its_files_change(model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    spec = ModelSpec(str(folder))
    first = model_identity(spec)
    (folder / "README.md").write_text("A card.")
    assert model_identity(spec) == first == model_identity(spec)
    assert model_identity(ModelSpec(str(folder), dtype="bfloat16")) != first
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        os.utime(folder / name, ns=(1, 1))
        changed = model_identity(spec)
        assert changed != first
        first = changed
    (folder / "merges.txt").write_text("a b\n")
    assert model_identity(spec) != first
    assert model_identity(ModelSpec("org/on-the-hub"))["files"] == {}


def test_the_programs_own_source_is_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What computes numbers is; the command line, the look of the report and the pretraining lab are not."""
    root = Path(module.__file__).parents[2]
    for package in ("activations", "probes", "analyses"):
        shutil.copytree(root / package, tmp_path / package, ignore=shutil.ignore_patterns("twins", "__pycache__"))
    monkeypatch.setattr(module, "_ROOT", tmp_path)

    def after(path: str) -> str:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        with (tmp_path / path).open("a") as file:
            file.write("\n# changed\n")
        return code_hash.__wrapped__()

    before = code_hash.__wrapped__()
    assert before == code_hash()
    for path in ("cli/main.py", "analyses/report/page.py", "analyses/pretraining/train.py"):
        assert after(path) == before
    seen = {before}
    for path in ("activations/sites.py", "probes/metrics.py", "analyses/statistics.py", "analyses/study/run.py"):
        seen.add(after(path))
    assert len(seen) == 5
