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
from probes.tasks import SOURCES, TASKS


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
    assert list(as_json) == [*TASKS, *(f"{source}:PATH" for source in SOURCES)]
    for source in SOURCES.values():
        assert f"{source.name}:PATH  {source.summary}; PATH is {source.path}" in shown
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
    where = ("--texts", folder / "texts.jsonl", "--sites", "embed,resid_post.*,z.0,z.2,z.1.3", "--rows", "spans")
    done(twinprobe("cache", model_folder, *where, "--store-dtype", "float32", "--out", folder / "store"))
    return folder / "store"


def test_store_shows_what_was_captured(store: Path, model_folder: Path) -> None:
    shown = done(twinprobe("show", "store", store))
    fingerprint = json.loads((store / "store.json").read_text())["model"]["fingerprint"]
    for part in (
        f"{model_folder} (LlamaForCausalLM, 3 layers × 16)",
        fingerprint,
        "float32, sdpa attention, on cpu, by hooks",
        "2 (overlong: none)",
        "8 (BOS prepended)",
        "3 (spans, last of their tokens)",
        "role 2: name 2",
        "value 1",
        "embed (1 × 16, 192 B)",
        "resid_post.0-2 (3 × 16, 192 B each)",
        "z.0 (1 × 16, 192 B)",
        "z.2 (1 × 16, 192 B)",
        "z.1.3 (1 × 4, 48 B)",
        "1.2 kB as float32",
        "folder, shards: 1",
    ):
        assert part in shown
    assert "merged from" not in shown


def test_store_as_json_holds_the_provenance_and_what_can_be_counted(store: Path) -> None:
    shown = json.loads(done(twinprobe("show", "store", store, "--json")))
    assert shown["n_texts"] == 2
    assert shown["n_rows"] == 3
    assert shown["n_tokens"] == 8
    assert shown["spans"] == {"role": 2, "value": 1}
    assert shown["labels"] == {"role": {"name": 2}, "value": {"": 1}}
    assert shown["bytes"] == sum(path.stat().st_size for path in store.rglob("*") if path.is_file())
    assert shown["kept_as"] == "folder"
    assert shown["model"]["fingerprint"].startswith("full:")
    assert shown["sites"] == ["embed", "resid_post.0", "resid_post.1", "resid_post.2", "z.0", "z.2", "z.1.3"]
    assert shown["site_widths"] == {**dict.fromkeys(shown["sites"], 16), "z.1.3": 4}
    assert shown["site_bytes"] == {site: width * 3 * 4 for site, width in shown["site_widths"].items()}
    assert shown.items() >= json.loads((store / "store.json").read_text()).items()


def test_packed_and_merged_stores_say_so(store: Path, tmp_path: Path) -> None:
    texts = [Text("c", "z = 3", (Span("role", 0, 1, "other"),))]
    write_texts(tmp_path / "texts.jsonl", texts)
    model = json.loads((store / "store.json").read_text())["model"]["name"]
    where = ("--texts", tmp_path / "texts.jsonl", "--sites", "embed,resid_post.*,z.0,z.2,z.1.3", "--rows", "spans")
    done(twinprobe("cache", model, *where, "--out", tmp_path / "more"))
    done(twinprobe("store", "merge", store, tmp_path / "more", "--out", tmp_path / "both"))
    done(twinprobe("store", "pack", tmp_path / "both", "--out", tmp_path / "both.h5"))
    shown = done(twinprobe("show", "store", tmp_path / "both.h5"))
    assert "store (3 rows × 7 sites)" in shown
    assert "more (1 rows × 7 sites)" in shown
    assert "role 3: name 2, other 1" in shown
    assert "packed in one file, shards: 2" in shown
    as_json = json.loads(done(twinprobe("show", "store", tmp_path / "both.h5", "--json")))
    assert as_json["kept_as"] == "packed in one file"
    assert as_json["bytes"] == (tmp_path / "both.h5").stat().st_size


def test_other_rules_are_told(store: Path, tmp_path: Path) -> None:
    text = "x = 1\n" * 40
    write_texts(tmp_path / "texts.jsonl", [Text("long", text), Text("short", "x")])
    model = json.loads((store / "store.json").read_text())["model"]["name"]
    where = ("--texts", tmp_path / "texts.jsonl", "--sites", "embed", "--overlong", "truncate", "--bos", "never")
    done(twinprobe("cache", model, *where, "--out", tmp_path / "long"))
    shown = done(twinprobe("show", "store", tmp_path / "long"))
    assert "2 (overlong: 1 cut by truncate, 0 spans lost)" in shown
    assert "(BOS not used)" in shown
    assert "(every token)" in shown
    assert "spans  " not in shown


def test_a_damaged_store_says_which_file_it_is(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "copy"))
    for name in ("index.h5", "shards/00000.h5"):
        shutil.copy(store / name, copy / name)
        (copy / name).write_bytes((copy / name).read_bytes()[:300])
        for command in (("show", "store"), ("probe",)):
            said = f"twinprobe store verify {copy} says how to mend it"
            refused(twinprobe(*command, copy), f"{copy / name} is damaged", said)
        shutil.copy(store / name, copy / name)
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
