"""Training documents: every format is read, licence headers go, and what is held out never reaches training."""

from __future__ import annotations

import gzip
import io
import json
import re
import sys
import tarfile
from fnmatch import fnmatch
from importlib.resources import files
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from analyses.pretraining.corpora import Document, read_corpora, strip_licence_header
from analyses.pretraining.design import Data, read_design
from probes.tasks.identifiers import HELD_OUT_MODULES, held_out_sources

DOCUMENTS = {"lib/a.py": "x = 1\n", "lib/sub/b.py": "y = 'é'\n", "lib/c.py": "z = '\u2028 \x85'\n"}


def lines(documents: dict[str, str]) -> str:
    return "".join(
        json.dumps({"path": name, "text": text}, ensure_ascii=False) + "\n" for name, text in documents.items()
    )


def code(path: str, **options: object) -> Data:
    return Data.model_validate({"kind": "code", "path": path, "licence": "MIT", **options})


def both_parts(sources: tuple[Data, ...], root: Path) -> tuple[list[Document], list[Document]]:
    """What is trained on, and what is held out."""
    read = list(read_corpora(sources, root))
    return [part for part, held_out in read if not held_out], [part for part, held_out in read if held_out]


def make_folder(root: Path) -> None:
    for name, content in {
        "corpus/books/two.txt": "Second.", "corpus/books/one.txt": "First.", "corpus/python.jsonl": lines(DOCUMENTS),
        "corpus/README.md": "not a document",
    }.items():  # fmt: skip
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def test_a_folder_and_its_archive_hold_the_same_documents(tmp_path: Path) -> None:
    make_folder(tmp_path)
    with tarfile.open(tmp_path / "corpus.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "corpus", "corpus")
    training, held_out = both_parts((code("corpus"),), tmp_path)
    assert held_out == []
    expected = {"books/one.txt": "First.", "books/two.txt": "Second."}
    expected |= {f"python.jsonl/{name}": text for name, text in DOCUMENTS.items()}
    assert training == [Document("code", name, text) for name, text in expected.items()]
    packed, _ = both_parts((code("corpus.tar.gz"),), tmp_path)
    assert packed == [Document("code", f"corpus/{document.name}", document.text) for document in training]


def test_single_files_and_several_sources(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("prose", encoding="utf-8")
    (tmp_path / "b.jsonl").write_text(lines(DOCUMENTS) + "\n\n", encoding="utf-8")
    prose = Data(kind="prose", path="a.txt", licence="CC0")
    training, _ = both_parts((prose, code("b.jsonl")), tmp_path)
    assert [(document.kind, document.name) for document in training] == [
        ("prose", "a.txt"), *(("code", f"b.jsonl/{name}") for name in DOCUMENTS),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("b.jsonl", b'{"path": "x", "text": "y"}\n{"path": "x"', "b.jsonl:2: not valid JSON ("),
        (
            "b.jsonl",
            b'{"path": "x", "text": "y"}\n[1]',
            "b.jsonl:2: expected a JSON object with strings 'path' and 'te",
        ),
        ("b.jsonl", b'{"path": "x", "txt": "y"}', "b.jsonl:1: expected a JSON object with strings 'path' and 'text'"),
        ("b.jsonl", b'{"path": "x", "text": 3}', "b.jsonl:1: expected a JSON object with strings 'path' and 'text'"),
        ("b.jsonl", b'{"path": "x", "text": "\xff"}', "b.jsonl: not UTF-8 (byte 23); save the file as UTF-8"),
        (
            "b.jsonl",
            b'{"path": "x", "text": "y"}\n{"path": "x", "text": "ab\\ud800"}',
            "b.jsonl:2: not valid Unicode (",
        ),
        ("b.txt", b"\xff", "b.txt: not UTF-8 (byte 0); save the file as UTF-8"),
        ("b.md", b"x", "b.md: no .txt or .jsonl documents found"),
        ("b.tar.gz", b"x", "b.tar.gz: not a tar archive ("),
        ("b.tgz", gzip.compress(b"x" * 600, mtime=0), "b.tgz: not a tar archive ("),
    ],
)
def test_bad_data_gets_one_line(tmp_path: Path, name: str, content: bytes, expected: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TwinprobeError) as caught:
        list(read_corpora((code(name),), tmp_path))
    assert str(caught.value).startswith(f"{tmp_path / expected}")
    assert "\n" not in str(caught.value)


def test_a_bad_line_in_an_archive_is_named(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "c.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("c/x.jsonl")
        member.size = 2
        archive.addfile(member, io.BytesIO(b"{]"))
    with pytest.raises(TwinprobeError) as caught:
        list(read_corpora((code("c.tar.gz"),), tmp_path))
    assert str(caught.value).startswith(f"{tmp_path}/c.tar.gz/c/x.jsonl:1: not valid JSON (")


def test_missing_data_names_the_folder_to_give(tmp_path: Path) -> None:
    with pytest.raises(TwinprobeError, match="no such data; give the folder that holds 'absent' with --data-dir"):
        list(read_corpora((code("absent"),), tmp_path))


@given(
    st.dictionaries(st.sampled_from(["a/x", "a/y", "b/x", "c"]), st.text(st.characters(codec="utf-8")), min_size=1),
    st.lists(st.sampled_from(["*/a/*", "*/c", "*x"]), max_size=2),
    st.dictionaries(st.sampled_from(["*/b/*", "*", "*y"]), st.floats(0.05, 0.95), max_size=2),
)
@settings(max_examples=60, deadline=None)
def test_held_out_documents_and_tails_never_reach_training(
    tmp_path_factory: pytest.TempPathFactory, documents: dict[str, str], names: list[str], tails: dict[str, float]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    (folder / "d.jsonl").write_text(lines(documents), encoding="utf-8")
    training, held_out = both_parts((code("d.jsonl", held_out=names, held_out_tail=tails),), folder)
    trained, kept_back = ({document.name: document.text for document in part} for part in (training, held_out))
    assert len(trained) == len(training)
    for name, text in documents.items():
        full, stripped = f"d.jsonl/{name}", strip_licence_header(text)
        shares = [share for rule, share in tails.items() if fnmatch(full, rule)]
        if any(fnmatch(full, rule) for rule in names):
            assert full not in trained
            assert kept_back[full] == stripped
        elif shares:
            assert trained[full] + kept_back[full] == stripped
            assert len(kept_back[full]) == pytest.approx(max(shares) * len(stripped), abs=1)
        else:
            assert trained[full] == stripped
            assert full not in kept_back


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("/* Copyright 2020 Me */\n\nint x;\n", "int x;\n"),
        ("/*\n * SPDX-License-Identifier: curl\n ***/ \nint x;\n", " \nint x;\n"),
        ("// Licensed under MIT\n// all of it\npackage main\n", "package main\n"),
        ("#!/bin/sh\n# Copyright (C) Me\n\necho # LICENSE\n", "echo # LICENSE\n"),
        ("\n\n# licence: free\nx = 1\n", "x = 1\n"),
        ("/* Copyright */ /* what it does */ int x;", " /* what it does */ int x;"),
    ],
)
def test_a_licence_header_is_dropped(text: str, kept: str) -> None:
    assert strip_licence_header(text) == kept


@pytest.mark.parametrize(
    "text",
    [
        "/* Sorts numbers. */\nint x;\n",
        "# how it works\nx = 1\n",
        "x = 1\n# Copyright later in the file stays\n",
        '"""Copyright in a docstring stays: it is not a comment."""\n',
        "/* Copyright, but the comment never ends\nint x;\n",
        "",
    ],
)
def test_other_beginnings_stay(text: str) -> None:
    assert strip_licence_header(text) == text


def test_licence_headers_go_from_code_and_stay_in_prose(tmp_path: Path) -> None:
    header = "# Copyright 1999\n"
    (tmp_path / "a.jsonl").write_text(lines({"x": f"{header}x = 1"}), encoding="utf-8")
    (tmp_path / "b.txt").write_text(f"{header}Call me Ishmael.", encoding="utf-8")
    training, _ = both_parts((code("a.jsonl"), Data(kind="prose", path="b.txt", licence="CC0")), tmp_path)
    assert [document.text for document in training] == ["x = 1", f"{header}Call me Ishmael."]


def test_documents_come_one_at_a_time(tmp_path: Path) -> None:
    """The second source is not even looked for before the documents of the first are used up."""
    (tmp_path / "a.txt").write_text("first")
    documents = read_corpora((code("a.txt"), code("absent")), tmp_path)
    assert next(documents) == (Document("code", "a.txt", "first"), False)
    with pytest.raises(TwinprobeError, match="no such data"):
        next(documents)


def test_no_document_is_read_once_there_are_characters_enough(tmp_path: Path) -> None:
    """Held-out text does not count; the document that reaches the number is still read whole."""
    (tmp_path / "d.jsonl").write_text(lines({f"{i}.py": "x" * 10 for i in range(9)}))
    for characters, kept in ((1, [1]), (10, [1]), (11, [1, 2]), (25, [1, 2, 3]), (1000, [1, 2, 3, 4, 5, 6, 7, 8])):
        training, held_out = both_parts((code("d.jsonl", held_out=["*/0.py"], characters=characters),), tmp_path)
        assert [document.name for document in training] == [f"d.jsonl/{i}.py" for i in kept]
        assert [document.name for document in held_out] == ["d.jsonl/0.py"]


@pytest.fixture(scope="module")
def data_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds a data set of two splits, called ``set``."""
    root = tmp_path_factory.mktemp("sets")
    (root / "set").mkdir()
    for split, rows in {"train": [f"# Copyright\nx = {i}" for i in range(4)], "test": ["é\n"]}.items():
        text = "".join(json.dumps({"content": row, "number": 3}) + "\n" for row in rows)
        (root / "set" / f"{split}.jsonl").write_text(text)
    return root


def of_set(**options: object) -> Data:
    return Data.model_validate(
        {"kind": "code", "dataset": "set", "column": "content", "licence": "MIT", "held_out": ["set/2"]} | options
    )


def test_rows_of_a_data_set_are_documents(data_set: Path) -> None:
    training, held_out = both_parts((of_set(),), data_set)
    assert training == [Document("code", f"set/{i}", f"x = {i}") for i in (0, 1, 3)]
    assert held_out == [Document("code", "set/2", "x = 2")]
    training, _ = both_parts((of_set(kind="prose", split="test"),), data_set)
    assert training == [Document("prose", "set/0", "é\n")]
    training, _ = both_parts((of_set(kind="prose", characters=1),), data_set)
    assert training == [Document("prose", "set/0", "# Copyright\nx = 0")], "prose is left as it is"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"column": "text"}, "row 0 has no text in column 'text'; its columns are content, number"),
        ({"column": "number"}, "row 0 has no text in column 'number'; got 3"),
        ({"split": "dev"}, "data set 'set, split dev' can not be read: Bad split: dev."),
        ({"config": "xx"}, "data set 'set, split train, config xx' can not be read: BuilderConfig 'xx' not found"),
        ({"dataset": "no-such/set"}, "data set 'no-such/set, split train' can not be read: Couldn't reach"),
    ],
)
def test_a_data_set_that_can_not_be_read_gets_one_line(data_set: Path, options: dict[str, str], expected: str) -> None:
    with pytest.raises(TwinprobeError) as caught:
        list(read_corpora((of_set(**options),), data_set))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_the_library_a_data_set_says_what_to_install(data_set: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(TwinprobeError, match=re.escape("pip install 'twinprobe[pretrain]'")):
        list(read_corpora((of_set(),), data_set))


def test_the_twins_never_see_what_their_tasks_are_made_of() -> None:
    """The identifiers task and the code passages read these modules; nothing of them may be trained on."""
    twins = read_design(str(files("analyses.pretraining") / "twins.toml"))
    (source,) = [data for data in twins.data if data.kind == "code"]

    def held_out(path: str) -> bool:
        return any(fnmatch(f"corpus_code/python.jsonl/{path}", rule) for rule in source.held_out)

    used = [path for path, _ in held_out_sources()]
    assert {Path(path).parts[0].removesuffix(".py") for path in used} == set(HELD_OUT_MODULES)
    assert [path for path in used if not held_out(path)] == []
    assert [path for path in ("os.py", "jsonx.py", "asyncio/events.py", "test/email/x.py") if held_out(path)] == []
