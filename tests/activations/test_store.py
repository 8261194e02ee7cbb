"""Reading a store: what was written is what is read, however it is cut and asked for, and by any HDF5 tool too."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_stores import SITES, Expected, make_texts, write_store

from activations.errors import TwinprobeError
from activations.hdf5 import STORED_BYTES
from activations.sites import Site
from activations.store import ActivationStore
from activations.writer import StoreWriter

DTYPES = list(STORED_BYTES)


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(TwinprobeError) as caught:
        call(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@st.composite
def stores(draw: st.DrawFn) -> tuple[ActivationStore, Expected]:
    """A folder or a packed file of any type, cut anywhere, with texts and whole shards that have no rows."""
    texts = draw(st.integers(1, 9))
    cuts = sorted(draw(st.sets(st.integers(1, texts - 1)))) if texts > 1 else []
    dtype, rows = draw(st.sampled_from(DTYPES)), draw(st.sampled_from(["tokens", "spans"]))
    compress = draw(st.sampled_from(["folder", None, "zstd"]))
    path = stores.folder / f"{texts} {cuts} {dtype} {rows} {compress}"  # type: ignore[attr-defined]
    expected = write_store(path, range(3, 3 + texts), cuts, dtype=dtype, rows=rows)
    if compress == "folder":
        return ActivationStore(path), expected
    path.with_suffix(".h5").unlink(missing_ok=True)
    return ActivationStore(path).pack(path.with_suffix(".h5"), compress), expected


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path) -> None:
    stores.folder = tmp_path  # type: ignore[attr-defined]


@given(stores(), st.data())
@settings(max_examples=60)
def test_any_rows_of_any_store_are_read_as_numpy_would(
    made: tuple[ActivationStore, Expected], data: st.DataObject
) -> None:
    store, expected = made
    count = len(expected.rows["text"])
    assert store.n_rows == count
    site = data.draw(st.sampled_from(list(SITES)))
    raw, whole = expected.raw[site], expected.read(site)
    assert store.raw(site).dtype == raw.dtype
    assert store.raw(site).tobytes() == raw.tobytes()
    assert store.read(site).tobytes() == whole.tobytes()
    numbers = data.draw(st.lists(st.integers(0, count - 1), max_size=2 * count) if count else st.just([]))
    mask = np.isin(np.arange(count), numbers)
    for rows in (numbers, np.array(numbers, dtype=np.int32), pd.Index(numbers, dtype="int64"), sorted(set(numbers))):
        chosen = np.array(rows, dtype=np.int64)
        assert store.raw(site, rows).tobytes() == raw[chosen].tobytes()
        found = store.read(site, rows)
        assert found.dtype == np.float32
        assert found.shape == (len(chosen), SITES[site])
        assert found.tobytes() == whole[chosen].tobytes()
    assert store.read(site, mask).tobytes() == whole[mask].tobytes()
    assert store.read(site, mask.tolist()).tobytes() == whole[mask].tobytes()


@given(stores(), st.data())
@settings(max_examples=40)
def test_a_stream_gives_every_row_asked_for_in_order(
    made: tuple[ActivationStore, Expected], data: st.DataObject
) -> None:
    store, expected = made
    count = len(expected.rows["text"])
    chosen = data.draw(st.none() | st.lists(st.integers(0, max(count - 1, 0)), max_size=count))
    size = data.draw(st.integers(1, count + 1))
    sites = data.draw(st.lists(st.sampled_from(list(SITES)), unique=True, min_size=1))
    parts = list(store.stream(sites, chosen, size))
    numbers = np.arange(count) if chosen is None else np.array(chosen, dtype=np.int64)
    assert [len(part) for part, _ in parts[:-1]] == [size] * (len(parts) - 1)
    assert np.concatenate([np.empty(0), *(part for part, _ in parts)]).tolist() == numbers.tolist()
    for start, (part, values) in zip(range(0, len(numbers), size), parts, strict=True):
        assert list(values) == sites
        for site in sites:
            assert values[site].dtype == np.float32
            assert values[site].tobytes() == expected.read(site)[numbers[start : start + len(part)]].tobytes()


@given(stores(), st.data())
@settings(max_examples=40)
def test_select_finds_the_rows_that_have_the_values(
    made: tuple[ActivationStore, Expected], data: st.DataObject
) -> None:
    store, expected = made
    lines = []
    for text, span, position, token in zip(
        *(expected.rows[name] for name in ("text", "span", "position", "token")), strict=True
    ):
        owner = expected.texts[text]
        held = owner.spans[span] if span >= 0 else None
        words = (held.name, held.label) if held else (None, None)
        lines.append(
            {
                "text": owner.id,
                "group": owner.group,
                "span": words[0],
                "label": words[1],
                "position": position,
                "token": token,
            }
        )
    wanted: dict[str, list[Any]] = {}
    for name in data.draw(
        st.sets(st.sampled_from(["text", "group", "span", "label", "position", "token"]), max_size=3)
    ):
        known = [line[name] for line in lines] + {
            "text": ["nosuch"],
            "group": ["nosuch"],
            "position": [99],
            "token": [-1],
        }.get(name, [None, "def", "nosuch"])
        wanted[name] = data.draw(st.lists(st.sampled_from(known), max_size=3))
    found = store.select(**wanted)
    assert found.dtype == np.int64
    assert found.tolist() == [i for i, line in enumerate(lines) if all(line[name] in wanted[name] for name in wanted)]
    for name, values in wanted.items():
        if values:
            assert store.select(**{name: values[0]}).tolist() == store.select(**{name: [values[0]]}).tolist()


def test_select_takes_lists_sets_and_arrays_and_refuses_what_can_not_be(tmp_path: Path) -> None:
    write_store(tmp_path / "s", rows="spans")
    store = ActivationStore(tmp_path / "s")
    rows = store.rows
    assert store.select().tolist() == list(range(len(rows)))
    uses = rows.index[rows.label == "use"].tolist()
    assert uses
    for value in ("use", ["use"], {"use"}, np.array(["use"]), pd.Series(["use"]), ("use", "nosuch")):
        assert store.select(span="role", label=value).tolist() == uses
    assert store.select(position=np.int64(1)).tolist() == store.select(position=[1]).tolist() != []
    assert store.select(span="role", label=None).tolist() == rows.index[rows.label.isna()].tolist() != []
    assert store.select(label=[]).tolist() == []
    said = refusal(store.select, lable="def")
    assert said.startswith("rows have no column 'lable' (did you mean 'label'?); they have text, group, position, ")
    assert "column 'position' holds whole numbers, got '1'" in refusal(store.select, position="1")


def test_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    store = ActivationStore(tmp_path / "s")
    assert f"{tmp_path / 's'} has no row 21; its 21 rows are numbered from 0" in refusal(
        store.read, "ln_final", [3, 21]
    )
    assert "has no row -1;" in refusal(store.read, "ln_final", [0, -1])
    assert "a mask of 2 truth values does not fit its 21 rows" in refusal(store.read, "ln_final", [True, False])
    assert "rows must be whole numbers or truth values, got float64" in refusal(store.read, "ln_final", [0.5])
    assert "rows must be a list of numbers or a mask, got 2 dimensions" in refusal(store.read, "ln_final", [[1]])
    assert "got 0 dimensions" in refusal(store.raw, "ln_final", 3)
    assert "has no row 99" in refusal(store.stream, "ln_final", [99])
    assert "a size of 0 rows" in refusal(store.stream, "ln_final", size=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [7, 40_000])
def test_scattered_rows_of_any_width_are_exact(tmp_path: Path, dtype: str, width: int) -> None:
    """Rows lie at odd bytes of the file; wide ones are asked of the disk one by one."""
    expected = write_store(tmp_path / "s", range(9), (5,), dtype=dtype, sites={"embed": width})
    store = ActivationStore(tmp_path / "s")
    for rows in ([0, 9, 26], [1, 2, 4, 11, 16, 25], [14], list(range(1, 26, 2)), list(range(3, 20))):
        assert store.raw("embed", rows).tobytes() == expected.raw["embed"][rows].tobytes()
        assert store.read("embed", rows).tobytes() == expected.read("embed")[rows].tobytes()


def test_a_large_store_is_read_in_little_memory(tmp_path: Path) -> None:
    write_store(tmp_path / "s", range(700), range(100, 700, 100), sites={"embed": 4096}, dtype="bfloat16")
    whole = 2100 * 4096 * 4

    def peak(call: Any) -> int:
        store = ActivationStore(tmp_path / "s")
        tracemalloc.start()
        call(store)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(lambda store: store.read("embed")) > whole
    assert peak(lambda store: [len(part) for part, _ in store.stream("embed", size=16)]) < whole / 8
    assert peak(lambda store: store.read("embed", np.arange(0, 2100, 100))) < whole / 20


def test_no_file_stays_open(tmp_path: Path) -> None:
    write_store(tmp_path / "s", dtype="bfloat16")
    ActivationStore(tmp_path / "s").pack(tmp_path / "p.h5", "zstd")
    kept = []
    before = sorted(os.listdir("/dev/fd"))
    for path in ("s", "p.h5"):
        store = ActivationStore(tmp_path / path)
        stream = store.stream("ln_final", size=3)
        kept += [
            store,
            store.rows,
            store.inputs,
            store.read("ln_final"),
            store.read("ln_final", [0, 20]),
            next(stream),
            stream,
        ]
    assert sorted(os.listdir("/dev/fd")) == before


def test_a_store_can_be_sent_to_another_process(tmp_path: Path) -> None:
    expected = write_store(tmp_path / "s")
    store = ActivationStore(tmp_path / "s")
    store.read("ln_final")
    assert pickle.loads(pickle.dumps(store)).read("ln_final").tobytes() == expected.read("ln_final").tobytes()


def test_any_hdf5_reader_sees_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the index alone, from any working directory, also after the store has moved."""
    expected = write_store(tmp_path / "s", dtype="bfloat16").read("z.1.2")
    (tmp_path / "s").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    with h5py.File(tmp_path / "moved" / "index.h5") as index:
        assert set(index) == {"rows", "inputs", "resid_post", "z", "ln_final"}
        assert index["z/1.2"].dtype == np.float32
        np.testing.assert_array_equal(index["z/1.2"][:], expected)
        np.testing.assert_array_equal(index["z"]["1.2"][1:, 2], expected[1:, 2])
        assert index["rows/text"][:].tolist() == [text for text in range(7) for _ in range(3)]


def test_rows_say_what_they_are(tmp_path: Path) -> None:
    """Texts 1 and 5 have a role span, 2 has a role and a value span; 0, 3, 4 have none."""
    write_store(tmp_path / "s", [5, 0, 2, 3, 1], (2, 4), rows="spans")
    store = ActivationStore(tmp_path / "s")
    assert store.texts == make_texts([5, 0, 2, 3, 1])
    assert store.rows.to_dict("list") == {
        "text": ["text 5", "text 2", "text 2", "text 1"],
        "group": ["group 2", "group 1", "group 1", "group 0"],
        "position": [1, 1, 3, 1],
        "token": [50, 20, 22, 10],
        "start": [0, 0, 1, 0],
        "end": [1, 1, 3, 1],
        "span": ["role", "role", "value", "role"],
        "label": [None, None, "v", "use"],
        "control": ["a", "a", "key 2", "a"],  # the span's own text where it has no key
    }
    inputs = store.inputs
    assert store.n_tokens == len(inputs) == 20
    assert inputs[inputs.text == "text 2"].to_dict("list") == {
        "text": ["text 2"] * 4, "token": [0, 20, 21, 22], "start": [0, 0, 1, 2], "end": [0, 1, 2, 3],
    }  # fmt: skip


def test_rows_without_spans_have_no_words(tmp_path: Path) -> None:
    write_store(tmp_path / "s", [1, 2], ())
    rows = ActivationStore(tmp_path / "s").rows
    for name in ("span", "label", "control"):
        assert rows[name].tolist() == [None] * 6
    assert rows.position.tolist() == [1, 2, 3, 1, 2, 3]


def test_sites_are_known_by_name_and_by_value(tmp_path: Path) -> None:
    expected = write_store(tmp_path / "s")
    store = ActivationStore(tmp_path / "s")
    assert store.sites == list(SITES)
    assert [store.width(site) for site in store.sites] == list(SITES.values())
    assert store.read(Site("z", 1, 2)).tobytes() == expected.read("z.1.2").tobytes()
    said = refusal(store.read, "resid_post.2")
    assert "has no site 'resid_post.2' (did you mean 'resid_post.1' or 'resid_post.0'?); it has resid_post.0, " in said
    assert "has no site 'nosuch'" in refusal(store.stream, ["ln_final", "nosuch"])
    assert "has no site" in refusal(store.width, Site("embed"))


def test_what_is_not_a_finished_store_does_not_open(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def message() -> str:
        return refusal(ActivationStore, path)

    assert "holds no store (no store.json)" in message()
    write_store(tmp_path / "whole")
    record = json.loads((tmp_path / "whole" / "store.json").read_text())
    with StoreWriter(path, {key: value for key, value in record.items() if key != "schema"}, make_texts(range(7)), 3):
        assert "is not finished (0 of 3 shards); run the same twinprobe cache command again" in message()
    shutil.copy(tmp_path / "whole" / "shards" / "00000.h5", path / "shards")
    assert "(1 of 3 shards)" in message()
    shutil.rmtree(path)
    shutil.copytree(tmp_path / "whole", path)
    (path / "shards" / "00001.h5").unlink()
    assert "(2 of 3 shards)" in message(), "the index would read zeros"
    (path / "store.json").write_text((path / "store.json").read_text()[:30])
    assert f"{path / 'store.json'} is damaged" in message()
    (path / "store.json").write_text(json.dumps({**record, "schema": 1}))
    assert "has schema 1, this version reads 2; capture it again" in message()
    (path / "store.json").write_text("[]")
    assert "has schema None" in message()


@pytest.mark.parametrize("name", ["shards/00001.h5", "index.h5"])
@pytest.mark.parametrize("size", [0, 300, 600, -1])
def test_a_file_that_was_cut_off_is_named(tmp_path: Path, name: str, size: int) -> None:
    write_store(tmp_path / "s")
    file = tmp_path / "s" / name
    store = ActivationStore(tmp_path / "s")
    file.write_bytes(file.read_bytes()[:size])
    for call in (
        lambda: store.rows,
        lambda: store.inputs,
        lambda: store.read("ln_final"),
        lambda: store.read("z.1.2", [0, 20, 6]),
    ):
        said = refusal(call)
        assert said.startswith(f"{file} is damaged (")
        assert said.endswith(f"; twinprobe store verify {tmp_path / 's'} says how to mend it")


def test_a_file_cut_off_after_it_was_first_read_is_named(tmp_path: Path) -> None:
    """A mapping beyond a file's end would kill the interpreter."""
    write_store(tmp_path / "s", sites={"embed": 5000})
    store = ActivationStore(tmp_path / "s")
    store.read("embed")
    file = tmp_path / "s" / "shards" / "00001.h5"
    os.truncate(file, 700)
    for rows in (None, [6], [6, 8]):
        assert refusal(store.read, "embed", rows).startswith(f"{file} is damaged (it is cut off)")
    file.unlink()
    assert refusal(store.read, "embed", [6]).startswith(f"{file} is damaged (No such file")


def test_shards_that_do_not_fit_the_index_are_named(tmp_path: Path) -> None:
    write_store(tmp_path / "s")
    shards = tmp_path / "s" / "shards"
    shutil.copy(shards / "00002.h5", shards / "00001.h5")
    store = ActivationStore(tmp_path / "s")
    for call in (lambda: store.rows, lambda: store.read("ln_final")):
        said = refusal(call)
        assert said.startswith(f"{shards / '00001.h5'} is damaged")
        assert "12" in said and "3" in said


@pytest.mark.parametrize("compress", ["folder", None, "zstd"])
def test_whatever_byte_is_damaged_reading_goes_on_or_is_refused_in_one_line(
    tmp_path: Path, compress: str | None
) -> None:
    write_store(tmp_path / "s", rows="spans", sites={"z.1.2": 3})
    path = tmp_path / "s"
    file = path / "shards" / "00000.h5"
    if compress != "folder":
        path = file = tmp_path / "p.h5"
        ActivationStore(tmp_path / "s").pack(path, compress)
    content = file.read_bytes()
    refused = 0
    for place in np.random.default_rng(0).integers(0, len(content), 300):
        damaged = bytearray(content)
        damaged[place] ^= 1 << (place % 8)
        file.write_bytes(damaged)
        try:
            store = ActivationStore(path)
            assert len(store.rows) == len(store.read("z.1.2")) == store.n_rows
        except TwinprobeError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 50
