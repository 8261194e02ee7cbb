"""Indentation: Python itself accepts the answers, and what stands before the last line tells nothing."""

import ast
from collections import Counter, defaultdict

from task_items import drawn, target

STEP = 4


def levels(text: str) -> list[int]:
    """The level of each line."""
    return [(len(line) - len(line.lstrip())) // STEP for line in text.split("\n")]


def solve(form: str, text: str) -> str:
    """One level more than the last line."""
    return "\n" + " " * STEP * (levels(text)[-1] + 1) + "return"


def compiles(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True


def test_python_reads_both_texts_with_their_answers_and_no_shallower_line():
    for item in drawn("indentation"):
        form = item.forms["code"]
        for text, answer in ((form.text, form.answer), (form.contrast.text, form.contrast.answer)):
            assert compiles(text + answer)
            shallower = [other for other in form.candidates if len(other) < len(answer)]
            assert len(shallower) == levels(text)[-1] + 1
            assert not any(compiles(text + other) for other in shallower)


def test_the_contrast_moves_the_last_line_and_nothing_else():
    for item in drawn("indentation"):
        form = item.forms["code"]
        lines, twin = form.text.split("\n"), form.contrast.text.split("\n")
        assert lines[:-1] == twin[:-1]
        assert lines[-1] != twin[-1]
        assert lines[-1].strip() == twin[-1].strip()
        (indent,) = [span for span in form.spans if span.name == "indent"]
        assert form.text[: indent.end].endswith("\n" + form.text[indent.start : indent.end])
        assert form.text[indent.end :] == lines[-1].strip()


def test_the_difficulty_is_the_number_of_conditions():
    for item in drawn("indentation"):
        last = item.forms["code"].text.split("\n")[-1]
        assert len(last.replace(" and ", " or ").split(" or ")) == item.difficulty


def test_the_lines_are_of_the_same_levels_whatever_the_answer():
    counts, orders = defaultdict(set), Counter()
    for item in drawn("indentation"):
        form = item.forms["code"]
        found = levels(form.text)
        counts[target(form).label].add(tuple(sorted(found)))
        assert found[-2] == max(found)
        orders[found[-1], levels(form.contrast.text)[-1]] += 1
    assert set(counts) == {"2", "3", "4"}
    assert set().union(*counts.values()) == {(0, 1, 1, 2, 2, 3, 3)}
    assert set(orders) == {(one, two) for one in (1, 2, 3) for two in (1, 2, 3) if one != two}
