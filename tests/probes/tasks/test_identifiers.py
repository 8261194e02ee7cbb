"""Identifiers: roles and uses on a small source, and on the texts that this Python carries."""

import ast
import keyword
import re
import textwrap
from collections import Counter

import pytest

from activations.errors import TwinprobeError
from probes.tasks import TASKS, identifiers
from probes.tasks.python_tokens import role_marks, statements, tokens_of, use_marks
from probes.tasks.windows import MAX_CHARACTERS, MAX_STATEMENTS

SOURCE = '''\
def área(width, *, scale=1.5):
    """A docstring that
    goes on."""
    é = name = f"{width} wide"
    return width * scale if é is not None else "none"

class Box(Base):
    size: int = área(2)
    for i in range(3): print(i, "a long string, no literal")
'''


@pytest.fixture(scope="module")
def items():
    return TASKS["identifiers"].generate(240, 0)


def test_roles_of_a_small_source():
    found = Counter((mark.label, mark.text) for mark in role_marks(tokens_of(SOURCE)))
    assert {text for label, text in found if label == "keyword"} == {
        "def", "return", "if", "is", "not", "else", "class", "for", "in",
    }  # fmt: skip
    assert {text for label, text in found if label == "literal"} == {"1.5", "None", '"none"', "2", "3"}
    assert {text for label, text in found if label == "operator"} == {"*", "="}
    assert {text for label, text in found if label == "identifier"} == {
        "área", "width", "scale", "é", "name", "Box", "Base", "size", "int", "range", "print", "i",
    }  # fmt: skip


def test_uses_of_a_small_source_stand_where_they_say():
    marks = use_marks(SOURCE, tokens_of(SOURCE))
    lines = SOURCE.split("\n")
    assert all(lines[mark.row - 1][mark.column :].startswith(mark.text) for mark in marks)
    assert [(mark.text, mark.label[0]) for mark in marks] == [
        ("área", "d"), ("width", "d"), ("scale", "d"), ("é", "d"), ("name", "d"),
        ("width", "u"), ("scale", "u"), ("é", "u"), ("Box", "d"), ("Base", "u"), ("size", "d"), ("int", "u"),
        ("área", "u"), ("i", "d"), ("range", "u"), ("print", "u"), ("i", "u"),
    ]  # fmt: skip


def test_a_statement_with_a_string_over_several_rows_breaks_a_window():
    assert list(statements(tokens_of(SOURCE))) == [(1, 1), (0, 0), (4, 4), (5, 5), (7, 7), (8, 8), (9, 9)]
    (window,) = identifiers.code_windows("box.py", SOURCE)
    assert window.text == "\n".join(SOURCE.split("\n")[3:9])
    assert all(span.control == window.text[span.start : span.end] for span in window.spans)


def test_windows_are_dedented_runs_of_whole_statements_within_the_limits():
    body = "".join(f"    value_{i} = {i}\n" for i in range(30))
    windows = list(identifiers.code_windows("f.py", f"def f():\n{body}    return value_0\n"))
    assert "".join(f"{window.text}\n" for window in windows[1:]) == textwrap.dedent(
        body[body.index("    value_7") :]
    ) + ("return value_0\n")
    assert {window.text.count("\n") + 1 for window in windows} == {MAX_STATEMENTS}
    for window in windows:
        assert {span.label for span in window.spans} >= {"identifier", "literal", "operator", "definition"}
        assert all(span.control == window.text[span.start : span.end] for span in window.spans)


def test_quoted_fragments_of_prose_get_their_roles():
    text = 'The "not in" form, "x + 1", "None", "yield", "==", "well-known", "-c", "x =" and "match" differ.'
    (window,) = identifiers.prose_windows("topic", text)
    assert [(text[s.start : s.end], s.label) for s in window.spans] == [
        ("x", "identifier"), ("+", "operator"), ("1", "literal"), ("None", "literal"), ("yield", "keyword"),
        ("==", "operator"),
    ]  # fmt: skip


def test_held_out_sources_are_the_named_modules_only():
    sources = identifiers.held_out_sources()
    tops = {path.split("/")[0].removesuffix(".py") for path, _ in sources}
    assert tops == set(identifiers.HELD_OUT_MODULES)
    assert not any("test" in path.split("/")[:-1] for path, _ in sources)
    assert sum(len(text) for _, text in sources) > 1_000_000
    assert all(ast.parse(text) for _, text in sources[::10])


def test_documentation_prose_is_prose_and_says_nothing_twice():
    documents = identifiers.python_docs_prose()
    paragraphs = [paragraph for _, text in documents for paragraph in text.split("\n\n")]
    assert len(documents) > 50
    assert len(paragraphs) == len(set(paragraphs)) > 800
    assert not any(re.search(r"::=|>>>|\n", paragraph) for paragraph in paragraphs)
    words = [word for paragraph in paragraphs for word in paragraph.split()]
    assert sum(re.fullmatch(r"[A-Za-z]+[.,;:)]?", word) is not None for word in words) > 0.75 * len(words)


def test_labels_agree_with_the_words_themselves(items):
    checks = {
        "identifier": lambda word: word.isidentifier() and not keyword.iskeyword(word),
        "keyword": lambda word: keyword.iskeyword(word) and word not in ("None", "True", "False"),
        "literal": lambda word: ast.literal_eval(word) is not NotImplemented,
        "operator": lambda word: re.fullmatch(r"[-+*/%@&|^~<>=!:]+", word) is not None and word != ":",
        "definition": str.isidentifier,
        "use": str.isidentifier,
    }
    for item in items:
        ((_, form),) = item.forms.items()
        for span in form.spans:
            word = form.text[span.start : span.end]
            assert word == span.control
            assert checks[span.label](word)


def test_definitions_and_uses_agree_with_their_line(items):
    """What stands before ``=`` alone on its line is defined there, what follows ``return`` is used."""
    seen = Counter()
    for form in (item.forms["code"] for item in items if "code" in item.forms):
        for span in (span for span in form.spans if span.name == "use"):
            before = form.text[: span.start].rpartition("\n")[2]
            if re.match(r" = ", form.text[span.end :]) and not before.strip():
                assert span.label == "definition"
                seen["definition"] += 1
            if before.strip() == "return":
                assert span.label == "use"
                seen["use"] += 1
    assert min(seen["definition"], seen["use"]) > 3


def test_texts_are_short_and_distinct(items):
    texts = [form.text for item in items for form in item.forms.values()]
    assert len(set(texts)) == len(texts) == 240
    assert max(map(len, texts)) <= MAX_CHARACTERS


def test_asking_for_more_than_there_is_says_how_much_there_is():
    with pytest.raises(TwinprobeError, match=r"27778 code train texts asked for.*have only \d+ such") as caught:
        TASKS["identifiers"].generate(100_000, 0)
    assert "\n" not in str(caught.value)
