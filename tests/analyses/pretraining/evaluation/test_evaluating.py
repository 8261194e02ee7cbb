"""Models × evaluations: units that are written whole, skipped when there, shared by processes, and put into one table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest
from filelock import FileLock
from toy_family import EVALUATION, write_examples, write_model

from activations.errors import TwinprobeError
from analyses.pretraining.evaluation.models import Trained, finished_models
from analyses.pretraining.evaluation.run import KINDS, Unit, evaluate, expected_seconds, unfinished, units
from analyses.pretraining.evaluation.scores_table import left_out, scores_table, write_scores
from analyses.pretraining.evaluation.settings import Evaluations, read_evaluations
from analyses.pretraining.scores import read_scores
from analyses.pretraining.slopes import slopes

if TYPE_CHECKING:
    from conftest import MakeModel

STEPS = 8
BRIEF = EVALUATION.replace("epochs = 60", f"epochs = {STEPS}")
BOTH = [{"setting": "competitive", "share": 0.0}, {"setting": "volume", "share": 0.5}]


@pytest.fixture(scope="module")
def family(make_model: MakeModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, one of which serves two settings; and one that is not finished."""
    runs = tmp_path_factory.mktemp("runs")
    write_model(make_model, runs, "prose", serves=BOTH)
    write_model(make_model, runs, "mixed", code_share=0.5, seed=1, serves=[{"setting": "competitive", "share": 0.5}])
    (runs / "begun").mkdir()
    return runs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_examples(tmp_path_factory.mktemp("data"))
    (folder / "e.toml").write_text(BRIEF + BRIEF.replace('"swap"', '"again"'))
    return folder


@pytest.fixture(scope="module")
def evaluations(data: Path) -> Evaluations:
    return read_evaluations(data / "e.toml")


@pytest.fixture(scope="module")
def work(family: Path, evaluations: Evaluations) -> list[Unit]:
    return units(finished_models(family), evaluations)


@pytest.fixture(scope="module")
def whole(work: list[Unit], data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All scores, without interruption."""
    out = tmp_path_factory.mktemp("whole")
    done: list[Unit] = []
    assert evaluate(unfinished(work, out), data, out, lambda *_: None, done.append) == []
    assert done == work
    return out


def results(out: Path) -> dict[str, object]:
    return {str(file.relative_to(out)): {**json.loads(file.read_text()), "seconds": 0} for file in out.glob("*/*.json")}


def test_every_finished_model_has_every_evaluation(work: list[Unit], whole: Path) -> None:
    assert [(unit.model.name, unit.table.name) for unit in work] == [
        ("mixed", "swap"), ("mixed", "again"), ("prose", "swap"), ("prose", "again"),
    ]  # fmt: skip
    assert sorted(str(file.relative_to(whole)) for file in whole.rglob("*")) == [
        "mixed", "mixed/again.json", "mixed/swap.json", "prose", "prose/again.json", "prose/swap.json",
    ]  # fmt: skip
    assert unfinished(work, whole) == []


def test_a_killed_evaluation_goes_on_to_the_same_scores(
    work: list[Unit], whole: Path, data: Path, tmp_path: Path
) -> None:
    def kill(what: str, step: int, _steps: int, _note: str) -> None:
        if what == "mixed, again" and step == STEPS // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(work, data, tmp_path, kill, lambda _: None)
    first = work[0].place(tmp_path)
    written = first.stat().st_mtime_ns
    assert [unit.place(tmp_path).exists() for unit in work] == [True, False, False, False]
    stages = []
    left = unfinished(work, tmp_path)
    assert left == work[1:]
    evaluate(left, data, tmp_path, lambda what, *_: stages.append(what), lambda _: None)
    assert "mixed, swap" not in stages and first.stat().st_mtime_ns == written
    assert results(tmp_path) == results(whole)


def test_half_of_other_settings_is_not_taken_up(work: list[Unit], whole: Path, data: Path, tmp_path: Path) -> None:
    """Scores of a seed, left by a killed evaluation with other settings, must not become scores of these."""
    scratch = work[0].place(tmp_path).with_suffix(".scratch")
    scratch.mkdir(parents=True)
    kinds = ("in distribution", "lexical", "structural")
    fake = {kind: [True] * 7 for kind in kinds} | {f"{kind}, longer than the context": 0 for kind in kinds}
    (scratch / "seed-0.json").write_text(json.dumps(fake))
    (scratch / "started.json").write_text("{}")
    evaluate(work[:1], data, tmp_path, lambda *_: None, lambda _: None)
    assert results(tmp_path)["mixed/swap.json"] == results(whole)["mixed/swap.json"]


def test_what_another_process_is_at_is_left_to_it(work: list[Unit], data: Path, tmp_path: Path) -> None:
    taken = work[0].place(tmp_path)
    taken.parent.mkdir()
    with FileLock(taken.with_suffix(".lock")):
        assert evaluate(work[:2], data, tmp_path, lambda *_: None, lambda _: None) == [work[0]]
    assert not taken.exists() and work[1].place(tmp_path).exists()


def test_other_settings_and_other_weights_are_refused(
    make_model: MakeModel, data: Path, work: list[Unit], whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "e.toml").write_text(BRIEF.replace("batch = 7", "batch = 6"))
    models = [unit.model for unit in work[:1]]
    with pytest.raises(TwinprobeError, match=r"swap.json was computed with other settings; .* choose another --out"):
        unfinished(units(models, read_evaluations(tmp_path / "e.toml")), whole)
    runs = tmp_path / "runs"
    shutil.copytree(work[0].model.folder, runs / "mixed" / "model")
    (runs / "mixed" / "model" / "model.safetensors").unlink()
    make_model("llama", seed=7).model.save_pretrained(runs / "mixed" / "model")
    with pytest.raises(TwinprobeError, match="computed with other weights"):
        unfinished(units(finished_models(runs), read_evaluations(data / "e.toml")), whole)


def test_the_scores_are_those_that_slopes_reads(work: list[Unit], whole: Path, tmp_path: Path) -> None:
    path = write_scores(work, whole)
    table = pd.read_csv(path)
    assert list(table.columns) == ["setting", "task", "category", "group", "share", "seed", "score", "model", "items"]
    # mixed serves one setting and prose two; two evaluations of three tasks each
    assert len(table) == (1 + 2) * 2 * 3 and not table.isna().any().any()
    volume = table[table.setting == "volume"]
    assert set(volume.model) == {"prose"} and set(volume.share) == {0.5}
    competitive = table[table.setting == "competitive"]
    lexical = competitive[competitive.task == "swap lexical"]
    assert dict(zip(lexical.model, lexical.share, strict=True)) == {"prose": 0.0, "mixed": 0.5}
    written = json.loads((whole / "mixed" / "swap.json").read_text())["scores"]
    for score in written:
        line = competitive[(competitive.task == score["task"]) & (competitive.model == "mixed")]
        assert line.score.tolist() == [score["score"]]
    table[table.setting == "competitive"].assign(seed=0).to_csv(tmp_path / "scores.csv", index=False)
    assert set(slopes(read_scores(tmp_path / "scores.csv")).task) == {*table.task}
    path.unlink()


def test_a_task_that_some_models_have_no_score_on_is_left_out_of_their_settings(
    work: list[Unit], whole: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    assert left_out(work, out) == []
    written = json.loads((out / "mixed" / "swap.json").read_text())
    written["scores"] = [score for score in written["scores"] if score["task"] != "swap lexical"]
    (out / "mixed" / "swap.json").write_text(json.dumps(written))
    assert left_out(work, out) == ["swap lexical (competitive): 1 of 2 models have a score; left out of scores.csv"]
    before, after = scores_table(work, whole), scores_table(work, out)
    lost = (before.task == "swap lexical") & (before.setting == "competitive")
    assert lost.sum() == 2
    pd.testing.assert_frame_equal(after, before[~lost].reset_index(drop=True))
    # as long as the other model is all there is, its score stays
    assert len(scores_table([unit for unit in work if unit.model.name == "prose"], out)) == 2 * 2 * 3


def test_a_model_without_setting_or_of_a_second_stage(work: list[Unit], whole: Path) -> None:
    def model(**run: object) -> Trained:
        return Trained("mixed", work[0].model.folder, {"code_share": 0.25, "seed": 3, **run})

    def lines(*models: Trained) -> pd.DataFrame:
        return scores_table([Unit(one, work[0].kind, work[0].table) for one in models], whole)

    plain = lines(model())
    assert "setting" not in plain and set(plain.share) == {0.25} and set(plain.seed) == {3}
    assert set(lines(model(serves=BOTH), model()).setting) == {"competitive", "volume", "other"}
    assert set(lines(model(serves=BOTH[:1], tuning="even")).setting) == {"competitive+even"}
    assert set(lines(model(tuning="even")).setting) == {"even"}


def test_the_time_left_is_what_the_same_took_for_others(
    work: list[Unit], whole: Path, data: Path, tmp_path: Path
) -> None:
    for unit, seconds in zip(work[:2], (100.0, 7.0), strict=True):
        place = unit.place(tmp_path)
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps({**json.loads(unit.place(whole).read_text()), "seconds": seconds}))
    measured: dict[str, float] = {}
    assert expected_seconds(work[2:], work[:2], data, tmp_path, measured) == 107.0
    assert measured == {}
    seconds = expected_seconds(work[2:], [], data, tmp_path, measured)
    assert 0 < seconds < 60 and seconds == sum(measured.values())
    assert expected_seconds(work[2:], [], data, tmp_path, {"swap": 5.0, "again": 6.0}) == 11.0
    assert expected_seconds(work[2:], work[:1], data, tmp_path, {"swap": 5.0, "again": 6.0}) == 106.0


def test_models_that_are_not_there_are_refused(family: Path, tmp_path: Path) -> None:
    assert [model.name for model in finished_models(family, ["prose"])] == ["prose"]
    with pytest.raises(TwinprobeError, match=r"no finished model 'prosa' \(did you mean 'prose'\?\)"):
        finished_models(family, ["prosa"])
    with pytest.raises(TwinprobeError, match="holds no finished model; expected"):
        finished_models(tmp_path)
    (tmp_path / "x" / "model").mkdir(parents=True)
    (tmp_path / "x" / "model" / "training.json").write_text('{"run": "x"}')
    with pytest.raises(TwinprobeError, match="does not say which run"):
        finished_models(tmp_path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("", "no evaluation; expected at least one table of [[finetune]]"),
        (BRIEF + BRIEF, "two evaluations are called 'swap'"),
        (BRIEF.replace("epochs", "epoches"), "did you mean 'epochs'"),
        (BRIEF.replace('test = "train.tsv"\ngen = "gen.tsv"\n', ""), "nothing to score; expected a file of examples"),
        (BRIEF.replace('"swap"', '"a/b"'), "name"),
    ],
)
def test_a_file_that_can_not_be_meant_is_refused(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "e.toml").write_text(content)
    with pytest.raises(TwinprobeError) as error:
        read_evaluations(tmp_path / "e.toml")
    assert expected in str(error.value) and "\n" not in str(error.value)


def test_every_kind_of_evaluation_can_be_computed() -> None:
    assert [*KINDS] == [*Evaluations.model_fields]
