"""``twinprobe store``: verify with its exit codes, pack and merge, and what each says when it can not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from calling import contents, done, refused, twinprobe, twinprobe_process

from activations.store import ActivationStore
from activations.texts import Text, write_texts


@pytest.fixture(scope="module")
def stores(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the stores ``one`` and ``two``, over different texts, and ``heads``, over those of ``one``."""
    folder = tmp_path_factory.mktemp("stores")
    for name, start, sites in (("one", 0, "resid_post.*"), ("two", 5, "resid_post.*"), ("heads", 0, "z.1")):
        write_texts(folder / "texts.jsonl", [Text(f"t{i}", f"x = {i}") for i in range(start, start + 5)])
        where = ("--texts", folder / "texts.jsonl", "--sites", sites)
        done(twinprobe("cache", model_folder, *where, "--out", folder / name))
    return folder


def test_a_sound_store_is_exit_code_0(stores: Path, tmp_path: Path) -> None:
    done(twinprobe("store", "pack", stores / "one", "--out", tmp_path / "p.h5"))
    for path in (stores / "one", tmp_path / "p.h5"):
        assert done(twinprobe("store", "verify", path)) == f"{path} is sound\n"
        assert json.loads(done(twinprobe("store", "verify", path, "--json"))) == {
            "path": str(path), "sound": True, "problems": [],
        }  # fmt: skip


def test_an_unsound_store_is_exit_code_1_with_every_problem_and_how_to_mend_it(stores: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(stores / "one", tmp_path / "s"))
    shard = path / "shards" / "00000.h5"
    shard.write_bytes(shard.read_bytes()[:-1])
    (path / "index.h5").unlink()
    ran = twinprobe("store", "verify", path)
    assert ran.code == 1
    assert [line.split(":")[0] for line in ran.out.splitlines()] == [str(shard), str(path / "index.h5")]
    assert "run the same twinprobe cache or twinprobe store merge command again" in ran.err.splitlines()[-1]
    ran = twinprobe("store", "verify", path, "--json")
    assert ran.code == 1
    told = json.loads(ran.out)
    assert (told["sound"], len(told["problems"])) == (False, 2)
    (tmp_path / "p.h5").write_bytes(b"nothing")
    ran = twinprobe_process("store", "verify", tmp_path / "p.h5")
    assert (ran.code, ran.out) == (1, f"{tmp_path / 'p.h5'}: it is cut off or has no checksum\n")
    assert "pack the store again" in ran.err.splitlines()[-1]
    refused(twinprobe("store", "verify", tmp_path / "absent"), "absent holds no store")


def test_the_same_command_mends_what_verify_found(stores: Path, model_folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copytree(stores / "two", tmp_path / "s"))
    shard = path / "shards" / "00000.h5"
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    assert twinprobe("store", "verify", path).code == 1
    write_texts(tmp_path / "texts.jsonl", [Text(f"t{i}", f"x = {i}") for i in range(5, 10)])
    done(
        twinprobe("cache", model_folder, "--texts", tmp_path / "texts.jsonl", "--sites", "resid_post.*", "--out", path)
    )
    assert twinprobe("store", "verify", path).code == 0
    assert contents(path / "shards") == contents(stores / "two" / "shards")


@pytest.mark.parametrize("options", [(), ("--compress",)])
def test_pack_writes_one_file_and_says_how_large_it_is(stores: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    ran = twinprobe("store", "pack", stores / "one", "--out", tmp_path / "p.h5", *options)
    assert done(ran).startswith(f"wrote {tmp_path / 'p.h5'}: ")
    assert f"of {stores / 'one'}\n" in ran.out
    assert ran.err.splitlines() == [f"packing {stores / 'one'}", "  verifying", "  sites"]
    packed, folder = ActivationStore(tmp_path / "p.h5"), ActivationStore(stores / "one")
    for site in folder.sites:
        assert packed.raw(site).tobytes() == folder.raw(site).tobytes()
    refused(twinprobe("store", "pack", stores / "one", "--out", tmp_path / "p.h5"), "p.h5 is there already")
    told = json.loads(done(twinprobe("store", "pack", stores / "one", "--out", tmp_path / "q.h5", "--json", *options)))
    assert told == {
        "out": str(tmp_path / "q.h5"), "bytes": (tmp_path / "p.h5").stat().st_size, "bytes_before": folder.size,
    }  # fmt: skip


def test_merge_adds_texts_or_sites(stores: Path, tmp_path: Path) -> None:
    one, two, heads = (ActivationStore(stores / name) for name in ("one", "two", "heads"))
    shown = done(twinprobe("store", "merge", stores / "one", stores / "two", "--out", tmp_path / "texts"))
    assert f"wrote {tmp_path / 'texts'}: 10 texts, {one.n_rows + two.n_rows} rows × 3 sites, " in shown
    assert ActivationStore(tmp_path / "texts").texts == [*one.texts, *two.texts]
    words = ("store", "merge", stores / "one", stores / "heads", "--out", tmp_path / "sites", "--json")
    assert json.loads(done(twinprobe(*words))) == {
        "out": str(tmp_path / "sites"), "n_texts": 5, "n_rows": one.n_rows, "sites": [*one.sites, *heads.sites],
    }  # fmt: skip
    before = contents(tmp_path / "sites")
    done(twinprobe(*words))
    assert contents(tmp_path / "sites") == before, "the same command again finds it done"
    assert twinprobe("store", "verify", tmp_path / "sites").code == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("verify",), ["Missing argument"]),
        (("pack", "one"), ["Missing option '--out'"]),
        (("pack", "absent", "--out", "p.h5"), ["absent holds no store", "twinprobe cache"]),
        (("merge", "one", "--out", "m"), ["1 store was given", "two or more"]),
        (("merge", "one", "one", "--out", "m"), ["both hold resid_post.0 of the same texts"]),
        (("merge", "two", "heads", "--out", "m"), ["heads can not be merged with", "its sites is"]),
        (("merge", "one", "two", "--out", "heads"), ["heads holds a store of another job"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line(
    stores: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], expected: list[str]
) -> None:
    monkeypatch.chdir(stores)
    before = contents(stores)
    ran = twinprobe("store", *words)
    refused(ran, *expected, after_progress=True)
    assert {name: content for name, content in contents(stores).items() if ".lock" not in name} == {
        name: content for name, content in before.items() if ".lock" not in name
    }


def test_help_shows_examples() -> None:
    for command in ((), ("verify",), ("pack",), ("merge",)):
        shown = done(twinprobe("store", *command, "--help"))
        assert "Examples:" in shown
        assert "twinprobe store " in shown
