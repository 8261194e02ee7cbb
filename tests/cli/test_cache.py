"""``cache``: texts go in, a store comes out; what can not be done is said in one line and harms nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from calling import Ran, contents, done, refused, twinprobe, twinprobe_process
from conftest import CONTEXT

import activations.capturing as capturing
from activations.models import load_model
from activations.store import ActivationStore
from activations.texts import Span, Text, write_texts

Cache = Callable[..., Ran]


@pytest.fixture
def texts() -> list[Text]:
    spans = (Span("role", 0, 5, "definition"), Span("role", 8, 13, "use"))
    return [Text("assign", "total = width", spans), *(Text(f"t{i}", f"name_{i} = {i} + x") for i in range(9))]


@pytest.fixture
def cache(model_folder: Path, texts: list[Text], tmp_path: Path) -> Cache:
    """``twinprobe cache`` on the tiny model and ``texts``, into ``tmp_path/store``; options may be added or replaced."""
    write_texts(tmp_path / "texts.jsonl", texts)

    def run(
        *more: object, model: object = model_folder, call: Callable[..., Ran] = twinprobe, **replaced: object
    ) -> Ran:
        options: dict[str, object] = {
            "texts": tmp_path / "texts.jsonl", "sites": "resid_post.*", "out": tmp_path / "store", **replaced,
        }  # fmt: skip
        return call("cache", model, *(word for name, value in options.items() for word in (f"--{name}", value)), *more)

    return run


def test_the_store_holds_the_models_own_activations(cache: Cache, texts: list[Text], tmp_path: Path) -> None:
    ran = cache()
    assert f"wrote {tmp_path / 'store'}; look at it with: twinprobe show store {tmp_path / 'store'}" in done(ran)
    store = ActivationStore(tmp_path / "store")
    loaded = load_model(store.provenance["model"]["name"])
    ids = [0, *loaded.tokenizer(texts[0].text, add_special_tokens=False)["input_ids"]]
    with torch.inference_mode():
        hidden = loaded.model(torch.tensor([ids]), output_hidden_states=True).hidden_states
    rows = store.rows.index[store.rows.text == "assign"]
    assert len(rows) == len(ids) - 1
    found = torch.from_numpy(store.read("resid_post.1", rows))
    torch.testing.assert_close(found, hidden[2][0, 1:], rtol=1e-5, atol=1e-5)


def test_the_expected_size_is_said_before_and_as_json(cache: Cache, tmp_path: Path) -> None:
    shown = json.loads(done(cache("--rows", "spans", "--json")))
    assert shown["out"] == str(tmp_path / "store")
    assert shown["written"] is True
    assert (shown["texts"], shown["rows"]) == (10, 2)
    assert shown["bytes"] == 2 * 3 * 16 * 4
    assert shown["sites"] == ["resid_post.0", "resid_post.1", "resid_post.2"]


def test_a_dry_run_writes_nothing(cache: Cache, tmp_path: Path) -> None:
    before = contents(tmp_path)
    ran = cache("--dry-run")
    assert done(ran) == ""
    assert "10 texts" in ran.err and "rows × 3 sites" in ran.err and str(tmp_path / "store") in ran.err
    shown = json.loads(done(cache("--dry-run", "--json")))
    assert shown["written"] is False
    assert shown["rows"] > 10
    assert contents(tmp_path) == before
    assert not (tmp_path / "store").exists()


def test_the_same_command_again_keeps_what_is_there_and_says_so(cache: Cache, tmp_path: Path) -> None:
    assert "captured before" not in cache().err
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")}
    again = cache()
    assert "10 of 10 texts were captured before and are kept" in again.err
    assert done(again)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("*")} == written


def test_a_cut_off_capture_goes_on(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capturing, "SHARD_BYTES", 2000)
    done(cache())
    whole = contents(tmp_path / "store")
    shards = sorted((tmp_path / "store" / "shards").iterdir())
    assert len(shards) > 3
    for path in (shards[-1], shards[1], tmp_path / "store" / "index.h5"):
        path.unlink()
    ran = cache()
    assert done(ran)
    assert "of 10 texts were captured before and are kept" in ran.err
    assert "10 of 10" not in ran.err
    assert contents(tmp_path / "store") == whole


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickled(folder: Path) -> None:
    from safetensors.torch import load_file

    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    without_weights(folder)


def without_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


MODELS: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "no folder": (shutil.rmtree, ["is not a folder"]),
    "no config": (lambda folder: (folder / "config.json").unlink(), ["holds no config.json"]),
    "no weights": (without_weights, ["holds no weights", "model.safetensors"]),
    "pickle only": (pickled, ["pickle weights only", "--allow-pickle"]),
    "no tokenizer": (without_tokenizer, ["tokenizer", "could not be loaded"]),
}


@pytest.mark.parametrize("case", MODELS)
def test_an_unusable_model_is_one_line(cache: Cache, model_folder: Path, tmp_path: Path, case: str) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    damage, expected = MODELS[case]
    damage(folder)
    refused(cache(model=folder), str(folder), *expected)
    assert not (tmp_path / "store").exists()


def test_pickle_weights_load_where_they_are_trusted(cache: Cache, model_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(model_folder, tmp_path / "model"))
    pickled(folder)
    done(cache("--allow-pickle", model=folder))


def test_an_unusable_model_is_one_line_in_a_process_of_its_own(
    cache: Cache, model_folder: Path, tmp_path: Path
) -> None:
    """Libraries print warnings past sys.stderr; none may come before the line, not even after loading weights."""
    refused(cache(sites="resid_post.3", call=twinprobe_process), "layer 3", "layers 0 to 2")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"sites": "resid_pst.*"}, ["unknown site 'resid_pst.*'", "did you mean 'resid_post'"]),
        ({"sites": "resid_post.3"}, ["layer 3 does not exist", "layers 0 to 2"]),
        ({"sites": "resid_post.0-9"}, ["layer 9 does not exist"]),
        ({"sites": "resid_post.two"}, ["'two' is not a layer"]),
        ({"sites": "z.0.4"}, ["head 4 does not exist", "heads 0 to 3"]),
        ({"sites": "embed.0"}, ["embed has no layers"]),
        ({"sites": ","}, ["unknown site ''", "embed", "resid_post"]),
        ({"texts": "absent.jsonl"}, ["absent.jsonl: no such file"]),
        ({"store-dtype": "float16"}, ["float16 would lose bits of the float32"]),
        ({"device": "cuda:99"}, ["device 'cuda:99' is not there"]),
        ({"device": "gpu"}, ["device 'gpu' is not known", "cuda"]),
        ({"attention": "flashy"}, ["could not be loaded", "flashy"]),
    ],
    ids=lambda value: " ".join(map(str, value.items())) if isinstance(value, dict) else None,
)
def test_an_unusable_option_is_one_line(
    cache: Cache, options: dict[str, str], expected: list[str], tmp_path: Path
) -> None:
    refused(cache(**options), *expected)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"id": "b", "text": "x"', ["texts.jsonl:3: not valid JSON"]),
        ('["b", "x"]', ["texts.jsonl:3: expected a JSON object", "got list"]),
        ('{"id": "b"}', ["texts.jsonl:3: 'text' must be a non-empty string"]),
        ('{"id": "b", "text": "x", "label": "y"}', ["texts.jsonl:3: unknown key 'label'", "spans"]),
        ('{"id": "a", "text": "x"}', ["texts.jsonl:3: id 'a' was already used on line 1"]),
        (
            '{"id": "b", "text": "x = 1", "spans": [{"name": "s", "start": 4, "end": 6}]}',
            ["texts.jsonl:3: text 'b': span 's' covers characters 4 to 6, but the text has 5"],
        ),
        (
            '{"id": "b", "text": "x = 1", "spans": [{"name": "s", "start": 2, "end": 2}]}',
            ["texts.jsonl:3: text 'b': span 's' covers characters 2 to 2"],
        ),
        (json.dumps({"id": "b", "text": "x = 1\n" * CONTEXT}), ["text 'b' has", f"context is {CONTEXT}", "shorten"]),
    ],
    ids=["json", "list", "no text", "unknown key", "twice", "outside", "empty span", "too long"],
)
def test_a_bad_text_is_one_line_with_its_place(cache: Cache, line: str, expected: list[str], tmp_path: Path) -> None:
    file = tmp_path / "bad" / "texts.jsonl"
    file.parent.mkdir()
    file.write_text('{"id": "a", "text": "x"}\n\n' + line + '\n{"id": "c", "text": "x"}\n')
    refused(cache(texts=file), *expected)
    refused(cache("--dry-run", "--json", texts=file), *expected)
    assert not (tmp_path / "store").exists()


def test_no_spans_to_capture_is_one_line(cache: Cache, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.jsonl", [Text("a", "x = 1")])
    refused(cache("--rows", "spans"), "no text has a span", "--rows tokens")


def test_foreign_files_are_refused_and_left_alone(cache: Cache, tmp_path: Path) -> None:
    for out in ("folder", "file"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / "thesis.tex").write_text("dear reader")
        (tmp_path / "file").write_text("dear reader")
        before = contents(tmp_path)
        refused(cache(out=tmp_path / out), str(tmp_path / out), after_progress=True)
        assert contents(tmp_path) == before


def test_another_jobs_store_is_refused_and_left_alone(cache: Cache, texts: list[Text], tmp_path: Path) -> None:
    done(cache())
    before = contents(tmp_path / "store")
    refused(cache(sites="embed"), "holds a store of another job", "sites", "choose another", after_progress=True)
    refused(cache("--rows", "last"), "rows", '"tokens"', '"last"', after_progress=True)
    write_texts(tmp_path / "texts.jsonl", texts[1:])
    refused(cache(), "texts", after_progress=True)
    assert contents(tmp_path / "store") == before


def test_a_place_that_can_not_be_written_is_one_line(cache: Cache) -> None:
    refused(cache(out="/proc/absent/store"), "/proc/absent/store cannot be written", after_progress=True)


def test_a_full_disk_ends_in_one_line_and_the_same_command_goes_on(
    cache: Cache, small_disk: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The activations alone would fit, so the capture begins; with the columns of metadata the disk fills up."""
    monkeypatch.setattr(capturing, "SHARD_BYTES", 60_000)
    write_texts(tmp_path / "texts.jsonl", [Text(f"t{i}", "x = 1 + 2\n" * 8) for i in range(200)])
    options = {"sites": "embed", "out": small_disk / "store"}
    ran = cache(**options)
    refused(ran, "no space left on the disk", "finished is kept", "free some space", after_progress=True)
    kept = contents(small_disk / "store" / "shards")
    assert len(kept) > 2
    assert all(name.endswith(".h5") for name in kept)
    refused(cache(**options), "no space left on the disk", after_progress=True)
    assert contents(small_disk / "store" / "shards") == kept

    subprocess.run(["mount", "-o", "remount,size=8m", str(small_disk)], check=True)
    again = cache(**options)
    assert done(again)
    assert "of 200 texts were captured before and are kept" in again.err
    written = contents(small_disk / "store")
    assert {name: written[f"shards/{name}"] for name in kept} == kept
    done(cache(sites="embed", out=tmp_path / "elsewhere"))
    assert written == contents(tmp_path / "elsewhere")


def test_a_capture_that_can_not_fit_does_not_begin(cache: Cache, small_disk: Path, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.jsonl", [Text(f"t{i}", "x = 1 + 2\n" * 8) for i in range(200)])
    refused(cache(out=small_disk / "store"), "this capture needs", "MB are free", after_progress=True)
    assert list((small_disk / "store" / "shards").iterdir()) == []


def test_chosen_positions_are_kept(cache: Cache, tmp_path: Path) -> None:
    done(cache("--rows", "positions", "--positions", "-1,0"))
    rows = ActivationStore(tmp_path / "store").rows
    assert rows.text.value_counts().eq(2).all()
    assert rows.position.tolist()[1::2] == [1] * 10, "BOS does not count"
    assert (rows.position[::2].to_numpy() > 1).all()
    refused(cache("--rows", "positions", "--positions", "first"), "--positions 'first' is not a list of whole numbers")
    refused(cache("--rows", "positions"), "positions such as 0,-1")
    refused(cache("--positions", "0"), "rows 'tokens' with positions [0]")
    refused(cache("--rows", "positions", "--positions", "40"), "text 'assign' has", "no position 40")


@pytest.mark.parametrize("rule", ["truncate", "split"])
def test_overlong_texts_are_cut_only_when_asked_and_counted(cache: Cache, tmp_path: Path, rule: str) -> None:
    spans = (Span("early", 0, 1, "a"), Span("late", 590, 595, "b"))
    write_texts(tmp_path / "texts.jsonl", [Text("long", "x = 1\n" * 100, spans), Text("short", "x")])
    refused(cache(), "text 'long' has", f"context is {CONTEXT}", "--overlong truncate or split")
    ran = cache("--overlong", rule, "--json")
    lost = 1 if rule == "truncate" else 0
    assert f"1 texts were too long ({rule}); {lost} spans lost" in ran.err
    assert json.loads(done(ran))["overlong"] == {"rule": rule, "texts": 1, "lost_spans": lost}
    store = ActivationStore(tmp_path / "store")
    assert store.provenance["overlong"]["rule"] == rule
    names = [text.id for text in store.texts]
    assert names == ["long", "short"] if rule == "truncate" else names[0] == "long#0" and len(names) > 3


def test_the_engine_is_chosen_by_site_or_by_name(cache: Cache, tmp_path: Path) -> None:
    chosen = {}
    for name, sites, options in (
        ("hooks", "resid_post.1", ()),
        ("bridge", "pattern.1.2", ()),
        ("asked", "resid_post.1", ("--engine", "transformer_lens")),
        ("nnsight", "resid_post.1", ("--engine", "nnsight")),
    ):
        ran = cache("--json", *options, sites=sites, out=tmp_path / name)
        chosen[name] = json.loads(done(ran))["engine"]
    assert chosen == {
        "hooks": "hooks", "bridge": "transformer_lens", "asked": "transformer_lens", "nnsight": "nnsight",
    }  # fmt: skip
    values = {name: ActivationStore(tmp_path / name).read("resid_post.1") for name in ("hooks", "asked", "nnsight")}
    for found in values.values():
        assert abs(found - values["hooks"]).max() < 1e-5 * abs(values["hooks"]).max()
    kernels = [ActivationStore(tmp_path / name).provenance["attention_kernel"] for name in chosen]
    assert kernels == ["sdpa", "eager", "eager", "sdpa"]
    patterns = ActivationStore(tmp_path / "bridge").read("pattern.1.2")
    assert abs(patterns.sum(1) - 1).max() < 1e-5
    refused(cache("--engine", "hooks", sites="pattern.1", out=tmp_path / "x"), "pattern.1", "transformer_lens")
    refused(cache("--remote", "--engine", "hooks", out=tmp_path / "x"), "--remote goes with --engine nnsight")


def test_the_time_is_estimated_from_a_batch(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dry = cache("--dry-run", "--json")
    assert "less than a second here, going by one batch" in dry.err
    assert 0 < json.loads(done(dry))["seconds"] < 60
    small = cache("--json")
    assert "going by one batch" not in small.err
    assert json.loads(done(small))["seconds"] is None
    write_texts(tmp_path / "texts.jsonl", [Text(f"t{i}", "x = 1 + 2\n" * 8) for i in range(60)])
    large = cache("--batch-tokens", 50, out=tmp_path / "large")
    assert "going by one batch" in large.err
    assert "wrote" in done(large)


def test_workers_are_refused_without_what_they_need(cache: Cache, tmp_path: Path) -> None:
    refused(cache("--ray-address", "auto"), "--ray-address goes with --workers N")
    refused(cache("--workers", "1", "--ray-address", "127.0.0.1:1"), "can not be used", after_progress=True)
    refused(cache("--workers", "1", "--engine", "nnsight", out=tmp_path / "x"), "not with nnsight", after_progress=True)
    assert not (tmp_path / "x").exists()


def test_a_damaged_shard_is_said_and_mended(cache: Cache, tmp_path: Path) -> None:
    done(cache())
    whole = contents(tmp_path / "store")
    shard = tmp_path / "store" / "shards" / "00000.h5"
    shard.write_bytes(shard.read_bytes()[:-1])
    ran = cache()
    assert f"{shard} is damaged (its checksum is " in ran.err and "and is captured again" in ran.err
    assert done(ran)
    assert contents(tmp_path / "store") == whole


def test_a_model_that_fails_its_self_check_is_refused_unless_told_otherwise(
    cache: Cache, model_folder: Path, tmp_path: Path
) -> None:
    """A checkpoint whose second layer's attention is cut off from the stream."""
    from safetensors.torch import load_file, save_file

    cut = shutil.copytree(model_folder, tmp_path / "cut")
    weights = load_file(cut / "model.safetensors")
    weights["model.layers.1.self_attn.o_proj.weight"].zero_()
    save_file(weights, cut / "model.safetensors", metadata={"format": "pt"})
    refused(cache(model=cut), "z.1", "--no-self-check")
    assert done(cache("--no-self-check", model=cut))


def test_quantisation_needs_its_library(cache: Cache) -> None:
    import importlib.util

    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    refused(cache("--quantization", "8bit"), "bitsandbytes")
