"""Preparing data: decontaminated, made once, all or nothing, and nothing but its result is kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import CORPUS, files

from activations.errors import TwinprobeError
from analyses.pretraining.corpora import Document, read_corpora
from analyses.pretraining.decontamination import EvaluationSets, decontaminate
from analyses.pretraining.design import Design, Kind, read_design
from analyses.pretraining.packing import read_tokens, sample, train_tokenizer
from analyses.pretraining.preparing import prepare
from analyses.pretraining.spool import Spool

QUESTION = "When the old captain had counted his coins twice, he asked the girl how many were left."
DESIGN = """
name = "toy"
[architecture]
context = 32
[tokenizer]
vocabulary = 300
bytes_per_kind = 2000
[training]
tokens = 2560
[decontamination]
against = ["quiz.txt"]
margin = 5
[[data]]
kind = "prose"
path = "prose"
licence = "CC0"
held_out = ["held.txt"]
[[data]]
kind = "code"
path = "code.jsonl"
licence = "MIT"
held_out_tail = { "*" = 0.25 }
[[run]]
name = "code"
code_share = 0.5
seed = 0
"""
KINDS: tuple[Kind, ...] = ("prose", "code")
HELD = f"Kept apart: {QUESTION} " + CORPUS[4] * 8


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Prose, one document of which holds the question of the evaluation set twice; code; held-out prose with it."""
    (tmp_path / "prose").mkdir()
    for name, text in {
        "a": CORPUS[2] * 40, "b": f"{CORPUS[4] * 9} {QUESTION} {CORPUS[2] * 9} {QUESTION} the end", "held": HELD,
    }.items():  # fmt: skip
        (tmp_path / "prose" / f"{name}.txt").write_text(text)
    rows = [{"path": f"{i}.py", "text": f"# {i}\n{CORPUS[0]}{CORPUS[1]}" * 3} for i in range(20)]
    (tmp_path / "code.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "quiz.txt").write_text(QUESTION)
    (tmp_path / "toy.toml").write_text(DESIGN)
    return tmp_path


@pytest.fixture
def design(data: Path) -> Design:
    return read_design(data / "toy.toml")


def quiet(*_said: object) -> None:
    """Progress that nobody sees."""


def test_what_an_evaluation_set_has_is_not_trained_on(design: Design, data: Path, tmp_path: Path) -> None:
    prepared = prepare(design, data, tmp_path / "out", quiet)
    texts = {kind: prepared.tokenizer.decode(rows.ravel()) for kind, rows in prepared.training.items()}
    assert QUESTION not in texts["prose"]
    assert "asked the girl how" not in texts["prose"]
    assert CORPUS[2] * 9 in texts["prose"], "the piece between the two is kept"
    assert "Kept apart" not in texts["prose"]
    assert QUESTION in prepared.tokenizer.decode(prepared.held_out["prose"].ravel()), "held-out text is left as it is"
    cut = 2 * (len(QUESTION) - 1 + 2 * 5)  # the full stop is no word
    assert prepared.removed == {"quiz.txt": cut}
    clean = design.model_copy(update={"decontamination": design.decontamination.model_copy(update={"against": ()})})
    other = prepare(clean, data, tmp_path / "clean", quiet)
    assert QUESTION in other.tokenizer.decode(other.training["prose"].ravel())
    assert other.removed == {}


def test_the_tokens_are_those_of_the_documents(design: Design, data: Path, tmp_path: Path) -> None:
    prepared = prepare(design, data, tmp_path / "out", quiet)
    rows = [json.loads(line)["text"] for line in (data / "code.jsonl").read_text().splitlines()]
    kept = [text[: int(len(text) * 0.75)] for text in rows]
    stream = [token for text in kept for token in (0, *prepared.tokenizer(text)["input_ids"])]
    assert prepared.training["code"].ravel().tolist() == stream[: len(stream) // 32 * 32]
    tails = sum(len(text.encode()) for text in rows) - sum(len(text.encode()) for text in kept)
    assert prepared.bytes_per_token["code"] == tails / prepared.held_out["code"].size
    assert prepared.bytes_per_token["prose"] == len(HELD.encode()) / prepared.held_out["prose"].size


def test_the_tokenizer_is_trained_on_a_sample_of_what_is_trained_on(design: Design, data: Path, tmp_path: Path) -> None:
    prepared = prepare(design, data, tmp_path / "out", quiet)
    documents = [
        piece
        for document, held_out in read_corpora(design.data, data)
        for piece in decontaminate(document, EvaluationSets(["quiz.txt"], data, 13), 5)
        if not held_out
    ]
    of_kind = {kind: [document.text for document in documents if document.kind == kind] for kind in KINDS}
    chosen = sample({kind: [len(text.encode()) for text in texts] for kind, texts in of_kind.items()}, 2000, seed=0)
    assert len(chosen["code"]) < len(of_kind["code"])
    place = {kind: iter(range(len(texts))) for kind, texts in of_kind.items()}
    texts = [document.text for document in documents if next(place[document.kind]) in chosen[document.kind]]
    expected = train_tokenizer(texts, 300).backend_tokenizer.to_str()
    assert prepared.tokenizer.backend_tokenizer.to_str() == expected
    assert expected != train_tokenizer([document.text for document in documents], 300).backend_tokenizer.to_str()


def test_made_once_and_read_again_without_the_data(design: Design, data: Path, tmp_path: Path) -> None:
    first = prepare(design, data, tmp_path / "out", quiet)
    before = files(tmp_path / "out")
    assert {name.split("/")[1] for name in before} == {
        "tokenizer", "facts.json", *(f"{part}-{kind}.tokens" for part in ("training", "held-out") for kind in first.training),
    }  # fmt: skip
    (data / "code.jsonl").unlink()
    again = prepare(design, data, tmp_path / "out", quiet)
    assert files(tmp_path / "out") == before
    assert again.removed == first.removed
    assert again.bytes_per_token == first.bytes_per_token
    for kind, rows in first.training.items():
        assert np.array_equal(again.training[kind], rows)


@pytest.mark.parametrize(
    "stage", ["reading data", "training the tokenizer", "tokenising", "tokenising what is held out"]
)
def test_cut_off_anywhere_it_is_made_again_to_the_same(design: Design, data: Path, tmp_path: Path, stage: str) -> None:
    def pressed(what: str, *_said: object) -> None:
        if what == stage:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(design, data, tmp_path / "out", pressed)
    assert not (tmp_path / "out" / "data").exists()
    torn = tmp_path / "out" / "data.tmp"
    assert torn.exists()
    (torn / "training-prose.tokens").write_bytes(b"of an earlier try")
    prepare(design, data, tmp_path / "out", quiet)
    prepare(design, data, tmp_path / "whole", quiet)
    assert files(tmp_path / "out") == files(tmp_path / "whole")


def test_every_stage_is_reported_to_its_end(design: Design, data: Path, tmp_path: Path) -> None:
    said: list[tuple[str, int, int, str]] = []
    prepare(design, data, tmp_path / "out", lambda *what: said.append(what))
    ends = [what for what, done, total, _ in said if done == total]
    assert ends == ["reading data", "training the tokenizer", "tokenising", "tokenising what is held out"]
    assert all(done <= total for _, done, total, _ in said)


def test_a_missing_set_stops_before_the_data_is_read(design: Design, data: Path, tmp_path: Path) -> None:
    (data / "quiz.txt").unlink()
    with pytest.raises(TwinprobeError, match="quiz.txt: no such evaluation set; give the folder that holds it"):
        prepare(design, data, tmp_path / "out", lambda *said: pytest.fail(str(said)))
    assert not (tmp_path / "out" / "data").exists()


def test_an_empty_file_of_tokens_is_no_blocks(tmp_path: Path) -> None:
    (tmp_path / "x-code.tokens").touch()
    assert read_tokens(tmp_path / "x-", 8) == {}


def test_documents_come_back_from_the_disk_as_they_were(tmp_path: Path) -> None:
    documents = [
        Document("prose", "a", "line\nline\r\n \u2028 \x85 é 🙂 \x00"),
        Document("code", "b/ü", ""),
        Document("prose", "c", "x"),
    ]
    spool = Spool(tmp_path / "spool")
    with spool:
        for document in documents:
            spool.write(document)
    said: list[tuple[str, int, int, str]] = []
    for _ in range(2):
        assert list(spool.read("again", lambda *what: said.append(what))) == documents
    assert said == 2 * [("again", done, 3, "") for done in (1, 2, 3)]
    assert spool.sizes == {"prose": [len(documents[0].text.encode()), 1], "code": [0]}
