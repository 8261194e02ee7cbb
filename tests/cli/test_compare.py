"""``compare``: the study through the command, its one-screen summary, and every way to ask for it wrongly."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from calling import contents, done, refused, twinprobe


@pytest.fixture
def out(finished_study: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished_study, tmp_path / "run"))


@pytest.fixture
def study(study_file: Path, tmp_path: Path) -> Callable[..., Path]:
    """The small study's file with one passage replaced."""

    def write(old: str = "", new: str = "") -> Path:
        assert old in study_file.read_text()
        path = tmp_path / "study.toml"
        path.write_text(study_file.read_text().replace(old, new, 1))
        return path

    return write


def test_the_summary_is_one_screen_of_the_same_numbers(out: Path, study_file: Path) -> None:
    ran = twinprobe("compare", study_file, "--out", out)
    shown = done(ran)
    results = json.loads((out / "results.json").read_text())
    assert f"small: base = {study_file.parent / 'base'}, code = {study_file.parent / 'code'}" in shown
    compared = [line for line in results["tables"]["comparisons"] if line["against"] == "code"]
    behaviour = next(line for line in compared if (line["measure"], line["form"]) == ("behaviour", "code"))
    [row] = [line for line in shown.splitlines() if line.split()[:3] == ["behaviour", "nesting,", "code"]]
    assert f"{behaviour['difference']:.3f}" in row
    assert f"{behaviour['low']:+.3f} to {behaviour['high']:+.3f}" in row
    assert re.search(r"^transfer: 0 of \d+ differ after Holm$", shown, re.MULTILINE)
    assert "behaviour: 2 of 2 differ after Holm (code better 1, base better 1; 2 by more than two seeds" in shown
    assert f"null pair (two seeds of base): 0 of {results['calibration']['comparisons']} have p < 0.05" in shown
    assert f"report: {out / 'report.html'}" in shown
    assert len(shown.splitlines()) < 40
    stages = json.loads((out / "manifest.json").read_text())["stages"]
    assert ran.err.splitlines() == [
        "study small",
        *(f"  {stage['stage']}" for stage in stages),
        f"{len(stages)} of {len(stages)} stages were as the last run left them",
    ]


def test_json_is_what_results_json_holds(out: Path, study_file: Path) -> None:
    shown = done(twinprobe("compare", study_file, "--out", out, "--json"))
    assert json.loads(shown, parse_constant=pytest.fail) == json.loads((out / "results.json").read_text())


def test_the_run_directory_is_named_after_the_study(
    finished_study: Path, study_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished_study, tmp_path / "runs" / "small")
    assert f"report: {Path('runs') / 'small' / 'report.html'}" in done(twinprobe("compare", study_file))


def test_the_resolved_study_can_be_given_in_place_of_the_file(out: Path) -> None:
    before = (out / "results.json").read_bytes()
    done(twinprobe("compare", out / "study.toml", "--out", out))
    assert (out / "results.json").read_bytes() == before


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[statistics]", "[statistic]", ["unknown field 'statistic'", "did you mean 'statistics'"]),
        ("resamples", "resample", ["unknown field 'statistics.resample'", "did you mean 'resamples'"]),
        ('"nesting"', '"nestin"', ["unknown task 'nestin'", "did you mean 'nesting'"]),
        ("items = 64", "items = 8", ["field 'tasks.items'", "got 8"]),
        ("items = 64", "items = ", ["not valid TOML"]),
        ("base = ", "bass = ", ["unknown field 'pair.bass'", "did you mean 'base'"]),
    ],
    ids=["table", "field", "task", "range", "toml", "pair"],
)
def test_a_bad_study_is_one_line(study: Any, tmp_path: Path, old: str, new: str, expected: list[str]) -> None:
    refused(twinprobe("compare", study(old, new), "--out", tmp_path / "out"), "study.toml", *expected)
    assert not (tmp_path / "out").exists()


def test_an_unknown_or_unsuitable_pair_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    for name, expected in (("qwen2.5-0.5", "did you mean 'qwen2.5-0.5b'"), ("codebert", "encoder pair")):
        file.write_text(f'name = "s"\n[pair]\nname = "{name}"\n')
        refused(twinprobe("compare", file, "--out", tmp_path / "out"), "study.toml", name, expected)


def test_a_model_that_is_not_there_is_one_line(study: Any, study_file: Path, tmp_path: Path) -> None:
    base = str(study_file.parent / "base")
    for other, expected in (("./absent", "is not a folder"), (str(tmp_path), "holds no config.json")):
        refused(twinprobe("compare", study(base, other), "--out", tmp_path / "out"), other, expected)
        assert not (tmp_path / "out").exists()
    refused(
        twinprobe("compare", study(base, "some-org/absent"), "--out", tmp_path / "out"),
        "'some-org/absent' could not be loaded", "hub",
    )  # fmt: skip


def test_a_site_the_model_lacks_is_one_line(study: Any, tmp_path: Path) -> None:
    file = study("resid_post.*", "resid_post.0-5")
    refused(twinprobe("compare", file, "--out", tmp_path / "out"), "layer 5 does not exist")


def test_another_studys_folder_is_refused_and_left_alone(study: Any, out: Path) -> None:
    before = contents(out)
    refused(
        twinprobe("compare", study('"small"', '"other"'), "--out", out),
        "holds another study", "'small'", "'other'", "choose another --out",
    )  # fmt: skip
    assert contents(out) == before


def test_a_store_or_foreign_files_are_refused_and_left_alone(study_file: Path, tmp_path: Path) -> None:
    for name in ("store.json", "thesis.tex"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        (folder / name).write_text("dear reader")
        refused(twinprobe("compare", study_file, "--out", folder), "holds no study", "choose another --out")
        assert contents(folder) == {name: b"dear reader"}


def test_a_full_disk_is_one_line(study_file: Path, small_disk: Path) -> None:
    ran = twinprobe("compare", study_file, "--out", small_disk / "run")
    refused(ran, "no space left on the disk", "free some space")
