"""Labels for a store's rows: found by position and span, split by whole groups, and one line for every bad line."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.capturing import capture
from activations.errors import TwinprobeError
from activations.sites import Site
from activations.store import ActivationStore
from activations.texts import Span, Text
from probes.labels import Labelled, labelled_spans, labels_from_file, labels_from_spans
from probes.rows import Rows
from probes.splits import SHARES, split_groups

if TYPE_CHECKING:
    from activations.models import LoadedModel

WORDS = ("red", "coin", "box", "name", "sea", "girl")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def texts() -> list[Text]:
    """Six texts of three groups; each has a labelled object, a labelled verb and an unlabelled span."""
    found = []
    for number, word in enumerate(WORDS):
        text = f"the {word} was old"
        end = 4 + len(word)
        spans = (
            Span("object", 4, end, "long" if len(word) > 3 else "short", f"key {word}"),
            Span("verb", end + 1, end + 4, f"v{number % 2}"),
            Span("rest", end + 5, end + 8),
        )
        found.append(Text(f"t{number}", text, spans, f"g{number % 3}"))
    return found


@pytest.fixture(scope="module")
def loaded(tiny: Any) -> LoadedModel:
    model: LoadedModel = tiny("llama")
    return model


@pytest.fixture(scope="module")
def spans_store(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    folder = tmp_path_factory.mktemp("stores") / "spans"
    return capture(loaded, texts(), [Site("embed")], folder, bos=True, rows="spans")


@pytest.fixture(scope="module")
def tokens_store(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return capture(loaded, texts(), [Site("embed")], tmp_path_factory.mktemp("stores") / "tokens", bos=True)


@pytest.fixture(scope="module")
def last_store(loaded: LoadedModel, tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    plain = [Text(text.id, text.text, (), text.group) for text in texts()]
    return capture(loaded, plain, [Site("embed")], tmp_path_factory.mktemp("stores") / "last", bos=True, rows="last")


def from_lines(store: ActivationStore, *lines: dict[str, Any] | str | bytes) -> Labelled:
    raw = [
        line if isinstance(line, bytes) else (line if isinstance(line, str) else json.dumps(line)).encode()
        for line in lines
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.jsonl"
        path.write_bytes(b"\n".join(raw))
        return labels_from_file(store, path, seed=0)


def message(store: ActivationStore, *lines: dict[str, Any] | str | bytes) -> str:
    with pytest.raises(TwinprobeError) as caught:
        from_lines(store, *lines)
    said = str(caught.value)
    assert "\n" not in said
    return said[said.index("labels.jsonl") :] if "labels.jsonl" in said else said


def words_of(store: ActivationStore, found: Labelled) -> list[str]:
    """The text under each row that was found."""
    by_id = {text.id: text.text for text in texts()}
    rows = store.rows.loc[found.rows]
    return [by_id[name][start:end] for name, start, end in zip(rows.text, rows.start, rows.end, strict=True)]


def test_labels_of_one_kind_of_span(spans_store: ActivationStore) -> None:
    found = labels_from_spans(spans_store, "object", seed=0)
    assert found.about.labels.tolist() == ["short", "long", "short", "long", "short", "long"]
    assert found.about.controls.tolist() == [f"key {word}" for word in WORDS]
    assert words_of(spans_store, found) == list(WORDS)
    assert found.about.groups.tolist() == ["g0", "g1", "g2"] * 2
    verbs = labels_from_spans(spans_store, "verb", seed=0)
    assert verbs.about.labels.tolist() == ["v0", "v1"] * 3
    assert verbs.about.controls.tolist() == ["was"] * 6, "the span's own characters"
    assert not set(found.rows) & set(verbs.rows)


def test_rows_know_their_tokens(spans_store: ActivationStore, loaded: LoadedModel) -> None:
    """Also the surface that baselines see: ids up to the row's token, its own id, its position."""
    found = labels_from_spans(spans_store, "object", seed=0)
    for text, about in zip(texts(), range(6), strict=True):
        ids = [0, *loaded.tokenizer(text.text)["input_ids"]]
        position = int(found.about.positions[about])
        assert list(found.about.texts[about]) == ids[: position + 1]
        assert list(found.about.tokens[about]) == [ids[position]]
        assert loaded.tokenizer.decode(ids[: position + 1]).endswith(text.text[: text.spans[0].end])
    features = spans_store.read("embed", found.rows)
    assert len(Rows(features, found.about)) == 6


def test_an_unknown_kind_of_span_is_one_line(spans_store: ActivationStore, tokens_store: ActivationStore) -> None:
    def said(store: ActivationStore, span: str) -> str:
        with pytest.raises(TwinprobeError) as caught:
            labels_from_spans(store, span, seed=0)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert said(spans_store, "objet") == (
        "no labelled span is called 'objet' (did you mean 'object'?); there are object, verb"
    )
    assert "no labelled span is called 'rest'" in said(spans_store, "rest")
    assert "has no labelled spans; give labels with --labels FILE" in said(tokens_store, "object")


def test_every_kind_of_labelled_span_is_known(spans_store: ActivationStore) -> None:
    assert labelled_spans(spans_store) == ["object", "verb"]


def test_rows_are_found_by_position(tokens_store: ActivationStore) -> None:
    rows = tokens_store.rows
    lines = [
        {"text": name, "position": int(part.position.iloc[number % len(part)]), "label": f"l{number}"}
        for number, (name, part) in enumerate(rows.groupby("text"))
    ]
    found = from_lines(tokens_store, *lines)
    picked = rows.loc[found.rows]
    assert picked.text.tolist() == [line["text"] for line in lines]
    assert picked.position.tolist() == [line["position"] for line in lines]
    assert found.about.labels.tolist() == [f"l{number}" for number in range(6)]
    assert found.about.controls.tolist() == words_of(tokens_store, found)
    assert found.about.groups.tolist() == ["g0", "g1", "g2"] * 2


def test_rows_are_found_by_span(spans_store: ActivationStore) -> None:
    names = ("object", "rest", "verb")
    lines: list[dict[str, Any]] = [{"text": f"t{i}", "span": names[i % 3], "label": i} for i in range(6)]
    found = from_lines(spans_store, *lines)
    rows = spans_store.rows.loc[found.rows]
    assert list(zip(rows.text, rows.span, strict=True)) == [(line["text"], line["span"]) for line in lines]
    assert found.about.labels.tolist() == list("012345"), "numbers become strings"
    assert found.about.controls.tolist() == ["key red", "old", "was", "key name", "old", "was"], "the spans' own"


def test_the_only_row_of_a_text_needs_no_place(last_store: ActivationStore) -> None:
    lines = [{"text": f"t{i}", "label": "x", "group": f"G{i}", "control": f"C{i}"} for i in range(6)]
    found = from_lines(last_store, *lines)
    assert found.rows.tolist() == list(range(6))
    assert found.about.groups.tolist() == found.about.items.tolist() == [f"G{i}" for i in range(6)]
    assert found.about.controls.tolist() == [f"C{i}" for i in range(6)]


def test_given_splits_are_kept(last_store: ActivationStore) -> None:
    given_splits = ["train", "train", "dev", "test", "test", "train"]
    found = from_lines(last_store, *({"text": f"t{i}", "label": "x", "split": s} for i, s in enumerate(given_splits)))
    assert found.about.splits.tolist() == given_splits
    without = from_lines(last_store, *({"text": f"t{i}", "label": "x", "split": None} for i in range(6)))
    assert set(without.about.splits) == set(SHARES)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "not valid JSON ("),
        ("[]", "expected a JSON object with text, label, position, span, split, group, control, got"),
        (
            {"text": "t1", "lable": "x"},
            "unknown key 'lable' (did you mean 'label'?); known: text, label, position, span",
        ),
        ({"label": "x"}, "'text' is required, a string or a whole number; got None"),
        ({"text": "t1", "label": ""}, "'label' is required, a string or a whole number; got ''"),
        ({"text": "t1", "label": [1]}, "'label' is required, a string or a whole number; got [1]"),
        ({"text": "t1", "label": "\ud800"}, "not valid Unicode (half of a surrogate pair"),
        ({"text": "t1", "label": "x", "position": 1, "span": "a"}, "both 'position' and 'span'; give one of them"),
        ({"text": "t1", "label": "x", "position": "1"}, "'position' must be a whole number, got '1'"),
        ({"text": "t1", "label": "x", "position": 1.0}, "'position' must be a whole number, got 1.0"),
        ({"text": "t1", "label": "x", "position": True}, "'position' must be a whole number, got True"),
        ({"text": "t1", "label": "x", "position": [1]}, "'position' must be a whole number, got [1]"),
        ({"text": "t1", "label": "x", "span": ["object"]}, "'span' must be a string or a number, got ['object']"),
        ({"text": "t1", "label": "x", "group": {}}, "'group' must be a string or a number, got {}"),
        ({"text": "t1", "label": "x", "control": ["a"]}, "'control' must be a string or a number, got ['a']"),
        ({"text": "t1", "label": "x", "split": "valid"}, "split 'valid' is not one of train, dev, test"),
        ({"text": "t1", "label": "x", "split": ["dev"]}, "split ['dev'] is not one of train, dev, test"),
        ({"text": "t9", "label": "x"}, "the store has no text 't9' (did you mean"),
        ({"text": "t1", "label": "x"}, "7 rows of text 't1' match; name one with 'position' or 'span'"),
        ({"text": "t1", "label": "x", "position": 77}, "no row of text 't1' match; name one with 'position' or 'span'"),
        ({"text": "t1", "label": "x", "position": 10**30}, "no row of text 't1' match"),
        ({"text": "t1", "label": "x", "span": "object"}, "no row of text 't1' match"),
        ({"text": "t0", "label": "x", "position": 1}, "this row already has a label, from line 1"),
        (b'{"text": "\xff"}', "not UTF-8 (byte 10); save the file as UTF-8"),
    ],
)
def test_a_bad_line_is_named(tokens_store: ActivationStore, line: dict[str, Any] | str | bytes, expected: str) -> None:
    assert len(tokens_store.rows[tokens_store.rows.text == "t1"]) == 7
    said = message(tokens_store, {"text": "t0", "label": "x", "position": 1}, "", line)
    assert said.startswith("labels.jsonl:3: ")
    assert expected in said


def test_a_bad_file_is_named(last_store: ActivationStore, tmp_path: Path) -> None:
    assert message(last_store, "") == (
        "labels.jsonl: no labels found; expected one JSON object per line with 'text' and 'label'"
    )
    with pytest.raises(TwinprobeError, match="no such file; expected a JSONL file"):
        labels_from_file(last_store, tmp_path / "absent.jsonl", seed=0)
    half = [{"text": "t0", "label": "x"}, {"text": "t1", "label": "x", "split": "dev"}]
    assert message(last_store, *half) == (
        "labels.jsonl:1: no 'split', but line 2 has one; give it on every line or none"
    )
    few = [{"text": "t0", "label": "x"}, {"text": "t1", "label": "x"}, {"text": "t3", "label": "x"}]
    assert "there are 2 groups; at least 3 are needed" in message(last_store, *few)


VALID = {"text": "t1", "position": 3, "label": "noun", "split": "train", "group": "doc7", "control": "dog"}


def accepted_or_refused(store: ActivationStore, line: bytes) -> None:
    try:
        found = from_lines(store, {"text": "t0", "position": 1, "label": "x", "split": "dev"}, line)
    except TwinprobeError as error:
        said = str(error)
        assert "\n" not in said
        # a new line among the damage may have cut the line in two or three
        assert any(f"labels.jsonl:{number}: " in said for number in range(2, 9))
    else:
        assert found.about.labels[0] == "x"
        assert len(found.about) == len(found.rows) == len(set(found.rows.tolist()))


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_value_is_refused_by_line_or_accepted(tokens_store: ActivationStore, data: st.DataObject) -> None:
    raw = dict(VALID)
    raw[data.draw(st.sampled_from([*sorted(VALID), "span"]) | st.text(max_size=5))] = data.draw(JSON)
    if data.draw(st.booleans()):
        raw.pop("position", None)
    accepted_or_refused(tokens_store, json.dumps(raw).encode())


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_byte_is_refused_by_line_or_accepted(tokens_store: ActivationStore, data: st.DataObject) -> None:
    bad = bytearray(json.dumps(VALID).encode())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(bad) - 1))
        bad[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=2))
    accepted_or_refused(tokens_store, bytes(bad))


GROUPS = st.lists(st.text(max_size=3), min_size=3, max_size=12, unique=True)


@given(GROUPS, st.lists(st.integers(1, 30), min_size=12, max_size=12), st.integers(0, 3))
@settings(max_examples=200, deadline=None)
def test_a_group_is_never_split(names: list[str], sizes: list[int], seed: int) -> None:
    rows = [name for name, size in zip(names, sizes, strict=False) for _ in range(size)]
    np.random.default_rng(seed).shuffle(rows)
    splits = split_groups(rows, seed)
    homes = {name: {split for row, split in zip(rows, splits, strict=True) if row == name} for name in names}
    assert all(len(home) == 1 for home in homes.values())
    assert set(splits) == set(SHARES), "no split is empty"
    assert splits == split_groups(rows, seed)
    # No split is over its share by more than one group, which it got when it was the one furthest below.
    largest = max(sizes[: len(names)])
    for name, share in SHARES.items():
        assert splits.count(name) <= share * len(rows) + largest


@pytest.mark.parametrize("size", [1, 3])
def test_many_groups_come_near_the_shares(size: int) -> None:
    rows = [f"g{number}" for number in range(200) for _ in range(size)]
    counts = [Counter(split_groups(rows, seed)) for seed in range(5)]
    for count in counts:
        assert {split: count[split] / len(rows) for split in SHARES} == pytest.approx(SHARES, abs=0.02)
    assert split_groups(rows, 0) != split_groups(rows, 1)


def test_groups_of_uneven_size_come_near_the_shares() -> None:
    """A few long documents among many short ones, as real corpora are."""
    rows = [f"long {number}" for number in range(6) for _ in range(40)]
    rows += [f"short {number}" for number in range(80) for _ in range(3)]
    for seed in range(10):
        count = Counter(split_groups(rows, seed))
        assert {split: count[split] / len(rows) for split in SHARES} == pytest.approx(SHARES, abs=0.05)


@pytest.mark.parametrize("groups", [["a"], ["a", "b", "a"]])
def test_fewer_groups_than_splits_are_refused(groups: list[str]) -> None:
    with pytest.raises(TwinprobeError) as caught:
        split_groups(groups, 0)
    assert f"there are {len(set(groups))} groups; at least 3 are needed" in str(caught.value)
    assert "\n" not in str(caught.value)
