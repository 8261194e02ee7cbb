"""A site as a tensor, a table and a torch data set: the same numbers, in the same order, in any process."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from random_stores import SITES, write_store
from torch.utils.data import DataLoader, Dataset, random_split

from activations.errors import TwinprobeError
from activations.store import ActivationStore

ROWS = [5, 0, 5, 13]


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)]
)
def test_a_tensor_has_the_storage_type_bit_for_bit(tmp_path: Path, dtype: str, kind: torch.dtype) -> None:
    expected = write_store(tmp_path / "s", dtype=dtype)
    store = ActivationStore(tmp_path / "s")
    for rows in (None, ROWS, []):
        found = store.tensor("z.1.2", rows)
        assert found.dtype == kind
        chosen = slice(None) if rows is None else np.array(rows, dtype=np.int64)
        assert bytes(found.untyped_storage()) == expected.raw["z.1.2"][chosen].tobytes()
        assert found.shape[1] == SITES["z.1.2"]
        found[:] = 0  # it is the caller's own


def test_a_frame_joins_what_is_known_of_a_row_and_its_dimensions(tmp_path: Path) -> None:
    expected = write_store(tmp_path / "s", rows="spans", dtype="bfloat16")
    store = ActivationStore(tmp_path / "s")
    whole = store.frame("ln_final")
    assert list(whole.columns) == [*store.rows.columns, "0", "1", "2", "3", "4"]
    assert whole[list(store.rows.columns)].equals(store.rows)
    np.testing.assert_array_equal(whole[["0", "1", "2", "3", "4"]].to_numpy(), expected.read("ln_final"))
    assert set(whole.dtypes[["0", "4"]]) == {np.dtype(np.float32)}
    part = store.frame("ln_final", [3, 0, 3])
    assert part.index.tolist() == [3, 0, 3]
    assert part.equals(whole.iloc[[3, 0, 3]])
    assert len(store.frame("ln_final", [])) == 0


def test_a_data_set_gives_vectors_and_class_numbers(tmp_path: Path) -> None:
    write_store(tmp_path / "s", range(12), (5,), rows="spans")
    store = ActivationStore(tmp_path / "s")
    labelled = store.rows[store.rows.label.notna()]
    assert 0 < len(labelled) < len(store.rows)
    items = store.dataset("ln_final")
    assert isinstance(items, Dataset)
    assert items.classes == ["def", "use", "v"]
    assert len(items) == len(labelled)
    for number in (0, 1, len(items) - 1, -1):
        vector, target = items[number]
        assert vector.dtype == torch.float32
        assert vector.tolist() == store.read("ln_final", [labelled.index[number]])[0].tolist()
        assert type(target) is int
        assert items.classes[target] == labelled.label.iloc[number]
    assert [target for _, target in items] == [items.classes.index(label) for label in labelled.label]
    with pytest.raises(IndexError):
        items[len(items)]
    spans = store.dataset("ln_final", "span", [3, 0, 1])
    assert [spans.classes[target] for _, target in spans] == store.rows.span.iloc[[3, 0, 1]].tolist()
    assert store.dataset("ln_final", "position").classes == sorted(set(store.rows.position))
    first, second = random_split(items, [2, len(items) - 2])
    assert {len(first), len(second)} == {2, len(items) - 2}


def test_what_no_data_set_can_be_made_of_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "s", rows="spans")
    store = ActivationStore(tmp_path / "s")
    without = store.select(label=None)
    with pytest.raises(TwinprobeError, match=f"row {without[0]} has no label; choose rows that have one"):
        store.dataset("ln_final", rows=without)
    with pytest.raises(TwinprobeError, match=r"no column 'lable' \(did you mean 'label'\?\)"):
        store.dataset("ln_final", "lable")
    with pytest.raises(TwinprobeError, match="has no site 'embed'"):
        store.dataset("embed")
    with pytest.raises(TwinprobeError, match="has no row 99"):
        store.dataset("ln_final", rows=[99])


@pytest.mark.parametrize(("method", "path"), [("fork", "s"), ("fork", "p.h5"), ("spawn", "p.h5")])
def test_worker_processes_read_the_same(tmp_path: Path, method: str, path: str) -> None:
    write_store(tmp_path / "s", range(30), (5, 6, 20), rows="spans", dtype="bfloat16")
    ActivationStore(tmp_path / "s").pack(tmp_path / "p.h5", "zstd")
    items = ActivationStore(tmp_path / path).dataset("resid_post.1", "span")
    here = [torch.stack([vector for vector, _ in items]), torch.tensor([target for _, target in items])]
    loader = DataLoader(items, batch_size=7, num_workers=2, multiprocessing_context=multiprocessing.get_context(method))
    there = [torch.cat(part) for part in zip(*loader, strict=True)]
    assert torch.equal(here[0].view(torch.int32), there[0].view(torch.int32)), "also where they are NaN"
    assert torch.equal(here[1], there[1])


def test_a_batch_is_one_read_and_opens_nothing_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path / "s", rows="spans")
    store = ActivationStore(tmp_path / "s")
    items = pickle.loads(pickle.dumps(store.dataset("ln_final", "span")))
    assert isinstance(items, Dataset)
    assert len(pickle.dumps(items)) < 2000
    reads = []
    read = ActivationStore.read
    monkeypatch.setattr(ActivationStore, "read", lambda *asked: reads.append(asked) or read(*asked))
    [(vectors, targets)] = DataLoader(items, batch_size=len(items))
    assert vectors.shape == (len(items), SITES["ln_final"])
    assert targets.shape == (len(items),)
    assert len(reads) == 1
