"""CoNLL-U and Penn brackets: what is read, that probes take it, and one line naming file and line for the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from activations.errors import TwinprobeError
from probes.brackets import read_brackets
from probes.conllu import read_conllu
from probes.structural import DepthProbe, DistanceProbe

CONLLU = """\
# newdoc id = a
# text = Él vio al gato («el gordo»).
1\tÉl\tél\tPRON\t_\t_\t2\tnsubj:x\t_\t_
2\tvio\tver\tVERB\t_\t_\t0\troot\t_\t_
3-4\tal\t_\t_\t_\t_\t_\t_\t_\t_
3\ta\ta\tADP\t_\t_\t5\tcase\t_\t_
4\tel\tel\tDET\t_\t_\t5\tdet\t_\t_
5\tgato\tgato\tNOUN\t_\t_\t2\tobj\t_\t_
5.1\tnada\tnada\tNOUN\t_\t_\t_\t_\t_\t_
6\t(\t(\tPUNCT\t_\t_\t9\tpunct\t_\tSpaceAfter=No
7\t«\t«\tPUNCT\t_\t_\t9\tpunct\t_\tSpaceAfter=No|X=1
8\tel\tel\tDET\t_\t_\t9\tdet\t_\t_
9\tgordo\tgordo\tNOUN\t_\t_\t5\tappos\t_\tSpaceAfter=No
10\t»\t»\tPUNCT\t_\t_\t9\tpunct\t_\tSpaceAfter=No
11\t)\t)\tPUNCT\t_\t_\t9\tpunct\t_\tSpaceAfter=No
12\t.\t.\tPUNCT\t_\t_\t2\tpunct\t_\t_

# sent_id = 2
1\tSí\tsí\tINTJ\t_\t_\t0\troot\t_\t_

# newdoc

# text = No
1\tNo\tno\tINTJ\t_\t_\t0\troot\t_\t_
"""
BRACKETS = """\
( (S (NP-SBJ-1 (DT The) (NN cat))
     (VP (VBD did) (RB n't)
         (VP (VB eat) (NP (-NONE- *-1))
             (PRN (-LRB- -LRB-) (`` ``) (ADVP=2 (RB now)) ('' '') (-RRB- -RRB-))))
     (. .)))

(S|FRAG (INTJ (UH Yes)) (, ,) (NP ($ $) (CD 5)))
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_dependencies_are_read(tmp_path: Path) -> None:
    first, second, third = read_conllu(write(tmp_path, "a.conllu", CONLLU))
    assert first.text == "Él vio al gato («el gordo»)."
    assert [first.text[start:end] for start, end in first.spans] == [
        "Él", "vio", "gato", "(", "«", "el", "gordo", "»", ")", ".",
    ]  # fmt: skip
    assert first.words.tolist() == [0, 1, 4, 5, 6, 7, 8, 9, 10, 11]  # `al` is two nodes without characters of their own
    assert first.labels[:5] == ("nsubj:x", "root", "case", "det", "obj")
    assert first.tags[:3] == ("PRON", "VERB", "NOUN")
    assert first.parents[:6].tolist() == [1, -1, 4, 4, 1, 8]
    assert first.depths()[:4].tolist() == [1, 0, 1, 3]
    assert first.distances()[0, :4].tolist() == [0, 1, 2, 4]
    assert [second.text, third.text] == ["Sí", "No"]
    assert first.group == second.group != third.group


def test_sentences_without_documents_are_groups_of_their_own(tmp_path: Path) -> None:
    sentence = CONLLU.split("\n\n")[1]
    one, two = read_conllu(write(tmp_path, "a.conllu", f"{sentence}\n\n\n{sentence}"))
    assert one.group != two.group


def test_constituents_are_read(tmp_path: Path) -> None:
    first, second = read_brackets(write(tmp_path, "a.mrg", BRACKETS))
    assert first.text == 'The cat didn\'t eat ("now").'
    assert [first.text[start:end] for start, end in first.spans] == [
        "The", "cat", "did", "n't", "eat", "(", '"', "now", '"', ")", ".",
    ]  # fmt: skip
    labels = dict(zip(range(len(first.labels)), first.labels, strict=True))
    above = [labels[parent] for parent in first.parents[first.words].tolist()]
    assert above == ["NP", "NP", "VP", "VP", "VP", "PRN", "PRN", "ADVP", "PRN", "PRN", "S"]
    assert first.depths().tolist() == [2, 2, 2, 2, 3, 4, 4, 5, 4, 4, 1]
    assert first.distances()[0, :5].tolist() == [0, 2, 4, 4, 5]
    assert second.text == "Yes, $5"
    assert second.labels[0] == "S"
    assert "-NONE-" not in first.tags


def test_probes_fit_on_what_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for sentences in (
        read_conllu(write(tmp_path, "a.conllu", CONLLU)),
        read_brackets(write(tmp_path, "a.mrg", BRACKETS)),
    ):
        rows = [rng.normal(size=(len(sentence.spans), 4)) for sentence in sentences]
        distances = DistanceProbe(rank=2, epochs=1).fit(rows, [sentence.distances() for sentence in sentences])
        depths = DepthProbe(rank=2, epochs=1).fit(rows, [sentence.depths() for sentence in sentences])
        for sentence, square, line in zip(sentences, distances.predict(rows), depths.predict(rows), strict=True):
            assert square.shape == sentence.distances().shape
            assert line.shape == sentence.depths().shape


ROW = "1\tSí\tsí\tINTJ\t_\t_\t0\troot\t_\t_\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{ROW}\n1\tSí 0 root\n", ":3: 2 columns; expected 10"),
        (f"# c\n{ROW}{ROW}", ":3: id '1'; expected 2"),
        (f"2-3{ROW[1:]}", ":1: id '2-3'; expected 1"),
        (ROW.replace("\t0\t", "\t_\t"), ":1: head is '_'; expected"),
        (ROW.replace("\t0\t", "\t7\t"), ":1: the heads of this sentence are not those of a tree"),
        (f"{ROW}\n{ROW}2{ROW[1:]}", ":3: the heads of this sentence are not those of a tree"),
    ],
)
def test_a_bad_line_of_conllu_is_named(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, "bad.conllu", text)
    with pytest.raises(TwinprobeError) as caught:
        read_conllu(path)
    assert str(caught.value).startswith(f"{path}{expected}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(S (NP (NN cat))\n", ":1: this tree is not closed"),
        ("(S (NN cat))\n)\n", ":2: ')' stands outside of any tree"),
        ("cat\n", ":1: 'cat' stands outside of any tree"),
        ("(S\n (NP the (NN cat)))\n", ":2: the word 'the' has no tag"),
        ("(S (NP the cat))\n", ":1: the word 'the' has no tag"),
        ("(NN cat)\n", ":1: the word 'cat' is in no phrase"),
    ],
)
def test_a_bad_bracket_is_named(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, "bad.mrg", text)
    with pytest.raises(TwinprobeError) as caught:
        read_brackets(path)
    assert str(caught.value).startswith(f"{path}{expected}")
    assert "\n" not in str(caught.value)
