"""Logic: claims read from files, checked by solvers of their puzzles."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from logic_solvers import chained, orders, placed, truth
from real_data import real
from task_surface import surface

from activations.errors import TwinprobeError
from activations.models import ModelSpec, load_tokenizer
from probes.tasks import get_task
from probes.tasks.items import Item

ASKED = "Based on the above information, is the following statement true, false, or unknown? "
OPTIONS = ["A) True", "B) False", "C) Unknown"]
VALID = {"id": "1", "context": "Zed is tall.", "question": f"{ASKED}Zed is tall.", "options": OPTIONS, "answer": "A"}


def ordered(context: str, claim: str) -> str:
    """Whether a claim holds in every order that fits the text; it must hold in all or in none."""
    names = listed(context)
    held = {placed(claim, tuple(names))(ranks) for ranks in orders(context, names)}
    assert len(held) == 1
    return str(held.pop()).lower()


def listed(context: str) -> list[str]:
    """The objects that LogicalDeduction's text lists in its first sentence."""
    told = context.split("\n\n")[1].split(".")[0].split(":")[-1]
    return [re.sub(r"^(and )?(an?|the) |^and ", "", name.strip()) for name in re.split(r",", told)]


SOLVERS: dict[str, Callable[[str, str], str]] = {"proofwriter": truth, "prontoqa": chained, "logicaldeduction": ordered}


def solve(item: Item) -> tuple[str, str]:
    """The label of an item and what the solver of its form says."""
    ((name, form),) = item.forms.items()
    query, label = form.spans
    assert form.text[query.end :] == " This is"
    assert (label.name, label.end) == ("truth", len(form.text))
    claim = form.text[query.start : query.end]
    assert str(label.control) in claim.split()[-1]
    context = form.text[: query.start].removesuffix(" Claim: ")
    return str(label.label), SOLVERS[name](context, claim)


def theory(rng: random.Random) -> dict[str, Any]:
    """An entry of ProofWriter's kind."""
    names, words = ["Ida", "Olf", "Uma"], ["tall", "shy", "calm", "loud", "wise", "slow"]
    facts = [f"{rng.choice(names)} is {'not ' * (rng.random() < 0.3)}{rng.choice(words)}." for _ in range(4)]
    rules = [
        rng.choice(["All {} things are {}.", "If someone is {} then they are {}.", "{} people are {}."]).format(
            *rng.sample(words, 2)
        )
        for _ in range(4)
    ]
    context = " ".join(facts + [rule[0].upper() + rule[1:] for rule in rules])
    claim = f"{rng.choice(names)} is {'not ' * (rng.random() < 0.5)}{rng.choice(words)}."
    letter = "ABC"[("true", "false", "unknown").index(truth(context, claim))]
    return {
        "id": str(rng.random()),
        "context": context,
        "question": ASKED + claim,
        "options": OPTIONS,
        "answer": letter,
    }


def row(rng: random.Random) -> dict[str, Any]:
    """An entry of LogicalDeduction's kind."""
    names = rng.sample(["lamp", "vase", "clock", "bowl", "stool"], rng.choice((3, 4, 5)))
    listing = ", ".join([f"a {name}" for name in names[:-1]] + [f"and a {names[-1]}"])
    true = rng.sample(names, len(names))
    facts = [f"The {one} is to the left of the {two}." for one, two in pairwise(true)]
    rng.shuffle(facts)
    context = f"Below are rows.\n\nOn a desk, there are things: {listing}. {' '.join(facts)}"
    place = rng.choice(["the leftmost", "the second from the left", "the rightmost"])
    options = [f"{letter}) The {name} is {place}." for letter, name in zip("ABCDE", names, strict=False)]
    (answer,) = [option[0] for option in options if ordered(context, option[3:]) == "true"]
    return {"context": context, "question": "Which of the following is true?", "options": options, "answer": answer}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("logic"), random.Random(0)
    entries = {"ProofWriter": [theory(rng) for _ in range(400)], "LogicalDeduction": [row(rng) for _ in range(120)],
               "AR-LSAT": [VALID | {"question": "Which one of the following could be true?"}]}  # fmt: skip
    for name, found in entries.items():
        (root / name).mkdir()
        (root / name / "dev.json").write_text(json.dumps(found))
    return root


def test_every_claim_is_as_its_solver_says(folder: Path) -> None:
    task = get_task(f"logic:{folder}")
    assert (task.targets, task.causal) == ({"truth": ("logicaldeduction", "proofwriter")}, False)
    assert [file.parent.name for file in task.files] == ["AR-LSAT", "LogicalDeduction", "ProofWriter"]
    items = task.generate(200, 0)
    found = Counter((name, *solve(item)) for item in items for name in item.forms)
    assert all(label == solved for _, label, solved in found)
    assert {name: {label for each, label, _ in found if each == name} for name, _, _ in found} == {
        "proofwriter": {"true", "false", "unknown"}, "logicaldeduction": {"true", "false"},
    }  # fmt: skip
    homes = {item.group: item.split for item in items}
    assert all(homes[item.group] == item.split for item in items)


def test_difficulty_is_the_number_of_objects_or_of_the_steps_that_are_given(folder: Path, tmp_path: Path) -> None:
    items = get_task(f"logic:{folder / 'LogicalDeduction' / 'dev.json'}").generate(90, 0)
    for item in items:
        form = item.forms["logicaldeduction"]
        assert item.difficulty == len(listed(form.text))
    counts = Counter((item.difficulty, item.forms["logicaldeduction"].spans[1].label) for item in items)
    assert {size for size, _ in counts} == {3, 4, 5}
    steps = ["Zed is a pom.", "Poms are lums.", "Zed is a lum.", "Lums are tall.", "Zed is tall."]
    entries = [VALID | {"context": f"Zed is tall {i}.", "explanation": steps} for i in range(40)]
    (tmp_path / "my.json").write_text(json.dumps(entries))
    assert {item.difficulty for item in get_task(f"logic:{tmp_path / 'my.json'}").generate(18, 0)} == {2}


def test_uncertain_is_unknown(tmp_path: Path) -> None:
    entries = [VALID | {"context": f"Zed sat {i} days.", "options": ["A) True", "B) Uncertain"], "answer": letter}
               for i in range(20) for letter in "AB"]  # fmt: skip
    (tmp_path / "my.json").write_text(json.dumps(entries))
    items = get_task(f"logic:{tmp_path / 'my.json'}").generate(18, 0)
    assert {next(iter(item.forms.values())).spans[-1].label for item in items} == {"true", "unknown"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"context": " "}, "'context' must be a non-empty string, got ' '"),
        ({"question": None}, "'question' must be a non-empty string, got None"),
        ({"options": "A"}, "'options' must be a list of two strings or more"),
        ({"options": ["A) True"]}, "'options' must be a list of two strings or more"),
        ({"options": ["True", "False"]}, "'options' must be strings such as 'A) True'"),
        ({"options": ["A) True", "A) False"]}, "'options' must be strings such as 'A) True', each with its letter"),
        ({"answer": "D"}, "'answer' must be one of A, B, C, got 'D'"),
        ({"options": ["A) Yes", "B) No"]}, "the answer must be one of true, false, unknown, uncertain, got 'Yes'"),
        ({"explanation": "so"}, "'explanation' must be a list of sentences, got 'so'"),
    ],
)
def test_a_bad_entry_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "my.json"
    path.write_text(json.dumps([VALID, VALID | change]))
    with pytest.raises(TwinprobeError) as caught:
        get_task(f"logic:{path}")
    assert str(caught.value).startswith(f"{path}: entry 2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "not valid JSON"),
        (b"{}", "expected a JSON list of objects with context, question, options, answer, got dict"),
        (b"[3]", "entry 1: expected an object with context, question, options, answer, got int"),
        (b"\xff", "not UTF-8 (byte 0)"),
        (b"[]", "no claim that is true or false found"),
    ],
)
def test_a_file_that_is_no_such_json_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "my.json"
    path.write_bytes(content)
    with pytest.raises(TwinprobeError) as caught:
        get_task(f"logic:{path}")
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)


def check_all(items: Sequence[Item], at_least: int) -> None:
    assert len(items) >= at_least
    wrong = [item.id for item in items for label, solved in [solve(item)] if label != solved]
    assert not wrong


@pytest.mark.parametrize(("name", "size"), [("ProofWriter", 4000), ("ProntoQA", 480)])
def test_published_claims_are_as_proved(name: str, size: int) -> None:
    check_all(get_task(f"logic:{real('logic_reasoning') / name}").generate(size, 0), size)


def test_published_orders_are_as_tried() -> None:
    check_all(get_task(f"logic:{real('logic_reasoning') / 'LogicalDeduction'}").generate(300, 0), 300)


def test_published_data_sets_are_forms_that_the_surface_does_not_tell() -> None:
    task = get_task(f"logic:{real('logic_reasoning')}")
    forms = ("folio", "logicaldeduction", "prontoqa", "proofwriter")
    assert task.targets == {"truth": forms}
    items = task.generate(800, 0)
    tokenizer = load_tokenizer(ModelSpec("embedded:code"))
    for name in forms:
        found = surface([item for item in items if name in item.forms], name, "truth", tokenizer)
        assert max(found.bag_of_tokens, found.token, found.position) < found.majority + 0.2
