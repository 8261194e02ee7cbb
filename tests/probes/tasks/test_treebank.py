"""Tasks from treebanks: labels of a sentence by hand, and draws from small treebanks made here."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from activations.errors import TwinprobeError
from probes.brackets import read_brackets
from probes.conllu import read_conllu
from probes.tasks import get_task
from probes.tasks.items import Task
from probes.tasks.treebank import constituent_spans, dependency_spans

NOUNS = ("fish", "man", "ship", "guard", "watch", "water", "train", "plant", "face", "book", "park", "ring")


def dependency(words: list[tuple[str, str, int, str]]) -> str:
    return "".join(f"{i}\t{w}\t_\t{t}\t_\t_\t{h}\t{r}\t_\t_\n" for i, (w, t, h, r) in enumerate(words, 1))


def write_conllu(path: Path, documents: int = 24) -> Path:
    """Sentences such as `book men train the fish` in which the same words are subject, verb, object and compound."""
    rng = random.Random(0)
    lines = []
    for number in range(documents):
        lines.append(f"# newdoc id = {number}\n")
        for _ in range(12):
            a, b, c, d = rng.sample(NOUNS, 4)
            lines.append(
                dependency(
                    [
                        ("The", "DET", 3, "det"),
                        (a, "NOUN", 3, "compound"),
                        (b.title() if rng.random() < 0.3 else b, "NOUN", 4, "nsubj:pass"),
                        (c, "VERB", 0, "root"),
                        (d, "NOUN", 4, "obj"),
                        (".", "PUNCT", 4, "punct"),
                    ]
                )
                + "\n"
            )
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_brackets(path: Path, sentences: int = 200) -> Path:
    rng = random.Random(0)
    trees = []
    for _ in range(sentences):
        a, b, c, d, e = rng.sample(NOUNS, 5)
        low = f"(PP (IN of) (NP (NN {d}) (NN {e})))"
        trees.append(f"( (S (NP-SBJ (DT the) (NN {a}))\n (VP (VBP {b}) (NP (NP (NN {c})) {low})) (. .)))\n")
    path.write_text("".join(trees), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    return get_task(f"treebank:{write_conllu(tmp_path_factory.mktemp('trees') / 'made.conllu')}")


def test_labels_of_dependencies(tmp_path: Path) -> None:
    sentence = read_conllu(write_conllu(tmp_path / "a.conllu", 1))[0]
    found = [(sentence.text[s.start : s.end], s.name, s.label, s.control) for s in dependency_spans(sentence)]
    words = sentence.text.split()
    assert [entry[2] for entry in found if entry[1] == "relation"] == ["det", "compound", "nsubj", "root", "obj"]
    assert [entry[2] for entry in found if entry[1] == "depth"] == ["2", "2", "1", "0", "1"]
    assert [entry[2] for entry in found if entry[1] == "head"] == ["right 2", "right 1", "right 1", "left 1"]
    assert [entry[0] for entry in found if entry[1] == "head"] == [*words[:3], words[4]]  # the root has no head
    assert all(entry[3] == entry[0].lower() for entry in found)
    assert "." not in {entry[0] for entry in found}


def test_heads_far_away_are_one_label(tmp_path: Path) -> None:
    path = tmp_path / "far.conllu"
    rows = [("a", "X", 0, "root"), *[("b", "X", 1, "dep")] * 5, ("c", "X", 8, "dep"), ("d", "X", 1, "dep")]
    path.write_text(dependency(rows), encoding="utf-8")
    found = [s.label for s in dependency_spans(read_conllu(path)[0]) if s.name == "head"]
    assert found == ["left 1", "left 2", "left 3+", "left 3+", "left 3+", "right 1", "left 3+"]


def test_labels_of_constituents(tmp_path: Path) -> None:
    sentence = read_brackets(write_brackets(tmp_path / "a.mrg", 1))[0]
    spans = list(constituent_spans(sentence))
    assert [s.label for s in spans if s.name == "constituent"] == ["NP", "NP", "VP", "NP", "PP", "NP", "NP"]
    assert [s.label for s in spans if s.name == "depth"] == ["2", "2", "2", "4", "4", "5", "5"]


def test_draws_are_even_seeded_and_documents_stay_in_one_split(task: Task) -> None:
    items = task.generate(120, 0)
    assert task.targets == {"relation": ("prose",), "depth": ("prose",), "head": ("prose",)}
    assert items == task.generate(120, 0)
    assert items != task.generate(120, 1)
    assert len({item.id for item in items}) == len({item.forms["prose"].text for item in items}) == 120
    for group in {item.group for item in items}:
        assert len({item.split for item in items if item.group == group}) == 1
    labels: Counter[tuple[str, str, str]] = Counter()
    words: dict[tuple[str, str], Counter[str]] = {}
    for item in items:
        form = item.forms["prose"]
        assert any(span.label for span in form.spans)
        for span in form.spans:
            assert form.text[span.start : span.end].lower() == span.control
            labels[item.split, span.name, str(span.label)] += 1
            words.setdefault((span.name, str(span.control)), Counter())[str(span.label)] += 1
    for split, target in {key[:2] for key in labels}:
        counts = [count for key, count in labels.items() if key[:2] == (split, target)]
        assert max(counts) - min(counts) <= 1
    assert {key[2] for key in labels if key[1] == "relation"} == {"compound", "nsubj", "obj", "root"}
    assert "the" not in {word for _, word in words}  # always a determiner: no rival
    assert sum(max(held.values()) for held in words.values()) < 0.6 * labels.total()


def test_constituents_make_a_task(tmp_path: Path) -> None:
    task = get_task(f"treebank:{write_brackets(tmp_path / 'made.mrg')}")
    assert task.targets == {"constituent": ("prose",), "depth": ("prose",)}
    labels = Counter(s.label for item in task.generate(60, 0) for s in item.forms["prose"].spans)
    assert set(labels) == {"NP", "VP", "2", "4", "5"}
    assert task.files == (tmp_path / "made.mrg",)


def said(path: Path) -> str:
    with pytest.raises(TwinprobeError) as caught:
        get_task(f"treebank:{path}")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mistakes_are_said_in_one_line(tmp_path: Path, task: Task) -> None:
    assert "12 sentences, in which no target has two labels" in said(write_conllu(tmp_path / "few.conllu", 1))
    assert "not a file; expected a .conllu file" in said(tmp_path)
    (tmp_path / "bad.conllu").write_text("1 a\n", encoding="utf-8")
    assert said(tmp_path / "bad.conllu").startswith(f"{tmp_path / 'bad.conllu'}:1: 1 columns")
    with pytest.raises(TwinprobeError, match=r"222 prose train texts asked for.*have only \d+ such"):
        task.generate(400, 0)
    with pytest.raises(TwinprobeError, match="3 items asked for.*at least 9"):
        task.generate(3, 0)
