"""Arithmetic: Python runs the code form, small readers sum up the others, and the surface gives little away."""

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from task_surface import aligned, scorable, surface, trained

from activations.errors import TwinprobeError
from activations.models import ModelSpec, load_tokenizer
from probes.tasks import arithmetic
from probes.tasks.pools import PEOPLE

generate = arithmetic.generate.generate
NAMES = {word for words in PEOPLE.values() for word in words}
FORMS = ("code", "prose", "formal")
STARTS = {"starts", "stands", "holds", "spend", "page", "owes", "row", "feeds"}
PLUS = {"wins", "up", "put", "earns", "reads", "borrows", "behind", "more"}
MINUS = {"loses", "down", "take", "pays", "turns", "returns", "ahead", "less"}
forms = pytest.mark.parametrize("form", FORMS)
seeds = given(seed=st.integers(0, 2**32))
few = settings(max_examples=15, deadline=None, derandomize=True)


def holds(code: str, answer: str) -> bool:
    """Whether Python agrees that the unfinished assertion is completed by ``answer``."""
    try:
        exec(f'{code}{answer}"', {})
    except AssertionError:
        return False
    return True


def read_prose(text: str) -> list[tuple[str, int, int]]:
    """Name, number and value after it, sentence by sentence (all but the question)."""
    has: dict[str, int] = {}
    told = []
    for sentence in text.split(". ")[:-1]:
        words = re.findall(r"\w+", sentence)
        (name,), (number,) = [w for w in words if w in NAMES], [int(w) for w in words if w.isdigit()]
        start, plus, minus = (bool(cues & set(words)) for cues in (STARTS, PLUS, MINUS))
        assert plus + minus <= 1 and start + plus + minus >= 1, sentence
        # "wins 2 more" may share words with a start, which only the first sentence about a name can be.
        assert (name in has) == (plus or minus), sentence
        has[name] = has[name] + (number if plus else -number) if name in has else number
        told.append((name, number, has[name]))
    return told


def read_formal(text: str) -> list[tuple[str, int, int]]:
    """The same for signs: a stretch up to a digit has a name, perhaps a plus or a minus, and the digit."""
    has: dict[str, int] = {}
    told = []
    for stretch in re.findall(r"[^\d]*\d", re.sub("<-|->", "", text)):
        (name,), number = set(re.findall(r"[a-z]", stretch)), int(stretch[-1])
        sign = 1 if "+" in stretch else -1 if "-" in stretch else None
        assert (name in has) == (sign is not None), stretch
        has[name] = number if sign is None else has[name] + sign * number
        told.append((name, number, has[name]))
    return told


def solve(form: str, text: str) -> str:
    """The value of the name that the question is about."""
    if form == "formal":
        told, asked = read_formal(text), re.findall(r"[a-z]", text)[-1]
    else:
        told, asked = read_prose(text), [word for word in re.findall(r"\w+", text) if word in NAMES][-1]
    return str([value for name, _, value in told if name == asked][-1])


def running(form) -> list[str]:
    return [span.label for span in form.spans if span.name == "running"]


@pytest.fixture(scope="module")
def items():
    return generate(600, 0)


@pytest.fixture(scope="module")
def embedded():
    return load_tokenizer(ModelSpec("embedded:code"))


@pytest.fixture(scope="module")
def learned():
    """Tokenizers that have learned the words of this task, with digits apart and not."""
    texts = [text.text + text.answer for item in generate(90, 1) for text in item.forms.values()]
    return [trained(texts, digits_apart) for digits_apart in (True, False)]


@seeds
@few
def test_python_agrees_with_the_answers_of_the_code_form(seed):
    for item in generate(18, seed):
        form = item.forms["code"]
        assert [word for word in form.candidates if holds(form.text, word)] == [form.answer]
        assert [word for word in form.candidates if holds(form.contrast.text, word)] == [form.contrast.answer]


@seeds
@few
def test_python_agrees_with_the_running_values_of_the_code_form(seed):
    for item in generate(18, seed):
        form = item.forms["code"]
        question = form.text[form.text.rindex("assert ") :]
        (asked,) = [form.text[span.start : span.end] for span in form.spans if span.name == "query"]
        assert len(running(form)) == 2 * item.difficulty
        for span in form.spans:
            if span.name == "running":
                ran = form.text[: span.end]
                name = [word for word in re.findall(r"\w+", ran) if word in NAMES][-1]
                then = f"{ran}\n{question.replace(asked, name)}"
                assert [word for word in form.candidates if holds(then, word)] == [span.label]


@seeds
@few
def test_readers_agree_with_the_other_forms(seed):
    for item in generate(18, seed):
        for name, read in (("prose", read_prose), ("formal", read_formal)):
            form = item.forms[name]
            assert solve(name, form.text) == form.answer
            assert solve(name, form.contrast.text) == form.contrast.answer
            seen, after = set(), []
            for who, _, value in read(form.text):
                if who in seen:
                    after.append(str(value))
                seen.add(who)
            assert after == running(form) == running(item.forms["code"])


def test_every_template_is_right(items):
    seen = {form: set() for form in FORMS}
    for item in items:
        for form, template in zip(FORMS, item.group.split("/"), strict=False):
            seen[form].add(template)
        assert holds(item.forms["code"].text, item.forms["code"].answer)
        assert all(solve(form, item.forms[form].text) == item.forms[form].answer for form in ("prose", "formal"))
    assert seen == {form: {p.id for ps in by.values() for p in ps} for form, by in arithmetic.PHRASINGS.items()}
    for by in arithmetic.PHRASINGS.values():
        assert {split: len(phrasings) for split, phrasings in by.items()} == {"train": 4, "dev": 2, "test": 2}
        assert len({p.id for phrasings in by.values() for p in phrasings}) == 8


@forms
def test_spans_name_what_they_cover(items, form):
    for item in items[::10]:
        text = item.forms[form]
        covered = [(span.name, text.text[span.start : span.end]) for span in text.spans]
        (target,) = [span for span in text.spans if span.name == "value"]
        (asked,) = [word for role, word in covered if role == "query"]
        digits = [word for role, word in covered if role in ("definition", "operand", "distractor")]
        own = [word for role, word in covered if role in ("definition", "operand")]
        assert target.end == len(text.text) == target.start + 1
        assert target.label == text.answer
        assert digits == re.findall(r"\d", text.text)
        assert len(own) == 1 + item.difficulty == len(digits) // 2
        assert text.text.rindex(asked) == next(span.start for span in text.spans if span.name == "query")
        assert {span.control for span in text.spans if span.label} == {digits[0]}
        assert all(text.text[span.start].strip() for span in text.spans)
        if form != "code":
            read = {"prose": read_prose, "formal": read_formal}[form](text.text)
            assert own == [str(number) for name, number, _ in read if name == asked]


@forms
def test_the_contrast_changes_one_digit_and_stays_in_range(items, form):
    for item in items:
        text = item.forms[form]
        (span,) = [span for span in text.spans if span.name == "definition"]
        clean, twin = text.text, text.contrast.text
        assert [i for i, (a, b) in enumerate(zip(clean, twin, strict=True)) if a != b] == [span.start]
        assert twin[span.start].isdigit()
        assert text.contrast.answer != text.answer
        assert text.candidates == tuple("0123456789")
        if form == "prose":
            assert all(0 <= value <= 9 for _, _, value in read_prose(clean) + read_prose(twin))


@pytest.mark.parametrize("n_items", [*range(9, 30), 77, 200])
def test_values_running_values_and_steps_are_balanced_at_every_size(n_items):
    drawn = generate(n_items, n_items)
    for split in ("train", "dev", "test"):
        part = [item for item in drawn if item.split == split]
        finals = Counter(item.forms["code"].answer for item in part)
        passed = Counter(label for item in part for label in running(item.forms["code"]))
        steps = Counter(item.difficulty for item in part)
        for counts, options in ((finals, "0123456789"), (passed, "0123456789"), (steps, (1, 2, 3, 4))):
            found = [counts[option] for option in options]
            assert max(found) - min(found) <= 1


def test_values_are_crossed_with_steps(items):
    cells = Counter((item.difficulty, item.forms["code"].answer) for item in items if item.split == "train")
    assert len(cells) == 40
    assert max(cells.values()) - min(cells.values()) <= 1


def test_no_single_number_is_a_good_guess(items):
    hits = Counter()
    for item in items:
        told, answer = read_prose(item.forms["prose"].text), int(item.forms["prose"].answer)
        asked = [word for word in re.findall(r"\w+", item.forms["prose"].text) if word in NAMES][-1]
        own = [(number, value) for name, number, value in told if name == asked]
        other = [(number, value) for name, number, value in told if name != asked]
        hits.update(start=own[0][0] == answer, last=own[-1][0] == answer, before=own[-2][1] == answer)
        hits.update(rival=other[-1][1] == answer, said_last=told[-1][2] == answer, started_first=told[0][0] == asked)
    assert hits["rival"] == hits["before"] == 0
    assert 0.44 < hits["said_last"] / len(items) < 0.56
    assert 0.44 < hits["started_first"] / len(items) < 0.56
    assert max(hits[guess] for guess in ("start", "last")) / len(items) < 0.25


@forms
@pytest.mark.parametrize("target", ["value", "running"])
def test_the_surface_stays_below_60_percent_of_the_gap(items, embedded, form, target):
    found = surface(items, form, target, embedded)
    assert found.majority < 0.15
    assert max(found.bag_of_tokens, found.token, found.position) < found.majority + 0.6 * (1 - found.majority)


@forms
def test_contrasts_align_and_answers_differ_in_their_first_token(items, embedded, learned, make_tokenizer, form):
    for tokenizer in (embedded, *learned):
        assert aligned(items[::3], form, tokenizer) == scorable(items[::3], form, tokenizer) == 1
    # This one has met 1 and 2 after a space and no other digit, which it therefore takes for two tokens.
    for trim in (True, False):
        tokenizer = make_tokenizer(trim_offsets=trim)
        assert aligned(items[::3], form, tokenizer) > 0.5
        assert scorable(items[::3], form, tokenizer) == 1


@forms
def test_texts_of_one_template_and_difficulty_have_one_length(form):
    lengths = {}
    for item in generate(900, 4):
        text = item.forms[form].text
        key = item.group.split("/")[FORMS.index(form)], item.difficulty
        lengths.setdefault(key, set()).add(len(re.findall(r"\w+", text)))
    assert len(lengths) == 32
    assert all(len(found) == 1 for found in lengths.values())


def test_the_same_arguments_give_the_same_items_and_other_seeds_others():
    assert generate(40, 3) == generate(40, 3)
    texts = [{item.forms["code"].text for item in generate(200, seed)} for seed in (0, 1)]
    assert len(texts[0] & texts[1]) < 0.02 * len(texts[0])


def test_no_group_and_no_name_lies_in_two_splits(items):
    groups, letters = {}, {}
    for item in items:
        groups.setdefault(item.group, set()).add(item.split)
        for name in item.group.split("/")[3:]:
            letters.setdefault(name, set()).add(item.split)
    assert all(len(splits) == 1 for splits in (*groups.values(), *letters.values()))


def test_too_few_items_are_refused_in_one_line():
    with pytest.raises(TwinprobeError, match=r"^task 'arithmetic': 3 items asked for.*at least 9") as caught:
        generate(3, 0)
    assert "\n" not in str(caught.value)
