"""``probe``: probes on the rows of a store, with labels from its spans or from a file."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from calling import contents, done, refused, twinprobe

from activations.store import ActivationStore
from activations.texts import Span, Text, write_texts

LETTERS = "abcdefghij"


@pytest.fixture(scope="module")
def store(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 assignments; what is a name and what a number can be read off the token itself."""
    folder = tmp_path_factory.mktemp("probed")
    texts = []
    for i in range(60):
        spans = (Span("role", 0, 1, "name"), Span("role", 4, 5, "number"), Span("whole", 0, 5))
        texts.append(Text(f"t{i}", f"{LETTERS[i % 10]} = {i // 10}", spans))
    write_texts(folder / "texts.jsonl", texts)
    where = ("--texts", folder / "texts.jsonl", "--sites", "embed,resid_post.2", "--rows", "spans")
    done(twinprobe("cache", model_folder, *where, "--out", folder / "store"))
    return folder / "store"


def write_lines(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def labels(store: Path) -> list[dict[str, Any]]:
    """Whether the letter is a vowel: one row per text, the first."""
    rows = ActivationStore(store).rows
    first = rows[rows.start == 0].drop_duplicates("text")
    texts = {text.id: text.text for text in ActivationStore(store).texts}
    return [
        {"text": text, "position": position, "label": "vowel" if texts[text][0] in "aei" else "consonant"}
        for text, position in zip(first.text, first.position, strict=True)
    ]


def test_the_spans_labels_are_probed_with_controls_and_baselines(store: Path, tmp_path: Path) -> None:
    shown = done(twinprobe("probe", store, "--out", tmp_path / "probes"))
    for part in ("resid_post.2", "selectivity", "2 classes", "* chosen on dev", "majority 0.500", "own token 1.000"):
        assert part in shown
    with (tmp_path / "probes" / "probes.csv").open() as handle:
        table = list(csv.DictReader(handle))
    assert (tmp_path / "probes" / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert [row["site"] for row in table] == ["embed", "resid_post.2"]
    assert [row["chosen"] for row in table].count("True") == 1
    for row in table:
        assert float(row["score"]) > float(row["majority"])
        assert float(row["selectivity"]) == pytest.approx(float(row["score"]) - float(row["control"]))
        assert int(row["n_train"]) + int(row["n_dev"]) + int(row["n_test"]) == 120


def test_json_holds_the_same_table(store: Path, tmp_path: Path) -> None:
    shown = json.loads(done(twinprobe("probe", store, "--out", tmp_path / "probes", "--json")))
    with (tmp_path / "probes" / "probes.csv").open() as handle:
        table = list(csv.DictReader(handle))
    assert list(shown[0]) == list(table[0])
    assert [str(row["selectivity"]) for row in shown] == [row["selectivity"] for row in table]


def test_the_seed_decides_the_split(store: Path) -> None:
    first, again, other = (done(twinprobe("probe", store, "--json", "--seed", seed)) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_labels_from_a_file_take_the_place_of_the_spans(store: Path, tmp_path: Path) -> None:
    file = write_lines(tmp_path / "labels.jsonl", labels(store)[:-1])
    before = contents(store)
    shown = json.loads(done(twinprobe("probe", store, "--labels", file, "--json")))
    assert {row["n_train"] + row["n_dev"] + row["n_test"] for row in shown} == {59}
    assert all(row["score"] > row["majority"] for row in shown)
    assert contents(store) == before


def test_a_file_may_give_the_splits(store: Path, tmp_path: Path) -> None:
    splits = ["train", "train", "dev", "test"]
    lines = [{**line, "split": splits[i // 10 % 4]} for i, line in enumerate(labels(store))]
    shown = json.loads(done(twinprobe("probe", store, "--labels", write_lines(tmp_path / "l.jsonl", lines), "--json")))
    assert {(row["n_train"], row["n_dev"], row["n_test"]) for row in shown} == {(40, 10, 10)}


def test_one_test_cluster_gives_no_interval_and_no_broken_json(store: Path, tmp_path: Path) -> None:
    """There is nothing to resample: the bounds are missing, not NaN, which is no JSON."""
    splits = ["train", "train", "dev", "test"]
    lines = [
        {**line, "split": splits[i // 10 % 4], "group": splits[i // 10 % 4]} for i, line in enumerate(labels(store))
    ]
    file = write_lines(tmp_path / "labels.jsonl", lines)
    shown = json.loads(done(twinprobe("probe", store, "--labels", file, "--json")), parse_constant=pytest.fail)
    assert all(row["low"] is None and row["high"] is None and row["score"] is not None for row in shown)
    assert "nan" not in done(twinprobe("probe", store, "--labels", file))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", ["labels.jsonl:2: not valid JSON"]),
        ('{"text": "t1", "lable": "x"}', ["labels.jsonl:2: unknown key 'lable'", "did you mean 'label'"]),
        ('{"text": "t1", "position": 1}', ["labels.jsonl:2: 'label' is required"]),
        ('{"text": "tt", "position": 1, "label": "x"}', ["labels.jsonl:2: the store has no text 'tt'"]),
        ('{"text": "t1", "position": 99, "label": "x"}', ["labels.jsonl:2: no row of text 't1' match"]),
        ('{"text": "t1", "label": "x"}', ["labels.jsonl:2: 3 rows of text 't1' match", "'position' or 'span'"]),
        ('{"text": "t0", "position": 1, "label": "x"}', ["labels.jsonl:2: this row already has a label, from line 1"]),
        (
            '{"text": "t1", "position": 1, "label": "x", "split": "dev"}',
            ["labels.jsonl:1: no 'split', but line 2 has one"],
        ),
        (
            '{"text": "t1", "position": 1, "label": "x", "split": "all"}',
            ["labels.jsonl:2: split 'all'", "train, dev, test"],
        ),
    ],
    ids=["json", "key", "no label", "text", "position", "ambiguous", "twice", "some splits", "split"],
)
def test_a_bad_label_is_one_line_with_its_place(store: Path, tmp_path: Path, line: str, expected: list[str]) -> None:
    [first, *_] = labels(store)
    file = tmp_path / "labels.jsonl"
    file.write_text(json.dumps(first) + "\n" + line + "\n")
    refused(twinprobe("probe", store, "--labels", file, "--out", tmp_path / "probes"), *expected)
    assert not (tmp_path / "probes").exists()


def test_what_can_not_be_probed_is_one_line(store: Path, tmp_path: Path) -> None:
    refused(twinprobe("probe", tmp_path / "absent"), "holds no store", "twinprobe cache")
    refused(twinprobe("probe", store, "--labels", tmp_path / "absent.jsonl"), "absent.jsonl: no such file")
    refused(twinprobe("probe", store, "--span", "roll"), "'roll'", "did you mean 'role'")
    refused(twinprobe("probe", store, "--span", "whole"), "no labelled span is called 'whole'", "role")
    refused(
        twinprobe("probe", store, "--span", "role", "--labels", "l.jsonl"), "--labels and --span were given together"
    )
    refused(twinprobe("probe", store, "--sites", "resid_post.1"), "does not hold resid_post.1", "embed, resid_post.2")
    refused(twinprobe("probe", store, "--family", "logistc"), "unknown family", "did you mean 'logistic'")
    refused(twinprobe("probe", store, "--task", "binding"), "does not hold text 'binding-0", "--task")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    refused(twinprobe("probe", store, "--out", tmp_path / "full"), "is not empty and holds no sweep")
    one = write_lines(tmp_path / "one.jsonl", [{**line, "label": "same"} for line in labels(store)])
    refused(twinprobe("probe", store, "--labels", one), "same")
    two = write_lines(tmp_path / "two.jsonl", labels(store)[:2])
    refused(twinprobe("probe", store, "--labels", two), "2 groups", "at least 3")


def test_a_store_without_labels_says_how_to_give_some(model_folder: Path, tmp_path: Path) -> None:
    write_texts(tmp_path / "texts.jsonl", [Text("a", "x = 1")])
    where = ("--texts", tmp_path / "texts.jsonl", "--sites", "embed", "--out", tmp_path / "store")
    done(twinprobe("cache", model_folder, *where))
    refused(twinprobe("probe", tmp_path / "store"), "no labelled spans", "--labels FILE", "--rows spans")


def test_a_sweep_goes_on_after_its_last_finished_site(store: Path, tmp_path: Path) -> None:
    out = tmp_path / "probes"
    first = done(twinprobe("probe", store, "--out", out))
    before = contents(out)
    (out / "sites" / "resid_post.2.csv").unlink()
    stamp = (out / "sites" / "embed.csv").stat().st_mtime_ns
    assert done(twinprobe("probe", store, "--out", out)) == first
    assert contents(out) == before
    assert (out / "sites" / "embed.csv").stat().st_mtime_ns == stamp, "a finished site was probed again"
    refused(twinprobe("probe", store, "--out", out, "--seeds", 2), "another sweep (different seeds)", "another --out")
    assert contents(out) == before


def test_draws_are_pooled_with_an_interval_over_them(store: Path, tmp_path: Path) -> None:
    shown = json.loads(done(twinprobe("probe", store, "--seeds", 3, "--out", tmp_path / "probes", "--json")))
    with (tmp_path / "probes" / "draws.csv").open() as handle:
        draws = list(csv.DictReader(handle))
    assert [row["seed"] for row in draws] == ["0", "1", "2"] * 2
    for row in shown:
        own = [float(draw["score"]) for draw in draws if draw["site"] == row["site"]]
        assert row["seeds"] == 3
        assert row["score"] == pytest.approx(sum(own) / 3)
        assert row["low"] <= row["score"] <= row["high"]


def test_a_task_is_captured_and_probed_in_its_forms(tmp_path: Path) -> None:
    chosen = ("--task", "types", "--items", 60)
    done(twinprobe("cache", "embedded:code", *chosen, "--sites", "resid_post.2", "--out", tmp_path / "store"))
    shown = json.loads(done(twinprobe("probe", tmp_path / "store", *chosen, "--json")))
    assert {(row["task"], row["target"], row["form"]) for row in shown} == {
        ("types", "type", "code"), ("types", "type", "prose"),
    }  # fmt: skip
    assert all(row["n_train"] + row["n_dev"] + row["n_test"] == 60 for row in shown)
    where = ("--sites", "embed", "--out", tmp_path / "other")
    refused(twinprobe("cache", "embedded:code", *where), "--texts FILE", "--task NAME")
    refused(
        twinprobe("cache", "embedded:code", *chosen, "--rows", "last", *where), "--rows last does not go with --task"
    )
