"""Decontamination: what is planted is found and cut, nothing of an evaluation set is left, the rest is untouched."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activations.errors import TwinprobeError
from analyses.pretraining import decontamination
from analyses.pretraining.corpora import Document
from analyses.pretraining.decontamination import SHORTEST, EvaluationSets, decontaminate

QUESTION = "When the old captain had counted his coins twice, he asked the girl how many were left."
OTHER = "A train leaves the station at noon and another one follows it after two hours of waiting."
BEFORE, AFTER = ("".join(f"{word}{i} " for i in range(100)) for word in ("before", "after"))


def sets_of(root: Path, words: int = 13, **contents: str) -> EvaluationSets:
    """Evaluation sets of one file each; the name of the file is the key with the last ``_`` as a point."""
    names = []
    for key, content in contents.items():
        names.append(".".join(key.rsplit("_", 1)))
        (root / names[-1]).write_text(content, encoding="utf-8")
    return EvaluationSets(names, root, words)


def cut(text: str, sets: EvaluationSets, margin: int = 200) -> tuple[list[str], dict[str, int]]:
    removed: dict[str, int] = {}
    pieces = decontaminate(Document("prose", "d", text), sets, margin, removed)
    assert all(piece.kind == "prose" for piece in pieces)
    return [piece.text for piece in pieces], removed


def words_of(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.lower())


def grams(text: str, size: int) -> set[tuple[str, ...]]:
    words = words_of(text)
    return {tuple(words[i : i + size]) for i in range(len(words) - size + 1)}


@pytest.mark.parametrize("margin", [0, 17, 200])
def test_a_planted_passage_is_cut_with_its_margin(tmp_path: Path, margin: int) -> None:
    sets = sets_of(tmp_path, quiz_txt=f"{QUESTION}\n{OTHER}\n")
    shout = QUESTION.upper().replace(" ", "  - ")
    text = f"{BEFORE}{shout} {AFTER}"
    # The full stop at the end is no word, so the shared run ends before it.
    start, end = len(BEFORE) - margin, len(BEFORE) + len(shout) - 1 + margin
    pieces, removed = cut(text, sets, margin)
    assert pieces == [text[:start], text[end:]]
    assert removed == {"quiz.txt": end - start}


def test_the_pieces_are_named(tmp_path: Path) -> None:
    sets = sets_of(tmp_path, quiz_txt=QUESTION)
    pieces = decontaminate(Document("code", "lib/a.py", f"{BEFORE}{QUESTION}{AFTER}"), sets, 10)
    assert [(piece.kind, piece.name) for piece in pieces] == [("code", "lib/a.py#0"), ("code", "lib/a.py#1")]


def test_two_passages_whose_margins_meet_are_one_cut(tmp_path: Path) -> None:
    sets = sets_of(tmp_path, quiz_txt=QUESTION, more_txt=OTHER)
    for gap, expected in ((20, 1), (600, 2)):
        filler = "x " * (gap // 2)
        text = f"{BEFORE}{OTHER} {filler}{QUESTION}{AFTER}"
        pieces, removed = cut(text, sets, 50)
        assert len(pieces) == expected + 1
        assert "".join(pieces) != text
        assert removed == (
            {"more.txt": len(OTHER) + len(filler) + len(QUESTION) - 1 + 1 + 100}
            if expected == 1
            else {"more.txt": len(OTHER) - 1 + 100, "quiz.txt": len(QUESTION) - 1 + 100}
        )


def test_twelve_words_are_not_enough(tmp_path: Path) -> None:
    sets = sets_of(tmp_path, quiz_txt=QUESTION)
    twelve = " ".join(words_of(QUESTION)[:12])
    text = f"{BEFORE}{twelve} stop {AFTER}"
    assert cut(text, sets) == ([text], {})
    shared = f"{BEFORE}{twelve} {words_of(QUESTION)[12]} {AFTER}"
    assert cut(shared, sets)[0] != [shared]


def test_a_document_without_overlap_is_the_very_same(tmp_path: Path) -> None:
    document = Document("prose", "d", f"{BEFORE}{AFTER}")
    (kept,) = decontaminate(document, sets_of(tmp_path, quiz_txt=QUESTION), 200)
    assert kept is document


def test_short_pieces_are_dropped(tmp_path: Path) -> None:
    sets = sets_of(tmp_path, quiz_txt=QUESTION)
    for length, kept in ((SHORTEST - 1, False), (SHORTEST, True)):
        text = "y" * (length - 1) + " " + QUESTION + AFTER
        pieces, _ = cut(text, sets, 0)
        assert (text[:length] in pieces) == kept
        assert len(pieces) == 1 + kept
    assert cut(f"short {QUESTION} short", sets)[0] == []
    assert cut("short", sets)[0] == ["short"], "a document that shares nothing is kept, however short"


def test_a_passage_of_several_sets_counts_for_the_first(tmp_path: Path) -> None:
    for first, second in (("a", "b"), ("b", "a")):
        for name in (first, second):
            (tmp_path / name).write_text(QUESTION)
        sets = EvaluationSets([first, second], tmp_path, 13)
        assert set(cut(f"{BEFORE}{QUESTION}{AFTER}", sets)[1]) == {first}


def test_strings_of_json_are_read_as_they_are_meant(tmp_path: Path) -> None:
    """Escapes stand for signs; keys and numbers are no text; runs do not go from one string to the next."""
    hard = "Größe\nund\tGewicht — " + OTHER
    folder = tmp_path / "sets"
    folder.mkdir()
    value = {"a key that is by itself as long as thirteen whole words would be in a row here": [1, {"x": hard}]}
    (folder / "a.json").write_text(json.dumps(value))
    halves = QUESTION.split(",")
    (folder / "b.jsonl").write_text(json.dumps({"q": halves[0], "a": halves[1]}) + "\n\n" + json.dumps([OTHER[::-1]]))
    assert "\\u00f6" in (folder / "a.json").read_text()
    sets = EvaluationSets(["sets"], tmp_path, 13)
    assert cut(f"{BEFORE}{hard[:-60]}{AFTER}", sets, 0)[1] == {}
    thirteen = " ".join(words_of(hard)[:13])
    assert len(cut(f"{BEFORE}{thirteen} {AFTER}", sets, 0)[0]) == 2
    for other in (QUESTION, next(iter(value))):
        assert cut(f"{BEFORE}{other}{AFTER}", sets, 0)[1] == {}


def test_lines_of_other_files_are_texts_of_their_own(tmp_path: Path) -> None:
    halves = QUESTION.split(",")
    sets = sets_of(tmp_path, quiz_csv=f"{halves[0]}\n{halves[1]}\n{OTHER}")
    assert cut(f"{BEFORE}{QUESTION}{AFTER}", sets)[1] == {}
    assert set(cut(f"{BEFORE}{OTHER}{AFTER}", sets)[1]) == {"quiz.csv"}


def test_a_run_does_not_go_from_one_text_to_the_next(tmp_path: Path) -> None:
    """Two long lines: what ends the one and begins the other is in neither."""
    sets = sets_of(tmp_path, quiz_txt=f"{QUESTION}\n{OTHER}")
    across = " ".join([*words_of(QUESTION)[-7:], *words_of(OTHER)[:7]])
    assert len(words_of(QUESTION)) > 13
    assert cut(f"{BEFORE}{across} {AFTER}", sets)[1] == {}


def test_files_in_folders_and_packed_files_count_and_pictures_do_not(tmp_path: Path) -> None:
    inner = tmp_path / "set" / "deep"
    inner.mkdir(parents=True)
    (inner / "picture.png").write_bytes(b"\x89PNG\xff\xfe" + QUESTION.encode())
    (inner / "quiz.jsonl.gz").write_bytes(gzip.compress(json.dumps([OTHER]).encode()))
    sets = EvaluationSets(["set"], tmp_path, 13)
    assert cut(f"{BEFORE}{QUESTION}{AFTER}", sets)[1] == {}
    assert set(cut(f"{BEFORE}{OTHER}{AFTER}", sets)[1]) == {"set"}


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        (None, b"", "no such evaluation set; give the folder that holds it with --data-dir"),
        ("set", b"only a few words", "no text with 13 words in a row, so nothing to keep out of training"),
        ("set", b"\xff\xfe", "no text with 13 words in a row"),
        ("set.json", b"{", "not valid JSON ("),
        ("set.jsonl", b'"x"\n{', "set.jsonl:2: not valid JSON ("),
        ("set.txt.gz", b"\x1f\x8bxx", "not a whole .gz file ("),
        ("set.txt.gz", gzip.compress(QUESTION.encode() * 99, mtime=0)[:-9], "not a whole .gz file ("),
    ],
)
def test_a_set_that_can_not_be_used_gets_one_line(
    tmp_path: Path, name: str | None, content: bytes, expected: str
) -> None:
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TwinprobeError) as caught:
        EvaluationSets([name or "absent"], tmp_path, 13)
    assert expected in str(caught.value)
    assert str(tmp_path / (name or "absent")) in str(caught.value)
    assert "\n" not in str(caught.value)


WORDS = st.lists(st.sampled_from(["a", "B", "it", "Is", "the"]), max_size=40)
SPACES = st.sampled_from([" ", ", ", "_", "\n", " (", ". "])


@given(st.lists(WORDS, min_size=1, max_size=3), WORDS, SPACES, st.integers(2, 5), st.integers(0, 9), st.integers(0, 40))
@settings(max_examples=200, deadline=None)
def test_no_run_of_words_of_a_set_is_left(
    tmp_path_factory: pytest.TempPathFactory,
    known: list[list[str]],
    words: list[str],
    space: str,
    size: int,
    margin: int,
    shortest: int,
) -> None:
    """Against the definition: n-grams of words, found without any hash."""
    root = tmp_path_factory.mktemp("sets")
    content = "\n".join(" ".join(line) for line in known)
    held = set().union(*(grams(" ".join(line), size) for line in known))
    if not held:
        return
    sets = sets_of(root, size, quiz_txt=content)
    text = space.join(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decontamination, "SHORTEST", shortest)
        pieces, removed = cut(text, sets, margin)
    assert all(not grams(piece, size) & held for piece in pieces)
    if not grams(text, size) & held:
        assert pieces == [text]
        assert removed == {}
    else:
        assert all(len(piece) >= shortest for piece in pieces)
        place = 0
        for piece in pieces:
            place = text.index(piece, place) + len(piece)
        least = " ".join(min(held, key=lambda gram: len(" ".join(gram))))
        assert len(least) - size < removed["quiz.txt"] <= len(text)


def test_many_words_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is known of words is forgotten when it grows large, and nothing else changes."""
    sets = sets_of(tmp_path, quiz_txt=QUESTION)
    text = f"{BEFORE}{QUESTION}{AFTER}"
    expected = cut(text, sets)
    monkeypatch.setattr(decontamination, "_KNOWN_WORDS", 10)
    small = sets_of(tmp_path, quiz_txt=QUESTION)
    assert cut(text, small) == expected
    assert len(small._word_hashes) <= 10
