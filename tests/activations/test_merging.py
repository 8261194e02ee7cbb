"""Merging: the result is the store that one capture would have written, or the difference is named."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from random_stores import SITES, Expected, make_texts, write_store

from activations.errors import TwinprobeError
from activations.merging import merge
from activations.packing import pack
from activations.store import ActivationStore
from activations.verifying import verify
from activations.writer import StoreWriter

ONE = {"resid_post.0": 4, "ln_final": 5}
OTHER = {"z.1.2": 3, "resid_post.1": 4}


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("store.json", ".lock")
    }


def packed(path: Path, compress: str | None = None) -> Path:
    pack(path, path.with_suffix(".h5"), compress)
    shutil.rmtree(path)
    return path.with_suffix(".h5")


def refusal(stores: list[Path], out: Path) -> str:
    with pytest.raises(TwinprobeError) as caught:
        merge(stores, out)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def assert_holds(store: ActivationStore, expected: Expected) -> None:
    assert verify(store.path) == []
    assert store.texts == expected.texts
    for site, raw in expected.raw.items():
        assert store.raw(site).tobytes() == raw.tobytes()


@pytest.mark.parametrize("rows", ["tokens", "spans"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_stores_over_different_texts_become_one_over_all(tmp_path: Path, dtype: str, rows: str) -> None:
    """Byte for byte what a capture of all texts cut in the same places writes."""
    kind: dict[str, Any] = {"dtype": dtype, "rows": rows}
    write_store(tmp_path / "a", [4, 5, 9], (2,), **kind)
    write_store(tmp_path / "b", [0, 1], (), **kind)
    write_store(tmp_path / "c", [8, 2, 3, 7], (1, 2), **kind)
    expected = write_store(tmp_path / "whole", [4, 5, 9, 0, 1, 8, 2, 3, 7], (2, 3, 5, 6, 7), **kind)
    parents = [tmp_path / "a", packed(tmp_path / "b"), packed(tmp_path / "c", "zstd")]
    seen: list[tuple[str, int, int]] = []
    store = merge(parents, tmp_path / "m", lambda *report: seen.append(report))
    assert files(tmp_path / "m") == files(tmp_path / "whole")
    assert_holds(store, expected)
    assert store.rows.equals(ActivationStore(tmp_path / "whole").rows)
    assert store.inputs.equals(ActivationStore(tmp_path / "whole").inputs)
    assert seen[-1] == ("shards", 6, 6)
    assert (f"verifying {tmp_path / 'a'}", 3, 3) in seen
    record, whole = store.provenance, ActivationStore(tmp_path / "whole").provenance
    assert record["texts"] == whole["texts"]
    assert record["overlong"] == {"rule": "truncate", "texts": 9, "lost_spans": 3}
    assert [(parent["name"], parent["rows"]) for parent in record["merged"]] == [
        (path.name, ActivationStore(path).n_rows) for path in parents
    ]
    same = {"schema", "model", "engine", "sites", "rows", "pool", "bos", "closing", "storage_dtype", "shards"}
    assert {key: record[key] for key in same} == {key: whole[key] for key in same}


@pytest.mark.parametrize("rows", ["tokens", "spans"])
def test_stores_over_the_same_texts_become_one_with_all_sites(tmp_path: Path, rows: str) -> None:
    """Cut wherever a parent was, also where the rows of a shard are none."""
    kind: dict[str, Any] = {"dtype": "float16", "rows": rows}
    write_store(tmp_path / "a", range(9), (1, 4), **kind, sites=ONE)
    write_store(
        tmp_path / "b", range(9), (4, 5, 8), **kind, sites=OTHER, engine="transformer_lens", attention_kernel="eager"
    )
    expected = write_store(tmp_path / "whole", range(9), (1, 4, 5, 8), **kind, sites={**ONE, **OTHER})
    store = merge([tmp_path / "a", packed(tmp_path / "b", "zstd")], tmp_path / "m")
    assert store.sites == [*ONE, *OTHER]
    assert files(tmp_path / "m") == files(tmp_path / "whole")
    assert_holds(store, expected)
    assert store.provenance["engine"] == "hooks, transformer_lens"
    assert store.provenance["attention_kernel"] == "sdpa, eager"
    assert [parent["engine"] for parent in store.provenance["merged"]] == ["hooks", "transformer_lens"]


def test_merged_stores_can_be_merged_again(tmp_path: Path) -> None:
    for name, numbers, sites in (("a", [1], ONE), ("b", [2], ONE), ("c", [1], OTHER), ("d", [2], OTHER)):
        write_store(tmp_path / name, numbers, (), sites=sites)
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    merge([tmp_path / "c", tmp_path / "d"], tmp_path / "cd")
    store = merge([tmp_path / "ab", tmp_path / "cd"], tmp_path / "m")
    assert_holds(store, write_store(tmp_path / "whole", [1, 2], (1,), sites={**ONE, **OTHER}))
    assert [[parent["name"] for parent in half["merged"]] for half in store.provenance["merged"]] == [
        ["a", "b"],
        ["c", "d"],
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"rows": "tokens"}, 'its rows is "tokens", here it is "spans"'),
        ({"dtype": "float16"}, 'its storage_dtype is "float16", here it is "float32"'),
        ({"sites": ONE}, 'its sites is ["resid_post.0", "ln_final"], here it is ["resid_post.0", "resid_post.1",'),
        ({"bos": False}, "its bos is false, here it is true"),
        (
            {"model": {"fingerprint": "full:1"}},
            'its model is {"architecture": null}, here it is {"architecture": "Llama',
        ),
        ({"engine": "nnsight"}, 'its engine is "nnsight", here it is "hooks"'),
        (
            {"overlong": {"rule": "split", "texts": 0, "lost_spans": 0}},
            "its overlong rule is split, here it is truncate",
        ),
        ({"sites": {**SITES, "ln_final": 6}}, "rows of ln_final have 6 numbers there and 5 here"),
        ({"numbers": [7, 2]}, "both hold text 'text 2'"),
    ],
)
def test_stores_that_do_not_go_together_are_refused_with_the_difference(
    tmp_path: Path, change: dict[str, Any], expected: str
) -> None:
    write_store(tmp_path / "a", [1, 2], (), rows="spans")
    write_store(tmp_path / "b", **{"numbers": [7, 8], "cuts": (), "rows": "spans", **change})
    said = refusal([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert said.startswith(f"{tmp_path / 'b'} can not be merged with {tmp_path / 'a'}: {expected}")
    assert said.endswith("; expected stores that differ in their texts only or in their sites only")
    assert not (tmp_path / "m").exists()


def test_stores_over_the_same_texts_must_differ_in_all_sites_and_no_row(tmp_path: Path) -> None:
    write_store(tmp_path / "a", range(5), (2,), sites=ONE)
    write_store(tmp_path / "b", range(5), (), sites={"z.1.2": 3, "ln_final": 5})
    assert "both hold ln_final of the same texts" in refusal([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    write_store(tmp_path / "c", range(5), (), sites=OTHER, pool="mean")
    assert 'its pool is "mean", here it is "last"' in refusal([tmp_path / "a", tmp_path / "c"], tmp_path / "m")
    # Texts alike and said to be of the same rule, but other rows all the same.
    write_store(tmp_path / "d", range(5), (3,), sites=OTHER, shift=1)
    assert "its rows/token are others in rows 0 to 5" in refusal([tmp_path / "a", tmp_path / "d"], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_damaged_parent_is_refused(tmp_path: Path) -> None:
    write_store(tmp_path / "a", [1, 2], ())
    write_store(tmp_path / "b", [3, 4], ())
    shard = tmp_path / "b" / "shards" / "00000.h5"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert f"{tmp_path / 'b'} is not sound: {shard}: its checksum" in refusal(
        [tmp_path / "a", tmp_path / "b"], tmp_path / "m"
    )
    assert "1 store was given; merging takes two or more" in refusal([tmp_path / "a"], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_a_merge_that_was_cut_off_goes_on_and_damage_is_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_store(tmp_path / "a", range(4), (1, 2))
    write_store(tmp_path / "b", range(4, 8), (2,))
    parents = [tmp_path / "a", tmp_path / "b"]
    merge(parents, tmp_path / "whole")
    write, written = StoreWriter.write, []

    def cut_off(self: StoreWriter, number: int, shard: Any) -> None:
        if number == 3:
            raise KeyboardInterrupt
        write(self, number, shard)

    monkeypatch.setattr(StoreWriter, "write", cut_off)
    with pytest.raises(KeyboardInterrupt):
        merge(parents, tmp_path / "m")
    monkeypatch.setattr(
        StoreWriter, "write", lambda self, number, shard: written.append(number) or write(self, number, shard)
    )
    with pytest.raises(TwinprobeError, match=r"is not finished \(3 of 5 shards\)"):
        ActivationStore(tmp_path / "m")
    shard = tmp_path / "m" / "shards" / "00001.h5"
    shard.write_bytes(shard.read_bytes()[:-1])
    notices: list[str] = []
    merge(parents, tmp_path / "m", notice=notices.append)
    assert written == [1, 3, 4]
    assert len(notices) == 1 and str(shard) in notices[0]
    assert files(tmp_path / "m") == files(tmp_path / "whole")
    assert refusal([*reversed(parents)], tmp_path / "m").startswith(f"{tmp_path / 'm'} holds a store of another job")


def test_merging_needs_the_memory_of_a_few_shards(tmp_path: Path) -> None:
    sites = {"embed": 4096}
    write_store(tmp_path / "a", range(400), range(50, 400, 50), sites=sites)
    write_store(tmp_path / "b", range(400, 700), range(50, 300, 50), sites=sites)
    packed(tmp_path / "b", "zstd")
    tracemalloc.start()
    merge([tmp_path / "a", tmp_path / "b.h5"], tmp_path / "m")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2100 * 4096 * 4 / 5
    assert ActivationStore(tmp_path / "m").texts == make_texts(range(700))
