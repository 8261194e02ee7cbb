"""COGS: roles read from logical forms, checked against a reader of the sentences themselves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from real_data import real
from task_surface import surface

from activations.errors import TwinprobeError
from activations.models import ModelSpec, load_tokenizer
from probes.tasks import get_task
from probes.tasks.cogs import ROLES, links_of
from probes.tasks.items import Item

#: English clauses, and the role of each noun phrase in turn; "?" is agent or theme, as the verb has it.
CLAUSES = {
    "N V": "?",
    "N V N": "at",
    "N V N N": "art",
    "N V N to N": "atr",
    "N V to V": "a",
    "N was V": "t",
    "N was V by N": "ta",
    "N was V N": "rt",
    "N was V N by N": "rta",
    "N was V to N": "tr",
    "N was V to N by N": "tra",
}
LETTERS = {"a": "agent", "t": "theme", "r": "recipient"}


def roles_in(sentence: str) -> list[tuple[str, set[str]]]:
    """The nouns of a declarative sentence without relative clauses, in order, each with the roles it may have."""
    symbols: list[tuple[str, str]] = []
    words = sentence.split()[:-1]
    for i, word in enumerate(words):
        if word in ("in", "on", "beside", "was", "by", "to", "that"):
            symbols.append((word, word))
        elif (word[0].isupper() and word not in ("A", "The")) or words[i - 1].lower() in ("a", "the"):
            if symbols and symbols[-1][0] in ("in", "on", "beside"):
                symbols.pop()  # a place has no role
            else:
                symbols.append(("N", word))
        elif word.lower() not in ("a", "the"):
            symbols.append(("V", word))
    clauses: list[list[tuple[str, str]]] = [[]]
    for symbol in symbols:
        if symbol[0] == "that":
            assert [kind for kind, _ in clauses[-1]] == ["N", "V"]
            clauses.append([])
        else:
            clauses[-1].append(symbol)
    found = []
    for number, clause in enumerate(clauses):
        letters = CLAUSES[" ".join(kind for kind, _ in clause)]
        nouns = [word for kind, word in clause if kind == "N"]
        for noun, letter in zip(nouns, letters, strict=True):
            may_be = {"agent"} if number < len(clauses) - 1 else {"agent", "theme"}
            found.append((noun, may_be if letter == "?" else {LETTERS[letter]}))
    return found


def roles_of(logical_form: str, sentence: str) -> dict[str, set[str]]:
    """The roles of every word by its logical form."""
    roles: dict[str, set[str]] = {}
    for link in links_of(logical_form, sentence.split(" ")):
        if link.role in ROLES:
            roles.setdefault(link.word, set()).add(link.role)
    return roles


# Verb lemma, past, participle, and what is done with it: 1, 2 or 3 people and things.
VERBS = [("warm", "warmed", 2), ("lift", "lifted", 2), ("greet", "greeted", 2), ("trade", "traded", 3),
         ("toss", "tossed", 3), ("mail", "mailed", 3), ("shove", "shoved", 2), ("deal", "dealed", 3),
         ("nudge", "nudged", 2), ("rent", "rented", 3), ("kiss", "kissed", 2), ("award", "awarded", 3)]  # fmt: skip
NOUNS = ("fox", "elf", "bard", "clerk", "vase", "drum", "kite", "sock")


def a_line(rng: random.Random, variables: bool) -> str:
    """A sentence of three nouns or two, made with its logical form at once."""
    lemma, past, people = rng.choice(VERBS)
    x, y, z, place = rng.sample(NOUNS, 4)
    if people == 2:
        words, filled = rng.choice(
            [(f"The {x} {past} a {y} in the {place} .", [("agent", 1), ("theme", 4)]),
             (f"The {x} was {past} by a {y} in the {place} .", [("theme", 1), ("agent", 6)])]
        )  # fmt: skip
    else:
        words, filled = rng.choice(
            [(f"The {x} {past} a {y} to a {z} .", [("agent", 1), ("theme", 4), ("recipient", 7)]),
             (f"The {x} was {past} a {y} by a {z} .", [("recipient", 1), ("theme", 5), ("agent", 8)])]
        )  # fmt: skip
    tokens = words.split()
    verb = tokens.index(past)
    modified = filled[-1][1]
    if variables:
        heads = [f"* {x} ( x _ 1 )"] + [f"* {place} ( x _ {len(tokens) - 2} )"] * ("in" in tokens)
        links = [f"{lemma} . {role} ( x _ {verb} , x _ {at} )" for role, at in filled]
        links += [f"{tokens[modified]} . nmod . in ( x _ {modified} , x _ {len(tokens) - 2} )"] * ("in" in tokens)
        links += [f"{tokens[at]} ( x _ {at} )" for _, at in filled[1:]]
        form = " ; ".join([*heads, " AND ".join(links)])
    else:
        nouns = [f"{'* ' * (at == 1)}{tokens[at]}" for _, at in filled]
        nouns[-1] += f" ( nmod . in = * {place} )" if "in" in tokens else ""
        form = f"{lemma} ( {' , '.join(f'{role} = {noun}' for (role, _), noun in zip(filled, nouns, strict=True))} )"
    return f"{words}\t{form}\tin_distribution\n"


@pytest.fixture(params=["variables", "none"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for number, (split, size) in enumerate((("train", 900), ("dev", 400), ("test", 500), ("gen", 1))):
        rng = random.Random(number)
        lines = [a_line(rng, request.param == "variables") for _ in range(size)]
        (tmp_path / f"{split}.tsv").write_text("".join([*lines, "vase\tLAMBDA a . vase ( a )\tprimitive\n"]))
    return tmp_path


def check_items(items: Sequence[Item], sentences: dict[str, str]) -> None:
    """Every item's role is what its sentence says; the noun is marked in the sentence and in the question."""
    for item in items:
        form = item.forms["prose"]
        definition, query, role = form.spans
        noun = form.text[definition.start : definition.end]
        assert noun == form.text[query.start : query.end] == role.control
        sentence, _, asked = form.text.rpartition(" Here ")
        assert asked in (f"the {noun} is the", f"{noun} is the")
        assert definition.end < len(sentence) < query.start
        assert role.end == len(form.text)
        assert [role.label in may_be for word, may_be in roles_in(sentence) if word == noun] == [True]
        assert sentences[sentence] == item.split
    assert len({item.forms["prose"].text.rpartition(" Here ")[0] for item in items}) == len(items)


def sentences_of(folder: Path) -> dict[str, str]:
    """The split of every sentence; one that several files have is drawn for the first of them only."""
    splits: dict[str, str] = {}
    for split in ("train", "dev", "test"):
        for line in (folder / f"{split}.tsv").read_text().splitlines():
            splits.setdefault(line.split("\t")[0], split)
    return splits


def test_roles_follow_the_grammar_and_no_verb_lies_in_two_splits(folder: Path) -> None:
    task = get_task(f"cogs:{folder}")
    assert (task.targets, task.causal) == ({"role": ("prose",)}, False)
    assert [file.name for file in task.files] == ["train.tsv", "dev.tsv", "test.tsv"]
    items = task.generate(180, 0)
    check_items(items, sentences_of(folder))
    homes = {item.group: item.split for item in items}
    assert all(homes[item.group] == item.split for item in items)
    assert set(homes) <= {lemma for lemma, *_ in VERBS}
    assert {item.difficulty for item in items} == {0, 1}
    counts = Counter(i.forms["prose"].spans[-1].label for i in items if i.split == "train")
    assert max(counts.values()) - min(counts.values()) <= 1


def test_both_logical_forms_of_a_sentence_give_the_same_links() -> None:
    words = ["Ann", "hoped", "that", "the", "elf", "saw", "a", "sock", "in", "a", "drum", "."]
    with_variables = (
        "* elf ( x _ 4 ) ; hope . agent ( x _ 1 , Ann ) AND hope . ccomp ( x _ 1 , x _ 5 ) AND see . agent ( x _ 5 , x _ 4 ) "
        "AND see . theme ( x _ 5 , x _ 7 ) AND sock ( x _ 7 ) AND sock . nmod . in ( x _ 7 , x _ 10 ) AND drum ( x _ 10 )"
    )
    without = "hope ( agent = Ann , ccomp = see ( agent = * elf , theme = sock ( nmod . in = drum ) ) )"
    found = {(link.head, link.role, link.word) for link in links_of(without, words)}
    assert found == {("hope", "agent", "Ann"), ("hope", "ccomp", "see"), ("see", "agent", "elf"),
                     ("see", "theme", "sock"), ("sock", "nmod", "drum")}  # fmt: skip
    spoken = {(link.head, link.role, link.word) for link in links_of(with_variables, words)}
    assert spoken ^ found == {("hope", "ccomp", "saw"), ("hope", "ccomp", "see")}


def test_a_noun_that_comes_twice_or_has_two_roles_is_not_asked_about(tmp_path: Path) -> None:
    rng = random.Random(0)
    lines = [a_line(rng, False) for _ in range(200)]
    twice = "A fox greeted Bo beside a fox .\tgreet ( agent = fox , theme = Bo ( nmod . beside = fox ) )\tx\n"
    both = "An elf that kissed Bo was lifted .\tlift ( theme = elf ( nmod = kiss ( agent = elf , theme = Bo ) ) )\tx\n"
    wondered = "Who did Cy shove ?\tshove ( agent = Cy , theme = ? )\tx\n"
    (tmp_path / "my.tsv").write_text("".join([*lines, twice, both, wondered]))
    task = get_task(f"cogs:{tmp_path / 'my.tsv'}")
    items = [item for seed in range(40) for item in task.generate(90, seed)]
    texts = {item.forms["prose"].text: item.forms["prose"].spans[-1].label for item in items}
    assert {text: label for text, label in texts.items() if "Bo" in text or "Cy" in text} == {
        "A fox greeted Bo beside a fox . Here Bo is the": "theme",
        "An elf that kissed Bo was lifted . Here Bo is the": "theme",
        "Who did Cy shove ? Here Cy is the": "agent",
    }


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("A fox ran .\trun ( agent = fox )", "expected sentence, logical form and category with tabs between"),
        ("A fox ran .\trun ( agent = fox\tx", "has its end where , or ) must stand"),
        ("A fox ran .\trun ( agent = fox ) )\tx", "goes on after its end with ')'"),
        ("A fox ran .\trun ( agent fox = )\tx", "has fox where = must stand"),
        ("A fox ran .\trun ( agent = elf )\tx", "names 'elf', which the sentence does not have"),
        ("A fox ran .\trun ( doer = fox )\tx", "'doer' is none of agent, theme, recipient"),
        ("A fox ran .\trun . agent ( x _ 2 , x _ 9 )\tx", "'x _ 9' lies behind the sentence's 4 words"),
        ("A fox ran .\trun . agent x _ 2\tx", "is not a conjunct such as"),
        ("A fox ran .\tLAMBDA a . run ( a )\tx", "is not a conjunct such as"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "my.tsv"
    path.write_text(f"A fox ran .\trun ( agent = fox )\tx\n{line}\n")
    with pytest.raises(TwinprobeError) as caught:
        get_task(f"cogs:{path}")
    assert str(caught.value).startswith(f"{path}:2: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_without_sentences_is_refused(tmp_path: Path) -> None:
    (tmp_path / "my.tsv").write_text("vase\tvase\tprimitive\n")
    with pytest.raises(TwinprobeError, match="no sentence gives a noun its role"):
        get_task(f"cogs:{tmp_path / 'my.tsv'}")


@pytest.mark.parametrize("name", ["cogs", "cogs_vf"])
def test_all_of_cogs_is_as_its_grammar_says(name: str) -> None:
    checked: Counter[str] = Counter()
    for split in ("train", "dev", "test", "gen"):
        for line in (real(name) / f"{split}.tsv").read_text().splitlines():
            sentence, logical_form, _ = line.split("\t")
            if not sentence.endswith(" ."):
                continue
            by_form = roles_of(logical_form, sentence)
            by_grammar = roles_in(sentence)
            assert set(by_form) == {noun for noun, _ in by_grammar}
            for noun, roles in by_form.items():
                said = [may_be for word, may_be in by_grammar if word == noun]
                assert roles <= set().union(*said) and (len(said) > 1 or len(roles) == 1), line
            checked[split] += 1
    assert min(checked.values()) == 3000
    assert checked.total() > 50_000


def test_both_logical_forms_of_slog_give_the_same_roles() -> None:
    for split in ("dev", "test"):
        pairs = zip(*((real("slog") / f"{form}_LF_{split}.tsv").read_text().splitlines() for form in ("cogs", "varfree")),
                    strict=True)  # fmt: skip
        relative = 0
        for one, two in pairs:
            sentence, with_variables, category = one.split("\t")
            assert two.split("\t")[0] == sentence
            assert roles_of(with_variables, sentence) == roles_of(two.split("\t")[1], sentence)
            relative += category == "object_modifying_RC"
        assert relative > 600


def test_both_logical_forms_of_cogs_make_the_same_items() -> None:
    one, two = (get_task(f"cogs:{real(name)}").generate(900, 0) for name in ("cogs", "cogs_vf"))
    assert one == two
    check_items(one, sentences_of(real("cogs")))


@pytest.mark.parametrize("name", ["cogs", "slog"])
def test_published_sentences_make_even_roles_that_the_surface_hardly_tells(name: str) -> None:
    items = get_task(f"cogs:{real(name)}").generate(900, 0)
    counts = Counter(item.forms["prose"].spans[-1].label for item in items if item.split == "train")
    assert max(counts.values()) - min(counts.values()) <= 1
    found = surface(items, "prose", "role", load_tokenizer(ModelSpec("embedded:code")))
    assert found.majority < found.bag_of_tokens < 0.65
    assert found.token < 0.4


def test_a_generalisation_set_is_drawn_from_when_it_is_named() -> None:
    items = get_task(f"cogs:{real('cogs/gen.tsv')}").generate(900, 0)
    assert Counter(item.split for item in items) == {"train": 500, "dev": 150, "test": 250}
    assert max(item.difficulty for item in items) > 10
