"""Closers: both kinds are open in every text, and the pending one is the last."""

import pytest
from task_items import covered, drawn
from test_nesting import CLOSER, PAIRS, open_brackets

from probes.tasks.pools import VALUES


@pytest.mark.parametrize("form", ["code", "prose"])
def test_one_bracket_of_each_kind_is_open_and_none_closed(form):
    for item in drawn("closers"):
        text = item.forms[form].text
        assert not set(text) & set(PAIRS)
        outer, pending = open_brackets(text)
        assert {text[outer], text[pending]} == set(CLOSER)
        assert covered(item.forms[form], "opener") == [text[pending]]


@pytest.mark.parametrize("form", ["code", "prose"])
def test_the_difficulty_is_the_number_of_words_behind_the_pending_bracket(form):
    for item in drawn("closers"):
        rendered = item.forms[form]
        (label,) = [span for span in rendered.spans if span.label]
        outer, pending = open_brackets(rendered.text)
        assert label.control in VALUES
        assert label.control in rendered.text[outer:pending]
        names = [word for word in item.group.split("/")[2:] if word in rendered.text[pending:].replace(",", "").split()]
        assert item.difficulty - 1 <= len(names) <= item.difficulty
