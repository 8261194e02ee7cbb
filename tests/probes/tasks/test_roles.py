"""Roles: a small parser of actives and passives reads prose, and neither place nor voice tells the role."""

import re
from collections import Counter

import pytest
from task_items import covered, drawn, target

from probes.tasks.pools import PEOPLE, VALUES
from probes.tasks.roles import ROLES, VERBS

NAMES = {name for names in PEOPLE.values() for name in names}
every_form = pytest.mark.parametrize("form", ["code", "prose", "formal"])


def parse(clause: str) -> dict[str, str]:
    """Who is what in one clause, by the grammar of English: voice, prepositions, and the order of bare noun phrases."""
    passive = re.search(r"\bwas (\w+)", clause)
    phrases = re.findall(r"(?:\b(to|by) )?\bthe (\w+)", clause)
    cast, bare = {}, []
    for preposition, name in phrases:
        if preposition == "to":
            cast[name] = "recipient"
        elif preposition == "by":
            cast[name] = "agent"
        else:
            bare.append(name)
    objects = bare if passive else bare[1:]
    if not passive:
        cast[bare[0]] = "agent"
    cast[objects[-1]] = "theme"  # alone, or after the recipient: "was given the", "gave the judge the"
    if len(objects) == 2:
        cast[objects[0]] = "recipient"
    assert sorted(cast.values()) == sorted(ROLES), clause
    return cast


def solve_prose(prose: str) -> str:
    """Read one event per sentence, each at a place of its own, and answer the last sentence."""
    *sentences, question = prose.split(". ")
    happened = {}
    for sentence in sentences:
        places = [word for word in re.findall(r"\w+", sentence) if word in VALUES]
        if places:
            (place,) = places
            assert place not in happened
            happened[place] = parse(sentence.partition(place)[2])
    (place,) = [word for word in re.findall(r"\w+", question) if word in VALUES]
    (asked,) = [word for word in re.findall(r"\w+", question) if word in NAMES]
    return f" {happened[place][asked]}"


def formal_words(text: str) -> list[str]:
    """The roles, names and places that are said, in order; the last two are the place and the name asked for."""
    return [word for word in re.findall(r"\w+", text) if word in {*ROLES, *NAMES, *VALUES}]


def solve_formal(text: str) -> str:
    """Match names and roles of the event; the roles are said once, before all events, or one beside every name."""
    *words, place, asked = formal_words(text)
    start = words.index(place)
    event = words[start + 1 : start + 7]
    names = [word for word in event[: 3 if words[0] in ROLES else 6] if word in NAMES]
    order = words[:3] if words[0] in ROLES else [word for word in event if word in ROLES]
    return f" {order[names.index(asked)]}"


def solve(form: str, text: str) -> str:
    """The answer to a text in prose or symbols."""
    return solve_prose(text) if form == "prose" else solve_formal(text)


@pytest.fixture(scope="module")
def items():
    return drawn("roles")


@pytest.mark.parametrize(
    ("clause", "roles"),
    [
        ("the king gave the cook to the judge", ("agent", "theme", "recipient")),
        ("the king gave the judge the cook", ("agent", "theme", "recipient")),
        ("to the judge the king gave the cook", ("agent", "theme", "recipient")),
        ("the cook was given to the judge by the king", ("agent", "theme", "recipient")),
        ("the cook was given by the king to the judge", ("agent", "theme", "recipient")),
        ("the judge was given the cook by the king", ("agent", "theme", "recipient")),
    ],
)
def test_the_parser_of_this_test_knows_its_english(clause, roles):
    assert tuple(parse(clause)[name] for name in ("king", "cook", "judge")) == roles


@every_form
def test_the_place_of_a_name_in_its_event_does_not_tell_its_role(items, form):
    cells = Counter()
    for item in items:
        rendered = item.forms[form]
        (at,) = [span.start for span in rendered.spans if span.name == "definition"]
        (place,) = covered(rendered, "place")
        event = re.split(rf"\b{place}\b", rendered.text[:at])[1]
        cells[target(rendered).label, sum(word in NAMES for word in re.findall(r"\w+", event))] += 1
    assert set(cells) == {(role, place) for role in ROLES for place in range(3)}
    assert max(cells.values()) < 1.2 * min(cells.values())


def test_actives_and_passives_are_balanced_within_every_role(items):
    cells = Counter()
    for item in items:
        prose = item.forms["prose"]
        (place,) = covered(prose, "place")
        (told,) = [s for s in prose.text.split(". ")[:-1] if re.search(rf"\b{place}\b", s)]
        cells[target(prose).label, " was " in told] += 1
    assert len(cells) == 6
    assert max(cells.values()) < 1.15 * min(cells.values())


def test_every_word_for_a_role_is_said_equally_often_and_a_name_never_has_a_role_twice(items):
    for item in items:
        for form in ("code", "formal"):
            words = Counter(re.findall(r"\w+", item.forms[form].text))
            assert len({words[role] for role in ROLES}) == 1
        *sentences, _ = item.forms["prose"].text.split(". ")
        casts = [parse(re.split(r"\b(?:" + "|".join(VALUES) + r")\b", s)[1]) for s in sentences if "know" not in s]
        assert len(casts) == item.difficulty
        for name in casts[0]:
            assert len({cast[name] for cast in casts}) == len(casts)


@every_form
def test_the_contrast_exchanges_two_names_in_one_event(items, form):
    for item in items:
        rendered = item.forms[form]
        (asked,), (rival,) = covered(rendered, "definition"), covered(rendered, "rival")
        assert covered(rendered, "query") == [asked]
        pieces = re.split(r"(\w+)", rendered.text)
        twin = re.split(r"(\w+)", rendered.contrast.text)
        edits = [(a, b) for a, b in zip(pieces, twin, strict=True) if a != b]
        assert sorted(edits) == sorted([(asked, rival), (rival, asked)])
        assert len(rendered.candidates) == 3


def test_spans_name_the_words_they_cover(items):
    for item in items:
        for form in item.forms.values():
            verb = target(form).control
            assert verb in VERBS
            assert covered(form, "distractor") == covered(form, "definition") * (item.difficulty - 1)
            (place,) = [span for span in form.spans if span.name == "place"]
            assert form.text.rindex(covered(form, "place")[0]) == place.start
            assert any(word in form.text for word in (verb, *VERBS[verb]))
            assert sorted(set(re.findall(r"\w+", form.text)) & NAMES) == item.group.split("/")[3:]
        formal = item.forms["formal"]
        assert formal_words(formal.text)[-2:] == covered(formal, "place") + covered(formal, "query")
