"""Capture: the rows in a store are the untouched model's own hidden states, however they got there."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ARCHITECTURES, files
from reference import assert_close, every_site, hidden_states, snapshot

import activations
from activations import capturing as module
from activations.capturing import capture, prepare
from activations.engines.hooks import forward
from activations.errors import TwinprobeError
from activations.inputs import encode, pad
from activations.models import embedded_twins, load_model
from activations.rows import RowRule
from activations.sites import Site, parse_sites
from activations.store import ActivationStore
from activations.texts import Span, Text

if TYPE_CHECKING:
    from conftest import MakeModel

    from activations.models import LoadedModel

Tiny = Callable[[str], "LoadedModel"]
MODELS = [*ARCHITECTURES, *(f"embedded:{name}" for name in embedded_twins())]


@functools.cache
def twin(name: str) -> LoadedModel:
    return load_model(name)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several shards from a few texts."""
    monkeypatch.setattr(module, "SHARD_BYTES", 4000)


@pytest.mark.parametrize("name", MODELS)
def test_rows_are_the_model_s_hidden_states(tiny: Tiny, sample_texts: list[Text], tmp_path: Path, name: str) -> None:
    loaded = twin(name) if name.startswith("embedded:") else tiny(name)
    encoded = encode(loaded.tokenizer, sample_texts, True, loaded.context)
    assert len({len(item.ids) for item in encoded}) == len(encoded), "every text has its own length"
    expected = [hidden_states(loaded, item.ids) for item in encoded]
    stream = [np.concatenate([states[i][1:] for states in expected]) for i in range(loaded.n_layers + 1)]
    sites = every_site(loaded)
    for batch_tokens in (16, 64, 8192):
        store = capture(loaded, sample_texts, sites, tmp_path / str(batch_tokens), bos=True, batch_tokens=batch_tokens)
        read = store.read
        assert store.rows.token.tolist() == [token for item in encoded for token in item.ids[1:]]
        for layer in range(loaded.n_layers):
            assert_close(read(f"resid_pre.{layer}"), stream[layer])
            if layer:
                assert_close(read(f"resid_post.{layer - 1}"), stream[layer])
            added = read(f"attn_out.{layer}") + read(f"mlp_out.{layer}")
            assert_close(read(f"resid_pre.{layer}") + added, read(f"resid_post.{layer}"))
            if not loaded.parallel:
                assert_close(read(f"resid_pre.{layer}") + read(f"attn_out.{layer}"), read(f"resid_mid.{layer}"))
        assert_close(read("ln_final"), stream[-1])
        with torch.no_grad():
            last = torch.from_numpy(read(f"resid_post.{loaded.n_layers - 1}"))
            assert_close(loaded.module("ln_final")(last).numpy(), stream[-1])


def test_rows_and_pools_choose_positions(tiny: Tiny, sample_texts: list[Text], tmp_path: Path) -> None:
    loaded = tiny("llama")
    site = Site("resid_post", 1)
    encoded = encode(loaded.tokenizer, sample_texts, True, loaded.context)
    states = [hidden_states(loaded, item.ids)[2] for item in encoded]

    def rows(**options: Any) -> tuple[pd.DataFrame, np.ndarray]:
        store = capture(loaded, sample_texts, [site], tmp_path / "-".join(options.values()), bos=True, **options)
        return store.rows, store.read(site)

    about, found = rows(rows="last")
    assert about.text.tolist() == [text.id for text in sample_texts]
    assert about.position.tolist() == [len(item.ids) - 1 for item in encoded]
    assert_close(found, np.stack([state[-1] for state in states]))
    assert about.span.tolist() == [None] * len(about)

    spans = [(i, span) for i, text in enumerate(sample_texts) for span in text.spans]
    positions = [encoded[i].positions(span) for i, span in spans]
    assert any(len(found) == 1 for found in positions)
    assert any(len(found) > 4 for found in positions)
    for pool in ("last", "first", "mean", "max"):
        about, found = rows(rows="spans", pool=pool)
        assert about.span.tolist() == [span.name for _, span in spans]
        assert about.label.tolist() == [span.label for _, span in spans]
        choose = {
            "last": lambda x: x[-1], "first": lambda x: x[0], "mean": lambda x: x.mean(axis=0), "max": lambda x: x.max(axis=0),
        }[pool]  # fmt: skip
        assert_close(found, np.stack([choose(states[i][p]) for (i, _), p in zip(spans, positions, strict=True)]))
        ends = [p[0] if pool == "first" else p[-1] for p in positions]
        assert about.position.tolist() == ends
        assert about.token.tolist() == [encoded[i].ids[p] for (i, _), p in zip(spans, ends, strict=True)]
        starts = [p[-1] if pool == "last" else p[0] for p in positions]
        for column, places, side in (("start", starts, 0), ("end", ends, 1)):
            expected = [encoded[i].offsets[p][side] for (i, _), p in zip(spans, places, strict=True)]
            assert about[column].tolist() == expected


def test_rows_know_their_token_and_characters(tiny: Tiny, sample_texts: list[Text], tmp_path: Path) -> None:
    loaded = tiny("gpt2")
    for bos in (True, False):
        store = capture(loaded, sample_texts, [Site("embed")], tmp_path / str(bos), bos=bos)
        texts = {text.id: text.text for text in sample_texts}
        with torch.no_grad():
            expected = loaded.model.get_input_embeddings()(torch.tensor(store.rows.token.to_numpy())).numpy()
        assert_close(store.read("embed"), expected)
        for row in store.rows.itertuples():
            piece = texts[row.text][row.start : row.end]
            assert loaded.tokenizer.decode([row.token]).strip() in (piece, "\ufffd", "")
        assert store.rows.groupby("text", sort=False).position.first().tolist() == [int(bos)] * len(texts)
        inputs = store.inputs
        assert (inputs.token == loaded.tokenizer.bos_token_id).sum() == (len(texts) if bos else 0)
        assert len(inputs) == len(store.rows) + (len(texts) if bos else 0)
        for text in sample_texts:
            ids = inputs[inputs.text == text.id].token.tolist()
            assert loaded.tokenizer.decode(ids, skip_special_tokens=True) == text.text


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_kept_bit_for_bit(
    make_model: MakeModel, sample_texts: list[Text], tmp_path: Path, dtype: str
) -> None:
    loaded = make_model("llama")
    loaded.model.to(getattr(torch, dtype))
    sites = parse_sites("resid_post.*,z.1.2", 3, 4)
    store = capture(loaded, sample_texts, sites, tmp_path / "half", bos=True, dtype=dtype)
    wide = capture(loaded, sample_texts, sites, tmp_path / "wide", bos=True, dtype="float32")
    texts = sorted(encode(loaded.tokenizer, sample_texts, True, 96), key=lambda item: len(item.ids))
    found = forward(loaded, *pad([item.ids for item in texts], 2, loaded.device), sites)
    for site in sites:
        assert found[site].dtype == getattr(torch, dtype)
        values = store.read(site)
        assert values.tobytes() == wide.read(site).tobytes()
        with h5py.File(tmp_path / "half" / "index.h5") as index:
            assert index[site.dataset].id.get_type().get_size() == 2
            assert index[site.dataset].dtype == (np.float32 if dtype == "bfloat16" else np.float16)
            assert index[site.dataset][:].astype(np.float32).tobytes() == values.tobytes()
        for line, item in enumerate(texts):
            own = store.rows.index[store.rows.text == item.text.id]
            assert values[own].tobytes() == found[site][line, 1 : len(item.ids)].float().numpy().tobytes()


@pytest.mark.parametrize(
    ("compute", "stored"),
    [("float32", "float16"), ("float32", "bfloat16"), ("bfloat16", "float16"), ("float16", "bfloat16")],
)
def test_a_type_that_loses_bits_is_refused(
    make_model: MakeModel, sample_texts: list[Text], tmp_path: Path, compute: str, stored: str
) -> None:
    loaded = make_model("gpt2")
    loaded.model.to(getattr(torch, compute))
    expected = f"storage dtype {stored} would lose bits of the {compute} activations; store {compute}"
    with pytest.raises(TwinprobeError, match=expected):
        capture(loaded, sample_texts, [Site("embed")], tmp_path / "s", bos=True, dtype=stored)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dtype": "int8"}, "storage dtype 'int8' is not known; expected one of float32, float16, bfloat16"),
        ({"rows": "all"}, "rows 'all' is not known; expected one of tokens, last, positions, spans"),
        ({"pool": "min"}, "pool 'min' is not known; expected one of last, first, mean, max"),
        ({"pool": "mean"}, "pool 'mean' goes with rows 'spans'; rows 'tokens' are single tokens"),
        ({"rows": "positions"}, "rows 'positions' with positions []; positions such as 0,-1 and rows 'positions' go"),
        ({"positions": (0,)}, "rows 'tokens' with positions [0]"),
        (
            {"rows": "positions", "positions": (0, 9)},
            "text 'short' has 1 tokens and so no position 9; leave that position",
        ),
        ({"texts": [Text("a", "x"), Text("a", "y")]}, "two texts have the id 'a'; ids must be unique"),
        ({"overlong": "cut"}, "overlong rule 'cut' is not known; expected one of error, truncate, split"),
        ({"texts": [Text("a", "x")], "rows": "spans"}, "no rows to capture: no text has a span"),
        ({"texts": []}, "no texts to capture"),
        ({"texts": [Text("long", "x " * 200)]}, "text 'long' has 202 tokens with BOS, but the model's context is 96"),
        ({"sites": [Site("resid_mid", 0)]}, "runs attention and MLP in parallel, so it has no resid_mid"),
        ({"sites": [Site("resid_post", 3)]}, "site resid_post.3: CodeGenForCausalLM has no module for 'blocks.3'"),
    ],
)
def test_what_cannot_be_captured_is_refused_before_anything_is_written(
    tiny: Tiny, sample_texts: list[Text], tmp_path: Path, options: dict[str, Any], expected: str
) -> None:
    given = {"texts": sample_texts, "sites": [Site("embed")], "out": tmp_path / "s", "bos": True, **options}
    with pytest.raises(TwinprobeError) as caught:
        capture(tiny("codegen"), **given)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "s").exists()


def test_the_model_and_tokenizer_are_untouched(
    make_model: MakeModel, sample_texts: list[Text], tmp_path: Path, small_shards: None
) -> None:
    """Also when the forward pass fails half way; then the shards before it are kept, and a resume finishes the rest."""
    loaded = make_model("llama")
    loaded.tokenizer.padding_side = "left"
    loaded.tokenizer(["a", "b c"], padding=True, truncation=True, max_length=3)
    calls = 0

    def fail(*_args: Any) -> None:
        nonlocal calls
        calls += 1
        if calls > 3:
            raise ArithmeticError("half way")

    before = snapshot(loaded)
    whole = capture(loaded, sample_texts, every_site(loaded), tmp_path / "whole", bos=True)
    assert snapshot(loaded) == before
    assert len(list((tmp_path / "whole" / "shards").iterdir())) > 3

    handle = loaded.module("blocks.1.mlp").register_forward_hook(fail)
    hooked = snapshot(loaded)
    with pytest.raises(ArithmeticError, match="half way"):
        capture(loaded, sample_texts, every_site(loaded), tmp_path / "s", bos=True)
    assert snapshot(loaded) == hooked
    assert len(list((tmp_path / "s" / "shards").iterdir())) == 3
    handle.remove()
    assert snapshot(loaded) == before
    capture(loaded, sample_texts, every_site(loaded), tmp_path / "s", bos=True)
    assert files(tmp_path / "s") == files(whole.path)
    assert snapshot(loaded) == before


def test_lost_shards_are_captured_again_and_nothing_else(
    make_model: MakeModel, sample_texts: list[Text], tmp_path: Path, small_shards: None
) -> None:
    loaded = make_model("gpt2")
    read: list[int] = []
    loaded.model.get_input_embeddings().register_forward_hook(lambda _m, args, _out: read.append(args[0].numel()))
    reported: list[tuple[int, int]] = []

    def run() -> ActivationStore:
        read.clear()
        reported.clear()
        return capture(
            loaded, sample_texts, every_site(loaded), tmp_path / "s", bos=True, batch_tokens=1,
            progress=lambda done, total: reported.append((done, total)),
        )  # fmt: skip

    store = run()
    before = files(store.path)
    shards = sorted(path for path in before if path.startswith("shards/"))
    lengths = [len(item.ids) for item in encode(loaded.tokenizer, sample_texts, True, 96)]
    assert sorted(read) == sorted(lengths)
    assert reported == [(done, 8) for done in range(9)]
    assert len(shards) > 3

    rng = np.random.default_rng(0)
    for _ in range(3):
        lost = sorted(rng.choice(len(shards), size=2, replace=False))
        texts: list[int] = []
        for number in lost:
            with h5py.File(store.path / shards[number]) as file:
                texts += sorted(set(file["inputs/text"][:].tolist()))
            (store.path / shards[number]).unlink()
        with pytest.raises(TwinprobeError, match=f"is not finished \\({len(shards) - 2} of {len(shards)} shards\\)"):
            ActivationStore(store.path)
        run()
        assert sorted(read) == sorted(lengths[i] for i in texts)
        assert reported[0] == (8 - len(texts), 8)
        assert reported[-1] == (8, 8)
        assert files(store.path) == before
    run()
    assert (read, reported) == ([], [(8, 8)]), "a finished store is not captured again"
    assert files(store.path) == before
    (store.path / "index.h5").unlink()
    run()
    assert read == []
    assert files(store.path) == before


KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
import activations.capturing, activations.files
from activations.capturing import capture
from activations.models import load_model
from activations.sites import parse_sites
from activations.texts import read_texts

def die(*_args):
    os.kill(os.getpid(), signal.SIGKILL)

def progress(done, total):
    if done == 5:
        die() if sys.argv[5] == "running" else setattr(activations.files.os, "fsync", die)

activations.capturing.SHARD_BYTES = 4000
sites = parse_sites("resid_post.*,z.1.2", 3, 4)
capture(load_model(sys.argv[2]), read_texts(sys.argv[3]), sites, sys.argv[4], bos=True, progress=progress)
"""


@pytest.fixture(scope="module")
def killed(model_folder: Path, sample_texts: list[Text], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores left by two processes that were killed: while a shard was computed, and before it got its name."""
    from activations.texts import write_texts

    folder = tmp_path_factory.mktemp("killed")
    write_texts(folder / "texts.jsonl", sample_texts)
    package = Path(activations.__file__).parents[1]
    arguments = [sys.executable, "-c", KILLED, str(package), str(model_folder), str(folder / "texts.jsonl")]
    running = {
        when: subprocess.Popen([*arguments, str(folder / when), when], env=dict(os.environ), stderr=subprocess.PIPE)
        for when in ("running", "writing")
    }
    for process in running.values():
        _, errors = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, errors.decode()
    return {when: folder / when for when in running}


@pytest.mark.parametrize("when", ["running", "writing"])
def test_a_killed_run_is_resumed_to_identical_rows(
    killed: dict[str, Path], model_folder: Path, sample_texts: list[Text], tmp_path: Path, small_shards: None, when: str
) -> None:
    store = shutil.copytree(killed[when], tmp_path / when)
    kept = {name: content for name, content in files(store).items() if name.endswith(".h5")}
    assert len(kept) < 8
    unfinished = [name for name in files(store) if name.endswith(".tmp")]
    assert set(unfinished) <= {f"shards/{number:05d}.h5.tmp" for number in range(8)}
    assert unfinished or when == "running"
    with pytest.raises(TwinprobeError, match="is not finished"):
        ActivationStore(store)
    loaded = load_model(str(model_folder))
    sites = parse_sites("resid_post.*,z.1.2", 3, 4)
    capture(loaded, sample_texts, sites, store, bos=True)
    capture(loaded, sample_texts, sites, tmp_path / "whole", bos=True)
    assert files(store) == files(tmp_path / "whole")
    assert all(files(store)[name] == content for name, content in kept.items())


def test_a_disk_that_fills_up_leaves_the_finished_shards(
    tiny: Tiny, sample_texts: list[Text], tmp_path: Path, small_disk: Path, small_shards: None
) -> None:
    """A real file system of 1 MB that something else fills while the capture runs."""
    loaded = tiny("llama")
    arguments = (loaded, sample_texts, every_site(loaded), small_disk / "s")

    def fill(done: int, total: int) -> None:
        if done == 4:
            with (small_disk / "other").open("wb", buffering=0) as handle:
                while True:
                    try:
                        handle.write(b"x" * 1024)
                    except OSError:
                        break

    with pytest.raises(TwinprobeError) as caught:
        capture(*arguments, bos=True, progress=fill)
    assert str(caught.value).startswith(f"no space left on the disk of {small_disk / 's' / 'shards'}")
    assert "\n" not in str(caught.value)
    kept = {name: content for name, content in files(small_disk / "s").items() if name.endswith(".h5")}
    assert kept
    with pytest.raises(TwinprobeError, match=r"this capture needs \d\.\d MB and 0\.\d MB are free"):
        capture(*arguments, bos=True)
    (small_disk / "other").unlink()
    capture(*arguments, bos=True)
    capture(loaded, sample_texts, every_site(loaded), tmp_path / "whole", bos=True)
    assert files(small_disk / "s") == files(tmp_path / "whole")
    assert all(files(small_disk / "s")[name] == content for name, content in kept.items())


def test_a_disk_too_small_for_the_rows_is_refused_before_the_first_forward_pass(
    make_model: MakeModel, small_disk: Path
) -> None:
    loaded = make_model("llama")
    loaded.module("blocks.0").register_forward_hook(lambda *_args: pytest.fail("the model ran"))
    texts = [Text(str(i), "x " * 40) for i in range(100)]
    with pytest.raises(TwinprobeError, match="no space left on the disk"):
        capture(loaded, texts, every_site(loaded), small_disk / "s", bos=True)


def test_another_job_does_not_touch_the_store(tiny: Tiny, sample_texts: list[Text], tmp_path: Path) -> None:
    loaded = tiny("llama")
    job: dict[str, Any] = {"loaded": loaded, "texts": sample_texts, "sites": [Site("embed")], "bos": True}
    capture(**job, out=tmp_path / "s")
    before = files(tmp_path / "s")
    labelled = [Text(t.id, t.text, tuple(Span(s.name, s.start, s.end, "new") for s in t.spans)) for t in sample_texts]
    for change, key in (
        ({"texts": labelled}, "texts"),
        ({"texts": sample_texts[::-1]}, "texts"),
        ({"sites": [Site("ln_final")]}, "sites"),
        ({"bos": False}, "bos"),
        ({"rows": "last"}, "rows"),
        ({"loaded": tiny("qwen2")}, "model"),
    ):
        with pytest.raises(TwinprobeError, match=f"holds a store of another job: its {key} is ") as caught:
            capture(**{**job, **change}, out=tmp_path / "s")
        assert "\n" not in str(caught.value)
        assert files(tmp_path / "s") == before


def test_shards_hold_whole_texts_up_to_the_limit(
    tiny: Tiny, sample_texts: list[Text], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 20 * 16 * 4)
    store = capture(tiny("llama"), sample_texts, [Site("embed")], tmp_path / "s", bos=True)
    counts = store.rows.groupby("text", sort=False).size()
    shards, seen = [], 0
    for path in sorted((store.path / "shards").iterdir()):
        with h5py.File(path) as shard:
            shards.append(shard["rows/text"][:].tolist())
    for part in shards:
        assert len(part) <= 20 or len(set(part)) == 1
        assert sorted(set(part)) == list(range(seen, seen + len(set(part))))
        assert len(part) == counts.iloc[seen : seen + len(set(part))].sum()
        seen += len(set(part))
    assert seen == len(sample_texts)


@pytest.mark.parametrize("rows", ["tokens", "last", "spans"])
def test_the_estimate_is_what_is_written(tiny: Tiny, sample_texts: list[Text], tmp_path: Path, rows: str) -> None:
    loaded = tiny("llama")
    sites = parse_sites("resid_post.*,z.1.2", 3, 4)
    read: list[int] = []
    handle = loaded.model.get_input_embeddings().register_forward_hook(
        lambda _m, args, _out: read.append(args[0].numel())
    )
    job = prepare(loaded, sample_texts, sites, bos=True, rule=RowRule(rows), batch_tokens=64)
    expected = job.estimate()
    assert read == [], "nothing is run"
    store = capture(loaded, sample_texts, sites, tmp_path / "s", bos=True, rows=rows, batch_tokens=64)
    assert (expected.texts, expected.tokens, expected.rows) == (8, len(store.inputs), len(store.rows))
    assert expected.bytes == sum(store.read(site).nbytes for site in sites)
    assert expected.padded == sum(read) or rows == "spans"
    read.clear()
    seconds = job.seconds()
    handle.remove()
    assert 0 < seconds < 60
    assert len(set(read)) == 1, "one batch is run, twice"


def test_means_are_not_cut_to_the_storage_type(make_model, tmp_path):
    half = make_model("llama")
    half.model.to(torch.bfloat16)
    spans = [Text("a", "def area(width):", (Span("all", 0, 16, "x"),))]
    sites = parse_sites("resid_post.0", half.n_layers, half.n_heads)
    with pytest.raises(TwinprobeError, match="store float32"):
        capture(half, spans, sites, tmp_path / "s", bos=True, rows="spans", pool="mean", dtype="bfloat16")
