"""CLUTRR: what is read from files, checked by composing the relations of a chain in every possible order."""

from __future__ import annotations

import csv
import random
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from real_data import real
from task_surface import surface

from activations.errors import TwinprobeError
from activations.models import ModelSpec, load_tokenizer
from probes.tasks import get_task
from probes.tasks.clutrr import COLUMNS, RELATIONS, chain

KINDS = {"parent": "P", "child": "C", "sibling": "S", "spouse": "O", "grandparent": "G", "grandchild": "D",
         "uncle or aunt": "U", "nephew or niece": "N", "in-law": "L"}  # fmt: skip
#: "CS=C": the sibling of one's child is one's child.
COMPOSED = [
    *("CC=D", "CS=C", "CG=P", "CP=O", "CU=S", "CO=L", "SS=S", "SP=P", "SG=G", "SC=N", "SU=U", "PP=G", "PS=U", "PC=S"),
    *("PO=P", "OC=C", "OD=D", "OP=L", "GO=G", "DS=D", "DP=C", "DU=C", "UO=U", "UP=G", "NS=N", "NP=S", "NG=P", "NU=S"),
]
FEMALE = {"mother", "grandmother", "daughter", "granddaughter", "sister", "aunt", "niece", "wife"}
HEADER = ["", "id", *COLUMNS, "task_split"]


@cache
def composed(relations: tuple[str, ...]) -> frozenset[str]:
    """The kinds of relation that a chain can amount to, whichever two neighbours are composed first."""
    if len(relations) == 1:
        return frozenset(KINDS[RELATIONS[relations[0]]])
    return frozenset(
        rule[-1]
        for cut in range(1, len(relations))
        for rule in COMPOSED
        if rule[0] in composed(relations[:cut]) and rule[1] in composed(relations[cut:])
    )


def a_family(rng: random.Random, number: int) -> dict[str, str]:
    """A story of two to four links, told in any order, whose chain amounts to one relation that has a word."""
    words = {kind: [word for word, label in RELATIONS.items() if KINDS[label] == kind] for kind in KINDS.values()}
    while True:
        relations = tuple(rng.choice([w for k in "PCSGDUN" for w in words[k]]) for _ in range(rng.randrange(2, 5)))
        kinds = composed(relations)
        if len(kinds) == 1 and kinds != {"L"}:
            break
    people = [f"Pat{number}x{i}" for i in range(len(relations) + 1)]
    facts = [f"[{people[i]}] met a {word} called [{people[i + 1]}]." for i, word in enumerate(relations)]
    rng.shuffle(facts)
    target = rng.choice(words[min(kinds)])
    query = f"('{people[0]}', '{people[-1]}')"
    values = (str(number), f"id{number}", " ".join(facts), query, target, "-".join(relations), "test")
    return dict(zip(HEADER, values, strict=True))


def write(path: Path, rows: Sequence[dict[str, str]], header: Sequence[str] = tuple(HEADER)) -> Path:
    with path.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, header, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = random.Random(0)
    rows = [a_family(rng, number) for number in range(400)]
    write(tmp_path / "1.2_test.csv", rows[:200])
    write(tmp_path / "1.3_test.csv", rows[200:])
    (tmp_path / "config.json").write_text("{}")
    return tmp_path


def test_relations_follow_from_the_chain_and_no_chain_lies_in_two_splits(folder: Path) -> None:
    task = get_task(f"clutrr:{folder}")
    assert (task.targets, task.causal, task.clusters) == ({"relation": ("prose",)}, False, "group")
    assert [file.name for file in task.files] == ["1.2_test.csv", "1.3_test.csv"]
    items = task.generate(200, 0)
    assert Counter(item.split for item in items) == {"train": 111, "dev": 33, "test": 56}
    homes = {item.group: item.split for item in items}
    for item in items:
        form = item.forms["prose"]
        query, anchor, relation = form.spans
        asked, other = (form.text[span.start : span.end] for span in (query, anchor))
        assert form.text.endswith(f". So {asked} is {other}'s")
        assert "[" not in form.text
        relations = tuple(item.group.split("-"))
        assert item.difficulty == len(relations)
        assert composed(relations) == {KINDS[str(relation.label)]}
        assert relation.control == relations[0]
        assert (relation.start, relation.end) == (len(form.text) - 1, len(form.text))
        told = {tuple(fact.split(" ")[i] for i in (0, 3)) for fact in form.text.split(". ")[:-1]}
        first = next(word for name, word in told if name == other)
        assert first == relations[0]
        assert homes[item.group] == item.split


@pytest.mark.parametrize(
    ("f_comb", "relations"),
    [
        ("son", ["son"]),
        ("son-mother-in-law-son", ["son", "mother-in-law", "son"]),
        ("mother-in-law", ["mother-in-law"]),
        ("mother-in", []),
        ("son--son", []),
        ("sonny-son", []),
        ("", []),
    ],
)
def test_a_chain_is_taken_apart_at_its_hyphens_only(f_comb: str, relations: list[str]) -> None:
    assert chain(f_comb) == relations


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": "Pat0x0, Pat0x1"}, "'query' must be two names such as ('Ann', 'Bob'), got 'Pat0x0, Pat0x1'"),
        ({"query": "('Pat0x0', 'Zed')"}, "asks about 'Zed', but the story has no [Zed]"),
        ({"target": "friend"}, "'target' must be one of father, mother"),
        ({"f_comb": "son-friend"}, "'f_comb' must be relations joined by '-', got 'son-friend'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    row = a_family(random.Random(0), 0)
    path = write(tmp_path / "my.csv", [row, row | change])
    with pytest.raises(TwinprobeError) as caught:
        get_task(f"clutrr:{path}")
    assert str(caught.value).startswith(f"{path}:3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none_of_clutrrs_is_refused(tmp_path: Path) -> None:
    row = a_family(random.Random(0), 0)
    with pytest.raises(TwinprobeError, match=r"a\.csv:1: no column 'target'"):
        get_task(f"clutrr:{write(tmp_path / 'a.csv', [row], ['story', 'query', 'f_comb'])}")
    with pytest.raises(TwinprobeError, match=r"b\.csv: no stories found"):
        get_task(f"clutrr:{write(tmp_path / 'b.csv', [])}")
    (tmp_path / "c.csv").write_bytes(b"story\n\xff\n")
    with pytest.raises(TwinprobeError, match=r"c\.csv: not UTF-8 \(byte 6\)"):
        get_task(f"clutrr:{tmp_path / 'c.csv'}")
    (tmp_path / "d.csv").write_text(f'{",".join(COLUMNS)}\n"{"x" * 200_000}",a,b,c\n')
    with pytest.raises(TwinprobeError, match=r"d\.csv:\d: not readable as CSV \(field larger"):
        get_task(f"clutrr:{tmp_path / 'd.csv'}")


def test_every_published_story_has_the_relation_that_its_chain_amounts_to() -> None:
    rows = [row for file in sorted(real("clutrr").glob("*.csv")) for row in csv.DictReader(file.open(newline=""))]
    assert len(rows) > 1000
    for row in rows:
        assert chain(row["f_comb"]) == row["f_comb"].split("-")
        assert KINDS[RELATIONS[row["target"]]] in composed(tuple(chain(row["f_comb"])))
        gender = dict(pair.split(":") for pair in row["genders"].split(","))[row["query"].split("'")[3]]
        assert (row["target"].removesuffix("-in-law") in FEMALE) == (gender == "female")


def test_published_relations_are_hardly_told_by_the_surface() -> None:
    items = get_task(f"clutrr:{real('clutrr')}").generate(600, 0)
    assert {item.difficulty for item in items} == set(range(2, 11))
    assert len({item.group for item in items}) > 300
    counts = Counter(item.forms["prose"].spans[-1].label for item in items if item.split == "test")
    assert len(counts) == 8
    assert max(counts.values()) < 0.2 * counts.total()
    found = surface(items, "prose", "relation", load_tokenizer(ModelSpec("embedded:code")))
    assert max(found.bag_of_tokens, found.token, found.position) < 0.4
