"""The whole study on three small models whose differences are known, and again, changed, cut off, and in the wrong place."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import pandas as pd
import pytest

import analyses
from activations.errors import TwinprobeError
from activations.store import ActivationStore
from analyses.statistics import paired_comparison
from analyses.study.run import run_study
from analyses.study.settings import read_study
from probes.metrics import cluster_bootstrap
from probes.tables import read_table

ROLES = ("base", "code", "second_seed", "random")
PNG = b"\x89PNG\r\n\x1a\n"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(analyses.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


def strict(text: str) -> Any:
    """JSON without NaN and Infinity, which Python writes and nothing else reads."""
    return json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def results(out: Path) -> Any:
    return strict((out / "results.json").read_text())


def stages(out: Path) -> dict[str, bool]:
    """Which stages the last run in ``out`` reused."""
    return {entry["stage"]: entry["reused"] for entry in strict((out / "manifest.json").read_text())["stages"]}


def table(out: Path, name: str) -> pd.DataFrame:
    return read_table(out / "tables" / f"{name}.csv")


@pytest.fixture
def out(finished_study: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished_study, tmp_path / "run"))


@pytest.fixture
def models(study_file: Path, tmp_path: Path) -> Path:
    """A copy of the study file and its models, that a test may change."""
    folder = Path(shutil.copytree(study_file.parent, tmp_path / "models"))
    file = folder / study_file.name
    file.write_text(file.read_text().replace(str(study_file.parent), str(folder)))
    return folder


# What a run leaves behind


def test_everything_promised_is_there(finished_study: Path) -> None:
    assert {path.name for path in finished_study.iterdir()} == {
        "report.html", "results.json", "manifest.json", "study.toml", "tables", "figures", "stores", "stages",
    }  # fmt: skip
    page = (finished_study / "report.html").read_text()
    assert "<html" in page and "</html>" in page
    for picture in (finished_study / "figures").iterdir():
        assert picture.suffix == ".png"
        assert picture.read_bytes().startswith(PNG)
    assert {"patching-nesting-code.png", "patching-nesting-prose.png"} <= {
        path.name for path in (finished_study / "figures").iterdir()
    }
    assert {path.stem for path in (finished_study / "tables").iterdir()} == {
        "models", "probes", "probe_rows", "difficulty", "layers", "transfer", "transfer_rows", "mapped", "mapped_rows",
        "behaviour", "retention", "interventions", "intervention_rows", "patching", "patching_cells", "arrival",
        "scores", "score_rows", "comparisons", "examples", "cross", "cross_cells", "cross_behaviour", "cross_retention",
        "overlap", "similarity", "benchmarks", "benchmark_items",
    }  # fmt: skip
    for role in ROLES:
        for task in ("nesting", "identifiers"):
            store = ActivationStore(finished_study / "stores" / role / task)
            assert store.sites == ["embed", "resid_post.0", "resid_post.1"]
            with h5py.File(store.path / "index.h5") as index:
                assert index["resid_post/1"].shape == (len(store.rows), 32)


def test_results_are_strict_json_and_hold_the_tables(finished_study: Path) -> None:
    found = results(finished_study)
    assert found["study"] == "small"
    for name in ("models", "probes", "transfer", "retention", "patching", "scores", "comparisons"):
        assert len(found["tables"][name]) == len(table(finished_study, name))
    differences = [line["difference"] for line in found["tables"]["comparisons"]]
    assert differences == table(finished_study, "comparisons").difference.tolist()


def test_the_manifest_says_what_was_run(finished_study: Path, study_file: Path) -> None:
    manifest = strict((finished_study / "manifest.json").read_text())
    assert manifest["study"] == read_study(study_file).model_dump(mode="json")
    models = {line["model"]: line for line in manifest["models"]}
    assert list(models) == list(ROLES)
    assert models["base"]["fingerprint"] == models["second_seed"]["fingerprint"] != models["code"]["fingerprint"]
    assert models["random"]["fingerprint"] != models["base"]["fingerprint"]
    assert models["random"]["random_init"] == 10_000
    for line in models.values():
        assert (line["compute_dtype"], line["attention_kernel"], line["device"]) == ("float32", "sdpa", "cpu")
        assert line["prepends_bos"] is True
    assert manifest["padding"] == "right"
    assert manifest["versions"]["torch"] and manifest["versions"]["transformers"]
    assert {
        "base/model",
        "stores/code/nesting",
        "second_seed/patching nesting",
        "random/probes identifiers",
        "comparisons",
    } <= {entry["stage"] for entry in manifest["stages"]}
    assert not {"random/patching nesting", "base/patching identifiers"} & {
        entry["stage"] for entry in manifest["stages"]
    }


def test_the_resolved_study_is_the_same_study(finished_study: Path, study_file: Path) -> None:
    assert read_study(finished_study / "study.toml") == read_study(study_file)


# What the study finds


def test_the_planted_difference_is_found(finished_study: Path) -> None:
    """Base has learned the answers in prose, code those in code."""
    found = table(finished_study, "comparisons")
    behaviour = found[(found.against == "code") & (found.measure == "behaviour")].set_index("form")
    assert behaviour.difference["code"] > 0.5 and behaviour.low["code"] > 0
    assert behaviour.difference["prose"] < -0.5 and behaviour.high["prose"] < 0
    assert (behaviour.p_holm < 0.05).all()
    finding = next(line for line in results(finished_study)["findings"] if line["measure"] == "behaviour")
    assert (finding["comparisons"], finding["clear"], finding["code_better"], finding["base_better"]) == (2, 2, 1, 1)


def test_a_null_pair_of_equal_weights_differs_in_nothing(finished_study: Path) -> None:
    found = table(finished_study, "comparisons")
    null = found[found.against == "second_seed"]
    assert set(null.measure) == {"probe", "transfer", "behaviour", "arrival", "bits per byte", "benchmark"}
    assert (null.difference == 0).all()
    assert (null.p == 1).all() and (null.p_holm == 1).all()
    assert (null.common == 1).all()
    calibration = results(finished_study)["calibration"]
    assert calibration["below_alpha"] == calibration["below_alpha_after_holm"] == 0
    assert calibration["comparisons"] == len(null)


def both(out: Path, name: str, value: str, **where: str) -> pd.DataFrame:
    """The lines of base and code about the same rows, side by side."""
    rows = table(out, name)
    for column, wanted in where.items():
        rows = rows[rows[column] == wanted]
    unit = {
        "probe_rows": "row",
        "transfer_rows": "row",
        "behaviour": "item",
        "score_rows": "text",
        "benchmark_items": "item",
    }[name]
    base, code = (rows[rows.model == role].set_index(unit) for role in ("base", "code"))
    cluster = "group" if name == "benchmark_items" else {"row": "cluster", "item": "item", "text": "group"}[unit]
    shared = base.index.intersection(code.index, sort=False)
    clusters = shared if cluster == unit else base.loc[shared, cluster]
    return pd.DataFrame({"base": base.loc[shared, value], "code": code.loc[shared, value], "cluster": clusters})


@pytest.mark.parametrize(
    ("measure", "source", "value", "where"),
    [
        ("probe", "probe_rows", "correct", {"task": "nesting", "target": "depth", "form": "prose"}),
        ("probe", "probe_rows", "correct", {"task": "identifiers", "target": "role", "form": "code"}),
        (
            "transfer",
            "transfer_rows",
            "correct",
            {"task": "nesting", "target": "closer", "source": "code", "form": "prose"},
        ),
        ("behaviour", "behaviour", "right", {"task": "nesting", "form": "code"}),
        ("bits per byte", "score_rows", "bits_per_byte", {"form": "code"}),
        ("benchmark", "benchmark_items", "score", {"task": "generated_arithmetic"}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_comparison_can_be_recomputed_from_its_rows(
    finished_study: Path, measure: str, source: str, value: str, where: dict[str, str]
) -> None:
    lines = table(finished_study, "comparisons")
    lines = lines[(lines.against == "code") & (lines.measure == measure)]
    for column, wanted in where.items():
        lines = lines[lines[column] == wanted]
    [line] = lines.to_dict("records")
    rows = both(finished_study, source, value, **where)
    assert line["n_items"] == len(rows)
    assert line["n_clusters"] == rows.cluster.nunique()
    assert line["base"] == pytest.approx(rows.base.mean(), abs=1e-12)
    assert line["other"] == pytest.approx(rows.code.mean(), abs=1e-12)
    expected = paired_comparison(rows.base, rows.code, rows.cluster.astype(str), seed=0, n_resamples=100, n_flips=1000)
    for name in ("difference", "low", "high", "p", "minimum_detectable_effect"):
        assert line[name] == pytest.approx(getattr(expected, name), abs=1e-12)


def test_summaries_can_be_recomputed_from_their_rows(finished_study: Path) -> None:
    scores, rows = table(finished_study, "scores"), table(finished_study, "score_rows")
    for line in scores.to_dict("records"):
        part = rows[(rows.model == line["model"]) & (rows.form == line["form"])]
        expected = cluster_bootstrap(part.bits_per_byte, part["group"], 100, 0)
        assert (line["bits_per_byte"], line["low"], line["high"]) == pytest.approx(
            (expected.estimate, expected.low, expected.high), abs=1e-12
        )
    retention, behaviour = table(finished_study, "retention"), table(finished_study, "behaviour")
    for line in retention.to_dict("records"):
        part = behaviour[(behaviour.model == line["model"]) & (behaviour.form == line["form"])]
        assert line["prompts"] == len(part)
        assert line["both_right"] == part.right.sum()
        assert line["accuracy"] == pytest.approx(part.right.mean(), abs=1e-12)
    probes, outcomes = table(finished_study, "probes"), table(finished_study, "probe_rows")
    chosen = probes[probes.chosen]
    assert len(chosen) == len(ROLES) * 7
    for line in chosen.to_dict("records"):
        part = outcomes[(outcomes.model == line["model"]) & (outcomes.task == line["task"])]
        part = part[(part.target == line["target"]) & (part.form == line["form"])]
        assert set(part.site) == {line["site"]}
        assert line["score"] == pytest.approx(part.correct.mean(), abs=1e-12)
        assert line["selectivity"] == pytest.approx((part.correct - part.control_correct).mean(), abs=1e-12)


# Benchmarks


def test_benchmarks_are_scored_paired_and_shown(finished_study: Path) -> None:
    """Of generated questions, and of those in a data folder."""
    tasks = ("generated_navigate", "generated_arithmetic", "arc_easy")
    items, found = table(finished_study, "benchmark_items"), table(finished_study, "benchmarks")
    assert {key: len(part) for key, part in items.groupby(["model", "task"])} == {
        (role, task): 12 for role in ROLES[:3] for task in tasks
    }
    assert list(items)[:7] == ["model", "task", "subject", "item", "score", "chance", "group"]
    assert found[["task", "model"]].to_numpy().tolist() == [[task, role] for task in tasks for role in ROLES[:3]]
    assert results(finished_study)["tables"]["benchmarks"][1]["score"] == found.score[1]
    rows = table(finished_study, "comparisons")
    rows = rows[(rows.measure == "benchmark") & (rows.against == "code")].set_index("task")
    code = found[found.model == "code"].set_index("task")
    same = {"difference": "difference", "difference_low": "low", "difference_high": "high", "p_permutation": "p"}
    for ours, theirs in {**same, "minimum_detectable_effect": "minimum_detectable_effect"}.items():
        assert code[ours].tolist() == pytest.approx(rows[theirs][code.index].tolist(), abs=1e-12), (
            "one test, two tables"
        )
    assert (found[found.model == "second_seed"].difference == 0).all()
    page = (finished_study / "report.html").read_text()
    assert all(task in page for task in tasks) and "are like BIG-bench’s programmatic tasks" in page
    assert {"benchmarks.png", "benchmarks-radar.png"} <= {path.name for path in (finished_study / "figures").iterdir()}


# A second run


def test_a_second_run_reuses_every_stage_and_does_not_need_torch(out: Path, study_file: Path) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "manifest.json"}
    script = (
        "import sys; from cli.main import main; main();"
        "print('LOADED', *[name for name in ('torch', 'transformer_lens') if name in sys.modules], file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, "compare", str(study_file), "--out", str(out)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=ENVIRONMENT)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr.splitlines()[-1] == "LOADED"
    assert all(stages(out).values())
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize(
    ("changes", "computed"),
    [
        ({"flips = 1000": "flips = 2000"}, ["benchmarks"]),
        (
            {"resamples = 100": "resamples = 200"},
            ["probes", "patching", "interventions", "mapped", "scores", "across", "overlap", "benchmarks"],
        ),
        ({"items = 6": "items = 5", "passages = 6": "passages = 7"}, ["patching", "scores", "overlap"]),
        ({"limit = 12": "limit = 13"}, ["benchmark", "benchmarks"]),
    ],
    ids=["flips", "resamples", "patching and scores", "benchmarks"],
)
def test_changed_settings_recompute_what_depends_on_them(
    out: Path, study_file: Path, tmp_path: Path, changes: dict[str, str], computed: list[str]
) -> None:
    """``computed``: kinds of stages, of every model and task; comparisons and report depend on everything."""

    def kind(stage: str) -> str:
        return "across" if stage.startswith("across/patching") else stage.split("/")[-1].split()[0]

    text = study_file.read_text()
    for old, new in changes.items():
        assert text.count(f"{old}\n") == 1
        text = text.replace(f"{old}\n", f"{new}\n")
    (tmp_path / "changed.toml").write_text(text)
    run_study(read_study(tmp_path / "changed.toml"), out)
    found = stages(out)
    expected = {stage for stage in found if kind(stage) in (*computed, "comparisons", "report")}
    assert {stage for stage, reused in found.items() if not reused} == expected
    assert len(expected) > 2 or not computed
    assert read_study(out / "study.toml") == read_study(tmp_path / "changed.toml")


def test_more_tasks_keep_the_stages_of_the_others(out: Path, study_file: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.toml"
    changed.write_text(study_file.read_text().replace('["nesting", "identifiers"]', '["nesting"]'))
    run_study(read_study(changed), out)
    fresh = {stage for stage, reused in stages(out).items() if not reused}
    # Neutral passages are of documents that no task uses, so they change with the tasks.
    neutral = {f"stores/{role}/neutral" for role in ROLES}
    assert fresh == {"comparisons", "examples", "report", "mapped", "across/similarity", *neutral}
    assert "identifiers" not in set(table(out, "probes").task)
    run_study(read_study(study_file), out)
    assert {stage for stage, reused in stages(out).items() if not reused} == fresh
    assert "identifiers" in set(table(out, "probes").task)


def test_changed_weights_recompute_that_models_stages(models: Path, tmp_path: Path) -> None:
    """In a study of probes alone, of two models: all that is not needed for this may be switched off."""
    text = (models / "small.toml").read_text()
    off = [("prompts = 20", "prompts = 0"), ("prompts = 8", "prompts = 0"), ("passages = 5", "passages = 0"),
           ("passages = 6", "passages = 0"), ("limit = 12", "limit = 0"), (', "identifiers"', "")]  # fmt: skip
    for old, new in off:
        text = text.replace(old, new)
    text = "".join(line for line in text.splitlines(keepends=True) if not line.startswith("null"))
    (models / "small.toml").write_text(text.replace("[probes]", "[across]\nprompts = 0\n[probes]\nrandom_init = false"))
    study, out = read_study(models / "small.toml"), tmp_path / "run"
    first = run_study(study, out)
    assert set(stages(out)) == {
        "base/model", "stores/base/nesting", "base/probes nesting", "code/model", "stores/code/nesting", "code/probes nesting",
        "comparisons", "examples", "report",
    }  # fmt: skip
    assert first["calibration"] is None
    assert {line["measure"] for line in first["tables"]["comparisons"]} == {"probe", "transfer"}
    shutil.copy(models / "base" / "model.safetensors", models / "code" / "model.safetensors")
    second = run_study(study, out)
    assert not any(reused for stage, reused in stages(out).items() if "code/" in stage)
    assert first["tables"]["models"][1]["fingerprint"] != second["tables"]["models"][1]["fingerprint"]
    assert {line["difference"] for line in second["tables"]["comparisons"]} == {0.0}
    base = [line for line in first["tables"]["probes"] if line["model"] == "base"]
    assert [line for line in second["tables"]["probes"] if line["model"] == "base"] == base


# Interruption


def test_a_killed_run_goes_on_to_the_same_results(finished_study: Path, study_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    command = [sys.executable, "-m", "cli.main", "compare", str(study_file), "--out", str(out), "--jobs", "1"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
    reached = out / "stages" / "code" / "model" / "stage.json"
    give_up = time.monotonic() + 120
    while not reached.exists() and running.poll() is None and time.monotonic() < give_up:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    _, said = running.communicate()
    assert running.returncode == -signal.SIGKILL, said.decode()
    assert not (out / "results.json").exists()
    run_study(read_study(study_file), out)
    found = stages(out)
    assert found["base/model"] and found["base/probes nesting"]
    assert not found["second_seed/model"]
    assert (out / "results.json").read_bytes() == (finished_study / "results.json").read_bytes()
    for name in ("probe_rows", "patching_cells", "comparisons"):
        assert (out / "tables" / f"{name}.csv").read_bytes() == (finished_study / "tables" / f"{name}.csv").read_bytes()


def test_a_run_that_was_killed_as_it_began_is_taken_up(study_file: Path, tmp_path: Path) -> None:
    """All it left is the half-written study file."""
    from analyses.study.run import claim

    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "study.toml.tmp").write_text("name = ")
    claim(tmp_path / "run", read_study(study_file))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["study.toml"]


# The wrong place


def test_another_studys_folder_is_refused_and_left_alone(out: Path, study_file: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for old, new, difference in (
        ('name = "small"', 'name = "other"', "name 'small', here 'other'"),
        ("/null", "/code", "null"),
    ):
        other = tmp_path / "other.toml"
        other.write_text(study_file.read_text().replace(old, new))
        with pytest.raises(TwinprobeError) as caught:
            run_study(read_study(other), out)
        message = str(caught.value)
        assert message.startswith(f"{out} holds another study")
        assert difference in message and "choose another --out" in message and "\n" not in message
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("name", ["store.json", "thesis.tex"])
def test_a_store_or_foreign_files_are_refused_and_left_alone(study_file: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("dear reader")
    with pytest.raises(TwinprobeError, match="is not empty and holds no study; choose another --out"):
        run_study(read_study(study_file), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(TwinprobeError, match="holds no study"):
        run_study(read_study(study_file), tmp_path / name)
    assert (tmp_path / name).read_text() == "dear reader"


def test_a_damaged_study_file_is_named(out: Path, study_file: Path) -> None:
    (out / "study.toml").write_text("name = ")
    with pytest.raises(TwinprobeError, match=r"study\.toml is damaged .*choose another --out"):
        run_study(read_study(study_file), out)


def test_an_unusable_model_is_found_before_anything_is_written(models: Path, tmp_path: Path) -> None:
    (models / "code" / "model.safetensors").unlink()
    with pytest.raises(TwinprobeError, match="holds no weights"):
        run_study(read_study(models / "small.toml"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unusable_site_is_one_line(study_file: Path, tmp_path: Path) -> None:
    changed = tmp_path / "changed.toml"
    changed.write_text(study_file.read_text().replace("resid_post.*", "resid_post.2"))
    with pytest.raises(TwinprobeError, match=r"layer 2 does not exist; this model has layers 0 to 1"):
        run_study(read_study(changed), tmp_path / "run")


def test_a_disk_that_fills_up_keeps_what_was_finished(finished_study: Path, study_file: Path, small_disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=24m", str(small_disk)], check=True)

    def fill_up(stage: str, done: int, total: int) -> None:
        if stage == "code/model":
            (small_disk / "other").write_bytes(b"x" * (shutil.disk_usage(small_disk).free))

    study, out = read_study(study_file), small_disk / "run"
    with pytest.raises((TwinprobeError, OSError), match=r"[Nn]o space left on"):
        run_study(study, out, fill_up)
    (small_disk / "other").unlink()
    run_study(study, out)
    assert stages(out)["base/patching nesting"] is True
    assert (out / "results.json").read_bytes() == (finished_study / "results.json").read_bytes()


def test_a_full_disk_is_said_before_work_begins(study_file: Path, small_disk: Path) -> None:
    with pytest.raises(TwinprobeError, match=r"no space left on the disk of .*free some space"):
        run_study(read_study(study_file), small_disk / "run")
