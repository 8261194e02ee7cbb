"""Boolean: a parser of its own evaluates prose and symbols, and neither words nor places give the value away."""

import re
from collections import Counter

import pytest
from task_items import drawn

from probes.tasks import boolean
from probes.tasks.pools import PEOPLE

generate = boolean.generate.generate
NAMES = {word for words in PEOPLE.values() for word in words}
OPPOSITES = {"late": "early", "bound": "free", "weak": "strong", "down": "up", "wrong": "right", "absent": "present",
             "young": "old", "bad": "good"}  # fmt: skip
GOOD = set(OPPOSITES.values())
DENIALS = ("it is not so that", "it is false that", "we deny that", "nobody can say that", "it is a lie that",
           "it can not be that", "it does not hold that", "there is no way that")  # fmt: skip
forms = pytest.mark.parametrize("form", ["code", "prose", "formal"])


def read(prose: str) -> tuple[dict[str, bool], list[str]]:
    """Which names are said to be true, in order, and the words of the question: the first to speak of several names."""
    truths: dict[str, bool] = {}
    sentences = prose.split(". ")
    while len(words := re.findall(r"\w+", sentences[0])) and sum(word in NAMES for word in words) == 1:
        (name,), state = [word for word in words if word in NAMES], words[-1]
        assert name not in truths and (state in GOOD) != (state in OPPOSITES), sentences[0]
        truths[name] = state in GOOD
        sentences.pop(0)
    return truths, re.findall(r"\w+", " ".join(sentences))


def claim(words: list[str], truths: dict[str, bool], names: list[str]) -> bool:
    """Take one claim off the front of ``words`` and say whether it holds; ``names`` collects those that it mentions."""
    for denial in DENIALS:
        if words[: len(denial.split())] == denial.split():
            del words[: len(denial.split())]
            return not claim(words, truths, names)
    first = words.pop(0)
    if first in ("both", "either"):
        left = claim(words, truths, names)
        assert words.pop(0) == {"both": "and", "either": "or"}[first]
        right = claim(words, truths, names)
        if first == "both":
            return left and right
        assert [words.pop(0), words.pop(0)] == ["or", "both"]
        return left or right
    assert first == "the"
    name, verb = words.pop(0), words.pop(0)
    assert verb == "is"
    names.append(name)
    denied = words[0] == "not" and bool(words.pop(0))
    assert words.pop(0) in GOOD
    return truths[name] != denied


def solve_prose(text: str, names: list[str] | None = None) -> str:
    """Evaluate the claim that the question is about, from its first joining word or denial on."""
    truths, words = read(text)
    openers = [opener.split() for opener in ("both", "either", *DENIALS)]
    start = next(i for i in range(len(words)) if any(words[i : i + len(opener)] == opener for opener in openers))
    return f" {claim(words[start:], truths, [] if names is None else names)}"


def solve_formal(text: str) -> str:
    """Let Python evaluate the formula, the stretch from the last fact to the last bracket, its signs put into words."""
    truths = {name: sign == "T" for name, sign in re.findall(r"\b([a-z])\b\W*\b([TF])\b", text)}
    rest = re.split(r"\b[TF]\b", text)[-1]
    formula = rest[: rest.rindex(")") + 1].lstrip(") ;,|\n")
    for sign, word in ((r"&&?|/\\|AND|And", " and "), (r"\|\|?|\\/|OR|Or", " or "), (r"[~!]|NOT|Not", " not ")):
        formula = re.sub(sign, word, formula)
    return f" {str(eval(formula.strip(), {}, truths))[0]}"


def solve(form: str, text: str) -> str:
    """The answer to a text in prose or symbols."""
    return solve_prose(text) if form == "prose" else solve_formal(text)


@pytest.fixture(scope="module")
def items():
    return drawn("boolean")


@forms
def test_spans_name_what_they_cover(items, form):
    for item in items[::5]:
        text = item.forms[form]
        covered = [(span.name, text.text[span.start : span.end]) for span in text.spans]
        roles = Counter(role for role, _ in covered)
        assert roles == {"definition": 1, "operand": item.difficulty, "distractor": item.difficulty + 1, "query": 1,
                         "value": 1}  # fmt: skip
        target = text.spans[-1]
        assert target.name == "value"
        assert set(text.candidates) == {text.answer, text.contrast.answer}
        said_first = covered[0][1]
        assert target.control == str(said_first in ("True", "T") or said_first in GOOD)
        (formula,) = [words for role, words in covered if role == "query"]
        if form == "code":
            assert len([word for word in re.findall(r"\w+", formula) if word in NAMES]) == item.difficulty + 1


@forms
def test_the_contrast_exchanges_two_truths_and_nothing_else(items, form):
    for item in items:
        text = item.forms[form]
        clean, twin = (re.split(r"(\W)", each) for each in (text.text, text.contrast.text))
        changed = [i for i, (a, b) in enumerate(zip(clean, twin, strict=True)) if a != b]
        assert len(changed) == 2
        assert [clean[i] for i in changed] == [twin[i] for i in reversed(changed)]
        (settling,) = [span for span in text.spans if span.name == "definition"]
        others = [span for span in text.spans if span.name == "distractor"]
        starts = [len("".join(clean[:i])) for i in changed]
        assert settling.start in starts
        assert any(span.start in starts for span in others)


def test_depth_is_that_of_the_formula(items):
    for item in items:
        formal = next(s for s in item.forms["formal"].spans if s.name == "query")
        level = deepest = 0
        for character in item.forms["formal"].text[formal.start : formal.end]:
            level += (character == "(") - (character == ")")
            deepest = max(deepest, level)
        assert deepest == item.difficulty


@forms
def test_words_are_the_same_whatever_the_value(items, form):
    """Exactly as many names are true as false, so that a text's words and its contrast's are the same."""
    for item in items:
        text = item.forms[form]
        said = [text.text[s.start : s.end] for s in text.spans if s.name in ("definition", "operand", "distractor")]
        assert sorted(Counter(said).values()) == [item.difficulty + 1] * 2
        assert sorted(re.findall(r"\w+|\W", text.text)) == sorted(re.findall(r"\w+|\W", text.contrast.text))


def test_the_settling_name_has_no_fixed_place_in_the_formula_or_among_the_facts():
    asked, said = Counter(), Counter()
    for item in generate(1800, 8):
        code = item.forms["code"]
        (settling,) = [span for span in code.spans if span.name == "definition"]
        (formula,) = [code.text[span.start : span.end] for span in code.spans if span.name == "query"]
        names = [word for word in re.findall(r"\w+", code.text[: settling.start]) if word in NAMES]
        places = [word for word in re.findall(r"\w+", formula) if word in NAMES]
        asked[item.difficulty, places.index(names[-1])] += 1
        said[item.difficulty, len(names) - 1] += 1
    for depth in (1, 2, 3):
        for counts, places in ((asked, depth + 1), (said, 2 * depth + 2)):
            shares = [counts[depth, place] / 600 for place in range(places)]
            assert sum(shares) == pytest.approx(1, abs=0.01)
            assert max(abs(share - 1 / places) for share in shares) < 0.06


def test_no_single_fact_is_a_good_guess():
    hits = {depth: Counter() for depth in (1, 2, 3)}
    items = generate(1800, 7)
    for item in items:
        prose, names = item.forms["prose"], []
        assert solve_prose(prose.text, names) == prose.answer
        truths, answer = read(prose.text)[0], prose.answer == " True"
        said = list(truths.values())
        hits[item.difficulty].update(
            first_said=said[0] == answer, last_said=said[-1] == answer, first_asked=truths[names[0]] == answer,
            last_asked=truths[names[-1]] == answer,
        )  # fmt: skip
    for depth, guesses in hits.items():
        total = sum(item.difficulty == depth for item in items)
        assert all(abs(count / total - 0.5) < 0.07 for count in guesses.values()), (depth, guesses)
