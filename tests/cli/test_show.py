"""What there is: pairs, tasks, sites, and what a store holds, for people and as JSON."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from calling import done, refused, twinprobe

from activations.pairs import load_pairs
from activations.sites import DESCRIPTIONS, parse_sites
from activations.texts import Span, Text, write_texts
from probes.tasks import TASKS


def test_pairs_lists_every_pair() -> None:
    shown = done(twinprobe("show", "pairs"))
    for name, pair in load_pairs().items():
        [line] = [line for line in shown.splitlines() if line.split()[:1] == [name]]
        assert pair.base in line and pair.code in line


def test_pairs_as_json_has_every_field() -> None:
    shown = json.loads(done(twinprobe("show", "pairs", "--json")))
    assert [row["name"] for row in shown] == list(load_pairs())
    qwen = next(row for row in shown if row["name"] == "qwen2.5-0.5b")
    assert qwen["base"] == "Qwen/Qwen2.5-0.5B"
    assert qwen["same_tokenizer"]["verdict"] in ("yes", "no", "unverified")
    assert qwen["sources"]


def test_one_pair_is_shown_with_its_confounds_and_sources() -> None:
    pair = load_pairs()["qwen2.5-0.5b"]
    shown = done(twinprobe("show", "pairs", pair.name))
    as_json = json.loads(done(twinprobe("show", "pairs", pair.name, "--json")))
    assert as_json["confounds"]
    for sentence in as_json["confounds"]:
        assert sentence in shown
    for source in pair.sources:
        assert source in shown


def test_tasks_shows_an_example_of_every_form() -> None:
    shown = done(twinprobe("show", "tasks"))
    as_json = {task["name"]: task for task in json.loads(done(twinprobe("show", "tasks", "--json")))}
    assert list(as_json) == list(TASKS)
    for name, task in TASKS.items():
        assert f"{name}: {task.summary}" in shown
        assert as_json[name]["causal"] == task.causal
        assert set(as_json[name]["examples"]) == {form for forms in task.targets.values() for form in forms}
        for example in as_json[name]["examples"].values():
            assert example["labels"]
            assert (example["answer"] is not None) == task.causal
            assert "\n".join(f"    | {line}" for line in example["text"].splitlines()) in shown


def test_one_task_is_shown_alone() -> None:
    shown = done(twinprobe("show", "tasks", "binding"))
    assert "binding: " in shown
    assert "nesting: " not in shown
    assert [task["name"] for task in json.loads(done(twinprobe("show", "tasks", "binding", "--json")))] == ["binding"]


def test_sites_shows_how_each_is_written() -> None:
    shown = done(twinprobe("show", "sites"))
    assert json.loads(done(twinprobe("show", "sites", "--json"))) == DESCRIPTIONS
    for name, description in DESCRIPTIONS.items():
        [line] = [line for line in shown.splitlines() if line.split()[:1] == [name]]
        assert description in line
        assert parse_sites(line.split()[1].replace("LAYER", "0"), 1, 1)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["pairs", "qwen2.5-0.5"], ["unknown pair 'qwen2.5-0.5'", "did you mean 'qwen2.5-0.5b'"]),
        (["tasks", "nestin"], ["unknown task 'nestin'", "did you mean 'nesting'", "aliasing"]),
        (["store", "absent"], ["absent holds no store", "twinprobe cache"]),
        (["sites", "embed"], ["unexpected extra argument"]),
    ],
    ids=lambda value: value[0],
)
def test_what_is_not_there_is_one_line(words: list[str], expected: list[str]) -> None:
    refused(twinprobe("show", *words), *expected)
    refused(twinprobe("show", *words, "--json"), *expected)


@pytest.fixture(scope="module")
def store(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shown")
    spans = (Span("role", 0, 1, "name"), Span("value", 4, 5))
    write_texts(folder / "texts.jsonl", [Text("a", "x = 1", spans), Text("b", "y = 2", spans[:1])])
    where = ("--texts", folder / "texts.jsonl", "--sites", "embed,resid_post.*", "--rows", "spans")
    done(twinprobe("cache", model_folder, *where, "--out", folder / "store"))
    return folder / "store"


def test_store_shows_what_was_captured(store: Path, model_folder: Path) -> None:
    shown = done(twinprobe("show", "store", store))
    for part in (
        f"{model_folder} (LlamaForCausalLM, 3 layers × 16)",
        "float32, sdpa attention, on cpu",
        "3 (spans, BOS prepended)",
        "role 2, value 1",
        "embed, resid_post.0, resid_post.1, resid_post.2",
        "shards: 1",
    ):
        assert part in shown


def test_store_as_json_holds_the_provenance(store: Path) -> None:
    shown = json.loads(done(twinprobe("show", "store", store, "--json")))
    assert shown["n_texts"] == 2
    assert shown["n_rows"] == 3
    assert shown["spans"] == {"role": 2, "value": 1}
    assert shown["bytes"] == sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert shown["model"]["fingerprint"].startswith("full:")
    assert shown["sites"] == ["embed", "resid_post.0", "resid_post.1", "resid_post.2"]


def test_a_damaged_store_says_which_one_it_is(store: Path, tmp_path: Path) -> None:
    for name in ("index.h5", "shards/00000.h5"):
        copy = Path(shutil.copytree(store, tmp_path / "copy", dirs_exist_ok=True))
        (copy / name).write_bytes((copy / name).read_bytes()[:300])
        for command in (("show", "store"), ("probe",)):
            refused(twinprobe(*command, copy), f"{copy} is damaged", "run the same twinprobe cache command again")
    (copy / "store.json").write_text("{")
    refused(twinprobe("show", "store", copy), "store.json is damaged")


def test_an_unfinished_store_says_how_to_finish_it(store: Path) -> None:
    index = store / "index.h5"
    index.rename(store / "hidden")
    try:
        refused(twinprobe("show", "store", store), "not finished", "1 of 1 shards", "again to resume")
        refused(twinprobe("probe", store), "not finished")
    finally:
        (store / "hidden").rename(index)
