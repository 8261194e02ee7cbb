"""The generated benchmarks: solved again by other means, closed to shortcuts, short, and always the same."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from activations.errors import TwinprobeError
from activations.models import ModelSpec, load_tokenizer
from analyses.benchmarks.local.generated import DRAWS, QUESTIONS, read
from analyses.benchmarks.local.generated_balance import Draft, hits
from analyses.benchmarks.local.questions import Question, asked
from analyses.benchmarks.local.run import jobs
from analyses.benchmarks.local.tasks import TASKS, presets, settings
from analyses.benchmarks.multiple_choice import Item

BLOCK = 12
LIMIT = 36
"""What the embedded study asks of every task."""


def questions(task: str) -> tuple[Question, ...]:
    [part] = read(Path(), task)
    return part.questions


# Right answers, found in the text alone


def boolean(text: str) -> str:
    return str(eval(text.partition(": ")[2].partition("\n")[0], {"__builtins__": {}}))


def dyck(text: str) -> str:
    """What is left when pairs are struck out."""
    row = text.partition(": ")[2].partition("\n")[0].replace(" ", "")
    while (shorter := re.sub(r"\(\)|\[\]|\{\}|<>", "", row)) != row:
        row = shorter
    return " ".join(row[::-1].translate(str.maketrans("([{<", ")]}>")))


def navigated(text: str) -> str:
    """Points of the compass and a place on a grid."""
    compass, facing, x, y = "NESW", 0, 0, 0
    moves = {"N": (0, 1), "E": (1, 0), "S": (0, -1), "W": (-1, 0)}
    sides = {"": 0, " forward": 0, " to the right": 1, " back": 2, " to the left": 3}
    for turn, steps, side in re.findall(r"Turn (\w+)\.|Take (\d+) steps?([a-z ]*)\.", text):
        if turn:
            facing = (facing + {"right": 1, "around": 2, "left": 3}[turn]) % 4
        else:
            dx, dy = moves[compass[(facing + sides[side]) % 4]]
            x, y = x + dx * int(steps), y + dy * int(steps)
    return "Yes" if (x, y) == (0, 0) else "No"


def tracked(text: str) -> str:
    """From the end backwards: with whom has the thing that is asked about been before?"""
    held = dict(re.findall(r"(\w+) has the (\w+)", text))
    [holder] = re.findall(r"that (\w+) has is $", text)
    for one, other in reversed(re.findall(r"(\w+) and (\w+) swap", text)):
        holder = {one: other, other: one}.get(holder, holder)
    return held[holder]


PLACES = {
    "is at the left end": 0, "won": 0, "is the oldest": 0, "is in the middle": 1, "came in second": 1,
    "is neither the oldest nor the youngest": 1, "is at the right end": 2, "came in last": 2, "is the youngest": 2,
}  # fmt: skip
ORDERS = {
    " is to the left of ": 1, " came in before ": 1, " is older than ": 1, " is to the right of ": -1, " came in after ": -1,
    " is younger than ": -1,
}  # fmt: skip
ASKED = ("(left end|won|oldest)[?]", "(middle|second|in age)[?]", "(right end|last|youngest)[?]")


def deduced(text: str) -> str:
    """Try every order of the three."""
    lead, one, other, question = text.lower().removesuffix("\nanswer: ").split(". ")
    names = re.split(", | and ", re.split(" stand | ran | are ", lead)[0])
    found = set()
    for order in itertools.permutations(names):
        at = {name: place for place, name in enumerate(order)}
        if all(_true(fact, at) for fact in (one, other)):
            [place] = [number for number, pattern in enumerate(ASKED) if re.search(pattern, question)]
            found.add(order[place])
    [right] = found
    return right


def _true(fact: str, at: dict[str, int]) -> bool:
    for words, sign in ORDERS.items():
        if words in fact:
            first, second = fact.split(words)
            return (at[second] - at[first]) * sign > 0
    [(name, place)] = [(name, place) for name in at for words, place in PLACES.items() if fact == f"{name} {words}"]
    return at[name] == place


def calculated(text: str) -> str:
    return str(eval(text.removeprefix("What is ").partition("?")[0], {"__builtins__": {}}))


def alphabetical(text: str) -> str:
    return ", ".join(sorted(text.partition(": ")[2].partition("\n")[0].split(", ")))


SOLVERS: dict[str, Callable[[str], str]] = {
    "generated_boolean_expressions": boolean,
    "generated_dyck_languages": dyck,
    "generated_navigate": navigated,
    "generated_tracking_shuffled_objects": tracked,
    "generated_logical_deduction": deduced,
    "generated_arithmetic": calculated,
    "generated_word_sorting": alphabetical,
}


@pytest.mark.parametrize("task", DRAWS)
def test_the_right_choice_is_what_another_solver_finds(task: str) -> None:
    for question in questions(task):
        [gold] = question.gold
        found = SOLVERS[task](question.text)
        assert question.choices[gold].lower() == found.lower(), question.text
        assert [choice.lower() for choice in question.choices].count(found.lower()) == 1
        assert len(set(question.choices)) == len(question.choices)


# Shortcuts


@pytest.mark.parametrize("task", DRAWS)
def test_a_constant_place_scores_exactly_chance(task: str) -> None:
    """Over any limit that is a multiple of twelve."""
    for limit in range(BLOCK, QUESTIONS + 1, BLOCK):
        places = Counter(question.gold[0] for question in questions(task)[:limit])
        options = len(questions(task)[0].choices)
        assert places == dict.fromkeys(range(options), limit // options)


def occurrences(question: Question, choice: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(choice.lower())}(?!\w)", question.text.lower()))


SHORTCUTS: dict[str, Callable[[Question, str], float]] = {
    "longest": lambda _, choice: len(choice),
    "shortest": lambda _, choice: -len(choice),
    "named most": occurrences,
    "named least": lambda question, choice: -occurrences(question, choice),
    "named first": lambda question, choice: -question.text.lower().find(choice.lower()),
    "named last": lambda question, choice: question.text.lower().rfind(choice.lower()),
    "first in the alphabet by its last letter": lambda _, choice: -ord(choice[-1]),
    "most letters of the text": lambda question, choice: len(set(choice) & set(question.text)),
    "largest number": lambda _, choice: float(choice) if choice.isdigit() else 0.0,
    "nearest to the mean": lambda question, choice: (
        -abs(float(choice) - np.mean([float(other) for other in question.choices])) if choice.isdigit() else 0.0
    ),
}


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("task", DRAWS)
def test_no_shortcut_beats_chance(task: str, shortcut: str) -> None:
    """By more than three standard errors over all questions, or what the embedded study asks; ties score their share."""
    score = SHORTCUTS[shortcut]
    for limit in (LIMIT, QUESTIONS):
        found = []
        for question in questions(task)[:limit]:
            values = [score(question, choice) for choice in question.choices]
            best = [number for number, value in enumerate(values) if value == max(values)]
            found.append((question.gold[0] in best) / len(best))
        chance = 1 / len(question.choices)
        # "named last" of a task whose choices are no words of the text is a tie, and exactly chance.
        assert np.mean(found) <= chance + 3 * np.sqrt(chance * (1 - chance) / limit)


@pytest.mark.parametrize("task", [task for task in DRAWS if task != "generated_word_sorting"])
def test_words_tell_nothing_to_a_classifier(task: str) -> None:
    """Trained on half of the questions, to tell right choices from words of the text, of the choice, and of both.

    Not for sorting words: which words come early is what there is to know, and can be learned from examples.
    """
    known = questions(task)
    texts, right = [], []
    for question in known:
        words = question.text.split()
        for number, choice in enumerate(question.choices):
            own = [f"choice={word}" for word in (*choice.split(), choice.replace(" ", "_"))]
            both = [f"{choice[:6]}&{word}".replace(" ", "_") for word in words]
            texts.append(" ".join([*words, *own, *(both if len(question.choices) == 2 else [])]))
            right.append(number in question.gold)
    features = CountVectorizer(token_pattern=r"\S+", lowercase=False).fit_transform(texts)
    options = len(known[0].choices)
    half = options * (len(known) // 2)
    model = LogisticRegression(max_iter=300, C=0.1).fit(features[:half], right[:half])
    certain = model.decision_function(features[half:]).reshape(-1, options)
    picked = certain.argmax(axis=1)
    golds = np.array([question.gold[0] for question in known[len(known) // 2 :]])
    chance = 1 / options
    assert np.mean(picked == golds) <= chance + 3 * np.sqrt(chance * (1 - chance) / len(golds))


def test_hits_know_a_shortcut_that_is_always_right() -> None:
    draft = Draft("the cup, the box and the cup?", "cup", ("box",), {"mine": ("cup",), "silent": ()})
    found = hits(draft, ("cup", "box"))
    assert (found["mine"], found["named most"], found["named last"], found["always cup"]) == (0.5, 0.5, 0.5, 0.5)
    assert (found["named first"], found["silent"], found["longest"], found["always box"]) == (0.5, 0.0, 0.0, -0.5)


# As benchmarks


def test_questions_are_many_different_and_always_the_same() -> None:
    """A change of a question needs another version, as scores are no longer of the same thing."""
    digest = hashlib.sha256()
    for task in DRAWS:
        found = questions(task)
        assert len({question.text for question in found}) == len({question.id for question in found}) == QUESTIONS
        digest.update(repr([(question.text, question.choices, question.gold) for question in found]).encode())
        assert TASKS[task].version == "1"
    assert digest.hexdigest()[:16] == "a6b77ee8a4faf380"


@pytest.mark.parametrize("model", ["embedded:text", "embedded:code"])
def test_prompts_fit_the_embedded_models(model: str) -> None:
    """With an example before each, and BOS."""
    tokenizer = load_tokenizer(ModelSpec(model))
    for task in DRAWS:
        for one in asked(read(Path(), task), 1):
            assert isinstance(one.what, Item)
            longest = max(one.what.choices, key=len)
            assert len(tokenizer(one.what.context + longest, add_special_tokens=False)["input_ids"]) < 256


def test_the_preset_needs_no_folder() -> None:
    preset = settings([], "generated")
    assert [setting.task for setting in preset] == list(DRAWS) == [one.task for one in presets()["generated"].tasks]
    assert [len(job.items) for job in jobs(preset, None, LIMIT)] == [LIMIT] * len(DRAWS)
    assert jobs(preset, None, 3) == jobs(preset, Path("nowhere"), 3)
    with pytest.raises(TwinprobeError, match=r"which arc_easy, mmlu need; give one with --data-dir"):
        jobs(settings(["arc_easy", "generated_navigate", "mmlu"], None), None)
